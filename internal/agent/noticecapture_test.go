package agent

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/wire"
)

// A tap has all datagrams to one address of this machine, as they came.
type tap struct {
	t    *testing.T
	fd   int
	mu   sync.Mutex
	seen [][]byte // UDP payloads
	end  chan struct{}
	done chan struct{}
}

func newTap(t *testing.T, address [4]byte) *tap {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs: root")
	}
	if err == nil {
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: address}),
		)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{t: t, fd: fd, end: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	t.Cleanup(p.stop)
	return p
}

func (p *tap) run() {
	defer close(p.done)
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(p.fd, buffer, 0)
		if err == nil && n > 28 {
			header := int(buffer[0]&0x0f) * 4 // RFC 791 3.1, then 8 bytes of UDP
			p.mu.Lock()
			p.seen = append(p.seen, bytes.Clone(buffer[header+8:n]))
			p.mu.Unlock()
		}
		select {
		case <-p.end:
			return
		default:
		}
	}
}

func (p *tap) stop() {
	select {
	case <-p.end:
	default:
		close(p.end)
		<-p.done
		_ = unix.Close(p.fd)
	}
}

// all is what has arrived until now: from when the kernel holds no more of it, and
// the one that was just read is here, because another one is.
func (p *tap) all() [][]byte {
	p.t.Helper()
	deadline, least := time.Now().Add(20*time.Second), -1
	for ; time.Now().Before(deadline); time.Sleep(time.Millisecond) { //nolint:forbidigo // of a goroutine that waits in the kernel
		p.mu.Lock()
		seen := slices.Clone(p.seen)
		p.mu.Unlock()
		switch held, err := unix.IoctlGetInt(p.fd, unix.SIOCINQ); {
		case err != nil:
			p.t.Fatal(err)
		case least < 0 && held == 0:
			least = len(seen) + 2
		case least > 0 && len(seen) >= least:
			return seen
		}
	}
	p.t.Fatal("no heartbeat for 20 s")
	return nil
}

// TestCapturedNoticesCarryIdentifiersOnly opens all datagrams that a member got
// while the configuration was changed, with that member's own keys: what tells of
// the change is 81 bytes of identifiers, and no piece of the document is in any.
func TestCapturedNoticesCarryIdentifiersOnly(t *testing.T) { // C1
	t.Parallel()
	m := machines(t, 2)
	tapped := newTap(t, m[1].Addresses[0].Addr().As4())
	formedOnFile(t, m)
	marker := "a-marker-that-is-nowhere-else"
	_, generation, err := m[0].agent.commit(t.Context(), func(t *Table) error {
		t.Roles = append(t.Roles, security.Grant{Subjects: []string{"client:" + marker}, Role: "reader"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m[1].waitGeneration(t, generation)
	held := m[1].agent.storage.held()
	document := held.encoded(t)
	if !bytes.Contains(document, []byte(marker)) {
		t.Fatal("the change is not in the document")
	}
	want := repository.Notice{
		Kind: repository.NoticeConfiguration, Cluster: held.Document.Cluster.UUID, Repository: held.Repository, Epoch: held.Epoch, Generation: generation, Digest: held.Digest,
	}
	endpoint, err := wire.New(m[1].agent.wireConfig(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var members []wire.Member
	for _, n := range held.table.Nodes {
		members = append(members, wire.Member{ID: n.ID, Number: n.Number})
	}
	if err := endpoint.SetMembers(members); err != nil {
		t.Fatal(err)
	}
	pieces := map[string]bool{} // of the document
	const piece = 24
	for i := range len(document) - piece {
		pieces[string(document[i:i+piece])] = true
	}
	told, opened, all := 0, 0, tapped.all()
	for _, datagram := range all {
		if bytes.Contains(datagram, []byte(marker[:piece])) {
			t.Error("a datagram has the change in the clear")
		}
		got, reason := endpoint.Open(time.Now(), datagram, nil)
		if reason != wire.Accepted {
			continue
		}
		opened++
		plain := fmt.Appendf(nil, "%+v", got.Body)
		if n, ok := got.Body.(*wire.Notice); ok {
			plain = append(plain, n.Data...)
			if notice, err := repository.DecodeNotice(n.Data); err == nil && notice == want {
				told++
			}
			if len(n.Data) != repository.NoticeSize {
				t.Errorf("a notice of %d bytes; want %d", len(n.Data), repository.NoticeSize)
			}
		}
		for i := 0; i+piece <= len(plain); i++ {
			if pieces[string(plain[i:i+piece])] {
				t.Errorf("%T has a piece of the document: %q", got.Body, plain[i:i+piece])
				break
			}
		}
	}
	if told == 0 || 2*opened < len(all) {
		t.Errorf("of %d datagrams %d were opened, and %d told of generation %d", len(all), opened, told, generation)
	}
}
