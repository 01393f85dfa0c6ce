package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
)

// InitOptions say what cluster is made.
type InitOptions struct {
	Name      string // of the cluster; as a node's
	CAKeyFile string // for the authority's key, which then nobody in the cluster has; empty: the first nodes hold it
	Now       time.Time

	// Repository is the block device or file that is to hold the configuration, or
	// etcd://HOST:PORT[,HOST:PORT]/PREFIX. Empty: the members keep it among themselves. Force destroys what is there.
	Repository string
	Force      bool
}

// Init makes a cluster whose only node is at this place. It wraps ErrExist if
// the directory belongs to one already.
func Init(p Place, opts InitOptions) (*Table, error) {
	for what, name := range map[string]string{"--name": opts.Name, "node.name": p.Name} {
		if !validName(name) {
			return nil, fmt.Errorf("%w: %s %q: want 1 to 63 of a-z, 0-9 and -, not first a -", belfry.ErrUsage, what, name)
		}
	}
	var plan storagePlan
	if opts.Repository != "" {
		var err error
		if plan, err = planStorage(opts.Repository, p, opts.Force); err != nil {
			return nil, err
		}
	}
	lock, err := claim(p.State)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	keys := filepath.Join(p.State, joiningDir)
	if err := os.RemoveAll(keys); err != nil { // of a try that was cut off: nobody knows them
		return nil, fmt.Errorf("state directory: %w", err)
	}
	made, err := security.CreateCluster(security.CreateOptions{Now: opts.Now, Nodes: []security.NewNode{{Dir: keys}}, CAKeyFile: opts.CAKeyFile})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(setAside(p.State), putKeys(p.State)); err != nil {
		return nil, err
	}
	table := newTable(opts.Name, made, opts.Now)
	table.add(Node{
		ID: made.Nodes[0].Node, Name: p.Name, Key: PublicKey(made.Nodes[0].Public), Sealing: made.Nodes[0].Sealing,
		Networks: table.networksFor(p.Addresses, p.HeartbeatPort),
		Streams:  netip.AddrPortFrom(p.Addresses[0].Addr(), p.StreamsPort), Web: p.Web,
	})
	if opts.CAKeyFile == "" {
		if err := table.sealCA(made.CA); err != nil {
			return nil, err
		}
	}
	keep := func() error { return WriteMembers(p.State, table) }
	if opts.Repository != "" {
		table.Nodes[0].Capacity = machineCapacity()
		keep = func() error { return plan.found([]string{p.State}, table, opts.Now.UTC().Truncate(time.Millisecond)) }
	}
	// What says that the directory is of a cluster comes last.
	if err := errors.Join(writeWebToken(p.State), keep()); err != nil {
		return nil, err
	}
	return table, handOver(p.State)
}

// setAside keeps the keys of a directory that belongs to no cluster: an init, or
// a join, ended before its table was there. It destroys nothing.
func setAside(state string) error {
	keys, err := security.Load(filepath.Join(state, keysDir))
	if err != nil {
		return nil //nolint:nilerr // no node's keys; putKeys refuses to overwrite what else is there
	}
	to := filepath.Join(state, formerDir, keys.Node.String())
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("put away the keys of a try that was cut off: %w", err)
	}
	if err := os.Rename(filepath.Join(state, keysDir), filepath.Join(to, keysDir)); err != nil {
		return fmt.Errorf("put away the keys of a try that was cut off: %w", err)
	}
	return nil
}

// putKeys makes the new folder of keys the state directory's. One that is there
// is never overwritten.
func putKeys(state string) error {
	to := filepath.Join(state, keysDir)
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) { // an empty one, as packages make
		return &belfry.Error{Op: "keys.create", Subject: to, Err: fmt.Errorf("%w: keys are never overwritten, move the old ones away first", belfry.ErrExist)}
	}
	if err := os.Rename(filepath.Join(state, joiningDir), to); err != nil {
		return fmt.Errorf("put the keys in place: %w", err)
	}
	return nil
}

// handOver gives what root wrote to the owner of the state directory, as whom
// the agent will run.
func handOver(state string) error {
	info, err := os.Stat(state)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(state, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
}
