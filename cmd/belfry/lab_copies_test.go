package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// A labCopy runs with the state of a node, as a machine that was cloned does.
type labCopy struct {
	*labNode
	taken map[netip.Addr]*os.File // addresses, and where packets to them went before
}

// copyState starts a copy of a node that runs, and leads the packets to the
// node's addresses there. The node can still send.
func (l *lab) copyState(ts *testscript.TestScript, _ bool, args []string) {
	original := l.node(ts, args[0])
	dir := filepath.Join(l.cluster.dir, original.Name+"-copy")
	made := original.LocalNode
	made.State = dir
	made.Networks = nil
	for _, network := range original.Networks {
		if slices.Contains(args[1:], network.Name) {
			made.Networks = append(made.Networks, network)
		}
	}
	c := &labCopy{
		labNode: &labNode{localNode: &localNode{LocalNode: made, socket: filepath.Join(dir, "belfry.sock")}, interfaces: map[string]string{}},
		taken:   map[netip.Addr]*os.File{},
	}
	if l.copies == nil {
		l.copies = map[string]*labCopy{}
	}
	l.copies[original.Name] = c
	ts.Check(copyDir(original.State, dir))
	for _, network := range made.Networks {
		addr := network.Heartbeat.Addr()
		c.taken[addr] = l.wire.port(addr)
	}
	ts.Check(c.connect(l.wire))
	ts.Check(c.run())
}

func (l *lab) endCopy(ts *testscript.TestScript, _ bool, args []string) {
	c := l.copies[args[0]]
	if c == nil {
		ts.Fatalf("there is no copy of %s", args[0])
	}
	ts.Check(syscall.Kill(c.pid(), syscall.SIGTERM))
	<-c.agents[0].exited
	for addr, port := range c.taken {
		l.wire.lead(addr, port)
	}
}

// copyDir copies what is kept of a node: files, with its own name for the
// directory where they name it.
func copyDir(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case entry.IsDir():
			return os.MkdirAll(at, 0o700)
		case !entry.Type().IsRegular() || entry.Name() == "agent.log":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if entry.Name() == "belfry.yaml" {
			data = bytes.ReplaceAll(data, []byte(from), []byte(to))
		}
		return os.WriteFile(at, data, 0o600)
	})
}
