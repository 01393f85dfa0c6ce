package agent

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/wire"
)

// An identity is who this agent is: what its state directory says, and what
// this start adds.
type identity struct {
	node        Node   // its own row
	epoch       uint32 // that it starts in: its table's, if it has the secret
	incarnation belfry.Incarnation
	boot        belfry.Boot
}

// openState locks the state directory and reads who this node is. Without
// keys there is no start: nothing is ever sent in the clear.
func (a *Agent) openState() error {
	state := a.opts.Config.State
	if _, err := os.Stat(state); errors.Is(err, fs.ErrNotExist) {
		return &belfry.Error{Op: "agent", Subject: state, Err: fmt.Errorf("%w: there is no such state directory; belfry init makes it with a cluster, belfry join enters one, and the setting state names another", belfry.ErrNotFound)}
	}
	lock, err := lockState(state)
	if err != nil {
		return err
	}
	a.onStop("state", func(context.Context) error { return lock.Close() })
	if a.members, err = OpenMembers(state); err != nil {
		return err
	}
	a.documents, _ = a.members.(*documentMembership)
	keys, err := security.Load(filepath.Join(state, "keys"))
	if err != nil {
		return fmt.Errorf("no start without keys: %w", err)
	}
	if err := a.openAudit(keys); err != nil {
		return &belfry.Error{Op: "agent", Subject: state, Err: err}
	}
	table := a.members.Table()
	a.followRoles(table)
	node, err := a.ownRow(table, keys)
	if err != nil {
		return &belfry.Error{Op: "agent", Subject: state, Err: err}
	}
	incarnation, err := nextIncarnation(state)
	if err != nil {
		return err
	}
	if a.sealing, err = security.LoadSealingKey(filepath.Join(state, "keys")); err != nil {
		return err
	}
	a.keys = newKeyring(filepath.Join(state, "keys"), keys)
	a.id = identity{node: node, epoch: firstEpoch(table, a.keys), incarnation: incarnation, boot: newBoot()}
	if a.documents != nil {
		a.storage, err = newStorage(a)
	}
	return err
}

// firstEpoch is the table's, or the newest that this node has: then it slept
// through a change, and is not heard until another member has given it what it
// lacks, over a stream.
func firstEpoch(t *Table, keys *keyring) uint32 {
	if _, ok := keys.secret(t.Epoch, t.Secret); ok {
		return t.Epoch
	}
	return keys.now().Epoch
}

// ownRow finds this node in the member table and checks that keys, table and
// settings speak of the same node.
func (a *Agent) ownRow(t *Table, keys *security.Keys) (Node, error) {
	if keys.Cluster != t.Cluster {
		return Node{}, fmt.Errorf("%w: the keys are of cluster %s, the member table of %s; restore both from one place", belfry.ErrNotMember, keys.Cluster, t.Cluster)
	}
	settings := a.opts.Config
	node, listed := t.Node(keys.Node)
	if !listed {
		return Node{}, fmt.Errorf("%w: %s", belfry.ErrNotMember, t.ending(settings.State, keys.Node))
	}
	if err := t.Listed(keys.Node, keys.Public()); err != nil {
		return Node{}, err
	}
	if err := keepWish(settings.State, keys.Node, false); err != nil { // an earlier one did not come about
		return Node{}, err
	}
	if settings.Node.Name != "" && settings.Node.Name != node.Name {
		return Node{}, fmt.Errorf("%w: node.name is %q, but the cluster knows the node of this state directory as %q; set node.name so, or leave it out; if this is a copy of that node's state, remove it and let this machine join with a token of its own", belfry.ErrUsage, settings.Node.Name, node.Name)
	}
	for _, n := range node.Networks {
		if int(n.Heartbeat.Port()) != settings.Ports.Heartbeat {
			return Node{}, fmt.Errorf("%w: ports.heartbeat is %d, but the cluster knows this node at %s; set ports.heartbeat: %d", belfry.ErrUsage, settings.Ports.Heartbeat, n.Heartbeat, n.Heartbeat.Port())
		}
	}
	if int(node.Streams.Port()) != settings.Ports.Streams {
		return Node{}, fmt.Errorf("%w: ports.streams is %d, but the cluster knows this node at %s; set ports.streams: %d", belfry.ErrUsage, settings.Ports.Streams, node.Streams, node.Streams.Port())
	}
	return node, nil
}

// wireConfig is what datagrams are sealed with at the start.
func (a *Agent) wireConfig() wire.Config {
	secrets := map[uint32]wire.Secret{}
	for epoch, s := range a.keys.now().Secrets {
		if epoch+1 == a.id.epoch || epoch == a.id.epoch || epoch == a.id.epoch+1 {
			secrets[epoch] = wire.Secret(s)
		}
	}
	return wire.Config{
		Cluster:     a.members.Table().Cluster,
		Self:        a.id.node.ID,
		Number:      a.id.node.Number,
		Incarnation: a.id.incarnation,
		Boot:        a.id.boot,
		Epoch:       a.id.epoch,
		Secrets:     secrets,
	}
}

// WebToken reads the token of the web listener from a state directory. There
// need not be one: then nobody is let in there.
func WebToken(state string) (string, error) {
	path := filepath.Join(state, webTokenFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", &belfry.Error{Op: "agent", Subject: path, Err: fmt.Errorf("%w: mode %#o lets others read the token; chmod 600 it", belfry.ErrPermission, info.Mode().Perm())}
	}
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

// sameToken compares in constant time.
func sameToken(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// ClientTLS is how a client with a folder of keys reaches the stream port of
// any node of its cluster.
func ClientTLS(dir string) (*tls.Config, error) {
	opts, err := security.LoadClient(dir)
	if err != nil {
		return nil, err
	}
	return security.ClientConfig(opts), nil
}
