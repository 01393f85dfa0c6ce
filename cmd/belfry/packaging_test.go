package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/security"
)

// packagingDir holds what distributions need.
var packagingDir = filepath.Join("..", "..", "packaging")

func readPackaging(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(packagingDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// value is what a line KEY=VALUE of the unit says, the last one if there are
// more.
func value(unit, key string) (v string) {
	for line := range strings.Lines(unit) {
		if rest, ok := strings.CutPrefix(line, key+"="); ok {
			v = strings.TrimSpace(rest)
		}
	}
	return v
}

// TestUnitMakesTheFoldersOfTheDefaults: else the agent, which may write nowhere
// else, finds neither state nor a place for its socket.
func TestUnitMakesTheFoldersOfTheDefaults(t *testing.T) {
	t.Parallel()
	unit, settings := readPackaging(t, "belfry.service"), config.Default()
	if got, want := "/var/lib/"+value(unit, "StateDirectory"), settings.State; got != want {
		t.Errorf("StateDirectory is %s, the default of state %s", got, want)
	}
	if got, want := "/run/"+value(unit, "RuntimeDirectory"), filepath.Dir(settings.Socket.Path); got != want {
		t.Errorf("RuntimeDirectory is %s, the default socket is in %s", got, want)
	}
	if got := value(unit, "Group"); got != settings.Socket.Group {
		t.Errorf("Group is %s, the default of socket.group %s", got, settings.Socket.Group)
	}
}

// TestUnitRestartsAllButWhatIsNoMember: 2 must not be there, because a panic
// ends a program with it.
func TestUnitRestartsAllButWhatIsNoMember(t *testing.T) {
	t.Parallel()
	unit := readPackaging(t, "belfry.service")
	if got, want := value(unit, "RestartPreventExitStatus"), strconv.Itoa(exitNotNow); got != want {
		t.Errorf("RestartPreventExitStatus is %q, want %s: not a member", got, want)
	}
	if got := value(unit, "Restart"); got != "on-failure" {
		t.Errorf("Restart is %q, want on-failure", got)
	}
}

func TestSysusersHasTheUnitsUserAndTheGroupsWithRights(t *testing.T) {
	t.Parallel()
	unit := readPackaging(t, "belfry.service")
	var users, groups []string
	for line := range strings.Lines(readPackaging(t, "belfry.sysusers")) {
		switch f := strings.Fields(line); f[0] {
		case "u": // makes a group of that name as well (sysusers.d(5))
			users, groups = append(users, f[1]), append(groups, f[1])
		case "g":
			groups = append(groups, f[1])
		}
	}
	if diff := cmp.Diff([]string{value(unit, "User")}, users); diff != "" {
		t.Errorf("users (-unit +sysusers):\n%s", diff)
	}
	if diff := cmp.Diff([]string{security.ReaderGroup, security.OperatorGroup}, groups); diff != "" {
		t.Errorf("groups (-with rights +sysusers):\n%s", diff)
	}
}

// unitThatRuns is the unit with this program in the place of the installed one.
func unitThatRuns(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs: systemd-analyze")
	}
	program, err := exec.LookPath("belfry")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "belfry.service")
	text := strings.ReplaceAll(readPackaging(t, "belfry.service"), "/usr/bin/belfry", program)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUnitIsValid(t *testing.T) {
	t.Parallel()
	// The manual pages are not installed here.
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", unitThatRuns(t)).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestUnitIsClosed: an exposure of at most 4.0, in systemd's own measure.
func TestUnitIsClosed(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=40", "--no-pager", unitThatRuns(t)).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}
