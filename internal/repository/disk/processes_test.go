package disk

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/repositorytest"
)

// workerVariable makes the test binary one agent: "PATH HOST INCARNATION".
const workerVariable = "BELFRY_DISK_WORKER"

func TestMain(m *testing.M) {
	if text := os.Getenv(workerVariable); text != "" {
		if err := work(strings.Fields(text)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// work updates until it is killed, or until its input ends, and says what was
// acknowledged: the generation, and the digest of the document.
func work(args []string) error {
	host, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	incarnation, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	cfg := hostConfig(args[0], host, incarnation)
	cfg.Repository.Slots = func([]byte) int { return 8 }
	h, err := OpenHost(cfg)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // the test is gone
	}()
	for n := 1; ; n++ {
		<-time.After(time.Duration(rand.IntN(40)) * time.Millisecond) // else they preempt each other most of the time
		if err := workOnce(h, opID(host+1, incarnation<<12|n)); err != nil {
			return err
		}
	}
}

func workOnce(h *Host, op repository.OpID) error {
	base, err := h.Poll()
	if errors.Is(err, repository.Undecided) {
		base, err = h.Load()
	}
	for err == nil {
		doc := append(slices.Clone(base.Document), op[:]...)
		var v repository.Version
		v, err = h.CAS(base.Version, doc, op)
		switch {
		case err == nil:
			// An earlier attempt may have happened on another base: what is
			// acknowledged is what the version says.
			fmt.Println("acknowledged", v.Generation, v.Digest)
		case errors.Is(err, belfry.ErrUnknown), errors.Is(err, repository.Preempted):
			err = nil // the same again
			continue
		case errors.Is(err, belfry.ErrConflict):
			return nil
		}
		break
	}
	if errors.Is(err, repository.Preempted) || errors.Is(err, repository.Undecided) {
		return nil
	}
	return err
}

// An agent is a process, and what it has acknowledged.
type agent struct {
	*exec.Cmd
	input io.Closer
	done  chan struct{} // closed when all that it said was read
}

// acknowledged is what all agents have said, in the order in which it was read.
type acknowledged struct {
	mu   sync.Mutex
	all  map[uint64]string // digest by generation
	odd  []string
	said int
}

func (a *acknowledged) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.said
}

func (a *acknowledged) line(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var generation uint64
	var digest string
	if _, err := fmt.Sscanf(text, "acknowledged %d %s", &generation, &digest); err != nil || len(digest) < 64 {
		if strings.HasPrefix(text, "error") || err == nil && len(digest) > 64 {
			a.odd = append(a.odd, text)
		}
		return // or it was killed in the middle of the line
	}
	a.said++
	if before, ok := a.all[generation]; ok && before != digest {
		a.odd = append(a.odd, fmt.Sprintf("generation %d was acknowledged as %s and as %s", generation, before, digest))
	}
	a.all[generation] = digest
}

func startAgent(t *testing.T, path string, host, incarnation int, said *acknowledged) *agent {
	t.Helper()
	a := &agent{Cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	a.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", workerVariable, path, host, incarnation))
	a.Stderr = os.Stderr
	var err error
	if a.input, err = a.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := a.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(a.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			said.line(lines.Text())
		}
	}()
	return a
}

// kill ends it as a power cut of its machine does not: what it has given to the
// kernel stays. Its slot is free when it is gone.
func (a *agent) kill() {
	_ = a.Process.Signal(unix.SIGKILL)
	<-a.done
	_ = a.Wait() // it was killed
}

// Invariant 1 with real processes: four to eight agents on one device are
// killed and paused at any time.
func TestKilledProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	for _, on := range []struct {
		name string
		path func(t *testing.T) string
	}{
		{"File", func(t *testing.T) string { return newFile(t, roomy()) }},
		{"Loop", func(t *testing.T) string {
			l := newLoop(t, roomy().Size())
			format(t, l.path, roomy())
			return l.path
		}},
	} {
		t.Run(on.name, func(t *testing.T) {
			t.Parallel()
			kills, limit := 30, 10*time.Second
			switch {
			case os.Getenv("BELFRY_SOAK") != "":
				kills, limit = 1000, time.Hour
			case testing.Short():
				limit = 3 * time.Second
			}
			killAll(t, on.path(t), kills, limit)
		})
	}
}

// roomy has payload slots for as many updates as are made.
func roomy() repository.Layout { return repository.DefaultLayout(8, 4<<20) }

func killAll(t *testing.T, path string, kills int, limit time.Duration) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	said := &acknowledged{all: map[uint64]string{}}
	agents := make([]*agent, 4+rng.IntN(5))
	starts := 2
	for i := range agents {
		agents[i] = startAgent(t, path, i, starts, said)
	}
	end := time.After(limit)
	killed := 0
loop:
	for killed < kills {
		select {
		case <-time.After(time.Duration(50+rng.IntN(400)) * time.Millisecond):
		case <-end:
			break loop
		}
		i := rng.IntN(len(agents))
		switch a := agents[i]; rng.IntN(8) {
		case 0:
			_ = a.Process.Signal(unix.SIGSTOP)
		case 1:
			_ = a.Process.Signal(unix.SIGCONT)
		default:
			a.kill()
			killed++
			starts++
			agents[i] = startAgent(t, path, i, starts, said)
		}
	}
	for _, a := range agents {
		_ = a.Process.Signal(unix.SIGCONT)
	}
	during := said.count()
	eventually(t, "the survivors go on", func() bool { return said.count() >= during+5 })
	for _, a := range agents {
		a.kill()
	}
	said.check(t, path)
	t.Logf("%d kills of %d agents, %d updates acknowledged, %d of them meanwhile", killed, len(agents), said.said, during)
}

// check has a new agent read: each document that was acknowledged is the
// beginning of what it finds, in which no update is twice.
func (a *acknowledged) check(t *testing.T, path string) {
	t.Helper()
	for _, text := range a.odd {
		t.Error(text)
	}
	h, err := OpenHost(hostConfig(path, 0, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	found, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	if int(found.Generation) != len(found.Document)/opSize {
		t.Errorf("generation %d has %d updates", found.Generation, len(found.Document)/opSize)
	}
	if string(found.Document[:opSize]) != string(repositorytest.First()) {
		t.Error("the first document is not the beginning of the last one")
	}
	seen := map[repository.OpID]bool{}
	for i := 0; i < len(found.Document); i += opSize {
		op := repository.OpID(found.Document[i : i+opSize])
		if seen[op] {
			t.Errorf("update %x happened twice", op)
		}
		seen[op] = true
		generation := uint64(i/opSize + 1)
		digest := sha256.Sum256(found.Document[:i+opSize])
		if want, ok := a.all[generation]; ok && want != hex.EncodeToString(digest[:]) {
			t.Errorf("generation %d is not the one that was acknowledged", generation)
		}
	}
	for generation := range a.all {
		if generation > found.Generation {
			t.Errorf("generation %d was acknowledged, the last one is %d", generation, found.Generation)
		}
	}
}
