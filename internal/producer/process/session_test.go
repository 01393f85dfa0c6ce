package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/event"
)

// Between a search and pidfd_open a process may end and its number be given
// to another one. Only the start time tells.
func TestANumberThatIsUsedAgainIsNotTheSameProcess(t *testing.T) {
	t.Parallel()
	poll, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer poll.close()
	s := newSession(poll, New(), func(...event.Message) error { return nil })
	defer s.close()
	self, err := readStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	before := self
	before.start-- // found when somebody else had the number
	one := &target{subject: subject{text: "exe=/x", kind: byExe}}
	if held, err := s.hold(one, before); held || err != nil || one.held != nil {
		t.Errorf("hold of an older process with this number: %v %v, want false", held, err)
	}
	if held, err := s.hold(one, self); !held || err != nil || one.held.instance() == "" {
		t.Errorf("hold of the process itself: %v %v, want true", held, err)
	}
	s.targets[1] = one // for close
	if _, err := unix.FcntlInt(uintptr(one.held.pidfd), unix.F_GETFD, 0); err != nil {
		t.Errorf("the pidfd is not open: %v", err)
	}
}

// answers are the main processes of services.
type answers struct {
	noUnits
	pid     int
	started uint64
}

func (a *answers) Open(func()) Mains                      { return a }
func (a *answers) Main(string) (int, uint64, bool, error) { return a.pid, a.started, true, nil }

// What names a successor may be read before the poller says that the process has
// ended.
func TestAnExitIsToldBeforeItsSuccessor(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"unit", "pidfile"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			poll, err := newPoller()
			if err != nil {
				t.Fatal(err)
			}
			defer poll.close()
			var said []event.Message
			mains := &answers{}
			s := newSession(poll, New().WithUnits(mains), func(m ...event.Message) error { said = append(said, m...); return nil })
			defer s.close()
			file := filepath.Join(t.TempDir(), "pid")
			name := func(pid int) {
				mains.pid, mains.started = pid, mains.started+1
				if err := os.WriteFile(file, fmt.Appendln(nil, pid), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			subject := "unit=web.service"
			if kind == "pidfile" {
				subject = "pidfile=" + file
			}
			first := exec.Command("/bin/sleep", "600")
			if err := first.Start(); err != nil {
				t.Fatal(err)
			}
			name(first.Process.Pid)
			if err := s.watch(time.Now(), event.Watch{ID: 1, Entry: 1, Class: Class, Subject: subject}); err != nil || len(said) != 1 {
				t.Fatalf("watch: %v, %+v", err, said)
			}
			_ = first.Process.Kill()
			_ = first.Wait()
			name(os.Getpid())
			if err := s.locate(time.Now(), s.targets[1], new(shared)); err != nil || len(said) != 1 {
				t.Errorf("before the exit was told: %+v (%v), want nothing", said[1:], err)
			}
			tokens, err := poll.wait()
			if err == nil {
				err = s.ended(time.Now(), tokens)
			}
			if err != nil || len(said) != 4 {
				t.Fatalf("the exit: %+v (%v), want Post, Invalidate, Associate", said[1:], err)
			}
			_, post := said[1].(event.Post)
			_, gone := said[2].(event.Invalidate)
			if next, ok := said[3].(event.Associate); !post || !gone || !ok || !strings.HasPrefix(next.Instance, fmt.Sprint(os.Getpid(), "@")) {
				t.Errorf("%+v, want Post, Invalidate, Associate of this process", said[1:])
			}
		})
	}
}

// Systemd may still name the process whose exit was told, and somebody else may
// have the number by then.
func TestAMainProcessThatEndedIsNotFoundAgain(t *testing.T) {
	t.Parallel()
	s := newSession(nil, New(), nil)
	s.mains = &answers{pid: os.Getpid(), started: 5}
	one := &target{subject: subject{kind: byUnit, unit: "web.service"}, over: turn{os.Getpid(), 5}}
	if found, err := s.findMain(one); !errors.Is(err, belfry.ErrNoEvent) {
		t.Errorf("%+v (%v), want ErrNoEvent", found, err)
	}
	s.mains = &answers{pid: os.Getpid(), started: 6}
	if _, err := s.findMain(one); err != nil {
		t.Errorf("a new one with the same number: %v", err)
	}
}
