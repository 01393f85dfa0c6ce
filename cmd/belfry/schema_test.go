package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// schemaDir holds the schemas of what the commands write; they are made from
// the types and committed, so that a change of the output shows as a change
// of a file that others rely on.
var schemaDir = filepath.Join("..", "..", "docs", "schema")

// outputs are the types behind `-o json`, by the name of the schema. `jsonl`
// writes one row of the first list, or the whole where there is none.
var outputs = map[string]struct {
	command string
	value   any
}{
	"ca-rotate":         {"belfry ca rotate -o json", rotateView{}},
	"ca-sign":           {"belfry ca sign FILE --key FILE -o json", signView{}},
	"config-apply":      {"belfry config apply FILE -o json, and of config edit", configCommitView{}},
	"config-confirm":    {"belfry config confirm -o json", configCommitView{}},
	"config-diff":       {"belfry config diff GENERATION -o json", configDiffView{}},
	"config-history":    {"belfry config history -o json", configHistoryView{}},
	"config-plan":       {"belfry config plan FILE -o json, and of config apply FILE --dry-run", configPlanView{}},
	"config-rollback":   {"belfry config rollback GENERATION -o json", configCommitView{}},
	"config-validate":   {"belfry config validate FILE -o json", configValidateView{}},
	"config-get":        {"belfry config get -o json", configGetView{}},
	"config-set":        {"belfry config set PATH VALUE -o json", configSetView{}},
	"demo":              {"belfry demo -o json, each line", step{}},
	"doctor":            {"belfry doctor -o json", doctorView{}},
	"error":             {"what every command with -o json writes to standard error when it fails", errorObject{}},
	"event-emit":        {"belfry event emit -o json", emitView{}},
	"event-types":       {"belfry event types -o json", classListView{}},
	"init":              {"belfry init -o json", formedView{}},
	"join":              {"belfry join TOKEN -o json", formedView{}},
	"leave":             {"belfry leave -o json", removeView{}},
	"license-change":    {"belfry license unlock and remove, and license issuer add and rm, with -o json", licenseChangeView{}},
	"license-issuers":   {"belfry license issuer list -o json", issuerListView{}},
	"license-show":      {"belfry license show -o json", licenseShowView{}},
	"license-keygen":    {"belfry license keygen FILE -o json", keygenView{}},
	"license-revoke":    {"belfry license sign --revoke LICENSE -o json", licenseRevokeView{}},
	"license-sign":      {"belfry license sign DESCRIPTION -o json", licenseSignView{}},
	"license-verify":    {"belfry license verify FILE -o json", licenseVerifyView{}},
	"link-list":         {"belfry link list -o json", linkListView{}},
	"link-matrix":       {"belfry link matrix -o json", matrixView{}},
	"link-matrix-watch": {"belfry link matrix --watch -o json, each line", matrixChangeView{}},
	"link-show":         {"belfry link show PEER -o json", linkListView{}},
	"link-watch":        {"belfry link list --watch -o json and belfry link show PEER --watch -o json, each line", linkChangeView{}},
	"node-list":         {"belfry node list -o json", nodeListView{}},
	"node-remove":       {"belfry node remove NODE -o json", removeView{}},
	"node-show":         {"belfry node show NODE -o json", nodeShowView{}},
	"node-start":        {"belfry node start NODE -o json", intentView{}},
	"node-stop":         {"belfry node stop NODE -o json", intentView{}},
	"node-why":          {"belfry node why NODE -o json", nodeShowView{}},
	"registration-list": {"belfry registration list -o json", registrationListView{}},
	"sim-run":           {"belfry sim run FILE -o json", simRunView{}},
	"status":            {"belfry status -o json", statusView{}},
	"client-list":       {"belfry client list -o json", clientListView{}},
	"client-remove":     {"belfry client remove NAME -o json", clientRemoveView{}},
	"repository-fsck":   {"belfry repository fsck DEVICE -o json", fsckView{}},
	"repository-scan":   {"belfry repository scan -o json", scanView{}},
	"repository-show":   {"belfry repository show -o json", repositoryView{}},
	"repository-wipe":   {"belfry repository wipe DEVICE -o json", wipeView{}},
	"role-list":         {"belfry role list -o json", grantListView{}},
	"role-set":          {"belfry role set SUBJECT -o json", grantSetView{}},
	"handler-list":      {"belfry handler list -o json", handlerListView{}},
	"handler-retry":     {"belfry handler retry RUN -o json", runView{}},
	"handler-runs":      {"belfry handler runs -o json", runListView{}},
	"handler-test":      {"belfry handler test HANDLER -o json", runView{}},
	"token-create":      {"belfry token create -o json", tokenCreateView{}},
	"token-list":        {"belfry token list -o json", tokenListView{}},
	"token-revoke":      {"belfry token revoke ID -o json", tokenRevokeView{}},
	"version":           {"belfry version -o json", versionView{}},
	"watch":             {"belfry watch -o json, each line", notificationView{}},
	"repository-move":   {"belfry repository move, replace and mirror -o json", movedView{}},
	"witness-change":    {"belfry witness move, drain, set and force-unregister -o json", witnessChangeView{}},
	"witness-declared":  {"belfry witness resources -o json", witnessDeclaredView{}},
	"witness-written":   {"belfry witness declare, withdraw and zone -o json", witnessWrittenView{}},
	"witness-info":      {"belfry witness info -o json", witnessInfoView{}},
	"witness-list":      {"belfry witness list -o json and belfry witness show KEY -o json", witnessListView{}},
	"witness-watch":     {"belfry witness watch -o json, each line", witnessEventView{}},
}

