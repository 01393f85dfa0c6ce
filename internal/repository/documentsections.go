package repository

import (
	"net/netip"
	"time"

	"github.com/belfry-ha/belfry"
)

// A Resource is what the cluster watches for clients (witness.md 2 and 9).
type Resource struct {
	Name    string         `json:"name" limit:"256"`                  // service/NAME, share/NAME/SHARE, name/NAME, address/ADDRESS; unique
	Holders []string       `json:"holders,omitempty" limit:"1024,63"` // names of nodes
	Watch   string         `json:"watch,omitempty" limit:"4096"`      // unit:, process: or file: and the subject, tcp:HOST:PORT or http://HOST:PORT/PATH
	Address string         `json:"address,omitempty" limit:"64"`      // IP, or IP:PORT, that clients use
	Probe   netip.AddrPort `json:"probe,omitzero"`                    // that decides when the host answers and its agent is down; of all addresses: the port at each holder
	// ProbePath is what the probe asks for over HTTP; empty: it only connects.
	ProbePath string `json:"probe_path,omitempty" limit:"256" empty:"connects"`
}

// A Witness is the cluster's part of the witness settings; the rest is each
// agent's.
type Witness struct {
	NetNames []NetName `json:"net_names,omitempty" limit:"64"`
	Drained  []string  `json:"drained,omitempty" limit:"1024,63"` // names of nodes that no client is sent to
}

// A NetName is what SMB clients call a file server.
type NetName struct {
	Name      string       `json:"name" limit:"63"`
	Aliases   []string     `json:"aliases,omitempty" limit:"16,255"`
	Addresses []netip.Addr `json:"addresses,omitempty" limit:"64"`
	Shares    []Share      `json:"shares,omitempty" limit:"1024"`
	AnyShare  bool         `json:"any_share,omitzero"` // unchecked; either this or Shares
}

// A Share is one that clients may name.
type Share struct {
	Name     string `json:"name" limit:"80"` // [MS-SRVS] 2.2.4.22
	ScaleOut bool   `json:"scale_out,omitzero"`
}

// A LinkedCluster is another cluster of Belfry that this one watches.
type LinkedCluster struct {
	Name      string           `json:"name" limit:"63"`
	Addresses []netip.AddrPort `json:"addresses,omitempty" limit:"64"`
	CA        Digest           `json:"ca"` // SHA-256 of its certificate
}

// A Handler says what is handled, and how often. The command is none of its
// fields: it is an entry of the node's own settings file, so that nobody who
// can write the document has a node run what its owner did not name
// (security.md, invariant 6).
type Handler struct {
	Name        string   `json:"name" limit:"63"`              // of the entry in the nodes' settings; unique
	On          []string `json:"on,omitempty" limit:"64,4096"` // selectors, at least one
	Where       string   `json:"where,omitempty" limit:"65536" lines:"true"`
	Scope       string   `json:"scope,omitempty" limit:"16" empty:"local"`    // local, which empty means, or cluster
	Nodes       []string `json:"nodes,omitempty" limit:"1024,63" empty:"all"` // that are watched; empty: all
	Edge        string   `json:"edge,omitempty" limit:"16" empty:"both"`      // both, which empty means, failing or recovered
	Over        string   `json:"over,omitempty" limit:"64"`                   // threshold, as of belfry watch
	Under       string   `json:"under,omitempty" limit:"64"`
	Rearm       string   `json:"rearm,omitempty" limit:"64"`
	Hold        string   `json:"hold,omitempty" limit:"32" empty:"0s"`         // a duration
	MinInterval string   `json:"min_interval,omitempty" limit:"32" empty:"0s"` // a duration
	Flap        string   `json:"flap,omitempty" limit:"64"`
	Limit       int      `json:"limit,omitzero"`                               // of its queue; 0: the default
	Snapshot    bool     `json:"snapshot,omitzero"`                            // begin with the present states
	NoGaps      bool     `json:"no_gaps,omitzero"`                             // is not run for gaps
	RunOn       string   `json:"run_on,omitempty" limit:"16" empty:"every"`    // every, which empty means, origin or one
	Timeout     string   `json:"timeout,omitempty" limit:"32" empty:"default"` // of a run, 1s to 1h; empty: 30s
	Attempts    int      `json:"attempts,omitzero"`                            // before a dead letter, 1 to 100; 0: 5
}

