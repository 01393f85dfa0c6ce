package configview

import (
	"encoding"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/strictyaml"
)

// paths are those of all scalars below a value, as Find takes them.
func paths(v reflect.Value, at string) (all []string) {
	t := v.Type()
	for t.Kind() == reflect.Pointer {
		if v.IsNil() {
			v = reflect.New(t.Elem())
		}
		v, t = v.Elem(), t.Elem()
	}
	switch _, text := reflect.New(t).Interface().(encoding.TextUnmarshaler); {
	case text && t.Kind() != reflect.Slice:
		return []string{at}
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			all = append(all, paths(v.Field(i), strings.TrimPrefix(at+"."+name, "."))...)
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && !reflect.PointerTo(t.Elem()).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		for i := range v.Len() {
			all = append(all, paths(v.Index(i), at+"["+string(rune('0'+i))+"]")...)
		}
	case t.Kind() == reflect.Map:
		for _, key := range v.MapKeys() {
			all = append(all, at+"."+key.String())
		}
	case t.Kind() == reflect.Slice:
	default:
		return []string{at}
	}
	return all
}

// TestEachValueIsFoundAndSetToWhatItIs: all scalars of a document with something
// in every field. To set one to what it is changes nothing.
func TestEachValueIsFoundAndSetToWhatItIs(t *testing.T) {
	t.Parallel()
	d := golden(t)
	v := viewOf(d, known)
	all := paths(reflect.ValueOf(&v), "")
	if len(all) < 40 {
		t.Fatalf("%d paths: %v", len(all), all)
	}
	for _, path := range all {
		if path == "generation" {
			continue
		}
		one, err := Get(d, known, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if _, changed, err := Set(path, one.Text, known).Next(d, repository.Entry{Time: time.Now().UTC(), Author: "test"}, known); err != nil || changed {
			t.Errorf("%s set to %q, which it is: changed %t, %v", path, one.Text, changed, err)
		}
	}
}

func TestOneValueChangesAlone(t *testing.T) {
	t.Parallel()
	d := golden(t)
	for path, tt := range map[string]struct {
		value string
		want  func(*repository.Document)
	}{
		"cluster.name":           {"bonn", func(d *repository.Document) { d.Cluster.Name = "bonn" }},
		"networks.net1.priority": {"9", func(d *repository.Document) { d.Networks[0].Priority = 9 }},
		"networks[0].prefix":     {"10.0.0.0/15", nil},
		"links[0].priority":      {"default", func(d *repository.Document) { d.Links[0].Priority = nil }},
		"handlers[0].limit":      {"17", func(d *repository.Document) { d.Handlers[0].Limit = 17 }},
		"tunables.node_timeout":  {"7s", func(d *repository.Document) { d.Tunables = map[string]string{"node_timeout": "7s"} }},
	} {
		to, changed, err := Set(path, tt.value, known).Next(d, repository.Entry{Time: time.Now().UTC(), Author: "test"}, known)
		if err != nil || !changed {
			t.Errorf("%s: changed %t, %v", path, changed, err)
			continue
		}
		if got, err := Get(to, known, path); err != nil || got.Text != tt.value {
			t.Errorf("%s is %q, %v; want %q", path, got.Text, err, tt.value)
		}
		if tt.want == nil || path == "tunables.node_timeout" {
			continue
		}
		want := golden(t)
		tt.want(&want)
		want.History = to.History
		if diff := cmp.Diff(string(RenderAll(want)), string(RenderAll(to))); diff != "" {
			t.Errorf("%s changes more (-want +got):\n%s", path, diff)
		}
	}
}

func TestWhatIsNoValueIsToldWhatThereIs(t *testing.T) {
	t.Parallel()
	d := golden(t)
	for path, want := range map[string]string{
		"":                        `unknown section ; want one of cluster`,
		"cluster":                 "cluster has several values; name one: name",
		"cluster.uuid":            "cluster.uuid never changes",
		"cluster.name.x":          "cluster.name is text; x is not in it",
		"nodes.a.zone":            "nodes come by belfry join",
		"netwroks.net1":           "did you mean networks?",
		"networks.net1.prefix.x":  "networks.net1.prefix is one value; x is not in it",
		"networks[77].priority":   "unknown entry networks.77; want one of",
		"networks[.priority":      "a bracket is open or empty",
		"networks..priority":      "a name is missing",
		"links[99].disabled":      "there is no such entry; want a number from 0 to",
		"links.x.disabled":        "there is no such entry",
		"handlers[0].on":          "is a list, and no single value; change it with belfry config edit",
		"tunables.node_timeout.x": "is a value; x is not in it",
	} {
		if _, err := Get(d, known, path); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want ErrUsage that says %q", path, err, want)
		}
		if _, changed, err := Set(path, "1", known).Next(d, repository.Entry{Time: time.Now().UTC(), Author: "test"}, known); changed || !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s is set: changed %t, %v", path, changed, err)
		}
	}
	for path, value := range map[string]string{
		"networks[0].priority": "256", "networks[0].port": "-1", "networks[0].prefix": "10.0.0.0", "links[0].disabled": "yes", "tunables.watchers": "3",
	} {
		if _, changed, err := Set(path, value, known).Next(d, repository.Entry{Time: time.Now().UTC(), Author: "test"}, known); changed || !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s set to %s: changed %t, %v; want ErrUsage", path, value, changed, err)
		}
	}
	waiting := d
	waiting.Confirm = &repository.Confirmation{Base: 1, Deadline: time.Now()}
	if _, _, err := Set("cluster.name", "x", known).Next(waiting, repository.Entry{Time: time.Now().UTC(), Author: "test"}, known); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("while a change waits to be confirmed: %v; want ErrConflict", err)
	}
}

// FuzzFind: no path and no value is a panic, and what is set is read back.
func FuzzFind(f *testing.F) {
	f.Add("networks[0].priority", "9")
	f.Add("handlers.page.timeout", "5s")
	f.Add("links[0].priority", "default")
	f.Add("tunables.x", "1")
	d := golden(f)
	f.Fuzz(func(t *testing.T, path, value string) {
		v, err := copyOf(d, known)
		if err != nil {
			t.Fatal(err)
		}
		one, err := strictyaml.Find(&v, path)
		if err != nil || one.Set(value) != nil {
			return
		}
		again, err := strictyaml.Find(&v, path)
		if err != nil {
			t.Fatalf("%q is gone after it was set to %q: %v", path, value, err)
		}
		if text := again.Text(); again.Set(text) != nil {
			t.Fatalf("%q was set to %q, says %q, and does not take that", path, value, text)
		}
	})
}
