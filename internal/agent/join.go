package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

// A Place is where an agent is to run: its state directory, and how others are
// to reach it.
type Place struct {
	State         string // made 0700 if it is not there
	Name          string
	Named         bool           // by the settings: its agent takes no other name
	Addresses     []netip.Prefix // one for each network
	HeartbeatPort uint16         // UDP
	StreamsPort   uint16         // TCP
	Web           netip.AddrPort // only shown
	Search        []string       // folders that may have the repository's file
	Etcd          config.Etcd    // how this machine reaches etcd
}

// JoinOptions say where to join, with what.
type JoinOptions struct {
	Token    string
	Address  string                           // HOST or HOST:PORT of a member
	Identity string                           // with a client's token: its folder
	Say      func(format string, args ...any) // tells a person how it goes; nil: nobody
}

// Joined is what came of it: a node, or a client.
type Joined struct {
	Table *Table // of a node
	Node  Node
	State string // its directory

	Client, Role, Cluster string // of a client
	ClusterID             belfry.ClusterID
	Generation            uint64
}

const (
	joiningDir = "keys.joining" // in the state directory; becomes keys
	keysDir    = "keys"
	formerDir  = "former" // what is left of a membership that ended

	joinRetry = 250 * time.Millisecond
)

// Join makes this machine a member, or gives a client its identity: whichever
// the token is for. place is asked only for a node. Until the member table is
// in place, last, the state directory belongs to no cluster, and the same call
// goes on where an earlier one was cut off. It returns ErrUsage for a token
// that is mistyped, ErrPermission if the other side is not of the token's
// cluster, or refuses, ErrExist if the directory belongs to a cluster.
func Join(ctx context.Context, place func() (Place, error), opts JoinOptions) (Joined, error) {
	if opts.Say == nil {
		opts.Say = func(string, ...any) {}
	}
	token, err := security.ParseToken(opts.Token)
	if err != nil {
		return Joined{}, err
	}
	if opts.Identity != "" {
		if opts.Address == "" {
			return Joined{}, fmt.Errorf("%w: ADDRESS is missing: HOST or HOST:PORT of a member", belfry.ErrUsage)
		}
		address, err := doorAddress(opts.Address)
		if err != nil {
			return Joined{}, err
		}
		return joinClient(ctx, token, address, opts)
	}
	p, err := place()
	if err != nil {
		return Joined{}, err
	}
	if opts.Address == "" {
		opts.Say("waiting at %s, port %d, to be told where the cluster is", p.Addresses[0].Addr(), p.HeartbeatPort)
		opts.Address, err = awaitAnnounce(ctx, token, p)
		if err != nil {
			return Joined{}, err
		}
	}
	address, err := doorAddress(opts.Address)
	if err != nil {
		return Joined{}, err
	}
	return joinNode(ctx, token, address, p, opts)
}

// doorAddress checks an address of a member, HOST or HOST:PORT, and gives it its
// port.
func doorAddress(address string) (string, error) {
	if addr, err := netip.ParseAddr(address); err == nil {
		return netip.AddrPortFrom(addr, defaultStreamsPort).String(), nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = address, strconv.Itoa(defaultStreamsPort)
	}
	if n, err := strconv.ParseUint(port, 10, 16); host == "" || strings.ContainsAny(host, " \t[]/") || err != nil || n == 0 {
		return "", fmt.Errorf("%w: address %q: want HOST or HOST:PORT of a member, with a port of 1 to 65535", belfry.ErrUsage, address)
	}
	return net.JoinHostPort(host, port), nil
}

const defaultStreamsPort = 7432

