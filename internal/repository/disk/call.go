package disk

import (
	"errors"
	"fmt"
	"time"
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

	handle *handle
	limit  time.Time
	done   chan struct{} // closed when it has ended

	// The device's mutex guards these.
	ended bool
	over  bool // the deadline has passed, the caller is gone
	err   error
}

// run is begin and wait.
func (c *call) run() error {
	if err := c.begin(); err != nil {
		return err
	}
	return c.wait()
}

// together makes calls at the same time. It waits for all of them: what the
// kernel still writes to is not given back.
func together(calls []*call) error {
	var problems []error
	for i, c := range calls {
		if err := c.begin(); err != nil {
			calls, problems = calls[:i], append(problems, err)
			break
		}
	}
	for _, c := range calls {
		if err := c.wait(); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// begin starts the work, unless it is refused.
func (c *call) begin() error {
	d := c.device
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := c.refused(); err != nil {
		return err
	}
	c.done, c.limit = make(chan struct{}), time.Now().Add(d.opts.Deadline)
	var f file
	if !c.opens {
		c.handle = d.handle
		c.handle.calls++
		f = c.handle.file
	}
	go func() {
		c.end(c.work(f))
		close(c.done)
	}()
	return nil
}

// wait returns what the work returned, or errHung at the deadline.
func (c *call) wait() error {
	timer := time.NewTimer(time.Until(c.limit))
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	}
	d := c.device
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

// refused says why a call must not be made. The mutex is held.
func (c *call) refused() error {
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
	}
	return d.suspect
}

// end is called when the kernel has given the answer, in time or late.
func (c *call) end(err error) {
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
	if h := c.handle; h != nil {
		if h.calls--; h.calls == 0 && h.retired {
			_ = h.close() // whoever retired it is gone
		}
	}
	if c.buffer != nil && (c.writes || c.over) {
		c.buffer.give() // of a read in time the caller does
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
}
