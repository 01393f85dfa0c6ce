package process

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/belfry-ha/belfry/internal/event"
)

func needsConnector(t *testing.T) {
	t.Helper()
	if err := Connector(); err != nil {
		t.Skipf("needs: proc-connector (%v)", err)
	}
}

func TestWhatTheConnectorSays(t *testing.T) {
	t.Parallel()
	const header = "4c0000000300000000000000000000000100000001000000070000000800000028000000"
	for _, test := range []struct {
		name, data string
		want       execution
		ok         bool
	}{
		{"an answer", header + "0000000000000000e9dd7c252b10000001000000" + strings.Repeat("0", 40), execution{what: eventNone, answers: 8, first: 1}, true},
		{"an execution", header + "0200000000000000e9dd7c252b1000001918000018180000" + strings.Repeat("0", 32), execution{what: eventExec, answers: 8, first: 0x1819, pid: 0x1818}, true},
		{"a short one", header + "0200000000000000e9dd7c252b10000019180000", execution{}, false},
		{"of another connector", strings.Replace(header, "0100000001000000", "0200000001000000", 1) + strings.Repeat("0", 80), execution{}, false},
		{"nothing", "", execution{}, false},
	} {
		b, err := hex.DecodeString(test.data)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := parseExecution(b); ok != test.ok || got != test.want {
			t.Errorf("%s: %+v %v, want %+v %v", test.name, got, ok, test.want, test.ok)
		}
	}
}

// What the kernel could not keep may have been what was waited for.
func TestAfterAnOverrunTheNextCountIsALowerBound(t *testing.T) {
	needsConnector(t)
	poll, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer poll.close()
	var said []event.Message
	p := New()
	p.connect = func() (*connector, error) { return openConnector(1) } // the least there is
	s := newSession(poll, p, func(m ...event.Message) error { said = append(said, m...); return nil })
	defer s.close()
	path := filepath.Join(t.TempDir(), "sleep")
	b, err := os.ReadFile("/bin/sleep")
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err == nil {
		err = s.watch(time.Now(), event.Watch{ID: 1, Entry: 1, Class: Class, Subject: "exe=" + path, Wait: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // nobody reads what is said of them
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		c := exec.Command(path, "600")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); s.targets[1].held == nil && time.Now().Before(deadline); {
			tokens, err := poll.wait()
			if err == nil {
				err = s.ended(time.Now(), tokens)
			}
			if err == nil {
				err = s.advance(time.Now())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_ = c.Process.Kill()
		_ = c.Wait()
		for deadline := time.Now().Add(10 * time.Second); s.targets[1].held != nil && time.Now().Before(deadline); {
			tokens, err := poll.wait()
			if err == nil {
				err = s.ended(time.Now(), tokens)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	var bounds []bool
	for _, m := range said {
		if post, ok := m.(event.Post); ok {
			bounds = append(bounds, post.Occurrence.LowerBound)
		}
	}
	if fmt.Sprint(bounds) != "[true false]" {
		t.Errorf("lower bounds %v, want the first count only, of %+v", bounds, said)
	}
}

// The connector speaks in the first namespaces only, and elsewhere says nothing.
func TestOutsideTheFirstNamespacesTheReasonIsSaid(t *testing.T) {
	if os.Getenv("BELFRY_TEST_CONNECTOR") != "" {
		fmt.Println("reason:", Connector())
		return
	}
	t.Parallel()
	for name, flags := range map[string]uintptr{"user": syscall.CLONE_NEWUSER, "pid": syscall.CLONE_NEWPID} {
		c := exec.Command(os.Args[0], "-test.run", "^TestOutsideTheFirstNamespaces")
		c.Env = append(os.Environ(), "BELFRY_TEST_CONNECTOR=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		out, err := c.CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Skipf("needs: namespaces (%v)", err)
		}
		if want := "reason: the agent is not in the machine's first " + name + " namespace"; !strings.Contains(string(out), want) {
			t.Errorf("%s (%v), want %q", out, err, want)
		}
	}
}
