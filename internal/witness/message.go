package witness

import (
	"encoding/hex"
	"regexp"
	"time"

	"github.com/belfry-ha/belfry"
)

// A CallID links a request to its Answer; the driver numbers them, from 1.
type CallID uint64

// A Key names a registration: 16 random bytes that the client chose, so that it
// can say twice what arrived once.
type Key [16]byte

// String is 32 hexadecimal digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// ParseKey reads the form that String writes.
func ParseKey(s string) (k Key, err error) {
	if len(s) != 2*len(k) {
		return k, refusal(belfry.ErrUsage, "registration %q; write its 32 hexadecimal digits", s)
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return k, refusal(belfry.ErrUsage, "registration %q; write its 32 hexadecimal digits", s)
	}
	return k, nil
}

// An Owner is who a registration belongs to. Only who has the same Protocol and
// Principal may use it.
type Owner struct {
	Protocol   string // "native", or the version of another front end
	Connection uint64 // or association group, for OwnerGone; 0: it outlives connections
	Principal  string // as the front end has authenticated it
	Source     string // address or local user that it comes from, for limits only; empty: not known
}

// A Message is one input of the Machine. The set is sealed.
type Message interface{ message() }

// What the cluster holds of nodes.
type (
	// Members are all nodes of the cluster, this one included.
	Members struct{ Nodes []Member }

	// Verdict is what the cluster holds of a node from At on.
	Verdict struct {
		Node        belfry.NodeID
		Verdict     belfry.Verdict
		Cause       belfry.Cause
		Incarnation belfry.Incarnation
		At          time.Time
	}

	// Link says whether all links to a node work, both ways and well; Cut: none does,
	// so that nothing that it reports can be trusted to arrive.
	Link struct {
		Node      belfry.NodeID
		Good, Cut bool
	}

	// Peer is what a witness says of itself.
	Peer struct {
		Node          belfry.NodeID
		Off, Draining bool
		Registrations int
	}

	// Consulted says that a client asks which witnesses there are: the others are
	// asked how they do, for a while.
	Consulted struct{}

	// Drained are the nodes that the configuration of this generation keeps clients
	// from. Who has not begun to leave them does so now.
	Drained struct {
		Nodes      []belfry.NodeID
		Generation uint64
	}

	// Configured brings other values into force; those that say which node this is
	// stay.
	Configured struct{ Config Config }
)

// A Member is one node.
type Member struct {
	ID        belfry.NodeID
	Name      string
	Zone      string
	Addresses []string // host:port of its witness, the best first
	Hosts     []string // addresses at which clients use what it holds, likewise
}

// What there is to watch, and how it does.
type (
	// Declared is all resources of the configuration; those that it has no longer
	// go when nobody is registered for them.
	Declared struct{ Resources []Declaration }

	// Report is what a holder says of its own instance of a resource.
	Report struct {
		Resource    belfry.Resource
		Node        belfry.NodeID
		Incarnation belfry.Incarnation // of the holder
		Seq         uint64             // of its changes of this resource, from 1
		State       belfry.ResourceState
		At          time.Time
	}

	// Occurred is one event that has no two states, Count times.
	Occurred struct {
		Resource belfry.Resource
		Node     belfry.NodeID
		Count    uint64
		At       time.Time
	}

	// Covered says that a holder's reports reach this node again: what was held of
	// it is what it says.
	Covered struct {
		Resource belfry.Resource
		Node     belfry.NodeID
	}

	// Uncovered says that a holder's reports do not reach this node, whatever its
	// verdict and its links are.
	Uncovered struct {
		Resource belfry.Resource
		Node     belfry.NodeID
	}

	// Asked says whether somebody, anywhere, wants to know of this node's own
	// instance of a resource.
	Asked struct {
		Resource belfry.Resource
		On       bool
	}

	// Observed is what the driver found out of one source that Observe named.
	Observed struct {
		Source string
		State  belfry.ResourceState
		At     time.Time
	}

	// Override holds a resource in a state, whatever is reported, until a time; a
	// time that has passed ends that.
	Override struct {
		Call     CallID
		Resource belfry.Resource
		State    belfry.ResourceState
		Until    time.Time
		DryRun   bool // only say which registrations it is about
	}
)

// A Declaration is a resource of the configuration.
type Declaration struct {
	Name    belfry.Resource
	Holders []string // names of nodes; none: whoever says so
	Own     bool     // this node is a holder
	Sources []string // what to observe here: all must be available; the driver knows their forms
	Address string   // that clients use; empty: the holder's
	// Probes are what to observe from here, by name of the holder, when its agent
	// is down and its host answers.
	Probes map[string]string
}

// From clients.
type (
	// Register adds a registration, or replaces the one of the same key: saying it
	// twice makes one. The Answer may be held for the word of the holders.
	Register struct {
		Call      CallID
		Owner     Owner
		Key       Key
		Client    string            // its name, for listings
		Resources []belfry.Resource // 1 to 64
		// At names the node, or the address, that the client uses; empty: none.
		At string
		// Eager: an unreachable holder counts as unavailable.
		Eager bool
		// AllowMissing accepts resources that nobody knows; they are unknown.
		AllowMissing bool
		// Certain: unknown is no news, nor is what follows if it is as before
		// ([MS-SWN] 2.2.2.3 has no word for it).
		Certain bool
		// Endless: it stays also if nobody waits for it ([MS-SWN] version 1).
		Endless bool
		// Known is what the client has been told already, here or elsewhere, and
		// LastMove the id of its newest move.
		Known    []Known
		LastMove string
	}

	// Unregister ends a registration. After its Answer nothing comes of it.
	Unregister struct {
		Call  CallID
		Owner Owner
		Key   Key
	}

	// Wait asks for the next changes of a registration: at once if there are some,
	// else as soon as there are. After For without any the Answer is empty; zero is
	// the default, and negative means never.
	Wait struct {
		Call  CallID
		Owner Owner
		Key   Key
		For   time.Duration
	}

	// Cancel ends a Wait or a held Register; no Answer follows.
	Cancel struct{ Call CallID }

	// OwnerGone ends all registrations of a connection.
	OwnerGone struct {
		Protocol   string
		Connection uint64
	}
)

