package unit_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/producer/producertest"
	"github.com/belfry-ha/belfry/internal/producer/unit"
)

// A follower waits for answers.
type follower struct {
	*unit.Mains
	t    *testing.T
	news chan struct{}
}

func follow(t *testing.T, s *unit.Systemd) follower {
	t.Helper()
	f := follower{t: t, news: make(chan struct{}, 1)}
	f.Mains = s.Open(func() {
		select {
		case f.news <- struct{}{}:
		default:
		}
	})
	t.Cleanup(f.Close)
	return f
}

// until waits for an answer.
func (f follower) until(name string, pid int, started uint64, want error) {
	f.t.Helper()
	patience := time.After(20 * time.Second)
	for {
		gotPID, gotStarted, known, err := f.Main(name)
		if known && gotPID == pid && gotStarted == started && errors.Is(err, want) && (err == nil) == (want == nil) {
			return
		}
		select {
		case <-f.news:
		case <-patience:
			f.t.Fatalf("%s: %d started %d (known %v, %v), want %d, %d, %v", name, gotPID, gotStarted, known, err, pid, started, want)
		}
	}
}

func TestTheMainProcessOfAService(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("ssh.service", "sshd.service")
	f.set("ssh.service", "active", "running", f.started, main(4711))
	m := follow(t, f.systemd())
	if _, _, known, _ := m.Main("sshd.service"); known {
		t.Error("an answer before anybody has asked")
	}
	m.Follow("sshd.service")
	m.until("sshd.service", 4711, 1, nil)
	m.Follow("none.service")
	m.until("none.service", 0, 0, belfry.ErrNoEvent)
	f.set("ssh.service", "activating", "auto-restart", main(0))
	m.until("sshd.service", 0, 1, nil)
	f.set("ssh.service", "active", "running", f.started, main(4730))
	m.until("sshd.service", 4730, 2, nil)
	f.set("ssh.service", "inactive", "dead") // which systemd forgets, with what it was
	m.until("sshd.service", 0, 0, nil)

	f.down()
	f.set("ssh.service", "active", "running", f.started, main(4750))
	m.Follow("late.service")
	m.until("late.service", 0, 0, belfry.ErrUnsupported)
	_, _, _, err := m.Main("late.service")
	if temporary, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err); !ok || !temporary.Temporary() {
		t.Errorf("%v: does not end by itself, though systemd runs", err)
	}
	f.add("late.service")
	f.listen()
	m.until("sshd.service", 4750, 3, nil)
	m.until("late.service", 0, 0, nil)
	m.Unfollow("late.service")
	if _, _, known, _ := m.Main("late.service"); known {
		t.Error("an answer for what nobody follows")
	}
}

func TestOneConnectionForAll(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.add("web.service")
	f.set("web.service", "active", "running", f.started, main(4711))
	s := f.systemd()
	d := producertest.Start(t, unit.New(s))
	watch(d, "web.service")
	associated(t, d, "active/running/success")
	m := follow(t, s)
	m.Follow("web.service")
	m.until("web.service", 4711, 1, nil)
	f.expect(1, 1)
	d.Stop()
	f.set("web.service", "active", "running", main(4712)) // the other one still has it
	m.until("web.service", 4712, 1, nil)
	m.Unfollow("web.service")
	f.expect(1, 0)
}

func TestWithoutSystemdThereIsNoMainProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := follow(t, unit.NewSystemd(unit.Options{Bus: "unix:path=" + filepath.Join(dir, "bus"), Booted: filepath.Join(dir, "system")}))
	m.Follow("web.service")
	m.until("web.service", 0, 0, belfry.ErrUnsupported)
}
