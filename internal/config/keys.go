package config

import (
	"slices"
	"strconv"
	"strings"
)

// A key is one setting: its name in the file, where it is kept, and what a
// change of it takes.
type key struct {
	name    string // parts joined by dots
	text    func(*Settings) *string
	number  func(*Settings) *int
	flag    func(*Settings) *bool
	list    func(*Settings) *[]string // exactly one of the four is set; joined by commas in a variable
	restart bool                      // a running agent can not take a change
}

// keys are all settings, by name.
var keys = []key{
	{name: "journal.active", list: func(s *Settings) *[]string { return &s.Journal.Active }, restart: true},
	{name: "journal.age", text: func(s *Settings) *string { return &s.Journal.Age }, restart: true},
	{name: "journal.size", text: func(s *Settings) *string { return &s.Journal.Size }, restart: true},
	{name: "log.format", text: func(s *Settings) *string { return &s.Log.Format }, restart: true},
	{name: "log.level", text: func(s *Settings) *string { return &s.Log.Level }},
	{name: "node.name", text: func(s *Settings) *string { return &s.Node.Name }, restart: true},
	{name: "ports.heartbeat", number: func(s *Settings) *int { return &s.Ports.Heartbeat }, restart: true},
	{name: "ports.streams", number: func(s *Settings) *int { return &s.Ports.Streams }, restart: true},
	{name: "repository.etcd.ca", text: func(s *Settings) *string { return &s.Repository.Etcd.CA }, restart: true},
	{name: "repository.etcd.cert", text: func(s *Settings) *string { return &s.Repository.Etcd.Cert }, restart: true},
	{name: "repository.etcd.endpoints", list: func(s *Settings) *[]string { return &s.Repository.Etcd.Endpoints }, restart: true},
	{name: "repository.etcd.key", text: func(s *Settings) *string { return &s.Repository.Etcd.Key }, restart: true},
	{name: "repository.etcd.password_file", text: func(s *Settings) *string { return &s.Repository.Etcd.PasswordFile }, restart: true},
	{name: "repository.etcd.user", text: func(s *Settings) *string { return &s.Repository.Etcd.User }, restart: true},
	{name: "repository.search", list: func(s *Settings) *[]string { return &s.Repository.Search }, restart: true},
	{name: "socket.group", text: func(s *Settings) *string { return &s.Socket.Group }, restart: true},
	{name: "socket.path", text: func(s *Settings) *string { return &s.Socket.Path }, restart: true},
	{name: "state", text: func(s *Settings) *string { return &s.State }, restart: true},
	{name: "web.listen", text: func(s *Settings) *string { return &s.Web.Listen }},
	{name: "web.tls.cert", text: func(s *Settings) *string { return &s.Web.TLS.Cert }},
	{name: "web.tls.key", text: func(s *Settings) *string { return &s.Web.TLS.Key }},
	{name: "witness.enabled", flag: func(s *Settings) *bool { return &s.Witness.Enabled }},
	{name: "witness.keep_alive", text: func(s *Settings) *string { return &s.Witness.KeepAlive }},
	{name: "witness.max_per_principal", number: func(s *Settings) *int { return &s.Witness.MaxPerPrincipal }},
	{name: "witness.max_per_source", number: func(s *Settings) *int { return &s.Witness.MaxPerSource }},
	{name: "witness.max_registrations", number: func(s *Settings) *int { return &s.Witness.MaxRegistrations }},
	{name: "witness.unused_timeout", text: func(s *Settings) *string { return &s.Witness.UnusedTimeout }},
}

// get is the value as a person would write it.
func (k key) get(s Settings) string {
	switch {
	case k.text != nil:
		return *k.text(&s)
	case k.list != nil:
		return strings.Join(*k.list(&s), ",")
	case k.flag != nil:
		return strconv.FormatBool(*k.flag(&s))
	}
	return strconv.Itoa(*k.number(&s))
}

// set takes what a flag or a variable of the environment says.
func (k key) set(s *Settings, value string) error {
	switch {
	case k.text != nil:
		*k.text(s) = value
		return nil
	case k.list != nil:
		*k.list(s) = nil
		if value != "" {
			*k.list(s) = strings.Split(value, ",")
		}
		return nil
	case k.flag != nil:
		if value != "true" && value != "false" {
			return faultf("%q is neither true nor false", value)
		}
		*k.flag(s) = value == "true"
		return nil
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return faultf("%q is not a number; write digits only", value)
	}
	*k.number(s) = n
	return nil
}

func find(name string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

// children are the parts that may follow after prefix ("web." or ""), sorted.
func children(prefix string) []string {
	var parts []string
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k.name, prefix)
		if !ok {
			continue
		}
		part, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return parts
}

// variable is the name of the setting in the environment: the path in
// capitals, dots as _.
func (k key) variable() string {
	return "BELFRY_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

// setEnvironment takes the variables that name a setting. Other variables
// that begin with BELFRY_ belong to commands and handlers, except those that
// begin like a setting with parts: these are misspelt.
func (s *Settings) setEnvironment(environ []string) (faults []error) {
	for _, assignment := range slices.Sorted(slices.Values(environ)) { // the faults are seen
		name, value, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, "BELFRY_") {
			continue
		}
		var known []string
		taken := false
		for _, k := range keys {
			if k.variable() == name {
				taken = true
				if err := k.set(s, value); err != nil {
					faults = append(faults, faultf("%s: %v", name, err))
				}
			}
			known = append(known, k.variable())
		}
		if !taken && misspelt(name) {
			faults = append(faults, faultf("%s: unknown setting%s", name, didYouMean(name, known)))
		}
	}
	return faults
}

// misspelt tells whether name begins with a section: BELFRY_PORTS_HARTBEAT.
func misspelt(name string) bool {
	for _, k := range keys {
		section, _, ok := strings.Cut(k.name, ".")
		if ok && strings.HasPrefix(name, "BELFRY_"+strings.ToUpper(section)+"_") {
			return true
		}
	}
	return false
}

func (s *Settings) setFlags(flags []string) (faults []error) {
	for _, assignment := range flags {
		name, value, _ := strings.Cut(assignment, "=")
		k, ok := find(name)
		if !ok {
			var known []string
			for _, k := range keys {
				known = append(known, k.name)
			}
			faults = append(faults, faultf("unknown setting %s%s", name, didYouMean(name, known)))
			continue
		}
		if err := k.set(s, value); err != nil {
			faults = append(faults, faultf("%s: %v", name, err))
		}
	}
	return faults
}

// A Change is one setting that differs between two Settings.
type Change struct {
	Key        string // as in the file, dots between its parts
	Old, New   string
	Reloadable bool // else it takes a restart of the agent
}

// String is the change as the log words it, after the key.
func (c Change) String() string {
	if c.Reloadable {
		return "reloaded"
	}
	return "needs restart"
}

// Diff lists the settings whose values differ, by key.
func Diff(from, to Settings) (changes []Change) {
	for _, k := range keys {
		if was, is := k.get(from), k.get(to); was != is {
			changes = append(changes, Change{Key: k.name, Old: was, New: is, Reloadable: !k.restart})
		}
	}
	changes = append(changes, diffHandlers(from.Handlers, to.Handlers)...)
	return append(changes, diffResources(from.Resources, to.Resources)...)
}
