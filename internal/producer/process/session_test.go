package process

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

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
	s := newSession(poll, func(...event.Message) error { return nil })
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
