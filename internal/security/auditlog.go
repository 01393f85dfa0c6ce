package security

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Bounds of the log (security.md, Limits and Audit).
const (
	auditName       = "audit.log"
	maxAuditSize    = 64 << 20 // bytes of one file
	auditFiles      = 4        // the one written and older ones, .1 the newest
	checkpointLines = 1000
	checkpointEvery = time.Minute
	auditRetry      = time.Second // after an error of the disk
)

// AuditOptions are what an AuditLog needs.
type AuditOptions struct {
	Dir  string                // the state directory
	Sign func(m []byte) []byte // with the node's identity, Ed25519

	// Failed is told of the first error of a series, and nil when records are
	// written again. It is called by one goroutine; nil: nobody is told.
	Failed func(error)

	maxSize int64 // of one file; zero: maxAuditSize. Tests choose less.
}

// An AuditLog keeps records in files of the state directory that are chained
// by hashes and signed now and then. Records wait in memory for its own
// goroutine; while the disk is full they go on waiting, and what has no room
// is counted in a record of its own. Its methods are safe for concurrent use.
type AuditLog struct {
	opts AuditOptions
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	queue   []Record
	lost    uint64
	denials denials
	closed  bool

	// Of the goroutine that writes.
	file   *os.File
	size   int64 // of whole lines
	chain  chain
	signed uint64    // number of the last checkpoint
	since  time.Time // of the last checkpoint
	failed bool
}

// OpenAuditLog goes on where the log ended. A line that a crash left
// unfinished is cut off, which is recorded. Run has to be called for anything
// to be written.
func OpenAuditLog(opts AuditOptions) (*AuditLog, error) {
	if opts.maxSize == 0 {
		opts.maxSize = maxAuditSize
	}
	if opts.Failed == nil {
		opts.Failed = func(error) {}
	}
	l := &AuditLog{opts: opts, wake: make(chan struct{}, 1), since: time.Now()}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *AuditLog) open() error {
	name := filepath.Join(l.opts.Dir, auditName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err == nil {
		err = checkOwned(name, info, 0o077, "600")
	}
	if err == nil {
		l.file, l.size = f, info.Size()
		err = l.findEnd()
	}
	if err != nil {
		return fmt.Errorf("audit log: %w", errors.Join(err, f.Close()))
	}
	return nil
}

// findEnd reads where the chain stands. What can not be read as a record still
// counts as a line, so that the chain goes on and its check finds the place.
func (l *AuditLog) findEnd() error {
	tail, err := l.tail()
	if err != nil {
		return err
	}
	if len(tail) == 0 { // a fresh file: the chain goes on from the newest older one
		return l.findOlderEnd()
	}
	if end := bytes.LastIndexByte(tail, '\n') + 1; end < len(tail) {
		torn := len(tail) - end
		if err := l.file.Truncate(l.size - int64(torn)); err != nil {
			return err
		}
		l.size, tail = l.size-int64(torn), tail[:end]
		l.queue = append(l.queue, Record{Time: time.Now(), Operation: opTorn, Result: fmt.Sprintf("%d bytes of an unfinished line cut off", torn)})
		if len(tail) == 0 && l.size == 0 {
			return l.findOlderEnd()
		}
	}
	l.chain = chainEnd(tail)
	l.signed = l.chain.n
	return nil
}

func (l *AuditLog) tail() ([]byte, error) {
	tail := make([]byte, min(l.size, 4*maxAuditLine))
	_, err := l.file.ReadAt(tail, l.size-int64(len(tail)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return tail, err
}

func (l *AuditLog) findOlderEnd() error {
	f, err := os.Open(olderAudit(l.opts.Dir, 1))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	older := AuditLog{file: f, size: info.Size()}
	tail, err := older.tail()
	l.chain = chainEnd(tail)
	l.signed = l.chain.n
	return err
}

// chainEnd is where whole lines leave the chain.
func chainEnd(tail []byte) (c chain) {
	for text := range bytes.Lines(tail) {
		text = bytes.TrimSuffix(text, newline)
		c.n++
		if parsed, err := parseLine(text); err == nil {
			c.n = parsed.N
		}
		c.hash = sha256.Sum256(text)
	}
	return c
}

var newline = []byte{'\n'}

// Audit implements Auditor.
func (l *AuditLog) Audit(r Record) {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	r = r.clean()
	l.mu.Lock()
	if strings.HasPrefix(r.Result, ResultDenied) {
		ok, ended := l.denials.pass(r)
		l.put(ended...)
		if !ok {
			l.mu.Unlock()
			return
		}
	}
	l.put(r)
	l.mu.Unlock()
	l.ring()
}

// put queues records or counts them. l.mu is held.
func (l *AuditLog) put(records ...Record) {
	for _, r := range records {
		if l.closed || len(l.queue) >= maxAuditQueue {
			l.lost++
			continue
		}
		l.queue = append(l.queue, r)
	}
}

func (l *AuditLog) ring() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake already
	}
}

// Run writes until ctx ends, then what is left, and closes the file. An error
// means that records were lost at the end.
func (l *AuditLog) Run(ctx context.Context) error {
	timer := time.NewTicker(auditRetry)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return l.finish()
		case <-l.wake:
			if l.failed {
				continue // the timer tries again
			}
		case now := <-timer.C:
			l.endSecond(now)
		}
		l.report(l.flush(time.Now(), false))
	}
}

