package transport

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newTestPoller(t *testing.T) *poller {
	t.Helper()
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.stop()
		p.close()
	})
	return p
}

// waiting runs one wait; what it gave comes through the channel.
func waiting(p *poller, until time.Time) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := p.wait(until)
		done <- err
	}()
	return done
}

func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the wait does not end")
		return nil
	}
}

func TestAWaitEndsByItsTime(t *testing.T) {
	t.Parallel()
	p := newTestPoller(t)
	for _, d := range []time.Duration{20 * time.Millisecond, 0, -time.Hour, 30 * time.Millisecond} {
		until := time.Now().Add(d)
		if err := ended(t, waiting(p, until)); err != nil {
			t.Fatal(err)
		}
		if early := time.Until(until); early > 0 {
			t.Errorf("a wait of %v ends %v early", d, early)
		}
	}
}

// The same time again is no time that is over: the timer is not set anew then.
func TestATimeThatWasInterruptedStillComes(t *testing.T) {
	t.Parallel()
	p := newTestPoller(t)
	until := time.Now().Add(50 * time.Millisecond)
	p.ring()
	for range 2 {
		if err := ended(t, waiting(p, until)); err != nil {
			t.Fatal(err)
		}
	}
	if early := time.Until(until); early > 0 {
		t.Errorf("the second wait ends %v early", early)
	}
}

// A ring is never lost, whether it comes before a wait or during it, and many
// are one.
func TestARingEndsAWaitWheneverItComes(t *testing.T) {
	t.Parallel()
	p := newTestPoller(t)
	for range 3 {
		p.ring()
	}
	if err := ended(t, waiting(p, time.Time{})); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		done := waiting(p, time.Time{})
		p.ring()
		if err := ended(t, done); err != nil {
			t.Fatal(err)
		}
	}
	done := waiting(p, time.Time{})
	select {
	case err := <-done:
		t.Errorf("a wait ends by a ring that was heard: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	p.ring()
	_ = ended(t, done)
}

func TestAStoppedPollerEndsEachWait(t *testing.T) {
	t.Parallel()
	p := newTestPoller(t)
	done := waiting(p, time.Time{})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, done); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v; want net.ErrClosed", err)
	}
	if err := ended(t, waiting(p, time.Now().Add(time.Hour))); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v of the next; want net.ErrClosed", err)
	}
	p.close()
	p.ring() // its bell is gone: nothing happens
}

// What can be read is told until it was read, and not after it was removed.
func TestADescriptorIsReadyUntilItIsRead(t *testing.T) {
	t.Parallel()
	p := newTestPoller(t)
	fd, err := unix.Eventfd(1, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := p.add(fd); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ready, err := p.wait(time.Now().Add(10 * time.Second))
		if err != nil || len(ready) != 1 || int(ready[0].Fd) != fd {
			t.Fatalf("ready %v, %v; want descriptor %d", ready, err, fd)
		}
	}
	p.remove(fd)
	if ready, err := p.wait(time.Now()); err != nil || len(ready) != 0 {
		t.Errorf("ready %v, %v after it was removed; want none", ready, err)
	}
}
