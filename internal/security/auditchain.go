package security

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
)

// A line is what stands in the file. Its order of fields is the file's.
type line struct {
	N          uint64    `json:"n"` // from 1
	Time       time.Time `json:"time"`
	Subject    string    `json:"subject"`
	Role       string    `json:"role"`
	Right      string    `json:"right"`
	Operation  string    `json:"operation"`
	Target     string    `json:"target"`
	Generation uint64    `json:"generation"`
	Result     string    `json:"result"`
	Signature  string    `json:"signature,omitempty"` // of checkpoints: hex, Ed25519 over checkpointText
	Prev       string    `json:"prev"`                // hex, SHA-256 of the line before without its newline; of the first: zeros
}

// maxAuditLine is above the longest line: six texts of 256 bytes, of which
// JSON makes at most six times as many.
const maxAuditLine = 16 << 10

// A chain is where a log stands: the number and hash of its last line.
type chain struct {
	n    uint64
	hash [sha256.Size]byte
}

// append encodes the record as the next line, newline included.
func (c *chain) append(buf []byte, r Record, sign func([]byte) []byte) ([]byte, error) {
	l := line{
		N: c.n + 1, Time: r.Time.UTC(), Subject: r.Subject, Role: r.Role, Right: r.Right, Operation: r.Operation,
		Target: r.Target, Generation: r.Generation, Result: r.Result, Prev: hex.EncodeToString(c.hash[:]),
	}
	if r.Operation == opCheckpoint {
		l.Signature = hex.EncodeToString(sign(checkpointText(l.N, c.hash)))
	}
	text, err := json.Marshal(l)
	if err != nil {
		return buf, fmt.Errorf("audit: %w", err)
	}
	c.n, c.hash = l.N, sha256.Sum256(text)
	return append(append(buf, text...), '\n'), nil
}

// checkpointText is what a checkpoint signs: its number and the hash of the
// line before, which stands for all before.
func checkpointText(n uint64, prev [sha256.Size]byte) []byte {
	text := binary.BigEndian.AppendUint64([]byte("belfry-audit-v1\x00"), n)
	return append(text, prev[:]...)
}

// errBroken is in every error of a line that does not fit.
var errBroken = errors.New("the chain is broken")

// follow checks that text is the next line. started is false for the first
// line that is left: if older files are gone, nothing is known before it.
func (c *chain) follow(text []byte, started bool, signers *[]ed25519.PublicKey) (line, error) {
	l, err := parseLine(text)
	if err != nil {
		return l, err
	}
	prev, err := hex.DecodeString(l.Prev)
	switch {
	case err != nil || len(prev) != sha256.Size:
		return l, fmt.Errorf("%w: prev is no SHA-256", errBroken)
	case started && l.N != c.n+1:
		return l, fmt.Errorf("%w: number %d follows %d", errBroken, l.N, c.n)
	case started && !bytes.Equal(prev, c.hash[:]), l.N == 1 && !bytes.Equal(prev, make([]byte, sha256.Size)):
		return l, fmt.Errorf("%w: the line before is not the one that was written", errBroken)
	case l.Operation == opCheckpoint:
		signature, err := hex.DecodeString(l.Signature)
		signed := func(key ed25519.PublicKey) bool {
			return ed25519.Verify(key, checkpointText(l.N, [sha256.Size]byte(prev)), signature)
		}
		by := slices.IndexFunc(*signers, signed)
		if err != nil || by < 0 {
			return l, fmt.Errorf("%w: the checkpoint is not signed by this node", errBroken)
		}
		if by == 0 { // the present identity
			*signers = (*signers)[:1]
		}
	}
	c.n, c.hash = l.N, sha256.Sum256(text)
	return l, nil
}

// parseLine accepts only what append writes, to the byte.
func parseLine(text []byte) (l line, err error) {
	if len(text) > maxAuditLine {
		return l, fmt.Errorf("%w: a line of more than %d bytes", errBroken, maxAuditLine)
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return l, fmt.Errorf("%w: not a record: %w", errBroken, err)
	}
	again, err := json.Marshal(l)
	if err != nil || !bytes.Equal(again, text) {
		return l, fmt.Errorf("%w: not in the form that is written", errBroken)
	}
	if l.N == 0 {
		return l, fmt.Errorf("%w: number 0", errBroken)
	}
	return l, nil
}

// brokenAt names the place; it wraps ErrPermission, because somebody has
// changed what nobody may.
func brokenAt(name string, lineNumber int, n uint64, err error) error {
	return &belfry.Error{Op: "doctor audit", Subject: name, Err: fmt.Errorf(
		"%w: line %d, after record %d: %w; compare with a copy, and find out who can write to the state directory",
		belfry.ErrPermission, lineNumber, n, err)}
}
