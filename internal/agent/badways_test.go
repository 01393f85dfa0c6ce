package agent

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A badWay is what becomes of what an agent sends to a consumer.
type badWay int

const (
	neverReads badWay = iota
	readsAByte        // each second
	dies              // in the middle of the next batch
	holds             // half of a piece of a batch, and never reads the rest
)

// ofBatch is from how many bytes on a piece is one of a batch: each notification of
// the load has a thousand, and all else that an agent sends is shorter. How much comes in
// one piece depends on how busy the machine is, so one notification is enough.
const ofBatch = 512

// A narrows is a way to an agent's socket that lets everything through until
// it is closed.
type narrows struct {
	path   string
	closed chan struct{}
	unread chan int // of holds: bytes that lie in the socket, once there are any
}

// newNarrows is narrow for the time of a test.
func newNarrows(t *testing.T, agent string, how badWay) *narrows {
	t.Helper()
	n, end, err := narrow(filepath.Join(t.TempDir(), "s"), agent, how)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	return n
}

// narrow listens at path, in front of an agent's socket, until end is called.
func narrow(path, agent string, how badWay) (n *narrows, end func(), err error) {
	n = &narrows{path: path, closed: make(chan struct{}), unread: make(chan int, 1)}
	l, err := net.Listen("unix", n.path)
	if err != nil {
		return nil, nil, err
	}
	over, cancel := context.WithCancel(context.Background())
	var copies sync.WaitGroup
	copies.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", agent)
			if err != nil {
				near.Close()
				continue
			}
			context.AfterFunc(over, func() { near.Close(); far.Close() })
			copies.Go(func() { _, _ = io.Copy(far, near) })
			copies.Go(func() { n.pass(over, near, far, how) })
		}
	})
	return n, func() {
		cancel()
		l.Close()
		copies.Wait()
	}, nil
}

// pass brings what the agent sends.
func (n *narrows) pass(over context.Context, near, far net.Conn, how badWay) {
	room := make([]byte, 4096)
	for {
		got, err := far.Read(room)
		if err != nil {
			return
		}
		select {
		case <-n.closed:
			switch how {
			case neverReads:
				<-over.Done()
				return
			case dies:
				_, _ = near.Write(room[:got/2])
				near.Close()
				far.Close()
				return
			case readsAByte:
				for i := range got {
					select {
					case <-time.After(time.Second):
					case <-over.Done():
						return
					}
					if _, err := near.Write(room[i : i+1]); err != nil {
						return
					}
				}
				continue
			case holds:
				if got < ofBatch {
					break
				}
				_, _ = near.Write(room[:got/2])
				n.unread <- waitUnread(far)
				<-over.Done()
				return
			}
		default:
		}
		if _, err := near.Write(room[:got]); err != nil {
			return
		}
	}
}

// waitUnread waits until something lies in the socket, and says how much; 0 if
// that can not be known.
func waitUnread(conn net.Conn) (bytes int) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Read(func(fd uintptr) bool {
		bytes, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		return bytes > 0
	})
	return bytes
}