// Known is what a client was told of a resource.
type Known struct {
	Resource belfry.Resource
	Level    belfry.ResourceLevel
}

// From operators.
type (
	// Move asks clients to use other addresses or nodes.
	Move struct {
		Call   CallID
		Select Selector
		Move   belfry.Move
		DryRun bool
	}

	// Drain empties a node, or lets it fill again. Its own witness takes no
	// registrations any more and sends those that it has elsewhere; every witness
	// moves the clients that use the node, Rate a second.
	Drain struct {
		Call   CallID
		Node   belfry.NodeID
		ID     string // of the moves
		On     bool
		Rate   int // 1 to 10,000; zero means 50
		DryRun bool
	}

	// Force ends registrations.
	Force struct {
		Call   CallID
		Select Selector
		DryRun bool
	}
)

// A Selector chooses registrations: those that meet all its fields that are set.
// The zero Selector chooses none, All all.
type Selector struct {
	All               bool
	Key               Key
	Client, Principal *regexp.Regexp
	Protocol          string
	Resource          belfry.Resource
	At                string // node or address
}

// Output is what the driver has to do. Slices are given away.
type Output struct {
	Answers  []Answer
	Interest []Interest // in what is to be asked of all nodes, in order
	Observe  []Observe  // of this node, in order
	Own      []Report   // of this node, for whoever asked
	Ended    []Ended    // registrations that the machine ended
	Moved    []Moved    // clients that were asked to go, by resource
	Peers    *bool      // whether other witnesses are to be asked how they do; nil: as before
	Standing *Standing  // how this witness does now; nil: as before
	Held     *[]Holding // all overrides, in place of those before; nil: as before
}

type (
	// An Answer is the outcome of one call.
	Answer struct {
		Call    CallID
		Key     Key
		States  []Present               // of Register
		Changes []belfry.ResourceChange // of Wait; none: the time is over
		Matched []Key                   // of Move, Drain, Force and Override, in order
		Err     error                   // wraps a sentinel
	}

	// Present is what a resource is when it is registered. Changed is how many
	// changes that is from what the client was told before; without Known it is 0.
	Present struct {
		Change  belfry.ResourceChange
		Changed uint64
	}

	// Interest says whether reports on a resource are wanted of all nodes.
	Interest struct {
		Resource belfry.Resource
		On       bool
	}

	// Observe says whether a source is to be observed here.
	Observe struct {
		Source string
		On     bool
	}

	// Moved is that clients of a resource were asked to go elsewhere.
	Moved struct {
		Resource belfry.Resource
		Move     belfry.Move
		From     string // name of the node that is emptied; empty: none in particular
		Clients  int
	}

	// Standing is what others have to know of this witness.
	Standing struct {
		Off, Draining bool
		Registrations int // about as many
	}

	// Holding is a resource that an operator holds in a state.
	Holding struct {
		Resource belfry.Resource
		State    belfry.ResourceState
		Until    time.Time
	}

	// Ended is a registration that went, and why: "unused", "gone", "forced".
	Ended struct {
		Key    Key
		Client string
		Reason string
	}
)

func (Members) message()    {}
func (Verdict) message()    {}
func (Link) message()       {}
func (Peer) message()       {}
func (Consulted) message()  {}
func (Drained) message()    {}
func (Configured) message() {}
func (Occurred) message()   {}
func (Declared) message()   {}
func (Report) message()     {}
func (Covered) message()    {}
func (Uncovered) message()  {}
func (Asked) message()      {}
func (Observed) message()   {}
func (Override) message()   {}
func (Register) message()   {}
func (Unregister) message() {}
func (Wait) message()       {}
func (Cancel) message()     {}
func (OwnerGone) message()  {}
func (Move) message()       {}
func (Drain) message()      {}
func (Force) message()      {}

// A Request is a Message that has an Answer.
type Request interface {
	Message
	// Numbered is the same with another call.
	Numbered(CallID) Request
}

// Numbered is for [Request].
func (r Register) Numbered(c CallID) Request { r.Call = c; return r }

// Numbered is for [Request].
func (u Unregister) Numbered(c CallID) Request { u.Call = c; return u }

// Numbered is for [Request].
func (w Wait) Numbered(c CallID) Request { w.Call = c; return w }

// Numbered is for [Request].
func (m Move) Numbered(c CallID) Request { m.Call = c; return m }

// Numbered is for [Request].
func (d Drain) Numbered(c CallID) Request { d.Call = c; return d }

// Numbered is for [Request].
func (f Force) Numbered(c CallID) Request { f.Call = c; return f }

// Numbered is for [Request].
func (o Override) Numbered(c CallID) Request { o.Call = c; return o }
