// Package wire is the form of datagrams between agents: the bodies, and the
// frame that seals them with AES-256-GCM, keeps replays out and ties them to
// one start of each side (cluster.md 3).
//
// There is no unsealed form and no switch for one. [Endpoint] holds the state
// of one agent; [AppendBody] and [DecodeBody] are the codec beneath it. The
// package is pure: no clock, lock, socket or randomness. Little endian
// throughout; where two fields share a byte or a word, the first has the low
// bits. DESIGN.md argues the parts that are not obvious.
package wire
