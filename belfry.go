// Package belfry holds the words of Belfry as Go types: nodes and verdicts,
// events, registrations and notifications, the sentinel errors and [Error].
//
// It imports nothing of the project, so that the agent, the client library
// and the pure machines inside speak of the same things. Its values are plain
// data: they are safe to copy and to share as long as nobody writes to them.
package belfry

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// A NodeID names a node for good: 128 random bits, made once, the first time
// its agent starts. The zero value is no node; where a field's comment says
// so it means "this node".
type NodeID [16]byte

// A ClusterID is the UUID of a cluster, made by the command that creates it.
type ClusterID [16]byte

// A NodeNumber is the 16-bit name of a NodeID on the wire, unique among the
// members of one cluster. Keys come from NodeIDs, so a number that is used
// again is harmless. Zero is no node.
type NodeNumber uint16

// An Incarnation counts the starts of one node's agent, from 1. A newer
// incarnation replaces an older one. It is on disk before the first datagram
// that carries it.
type Incarnation uint32

// A Boot is the random number an agent draws at each start; never zero. It is
// not the kernel's boot id.
type Boot uint32

// NewNodeID draws a NodeID from the operating system's random source.
func NewNodeID() NodeID { return NodeID(randomUUID()) }

// NewClusterID draws a ClusterID from the operating system's random source.
func NewClusterID() ClusterID { return ClusterID(randomUUID()) }

// ParseNodeID reads the form that [NodeID.String] writes.
func ParseNodeID(s string) (NodeID, error) {
	u, err := parseUUID(s)
	if err != nil {
		return NodeID{}, fmt.Errorf("node id %q: %w", s, err)
	}
	return NodeID(u), nil
}

// ParseClusterID reads the form that [ClusterID.String] writes.
func ParseClusterID(s string) (ClusterID, error) {
	u, err := parseUUID(s)
	if err != nil {
		return ClusterID{}, fmt.Errorf("cluster id %q: %w", s, err)
	}
	return ClusterID(u), nil
}

// String is the UUID form of RFC 9562, in lower case.
func (id NodeID) String() string { return formatUUID(id) }

// IsZero tells whether id names no node.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// Compare orders NodeIDs by their bytes, as ties between nodes are broken.
func (id NodeID) Compare(other NodeID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText makes a NodeID a string in JSON and YAML.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *NodeID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseNodeID(string(text))
	return err
}

// String is the UUID form of RFC 9562, in lower case.
func (id ClusterID) String() string { return formatUUID(id) }

// IsZero tells whether id names no cluster.
func (id ClusterID) IsZero() bool { return id == ClusterID{} }

// MarshalText makes a ClusterID a string in JSON and YAML.
func (id ClusterID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *ClusterID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseClusterID(string(text))
	return err
}

// randomUUID makes a version 4 UUID (RFC 9562 5.4). crypto/rand does not fail.
func randomUUID() (u [16]byte) {
	rand.Read(u[:])
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

func formatUUID(u [16]byte) string {
	var b [36]byte
	hex.Encode(b[0:8], u[0:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:36], u[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

func parseUUID(s string) (u [16]byte, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, fmt.Errorf("not a UUID: want 36 characters like %s", formatUUID(u))
	}
	compact := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(u[:], []byte(compact)); err != nil {
		return u, fmt.Errorf("not a UUID: %w", err)
	}
	return u, nil
}