// endSecond writes how many denials were too many, once their second is over.
func (l *AuditLog) endSecond(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.denials.counts != nil && now.Unix() > l.denials.second {
		l.put(l.denials.end(now)...)
	}
}

func (l *AuditLog) report(err error) {
	if (err != nil) != l.failed {
		l.opts.Failed(err)
	}
	l.failed = err != nil
}

func (l *AuditLog) finish() error {
	l.mu.Lock()
	l.put(l.denials.end(time.Now())...)
	l.closed = true
	left := len(l.queue)
	l.mu.Unlock()
	err := l.flush(time.Now(), true)
	if err != nil {
		err = fmt.Errorf("%d audit records not written: %w", left, err)
	}
	return errors.Join(err, l.file.Close())
}

// flush writes all that waits, and a checkpoint where one is due. On error the
// file is as before and the records wait on.
func (l *AuditLog) flush(now time.Time, last bool) error {
	l.mu.Lock()
	waiting, lost := len(l.queue), l.lost
	batch := l.queue[:waiting:waiting]
	l.mu.Unlock()
	if lost > 0 {
		batch = append(batch, Record{Time: now, Operation: opLost, Result: strconv.FormatUint(lost, 10) + " records"})
	}
	if unsigned := l.chain.n + uint64(len(batch)) - l.signed; unsigned > 0 && (last || unsigned >= checkpointLines || now.Sub(l.since) >= checkpointEvery) {
		batch = append(batch, Record{Time: now, Operation: opCheckpoint})
	}
	if len(batch) == 0 {
		return nil
	}
	if err := l.write(batch); err != nil {
		return err
	}
	if batch[len(batch)-1].Operation == opCheckpoint {
		l.signed, l.since = l.chain.n, now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append([]Record(nil), l.queue[waiting:]...)
	l.lost -= lost
	return nil
}

// write appends the batch, durable, all or nothing.
func (l *AuditLog) write(batch []Record) error {
	replaced, err := l.findFile()
	if err != nil {
		return err
	}
	if replaced {
		batch = append([]Record{{Time: batch[0].Time, Operation: opReplaced, Result: "the file was not as it had been written"}}, batch...)
	}
	if l.size >= l.opts.maxSize {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	next := l.chain
	var buf []byte
	for _, r := range batch {
		var err error
		if buf, err = next.append(buf, r, l.opts.Sign); err != nil {
			return err
		}
	}
	_, err = l.file.WriteAt(buf, l.size)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write audit log: %w", errors.Join(err, l.file.Truncate(l.size)))
	}
	l.size += int64(len(buf))
	l.chain = next
	return nil
}

// findFile makes sure that what is written can be found: somebody may have put
// another file in the place of the log, or cut it. The chain goes on from what
// was written, so that its check finds the place.
func (l *AuditLog) findFile() (replaced bool, err error) {
	name := olderAudit(l.opts.Dir, 0)
	there, err := os.Lstat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("write audit log: %w", err)
	}
	held, heldErr := l.file.Stat()
	if err == nil && heldErr == nil && os.SameFile(there, held) && there.Size() == l.size {
		return false, nil
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return false, fmt.Errorf("write audit log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file; remove it", name)
	}
	if err != nil {
		return false, fmt.Errorf("write audit log: %w", errors.Join(err, f.Close()))
	}
	_ = l.file.Close() // nobody can find it any more
	l.file, l.size = f, info.Size()
	return true, nil
}

// rotate begins a new file. The oldest one goes.
func (l *AuditLog) rotate() error {
	for i := auditFiles - 1; i > 0; i-- {
		err := os.Rename(olderAudit(l.opts.Dir, i-1), olderAudit(l.opts.Dir, i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate audit log: %w", err)
		}
	}
	f, err := os.OpenFile(olderAudit(l.opts.Dir, 0), os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("rotate audit log: %w", err)
	}
	old := l.file
	l.file, l.size = f, 0
	if err := errors.Join(old.Close(), syncDir(l.opts.Dir)); err != nil {
		return fmt.Errorf("rotate audit log: %w", err)
	}
	return nil
}

// olderAudit is the file that was rotated away i times.
func olderAudit(dir string, i int) string {
	if i == 0 {
		return filepath.Join(dir, auditName)
	}
	return filepath.Join(dir, auditName+"."+strconv.Itoa(i))
}