// A schema is the part of JSON Schema (draft 2020-12) that the files use.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"` // a name or a list of names
	Format      string             `json:"format,omitempty"`
	Minimum     *int               `json:"minimum,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Items       *schema            `json:"items,omitempty"`
}

func TestSchemasAreThoseOfTheTypes(t *testing.T) {
	t.Parallel()
	for name, out := range outputs {
		s := schemaOf(reflect.TypeOf(out.value))
		s.Schema, s.Title = "https://json-schema.org/draft/2020-12/schema", out.command
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join(schemaDir, name+".json"), string(text)+"\n")
	}
	files, err := filepath.Glob(filepath.Join(schemaDir, "*.json"))
	if err != nil || len(files) != len(outputs) {
		t.Errorf("%d schemas in %s, want %d: one per output (%v)", len(files), schemaDir, len(outputs), err)
	}
}

// schemaOf describes a type as encoding/json writes it. Every field of the
// commands' own types is always there, and says what it is.
func schemaOf(typ reflect.Type) *schema {
	switch typ.Kind() {
	case reflect.Pointer:
		s := schemaOf(typ.Elem())
		s.Type = []any{s.Type, "null"}
		return s
	case reflect.Struct:
		return objectSchema(typ)
	case reflect.Slice:
		return &schema{Type: "array", Items: schemaOf(typ.Elem())}
	case reflect.Map:
		return &schema{Type: []any{"object", "null"}} // a nil map
	case reflect.String:
		if typ == reflect.TypeFor[instant]() {
			return &schema{Type: "string", Format: "date-time"}
		}
		return &schema{Type: "string"}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer", Minimum: new(0)}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return &schema{Type: "integer"}
	}
	panic(fmt.Sprintf("no schema for %v", typ))
}

func objectSchema(typ reflect.Type) *schema {
	s := &schema{Type: "object", Properties: map[string]*schema{}}
	for field := range typ.Fields() {
		if field.Anonymous {
			inner := objectSchema(field.Type)
			s.Required = append(s.Required, inner.Required...)
			for name, p := range inner.Properties {
				s.Properties[name] = p
			}
			continue
		}
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		p := schemaOf(field.Type)
		p.Description = field.Tag.Get("doc")
		s.Properties[name] = p
		if options != "omitempty" {
			s.Required = append(s.Required, name)
		}
	}
	return s
}

// checkSchema says what in value is not as the schema of that name has it. It
// is stricter than the schema: what the schema does not name is wrong too.
func checkSchema(name string, value []byte) error {
	text, err := os.ReadFile(filepath.Join(schemaDir, name+".json"))
	if err != nil {
		return err
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	return s.check("$", v)
}

func (s *schema) check(at string, v any) error {
	types, ok := s.Type.([]any)
	if !ok {
		types = []any{s.Type}
	}
	if !slices.ContainsFunc(types, func(t any) bool { return isType(t, v) }) {
		return fmt.Errorf("%s is %T %v, want %v", at, v, v, s.Type)
	}
	switch v := v.(type) {
	case map[string]any:
		return s.checkObject(at, v)
	case []any:
		for i, item := range v {
			if err := s.Items.check(fmt.Sprintf("%s[%d]", at, i), item); err != nil {
				return err
			}
		}
	case float64:
		if s.Minimum != nil && v < float64(*s.Minimum) {
			return fmt.Errorf("%s is %v, want at least %d", at, v, *s.Minimum)
		}
	case string:
		if _, err := time.Parse(time.RFC3339Nano, v); s.Format == "date-time" && (err != nil || !strings.HasSuffix(v, "Z")) {
			return fmt.Errorf("%s is %q, want a time in UTC (RFC 3339)", at, v)
		}
	}
	return nil
}

func (s *schema) checkObject(at string, v map[string]any) error {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return fmt.Errorf("%s has no %s", at, name)
		}
	}
	if s.Properties == nil {
		return nil // anything goes: the data of an event
	}
	for name, value := range v {
		p, ok := s.Properties[name]
		if !ok {
			return fmt.Errorf("%s has %s, which the schema does not name", at, name)
		}
		if err := p.check(at+"."+name, value); err != nil {
			return err
		}
	}
	return nil
}

func isType(want, v any) bool {
	switch v := v.(type) {
	case nil:
		return want == "null"
	case bool:
		return want == "boolean"
	case string:
		return want == "string"
	case float64:
		return want == "number" || want == "integer" && v == float64(int64(v))
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	}
	return false
}

func TestSchemaCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	right := `{"version":"v","revision":"","modified":false,"go":"go1.26","platform":"linux/amd64"}`
	if err := checkSchema("version", []byte(right)); err != nil {
		t.Errorf("right: %v", err)
	}
	for name, wrong := range map[string]string{
		"a type":          strings.Replace(right, "false", `"no"`, 1),
		"a missing name":  strings.Replace(right, `"go":"go1.26",`, "", 1),
		"an unknown name": strings.Replace(right, "{", `{"extra":1,`, 1),
		"no object":       "[]",
	} {
		if err := checkSchema("version", []byte(wrong)); err == nil {
			t.Errorf("%s was not found in %s", name, wrong)
		}
	}
	status := func(oldest, when string) string {
		return `{"cluster":{"id":"","name":""},"node":{"id":"","name":""},"time":` + when + `,"generation":1,"nodes_up":1,"nodes_total":1,` +
			`"links_up":0,"links_total":0,"oldest_fact_seconds":` + oldest + `,"nodes":[],"repository":null,"licenses":[],"witnesses":[]}`
	}
	if err := checkSchema("status", []byte(status("null", `"2026-11-23T00:00:00.000000000Z"`))); err != nil {
		t.Errorf("right: %v", err)
	}
	for _, wrong := range []string{status(`"1s"`, "null"), status("1", `"today"`), status("1", `"2026-11-23T00:00:00+01:00"`), strings.Replace(status("1", "null"), "nodes_up\":1", "nodes_up\":-1", 1)} {
		if err := checkSchema("status", []byte(wrong)); err == nil {
			t.Errorf("nothing was found in %s", wrong)
		}
	}
}

// golden compares got with a file, or writes it with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update rewrites it:\n%s", file, diff)
	}
}
