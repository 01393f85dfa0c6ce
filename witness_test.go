package belfry_test

import (
	"errors"
	"testing"

	"github.com/belfry-ha/belfry"
)

func TestResourceNamesHaveOneForm(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"node/a":                                "node/a",
		"address/10.0.0.50":                     "address/10.0.0.50",
		"address/fd00::1":                       "address/fd00::1",
		"service/db@a":                          "service/db@a",
		"service/my%20db":                       "service/my%20db",
		"service/my db":                         "service/my%20db",
		"service/%64b":                          "service/db",
		"service/a%40b@c":                       "service/a%40b@c",
		"share/FS1/data":                        "share/FS1/data",
		"event/file.modify//etc/passwd":         "event/file.modify//etc/passwd",
		"event/file.modify/%2Fetc%2fpasswd@b":   "event/file.modify//etc/passwd@b",
		"event/unit.state/nginx@eu.service@web": "event/unit.state/nginx%40eu.service@web",
	} {
		got, err := belfry.ParseResource(in)
		if err != nil || string(got) != want {
			t.Errorf("ParseResource(%q) = %q, %v; want %q", in, got, err, want)
			continue
		}
		if again, err := belfry.ParseResource(string(got)); err != nil || again != got {
			t.Errorf("ParseResource(%q) = %q, %v; a canonical name stays as it is", got, again, err)
		}
	}
	r, err := belfry.ParseResource("service/a%40b@c")
	if err != nil || r.Kind() != "service" || r.Subject() != "a@b" || r.Node() != "c" || r.Everywhere() != "service/a%40b" {
		t.Errorf("parts of %q: %q %q %q %q, %v", r, r.Kind(), r.Subject(), r.Node(), r.Everywhere(), err)
	}
}

func TestResourceNamesThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "node", "node/", "service/@a", "service/db@", "node/a@b", "disk/x", "service/%4", "service/%zz", "share/FS1", "event/file.modify"} {
		if got, err := belfry.ParseResource(in); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("ParseResource(%q) = %q, %v; want ErrUsage", in, got, err)
		}
	}
}

// TestNewsIsToldOnce is the table of what a change of witness makes of a level.
func TestNewsIsToldOnce(t *testing.T) {
	t.Parallel()
	const up, down, doubt = belfry.ResourceAvailable, belfry.ResourceUnavailable, belfry.ResourceUnknown
	level := func(state, at belfry.ResourceState, origin byte, seq uint64) belfry.ResourceLevel {
		return belfry.ResourceLevel{State: state, At: at, Version: belfry.ResourceVersion{Origin: belfry.NodeID{origin}, Incarnation: 1, Seq: seq, Reported: origin < 8}}
	}
	for name, c := range map[string]struct {
		known, now belfry.ResourceLevel
		want       uint64
	}{
		"the same":                         {level(up, doubt, 1, 5), level(up, doubt, 1, 5), 0},
		"older, of the same origin":        {level(down, doubt, 1, 6), level(up, doubt, 1, 5), 0},
		"newer, of the same origin":        {level(up, doubt, 1, 5), level(down, doubt, 1, 6), 1},
		"three changes later":              {level(up, doubt, 1, 5), level(down, doubt, 1, 8), 3},
		"flapped":                          {level(up, doubt, 1, 5), level(up, doubt, 1, 7), 2},
		"concluded again by one witness":   {level(up, doubt, 9, 5), level(up, doubt, 9, 7), 0},
		"concluded otherwise":              {level(up, doubt, 9, 5), level(down, doubt, 9, 8), 1},
		"the same, of another origin":      {level(up, doubt, 1, 5), level(up, doubt, 2, 1), 0},
		"another, of another origin":       {level(up, doubt, 1, 5), level(down, doubt, 2, 1), 1},
		"the holder in use has failed":     {level(up, up, 1, 5), level(up, down, 2, 1), 1},
		"a doubt after a certainty":        {level(up, doubt, 1, 5), level(doubt, doubt, 2, 1), 1},
		"a doubt takes back nothing":       {level(down, doubt, 1, 5), level(doubt, doubt, 2, 1), 0},
		"nor of the holder in use":         {level(up, down, 1, 5), level(up, doubt, 2, 1), 0},
		"what failed, and is usable again": {level(down, doubt, 1, 5), level(up, doubt, 2, 1), 1},
	} {
		if got := c.known.News(c.now); got != c.want {
			t.Errorf("%s: %d changes, want %d", name, got, c.want)
		}
	}
}
