package producertest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// aloneKey is the environment variable that names the test which runs alone.
const aloneKey = "BELFRY_TEST_ALONE"

// Alone tells a test to go on if its process has a network namespace of its
// own, in which there is nothing but lo, set down. Else it runs that test alone
// once more in one, fails or is skipped as that does, and answers false. Where
// that is not allowed the test is skipped. The test must not be parallel.
func Alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(aloneKey) == t.Name() {
		return true
	}
	arguments := []string{"-test.v", "-test.run", "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"}
	if testing.Short() {
		arguments = append(arguments, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], arguments...)
	// With -race every process would sleep a second when it ends.
	cmd.Env = append(os.Environ(), aloneKey+"="+t.Name(), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skipf("needs: netns (%v)", err)
	case err == nil && strings.Contains(string(out), fmt.Sprintf("--- SKIP: %s ", t.Name())):
		t.Skip(string(out))
	case err != nil || !strings.Contains(string(out), fmt.Sprintf("--- PASS: %s ", t.Name())):
		t.Errorf("in a network namespace: %v\n%s", err, out)
	default:
		t.Logf("in a network namespace:\n%s", out)
	}
	return false
}
