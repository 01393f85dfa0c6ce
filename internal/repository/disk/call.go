package disk

import (
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/belfry-ha/belfry/internal/repository"
)

// A call is one system call, in a goroutine of its own: the kernel can not be
// told to give up on it.
type call struct {
	device *Device
	buffer *buffer // that the kernel may still use after the deadline
	writes bool    // a write or a flush
	opens  bool    // opens the path: has no handle yet
	work   func(file) error
	late   func() // if it ends after its deadline; may be nil

	// The device's mutex guards these.
	ended bool
	over  bool // the deadline has passed, the caller is gone
	err   error
}

// run returns what the work returned, or errHung at the deadline.
func (c *call) run(h *handle) error {
	d := c.device
	d.mu.Lock()
	if err := c.refused(h); err != nil {
		d.mu.Unlock()
		return err
	}
	if h != nil {
		h.calls++
	}
	d.mu.Unlock()

	done := make(chan struct{})
	go func() {
		defer close(done)
		if c.opens {
			c.end(nil, c.work(nil))
			return
		}
		c.end(h, c.work(h.file))
	}()
	timer := time.NewTimer(d.opts.Deadline)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if c.ended {
		return c.err
	}
	c.over = true
	d.stuck++
	if c.writes {
		d.hung++
	}
	return errHung
}

// refused says why a call must not be made.
func (c *call) refused(h *handle) error {
	d := c.device
	switch {
	case d.closed:
		return errClosed
	case d.stuck >= maxStuck:
		return errLost
	case d.hung > 0 && (c.writes || c.opens):
		return errWaiting
	case c.opens:
		return nil
	case h.retired: // reopened just now
		return errSuspect
	}
	return d.suspect
}

// end is called when the kernel has given the answer, in time or late.
func (c *call) end(h *handle, err error) {
	d := c.device
	d.mu.Lock()
	defer d.mu.Unlock()
	c.ended, c.err = true, err
	if !c.opens && (err != nil || c.over && c.writes) && d.suspect == nil {
		d.suspect = errSuspect
		if err != nil {
			d.suspect = fmt.Errorf("%w: %w", errSuspect, err)
		}
	}
	if h != nil {
		if h.calls--; h.calls == 0 && h.retired {
			_ = h.close() // whoever retired it is gone
		}
	}
	if !c.over {
		return
	}
	d.stuck--
	if c.writes {
		d.hung--
	}
	if c.late != nil {
		c.late()
	}
	if d.closed && d.hung == 0 {
		_ = d.unlock() // as Close would have
	}
	if c.buffer != nil {
		c.buffer.give()
	}
}

// A buffer is memory as direct I/O wants it: aligned (open(2)). The caller's own
// is never given to the kernel, which may use it long after the deadline.
type buffer struct {
	memory []byte
	bytes  []byte
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func take(size int) *buffer {
	b := buffers.Get().(*buffer)
	if cap(b.memory) < size+repository.BlockSize {
		b.memory = make([]byte, size+repository.BlockSize)
	}
	b.memory = b.memory[:cap(b.memory)]
	skip := 0
	if over := int(uintptr(unsafe.Pointer(&b.memory[0])) % repository.BlockSize); over > 0 {
		skip = repository.BlockSize - over
	}
	b.bytes = b.memory[skip : skip+size]
	return b
}

func (b *buffer) give() { buffers.Put(b) }
