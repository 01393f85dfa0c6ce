package adapter_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A machine is the network namespace of a test that runs alone.
type machine struct{ t *testing.T }

// pair are two interfaces, each the other end of the other.
func pair(name, other string) string {
	return fmt.Sprintf("link add %s type veth peer name %s", name, other)
}

// ip runs commands of ip(8), without the first word.
func (m machine) ip(commands ...string) {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	if output, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("ip: %v\n%s\n%s", err, strings.Join(commands, "\n"), output)
	}
}

// storm does two things more often than the kernel keeps the news of, and the
// second last: that ends as it began, after what was lost.
func (m machine) storm(do, undo string) {
	m.t.Helper()
	var all []string
	for range 2000 {
		all = append(all, do, undo)
	}
	m.ip(all...)
}

// show is an interface in the words of ip(8); empty: there is none.
func (m machine) show(name string) string {
	output, err := exec.CommandContext(m.t.Context(), "ip", "-o", "address", "show", name).Output()
	if err != nil {
		return ""
	}
	link, err := exec.CommandContext(m.t.Context(), "ip", "-o", "link", "show", name).Output()
	if err != nil {
		return ""
	}
	return string(link) + string(output)
}

// until waits for a text in the description of an interface.
func (m machine) until(name, text string) {
	m.t.Helper()
	limit, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(m.show(name), text) {
		select {
		case <-tick.C:
		case <-limit:
			m.t.Fatalf("%s has no %q after 10 s: %s", name, text, m.show(name))
		}
	}
}

// restore calls again if t1 is not there, else gives it its address.
func (m machine) restore(again func()) {
	m.t.Helper()
	if m.show("t1") == "" {
		again()
	} else {
		m.ip("address replace 10.1.0.1/24 dev t1")
	}
}
