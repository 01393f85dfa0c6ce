package client

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

// A holder is a TCP service that says nothing.
func holder(t *testing.T, host string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	return l.Addr().String()
}

// dialling is a dialer whose witness says what the test does. told returns when the
// dialer has taken it.
func dialling(t *testing.T) (d *ResourceDialer, told func(WitnessEvent)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &Witness{events: make(chan WitnessEvent), done: make(chan struct{}), cancel: cancel, err: net.ErrClosed}
	go func() {
		<-ctx.Done()
		close(w.done)
	}()
	d = newResourceDialer(w, "service/db")
	t.Cleanup(d.Close)
	return d, func(e WitnessEvent) {
		w.events <- e
		w.events <- WitnessEvent{Kind: WitnessAt} // which it takes when it is done with the other
	}
}

// usable is a change to a state of the whole, and of the holder in use.
func usable(state, at belfry.ResourceState, addresses ...string) WitnessEvent {
	return WitnessEvent{Kind: WitnessChange, Change: belfry.ResourceChange{
		Resource: "service/db", HasAt: true, Level: belfry.ResourceLevel{State: state, At: at}, Addresses: addresses,
	}}
}

func dial(t *testing.T, d *ResourceDialer) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", "db:1")
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// works tells whether a connection waits for its server.
func works(t *testing.T, conn net.Conn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return false
	}
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// ended is why a connection has ended.
func ended(t *testing.T, conn net.Conn) error {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

const (
	available   = belfry.ResourceAvailable
	unavailable = belfry.ResourceUnavailable
	unknown     = belfry.ResourceUnknown
)

// W5: the failure of the holder ends the connections to it, and those only; the next
// one goes to where the resource is then.
func TestAFailedHolderEndsItsConnections(t *testing.T) {
	t.Parallel()
	d, told := dialling(t)
	b, c := holder(t, "127.0.0.1"), holder(t, "127.0.0.1")
	told(usable(available, available, b, c))
	toB := dial(t, d)
	if toB.RemoteAddr().String() != b {
		t.Errorf("connected to %s; the best is %s", toB.RemoteAddr(), b)
	}
	told(usable(available, unavailable, c))
	if err := ended(t, toB); !errors.Is(err, belfry.ErrResourceUnavailable) {
		t.Errorf("the connection to b ended with %v", err)
	}
	if _, err := toB.Write([]byte("x")); !errors.Is(err, belfry.ErrResourceUnavailable) {
		t.Errorf("writing to b: %v", err)
	}
	toC := dial(t, d)
	if toC.RemoteAddr().String() != c {
		t.Errorf("connected to %s; only %s is left", toC.RemoteAddr(), c)
	}
	told(usable(available, available, b, c))
	if !works(t, toC) {
		t.Error("the connection to c ended when b came back")
	}
	told(usable(unavailable, unavailable))
	if err := ended(t, toC); !errors.Is(err, belfry.ErrResourceUnavailable) {
		t.Errorf("the connection to c ended with %v", err)
	}
}

// A doubt ends nothing: neither of the whole, nor of the holder in use where another
// one is certain. New connections go to that one.
func TestADoubtEndsNoConnection(t *testing.T) {
	t.Parallel()
	d, told := dialling(t)
	b, c := holder(t, "127.0.0.2"), holder(t, "127.0.0.3")
	told(usable(available, available, b, "127.0.0.4:1"))
	toB := dial(t, d)
	whole := usable(unknown, unknown)
	whole.Change.HasAt = false // it has not heard yet what is used
	told(whole)
	if !works(t, toB) {
		t.Error("a doubt of the whole ended the connection")
	}
	told(usable(available, unknown, c))
	if !works(t, toB) {
		t.Error("a doubt of the holder ended the connection")
	}
	if next, _, _ := d.target("1"); next != c {
		t.Errorf("the next connection goes to %s; %s is certain", next, c)
	}
	if len(d.usable) != 2 {
		t.Errorf("usable at %v; what is neither certain nor in use is not", d.usable)
	}
}

// W8: a move ends the connections elsewhere, and new ones go there, also while its
// service has not been heard of; a failure there ends the move.
func TestAMoveHoldsWhileItsHolderIsInDoubt(t *testing.T) {
	t.Parallel()
	d, told := dialling(t)
	b, c := holder(t, "127.0.0.2"), holder(t, "127.0.0.3")
	told(usable(available, available, c))
	toC := dial(t, d)
	told(WitnessEvent{Kind: WitnessMove, Change: belfry.ResourceChange{Move: &belfry.Move{ID: "m", To: []string{"b"}}}})
	if !works(t, toC) {
		t.Error("a move to nobody knows where ended the connection")
	}
	told(WitnessEvent{Kind: WitnessMove, Change: belfry.ResourceChange{Move: &belfry.Move{ID: "m", To: []string{"b"}, Addresses: []string{b}}}})
	if err := ended(t, toC); !errors.Is(err, belfry.ErrResourceMoved) {
		t.Errorf("the connection to c ended with %v", err)
	}
	toB := dial(t, d)
	if host, _, _ := net.SplitHostPort(b); toB.RemoteAddr().String() != b || d.witness.at != host {
		t.Errorf("connected to %s, and the witness is told %q; want %s", toB.RemoteAddr(), d.witness.at, b)
	}
	told(usable(available, unknown, c))
	if again := dial(t, d); !works(t, toB) || again.RemoteAddr().String() != b {
		t.Errorf("the move is undone by a doubt: connected to %s", again.RemoteAddr())
	}
	told(usable(available, unavailable, c))
	if err := ended(t, toB); !errors.Is(err, belfry.ErrResourceMoved) && !errors.Is(err, belfry.ErrResourceUnavailable) {
		t.Errorf("the connection to b ended with %v", err)
	}
	if next := dial(t, d); next.RemoteAddr().String() != c {
		t.Errorf("connected to %s; only %s is left", next.RemoteAddr(), c)
	}
}

func TestADialerWaitsForItsResource(t *testing.T) {
	t.Parallel()
	d, told := dialling(t)
	b := holder(t, "127.0.0.1")
	short, cancel := context.WithCancel(t.Context())
	refused := make(chan error, 1)
	go func() {
		_, err := d.DialContext(short, "tcp", "db:1")
		refused <- err
	}()
	told(usable(unavailable, unavailable))
	cancel()
	if err := <-refused; !errors.Is(err, belfry.ErrResourceUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("given up with %v", err)
	}
	if _, err := d.DialContext(t.Context(), "tcp", "db"); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("an address without a port: %v", err)
	}
	got := make(chan net.Conn, 1)
	go func() { got <- dial(t, d) }()
	told(usable(available, available, b))
	conn := <-got
	if !works(t, conn) {
		t.Error("the connection does not work")
	}
	d.Close()
	if err := ended(t, conn); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close it ended with %v", err)
	}
	if _, err := d.DialContext(t.Context(), "tcp", "db:1"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dialled after Close: %v", err)
	}
}

// What was connected while its holder failed is no connection: nobody would end it.
func TestAHolderThatFailedWhileItWasDialledIsNotKept(t *testing.T) {
	t.Parallel()
	d, told := dialling(t)
	b := holder(t, "127.0.0.1")
	told(usable(available, available, b))
	conn, err := net.Dial("tcp", b)
	if err != nil {
		t.Fatal(err)
	}
	told(usable(unavailable, unavailable))
	if _, ok := d.keep(conn, b, "1"); ok {
		t.Error("it is kept")
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		t.Errorf("it is open: %v", err)
	}
}