func joinNode(ctx context.Context, token security.Token, address string, p Place, opts JoinOptions) (Joined, error) {
	if !validName(p.Name) {
		return Joined{}, fmt.Errorf("%w: node.name %q: want 1 to 63 of a-z, 0-9 and -, not first a -; set it in the agent's settings", belfry.ErrUsage, p.Name)
	}
	lock, err := claim(p.State)
	if err != nil {
		return Joined{}, err
	}
	defer lock.Close()
	if err := takeUp(p.State); err != nil {
		return Joined{}, err
	}
	j, err := security.PrepareJoin(filepath.Join(p.State, joiningDir))
	if err != nil {
		return Joined{}, err
	}
	req := &belfryv1.JoinRequest{
		TokenId: token.ID[:], TokenSecret: token.Secret[:],
		Sealing: j.Sealing.Public(), SealingSignature: j.SealingSignature(),
		Name: p.Name, Named: p.Named, Streams: netip.AddrPortFrom(p.Addresses[0].Addr(), p.StreamsPort).String(),
	}
	size := machineCapacity()
	req.Cores, req.MemoryBytes = size.Cores, size.MemoryBytes
	for _, a := range p.Addresses {
		at := netip.AddrPortFrom(a.Addr(), p.HeartbeatPort)
		req.Networks = append(req.Networks, &belfryv1.JoinAddress{Address: at.String(), Prefix: uint32(a.Bits())})
	}
	if p.Web.IsValid() {
		req.Web = p.Web.String()
	}
	resp, err := askToJoin(ctx, token, address, p.source(address), j, req, opts)
	if err != nil {
		return Joined{}, err
	}
	if resp.GetNodeId() == "" { // an older agent makes the changes there
		return Joined{}, fmt.Errorf("%w: the token was for client %s, and is used up; take that out with belfry client remove %s, and make a token for a node", belfry.ErrUsage, resp.GetName(), resp.GetName())
	}
	return settle(p, token, j, resp)
}

// source is the address to come from: this node's own on the network that the
// member's address is on, so that what is between them shows now. Elsewhere
// the routes decide.
func (p Place) source(address string) netip.Addr {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}
	}
	for _, own := range p.Addresses {
		if own.Contains(to.Addr()) {
			return own.Addr()
		}
	}
	return netip.Addr{}
}