// Licenses are texts that only package license reads, and what goes with them.
type Licenses struct {
	Files       []string     `json:"files,omitempty" limit:"256,65536" lines:"true" secret:"true"`
	Activations []Activation `json:"activations,omitempty" limit:"1024"`
	Revocations []string     `json:"revocations,omitempty" limit:"64,65536" lines:"true" secret:"true"` // one list for each product
	Mark        time.Time    `json:"mark,omitzero"`                                                     // a time that has passed for certain; it never falls
	Issuers     []Issuer     `json:"issuers,omitempty" limit:"64"`
}

// An Activation says who unlocked a license, and where.
type Activation struct {
	License  string        `json:"license" limit:"63"`
	Node     belfry.NodeID `json:"node"`
	Time     time.Time     `json:"time"`
	Operator string        `json:"operator,omitempty" limit:"256"`
}

// An Issuer is a key that an administrator trusts for one product.
type Issuer struct {
	Product string `json:"product" limit:"63"`
	Key     []byte `json:"key" limit:"32"` // Ed25519
}

// A Grant gives subjects a role, or single rights, or both.
type Grant struct {
	Subjects []string `json:"subjects,omitempty" limit:"64,256"` // uid:1000, group:dba, client:web
	Role     string   `json:"role,omitempty" limit:"16"`
	Allow    []string `json:"allow,omitempty" limit:"64,256"` // observe:process.*@own, emit:user.backup
}

// A Security is what says who belongs to the cluster. No key is in it that is
// not sealed.
type Security struct {
	// CA are the authorities that count, in DER: the one that signs first; two
	// while one replaces the other. CANext: the second is the one that is to
	// sign, else it is on its way out.
	CA        [][]byte    `json:"ca,omitempty" limit:"2,4096"`
	CANext    bool        `json:"ca_next,omitzero"`
	CAKeys    []SealedKey `json:"ca_keys,omitempty" limit:"64"`
	CAExposed bool        `json:"ca_exposed,omitzero"` // a node was removed that may know the key: it is to be replaced
	Tokens    []Token     `json:"tokens,omitempty" limit:"64"`
	Clients   []Client    `json:"clients,omitempty" limit:"1024"`
	Revoked   []string    `json:"revoked,omitempty" limit:"4096,40"` // serials of certificates, in hexadecimal digits
	Datagram  Datagram    `json:"datagram"`
}

// A SealedKey is the private key of an authority, sealed to one node.
type SealedKey struct {
	CA     Digest        `json:"ca"` // SHA-256 of its certificate
	Holder belfry.NodeID `json:"holder"`
	Sealed []byte        `json:"sealed" limit:"1024" secret:"true"`
}

// A Token was handed out to join with. Its secret is nowhere here.
type Token struct {
	ID       string           `json:"id" limit:"16"`      // 16 hexadecimal digits
	Hash     Digest           `json:"hash" secret:"true"` // of the secret; zero, which no secret has: wrong ones used it up
	Expires  time.Time        `json:"expires"`
	Role     string           `json:"role" limit:"16"`           // node, reader, witness or operator
	Name     string           `json:"name,omitempty" limit:"63"` // that whoever uses it must take; empty: any
	Creator  string           `json:"creator,omitempty" limit:"256"`
	Wrong    uint32           `json:"wrong_secrets,omitzero"`       // how many used it up; zero: it can be used
	Announce []netip.AddrPort `json:"announce,omitempty" limit:"8"` // that are told where the cluster is
}

// A Client has a certificate for the API.
type Client struct {
	Name      string      `json:"name" limit:"63"`
	Role      string      `json:"role" limit:"16"`
	TokenRole string      `json:"token_role,omitempty" limit:"16"` // what its token said, if Role is another
	Keys      []ClientKey `json:"keys,omitempty" limit:"16"`       // the newest last; empty: every key under the name
}

// A ClientKey is one key of a client.
type ClientKey struct {
	Key     Digest    `json:"key" secret:"true"` // SHA-256 of the public key
	Serial  string    `json:"serial,omitempty" limit:"40"`
	Expires time.Time `json:"expires,omitzero"`
	Joined  time.Time `json:"joined,omitzero"`
	Token   string    `json:"token,omitempty" limit:"16"` // id of the token that it joined with
}

// A Datagram is the epoch of the keys of datagrams.
type Datagram struct {
	Epoch  uint32    `json:"epoch"` // it never falls
	Secret Digest    `json:"secret_hash,omitzero" secret:"true"`
	Since  time.Time `json:"since,omitzero"`
}
