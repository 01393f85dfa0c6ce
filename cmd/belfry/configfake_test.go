package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
)

// configAgent is a program for scripts: the API of an agent at $BELFRY_SOCKET
// whose configuration is a document in memory, until it is interrupted. It
// writes its newest document beside the socket. A change is replicated unless
// the cluster is called alone.
func configAgent() {
	if err := serveConfig(os.Getenv("BELFRY_SOCKET")); err != nil {
		fmt.Fprintln(os.Stderr, "configagent:", err)
		os.Exit(1)
	}
}

func serveConfig(socket string) error {
	documents := &memoryDocuments{all: []repository.Document{memoryDocument()}, file: socket + ".document"}
	if err := documents.write(); err != nil {
		return err
	}
	server := api.New(api.Options{
		Cluster: oneNode{}, Config: noSettings{}, Documents: documents,
		Identify: func(net.Conn) (api.Subject, error) {
			return api.Subject{UID: 1001, Role: belfry.RoleOperator}, nil
		},
		Decide: func(s api.Subject, ask api.Ask) (belfry.Role, bool) {
			return new(security.Policy).Decide(security.Caller{UID: s.UID, Role: s.Role}, security.Ask(ask))
		},
	})
	if err := server.ServeUnix(socket, ""); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	<-end
	return server.Stop(context.Background())
}

// oneNode is the part of a cluster that names the node that was asked.
type oneNode struct{ api.Cluster }

func (oneNode) View() api.ClusterView {
	a := memoryDocument().Nodes[0]
	return api.ClusterView{Name: "dev", Self: a.ID, Nodes: []cluster.NodeStatus{{ID: a.ID, Name: a.Name}}}
}

// noSettings is the part of the configuration that a document takes the place of.
type noSettings struct{ api.Configuration }

func (noSettings) Settings(path string) ([]api.Setting, uint64, error) {
	s := api.Setting{Path: "tunables.node_timeout", Value: "0s", Default: "0s", Range: "0s to 10m; 0s: allowance"}
	if path != "" && path != "tunables" && path != s.Path {
		return nil, 0, fmt.Errorf("%w: unknown setting %s; want %s", belfry.ErrUsage, path, s.Path)
	}
	return []api.Setting{s}, 1, nil
}

// memoryDocuments keeps the generations of one cluster.
type memoryDocuments struct {
	mu   sync.Mutex
	all  []repository.Document
	file string
}

// memoryDocument is a cluster of a, b and c on two networks.
func memoryDocument() repository.Document {
	d := repository.Document{
		Schema: repository.Schema, Cluster: repository.Cluster{Name: "dev", UUID: belfry.ClusterID{0xc0}},
		Networks:   []repository.Network{{Name: "net1", Prefix: netip.MustParsePrefix("10.0.1.0/24")}, {Name: "net2", Prefix: netip.MustParsePrefix("10.0.2.0/24"), Priority: 5}},
		Repository: repository.Storage{Kind: repository.KindMembers},
		Handlers:   []repository.Handler{{Name: "page", On: []string{"node.state"}, Scope: "cluster", RunOn: "one"}},
		Security:   repository.Security{Datagram: repository.Datagram{Epoch: 1, Secret: repository.Digest{0x5e, 0xc2}}},
		History:    []repository.Entry{{Generation: 1, Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Author: "uid 0 on a", Text: "init"}},
	}
	for i, name := range []string{"a", "b", "c"} {
		n := repository.Node{Name: name, ID: belfry.NodeID{0xa0, byte(i + 1)}, Number: belfry.NodeNumber(i + 1), Key: bytes.Repeat([]byte{byte(i + 1)}, 32)}
		for net := range byte(2) {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, net + 1, byte(i + 1)}), 7431)
			n.Addresses = append(n.Addresses, repository.Address{Network: fmt.Sprintf("net%d", net+1), Heartbeat: at})
			n.Streams = netip.AddrPortFrom(at.Addr(), 7432)
		}
		d.Nodes = append(d.Nodes, n)
	}
	return d
}

func (m *memoryDocuments) write() error {
	data, err := repository.Encode(m.all[len(m.all)-1])
	if err != nil {
		return err
	}
	return os.WriteFile(m.file, data, 0o600)
}

func (m *memoryDocuments) Document() (repository.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[len(m.all)-1], nil
}

func (m *memoryDocuments) Past(generation uint64) (repository.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.all, func(d repository.Document) bool { return d.Generation() == generation })
	if i < 0 {
		return repository.Document{}, fmt.Errorf("%w: generation %d is not kept here; the oldest is %d", belfry.ErrNotFound, generation, m.all[0].Generation())
	}
	return m.all[i], nil
}

func (m *memoryDocuments) Kept(generation uint64) bool {
	_, err := m.Past(generation)
	return err == nil
}

// Tunables is one duration; the table of the agent is its own business.
func (*memoryDocuments) Tunables() configview.Tunables {
	return configview.Tunables{
		Check: func(written map[string]string) error {
			var wrong []error
			for _, name := range slices.Sorted(maps.Keys(written)) {
				if d, err := time.ParseDuration(written[name]); name != "node_timeout" {
					wrong = append(wrong, fmt.Errorf("unknown setting tunables.%s; did you mean tunables.node_timeout?", name))
				} else if err != nil || d > 10*time.Minute {
					wrong = append(wrong, fmt.Errorf("tunables.%s %q: out of range; its range is 0s to 10m", name, written[name]))
				}
			}
			if wrong == nil {
				return nil
			}
			return fmt.Errorf("%w: %w", belfry.ErrUsage, errors.Join(wrong...))
		},
		InForce: func(written map[string]string) []configview.Tunable {
			value, set := written["node_timeout"]
			if !set {
				value = "0s"
			}
			return []configview.Tunable{{Name: "node_timeout", Value: value}}
		},
	}
}

// CommitConfig makes each generation a minute after the one before.
func (m *memoryDocuments) CommitConfig(_ context.Context, change configview.Change, author string) (api.ConfigCommitted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	base := m.all[len(m.all)-1]
	e := repository.Entry{Time: base.History[len(base.History)-1].Time.Add(time.Minute), Author: author, Node: base.Nodes[0].ID}
	next, changed, err := change.Next(base, e, m.Tunables())
	if err != nil {
		return api.ConfigCommitted{}, err
	}
	done := api.ConfigCommitted{Changed: changed, Before: base, After: next, Replicated: next.Cluster.Name != "alone", InForce: []string{"a", "b", "c"}}
	if !done.Replicated {
		done.InForce = []string{"a"}
	}
	if changed {
		m.all = append(m.all, next)
		return done, m.write()
	}
	return done, nil
}

// cmdConfigAgent starts one for the rest of a script, and waits for its socket.
func cmdConfigAgent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: serveconfig")
	}
	dir := ts.MkAbs(".")
	socket := filepath.Join(dir, "config.sock")
	ts.Setenv("BELFRY_SOCKET", socket)
	agent, err := startConfigAgent(dir, socket)
	ts.Check(err)
	ts.Defer(func() { ts.Check(agent.stop()) })
}

// startConfigAgent returns when it answers.
func startConfigAgent(dir, socket string) (*family, error) {
	agent, err := startFamily(dir, filepath.Join(dir, "configagent.log"), append(os.Environ(), "BELFRY_SOCKET="+socket), "configagent")
	if err != nil {
		return nil, err
	}
	err = waitUntil(20*time.Second, func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return nil, errors.Join(err, agent.stop())
	}
	return agent, nil
}