// claim locks a state directory that belongs to no cluster, and puts away what
// is left of one that it belonged to.
func claim(state string) (*os.File, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err := lockState(state)
	if err != nil {
		return nil, err
	}
	if err := putAway(state); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// putAway moves the keys and the table of a membership that has ended. One that
// has not is left alone: ErrExist.
func putAway(state string) error {
	members, err := OpenMembers(state)
	if errors.Is(err, belfry.ErrNotMember) {
		return nil
	}
	if err != nil {
		return err
	}
	table := members.Table()
	keys, err := security.Load(filepath.Join(state, keysDir))
	if err != nil {
		return err
	}
	if n, ok := table.Node(keys.Node); ok {
		return &belfry.Error{Op: "join", Subject: state, Err: fmt.Errorf("%w: it is of node %s of cluster %s; belfry leave ends that, or set state to another directory", belfry.ErrExist, n.Name, table.Name)}
	}
	to := filepath.Join(state, formerDir, keys.Node.String())
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("put away the former membership: %w", err)
	}
	for _, name := range []string{memberFile, copyDir, keysDir, "incarnation", epochName, leftFile} { // the table first: without it the directory belongs to nobody
		if err := os.Rename(filepath.Join(state, name), filepath.Join(to, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("put away the former membership: %w", err)
		}
	}
	return nil
}

// takeUp goes back one step where a try ended between the last two: its keys
// were in place, the table was not. The cluster lists them already, and answers
// them again.
func takeUp(state string) error {
	from, to := filepath.Join(state, keysDir), filepath.Join(state, joiningDir)
	keys, err := security.Load(from)
	if err != nil {
		return nil //nolint:nilerr // no node's keys; putKeys refuses to overwrite what else is there
	}
	if !missing(to) {
		return nil // of another try
	}
	if former := filepath.Join(state, formerDir, keys.Node.String()); !missing(former) {
		to = filepath.Join(former, keysDir) // it was the putting away that ended
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("take up the join that was cut off: %w", err)
	}
	return nil
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// settle writes what the cluster gave. The table comes last: a directory that
// has one is complete.
func settle(p Place, token security.Token, j *security.Joiner, resp *belfryv1.JoinResponse) (Joined, error) {
	secret, err := secretOf(resp.GetSecret())
	if err != nil {
		return Joined{}, err
	}
	keys, err := j.Finish(resp.GetCertificate(), resp.GetCa(), resp.GetEpoch(), secret)
	if err != nil {
		return Joined{}, err
	}
	var table *Table
	keep := func() error { return WriteMembers(p.State, table) }
	if len(resp.GetRepository()) > 0 {
		var held repository.Snapshot
		if table, held, err = readGeneration(p, keys, resp); err != nil {
			return Joined{}, err
		}
		keep = func() error { return writeCopy(p.State, held.Version, held.Document) }
	} else if table, err = decodeTable(resp.GetDocument()); err != nil {
		return Joined{}, fmt.Errorf("member table: %w", err)
	}
	node, ok := table.Node(keys.Node)
	if !ok || table.Cluster != token.Cluster || keys.Cluster != token.Cluster || !node.Key.equal(PublicKey(keys.Public())) {
		return Joined{}, fmt.Errorf("%w: what the cluster gave does not belong together", belfry.ErrNotMember)
	}
	if err := putKeys(p.State); err != nil {
		return Joined{}, err
	}
	if err := errors.Join(writeWebToken(p.State), keep(), handOver(p.State)); err != nil {
		return Joined{}, err
	}
	return Joined{Table: table, Node: node, State: p.State}, nil
}

func joinClient(ctx context.Context, token security.Token, address string, opts JoinOptions) (Joined, error) {
	j, err := security.PrepareClient(opts.Identity)
	if err != nil {
		return Joined{}, err
	}
	req := &belfryv1.JoinRequest{TokenId: token.ID[:], TokenSecret: token.Secret[:]}
	resp, err := askToJoin(ctx, token, address, netip.Addr{}, j, req, opts)
	if err != nil {
		return Joined{}, err
	}
	if err := j.FinishClient(resp.GetCertificate(), resp.GetCa()); err != nil {
		return Joined{}, err
	}
	return Joined{Client: resp.GetName(), Role: resp.GetRole(), Cluster: resp.GetCluster(), ClusterID: token.Cluster, Generation: resp.GetGeneration()}, nil
}

// askToJoin asks until there is an answer that will not change by asking again,
// or ctx ends.
func askToJoin(ctx context.Context, token security.Token, address string, from netip.Addr, j *security.Joiner, req *belfryv1.JoinRequest, opts JoinOptions) (*belfryv1.JoinResponse, error) {
	last := fmt.Errorf("%w: no answer", belfry.ErrUnknown)
	for {
		resp, err := askOnce(ctx, token, address, from, j, req)
		switch {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded): // the call may see the end of the time before ctx does
			// What was in the way before tells more than that time ran out.
			return nil, fmt.Errorf("%w: %s: %w", cmp.Or(context.Cause(ctx), context.DeadlineExceeded), address, last)
		case !mayPass(err):
			return nil, err
		}
		last = err
		opts.Say("%s: %s; asking again", address, strings.TrimPrefix(err.Error(), belfry.ErrUnknown.Error()+": "))
		select {
		case <-ctx.Done():
		case <-time.After(joinRetry):
		}
	}
}

// mayPass tells of the error of one try whether the next may do better.
func mayPass(err error) bool {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		return false // a name that was mistyped
	}
	for _, passing := range []error{belfry.ErrNoAgent, belfry.ErrUnknown, belfry.ErrRestricted} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

func askOnce(ctx context.Context, token security.Token, address string, from netip.Addr, j *security.Joiner, req *belfryv1.JoinRequest) (*belfryv1.JoinResponse, error) {
	door, err := transport.OpenDoor(ctx, address, from, security.JoinClientConfig(token, nil))
	if err != nil {
		return nil, err
	}
	defer door.Close()
	if req.Csr, err = j.Request(); err != nil {
		return nil, err
	}
	if req.Proof, err = j.Prove(door.State()); err != nil {
		return nil, err
	}
	return door.Join(ctx, req)
}

// askRenewal asks one member for the next certificate of a listed node.
func askRenewal(ctx context.Context, address string, keys *security.Keys, csr []byte) (*belfryv1.RenewResponse, error) {
	door, err := transport.OpenDoor(ctx, address, netip.Addr{}, security.RenewClientConfig(keys, nil))
	if err != nil {
		return nil, err
	}
	defer door.Close()
	proof, err := keys.Prove(door.State())
	if err != nil {
		return nil, err
	}
	return door.Renew(ctx, &belfryv1.RenewRequest{Csr: csr, Proof: proof})
}

// HideTokens is text without the tokens that somebody has put in a wrong place,
// for messages.
func HideTokens(text string) string { return security.HideTokens(text) }
