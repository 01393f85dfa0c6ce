package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A system is one of those that are compared.
type system struct {
	Name   string
	Title  string
	config func() *memberlist.Config // nil: Belfry
	sealed bool
}

const belfryName = "belfry"

// systems are the names that -systems knows, in the order of the tables.
func systems() []system {
	all := []system{{Name: belfryName, Title: "Belfry", sealed: true}}
	for _, m := range []system{
		{Name: "memberlist", Title: "memberlist", config: memberlist.DefaultLANConfig},
		{Name: "memberlist-tuned", Title: "memberlist tuned", config: tunedConfig},
		{Name: "memberlist-local", Title: "memberlist local", config: memberlist.DefaultLocalConfig},
	} {
		secret := m
		secret.Name, secret.Title, secret.sealed = m.Name+"-sealed", m.Title+", sealed", true
		all = append(all, m, secret)
	}
	return all
}

// tunedConfig is what someone would set who wants memberlist fast
// (cluster.md 14).
func tunedConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.ProbeInterval = 200 * time.Millisecond
	c.ProbeTimeout = 100 * time.Millisecond
	c.SuspicionMult = 2
	c.GossipInterval = 50 * time.Millisecond
	return c
}

// chosen resolves a list of names.
func chosen(names string) ([]system, error) {
	var out []system
	all := systems()
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(s system) bool { return s.Name == name })
		if i < 0 {
			known := make([]string, len(all))
			for i := range all {
				known[i] = all[i].Name
			}
			return nil, fmt.Errorf("unknown system %q; there are %s", name, strings.Join(known, ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}

// secretKey is for the sealed ones: AES-256, as Belfry has it.
var secretKey = []byte("0123456789abcdef0123456789abcdef")

// settings is a configuration of one node. Nothing is changed that the system
// does not name, but its log is off and it asks nobody for names.
func (s system) settings(name string, transport memberlist.Transport, events memberlist.EventDelegate) *memberlist.Config {
	c := s.config()
	c.Name = name
	c.Transport = transport
	c.Events = events
	c.LogOutput = io.Discard
	if s.sealed {
		c.SecretKey = slices.Clone(secretKey)
	}
	return c
}

// nodeName is that of the scenario: n1, n2, …
func nodeName(node int) string { return fmt.Sprintf("n%d", node+1) }

// A recorder keeps what all nodes of one run are told.
type recorder struct {
	mu    sync.Mutex
	begin time.Time // of the scenario; zero: not yet, and nothing is kept
	seen  []observation
	index map[string]int // of a name
}

func newRecorder(nodes int) *recorder {
	r := &recorder{index: map[string]int{}}
	for i := range nodes {
		r.index[nodeName(i)] = i
	}
	return r
}

func (r *recorder) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin = time.Now()
}

// An ear is the EventDelegate of one node.
type ear struct {
	*recorder
	node int
}

func (e ear) note(n *memberlist.Node, v verdict) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if subject, ok := e.index[n.Name]; ok && subject != e.node && !e.begin.IsZero() {
		e.seen = append(e.seen, observation{At: time.Since(e.begin), Observer: e.node, Subject: subject, Verdict: v})
	}
}

func (e ear) NotifyJoin(n *memberlist.Node) { e.note(n, up) }

// NotifyLeave does not say which of the two it is, dead or left: the state in
// the node that it is handed is not set. The script knows who left.
func (e ear) NotifyLeave(n *memberlist.Node) { e.note(n, down) }

func (e ear) NotifyUpdate(*memberlist.Node) {}
