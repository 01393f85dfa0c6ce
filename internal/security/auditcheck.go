package security

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
)

// An AuditSummary is what a check of the log has found in order.
type AuditSummary struct {
	First, Last uint64    // numbers of records; zero: there are none
	Signed      uint64    // number of the last checkpoint; zero: none
	At          time.Time // of the last record
	Lost        int       // records that say that others were lost
}

// CheckAudit follows the chain through the files of a state directory, with
// the public key of the node's identity, and those of the identities that it had
// there before: none of them counts any more where a later one has signed. The
// agent may be writing: an
// unfinished last line is not judged. The error names the file and the first
// line that does not fit; the summary is of all before it. It wraps
// ErrPermission for a broken chain and ErrNotFound where there is no log.
//
// What is cut off at the end, checkpoint included, shows only in a comparison
// with a number that was noted before.
func CheckAudit(dir string, key ed25519.PublicKey, former ...ed25519.PublicKey) (AuditSummary, error) {
	var sum AuditSummary
	var c chain
	signers := append([]ed25519.PublicKey{key}, former...)
	files := 0
	for i := auditFiles - 1; i >= 0; i-- {
		name := olderAudit(dir, i)
		f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return sum, fmt.Errorf("audit log: %w", err)
		}
		files++
		err = checkAuditFile(f, name, &c, &sum, &signers)
		if err = errors.Join(err, f.Close()); err != nil {
			return sum, err
		}
	}
	if files == 0 {
		return sum, &belfry.Error{Op: "doctor audit", Subject: dir, Err: fmt.Errorf("%w: no %s there; an agent writes it from its first start on", belfry.ErrNotFound, auditName)}
	}
	if sum.First > 1 && files < auditFiles { // a log loses its beginning only when it has all its files
		err := fmt.Errorf("%w: records 1 to %d are gone", errBroken, sum.First-1)
		return sum, brokenAt(dir, 1, 0, err)
	}
	return sum, nil
}

func checkAuditFile(f io.Reader, name string, c *chain, sum *AuditSummary, signers *[]ed25519.PublicKey) error {
	lines := bufio.NewReaderSize(f, maxAuditLine+1)
	for number := 1; ; number++ {
		text, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil // the rest, if any, is being written
		case errors.Is(err, bufio.ErrBufferFull):
			return brokenAt(name, number, c.n, fmt.Errorf("%w: a line of more than %d bytes", errBroken, maxAuditLine))
		case err != nil:
			return fmt.Errorf("audit log: %w", err)
		}
		text = bytes.TrimSuffix(text, newline)
		l, err := c.follow(text, sum.First != 0, signers)
		if err != nil {
			return brokenAt(name, number, c.n, err)
		}
		sum.add(l)
	}
}

// add counts a line that follow has accepted.
func (sum *AuditSummary) add(l line) {
	if sum.First == 0 {
		sum.First = l.N
	}
	sum.Last, sum.At = l.N, l.Time
	switch l.Operation {
	case opCheckpoint:
		sum.Signed = l.N
	case opLost:
		sum.Lost++
	}
}
