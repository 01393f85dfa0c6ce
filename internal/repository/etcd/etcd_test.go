package etcd

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// X25: the transaction compares. Both have read the same base, so that neither
// reads again before it writes.
func TestOfTwoUpdatesOnOneBaseOneHappens(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	a, b := open(t, config(0, endpoints(servers)...)), open(t, config(1, endpoints(servers)...))
	base := load(t, a)
	load(t, b)
	op := opID(1, 1)
	if _, err := a.CAS(base.Version, append(base.Document, op[:]...), op); err != nil {
		t.Fatal(err)
	}
	other := opID(2, 1)
	if _, err := b.CAS(base.Version, append(base.Document, other[:]...), other); !errors.Is(err, belfry.ErrConflict) {
		t.Errorf("got %v, want %v", err, belfry.ErrConflict)
	}
	wantUpdates(t, a, op)
	wantUpdates(t, b, op)
}

func TestCreateHappensOnce(t *testing.T) {
	t.Parallel()
	servers := newCluster(t, 1)
	cfg := config(0, endpoints(servers)...)
	b := open(t, cfg)
	within(t, 20*time.Second, func() error {
		if _, err := b.Load(); !errors.Is(err, belfry.ErrNotFound) {
			return err
		}
		return nil
	})
	_, err := b.Load()
	wantHelpful(t, err, servers[0].endpoint())
	found(t, cfg)
	found(t, cfg) // the same again, as after an unknown outcome
	other := opID(3, 1)
	if _, err := Create(config(1, endpoints(servers)...), other[:], other); !errors.Is(err, belfry.ErrExist) {
		t.Errorf("got %v, want %v", err, belfry.ErrExist)
	}
	wantUpdates(t, b)
	if _, err := b.CAS(repository.Version{Repository: cfg.UUID}, other[:], other); !errors.Is(err, belfry.ErrUsage) {
		t.Errorf("a base of no generation: %v, want %v", err, belfry.ErrUsage)
	}
}

func TestWhoMayNotSignReads(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	cfg := config(1, endpoints(servers)...)
	cfg.Repository.Sign = nil
	b := open(t, cfg)
	base := load(t, b)
	if _, err := b.CAS(base.Version, []byte("x"), opID(1, 1)); !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("got %v, want %v", err, belfry.ErrRestricted)
	}
	wantUpdates(t, b)
}

func TestNothingFollowsADocumentThatMoves(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	cfg := config(0, endpoints(servers)...)
	op := opID(1, 1)
	cfg.Repository.Moving = func(doc []byte) bool { return bytes.Contains(doc, op[:]) }
	b := open(t, cfg)
	add(t, b, op)
	base := load(t, b)
	if _, err := b.CAS(base.Version, append(base.Document, op[:]...), opID(1, 2)); !errors.Is(err, repository.Moved) {
		t.Errorf("got %v, want %v", err, repository.Moved)
	}
}

// The answer to the transaction is lost: the next attempt finds its operation.
func TestALostAnswerIsFoundAgain(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	p := newProxy(t, servers[0].endpoint())
	b := open(t, config(0, p.endpoint()))
	base := load(t, b)
	op := opID(1, 1)
	doc := append(base.Document, op[:]...)
	p.deafen()
	begun := time.Now()
	if _, err := b.CAS(base.Version, doc, op); !errors.Is(err, belfry.ErrUnknown) {
		t.Fatalf("without an answer: %v, want %v", err, belfry.ErrUnknown)
	}
	if took := time.Since(begun); took > Deadline+time.Second {
		t.Errorf("an operation took %s, want at most %s", took, Deadline)
	}
	p.heal()
	direct := open(t, config(1, servers[0].endpoint()))
	wantUpdates(t, direct, op) // it has happened
	other := opID(2, 1)
	add(t, direct, other)
	within(t, 20*time.Second, func() error {
		_, err := b.CAS(base.Version, doc, op)
		if err != nil && !errors.Is(err, belfry.ErrRestricted) && !errors.Is(err, belfry.ErrUnknown) {
			t.Fatal(err)
		}
		return err
	})
	wantUpdates(t, direct, op, other)
}

// One of two ways to etcd loses the answers; the other one tells within the same
// operation what has happened.
func TestALostAnswerIsFoundAgainAtOnce(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	p := newProxy(t, servers[0].endpoint())
	b := open(t, config(0, p.endpoint(), servers[0].endpoint()))
	load(t, b)
	p.deafen()
	var ops []repository.OpID
	for i := range 6 { // the two take turns
		ops = append(ops, opID(1, i+1))
		base := load(t, b)
		if _, err := b.CAS(base.Version, append(base.Document, ops[i][:]...), ops[i]); err != nil {
			t.Fatal(err)
		}
	}
	p.mu.Lock()
	lost := p.heard
	p.mu.Unlock()
	if lost == 0 {
		t.Error("no answer was lost")
	}
	wantUpdates(t, b, ops...)
}

// A member that has lost the others answers nothing, though it has a value.
func TestAMinorityAnswersNothing(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 3)
	left := open(t, config(0, servers[0].endpoint()))
	load(t, left)
	servers[1].pause()
	servers[2].pause()
	begun := time.Now()
	if found, err := left.Poll(); !errors.Is(err, belfry.ErrRestricted) {
		t.Errorf("generation %d, %v; want %v", found.Generation, err, belfry.ErrRestricted)
	} else {
		wantHelpful(t, err, servers[0].endpoint())
	}
	if took := time.Since(begun); took > Deadline+time.Second {
		t.Errorf("a poll took %s, want at most %s", took, Deadline)
	}
	servers[1].resume()
	servers[2].resume()
	wantUpdates(t, patient{left})
}

// The member that the others follow is stopped, and none else: the rest elects
// another one, and who tries again goes on.
func TestAPausedLeaderHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 3)
	b := patient{open(t, config(0, endpoints(servers)...))}
	first, second := opID(1, 1), opID(1, 2)
	add(t, b, first)
	leading := leader(t, servers)
	leading.pause()
	begun := time.Now()
	add(t, b, second)
	t.Logf("committed %s after the leader was stopped", time.Since(begun))
	leading.resume()
	wantUpdates(t, b, first, second)
	wantUpdates(t, patient{open(t, config(1, leading.endpoint()))}, first, second)
}

// etcd is away for a while: what was asked meanwhile fails, and goes on by itself.
func TestEtcdComesBack(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	b := open(t, config(0, servers[0].endpoint()))
	op := opID(1, 1)
	add(t, b, op)
	servers[0].kill()
	for range 2 {
		if _, err := b.Load(); !errors.Is(err, belfry.ErrRestricted) {
			t.Errorf("got %v, want %v", err, belfry.ErrRestricted)
		}
	}
	servers[0].start()
	begun := time.Now()
	wantUpdates(t, patient{b}, op)
	t.Logf("read %s after the start", time.Since(begun))
}

func TestValuesThatNoMemberWroteAreRefused(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	c := client(t, servers...)
	for name, value := range map[string]func(t *testing.T, cfg Config, was []byte) []byte{
		"Cut":     func(_ *testing.T, _ Config, was []byte) []byte { return was[:len(was)-1] },
		"Flipped": func(_ *testing.T, _ Config, was []byte) []byte { was[200] ^= 1; return was },
		"Foreign": func(t *testing.T, cfg Config, was []byte) []byte {
			v, err := repository.EncodeValue(repository.ValuePlace{Repository: cfg.UUID, Epoch: 1, Disk: repository.UUID(was[24:40]), Limit: MaxDocument},
				repository.Record{Writer: nodeID(members), Sequence: 1, Promised: 9, Accepted: 9, Generation: 9},
				[]byte("x"), config(members).Repository.Sign)
			if err != nil {
				t.Fatal(err)
			}
			return v
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(0, endpoints(servers)...)
			cfg.Prefix = name
			found(t, cfg)
			b := open(t, cfg)
			base := load(t, b)
			was, err := c.Get(ask(t), b.key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Put(ask(t), b.key, string(value(t, cfg, was.Kvs[0].Value))); err != nil {
				t.Fatal(err)
			}
			for _, of := range []*Backend{b, open(t, cfg)} {
				if _, err := of.Poll(); !errors.Is(err, repository.Damaged) {
					t.Errorf("got %v, want %v", err, repository.Damaged)
				}
				if _, err := of.CAS(base.Version, []byte("x"), opID(1, 1)); err == nil {
					t.Error("an update took the place of a damaged value")
				}
			}
			if _, err := b.Repair(base); err != nil {
				t.Fatal(err)
			}
			wantUpdates(t, open(t, cfg))
		})
	}
}

func TestAnotherClusterUsesAnotherKey(t *testing.T) {
	t.Parallel()
	cfg := config(0, "127.0.0.1:1")
	for prefix, want := range map[string]string{
		"":          "/02000000-0000-0000-0000-000000000000/config",
		"/":         "/02000000-0000-0000-0000-000000000000/config",
		"a/b":       "/a/b/02000000-0000-0000-0000-000000000000/config",
		"/belfry//": "/belfry/02000000-0000-0000-0000-000000000000/config",
	} {
		cfg.Prefix = prefix
		if got := cfg.key(); got != want {
			t.Errorf("prefix %q: %s, want %s", prefix, got, want)
		}
	}
}

func TestTooLongForEtcdIsRefusedBeforeItIsAsked(t *testing.T) {
	t.Parallel()
	b := open(t, config(0, "127.0.0.1:1"))
	for _, size := range []int{0, MaxDocument + 1} {
		_, err := b.CAS(repository.Version{Generation: 1}, make([]byte, size), opID(1, 1))
		if !errors.Is(err, belfry.ErrLimit) {
			t.Errorf("%d bytes: %v, want %v", size, err, belfry.ErrLimit)
		}
	}
}

func TestTheGreatestDocumentIsTaken(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	b := open(t, config(0, endpoints(servers)...))
	base := load(t, b)
	doc := bytes.Repeat([]byte{1}, MaxDocument)
	if _, err := b.CAS(base.Version, doc, opID(1, 1)); err != nil {
		t.Fatal(err)
	}
	if got := load(t, open(t, config(1, endpoints(servers)...))); !bytes.Equal(got.Document, doc) {
		t.Errorf("%d bytes came back of %d", len(got.Document), len(doc))
	}
	if all := b.Warnings(); !hasWarning(all, WarnSize) {
		t.Errorf("no warning of the size in %v", all)
	}
}

// etcd itself takes less: nothing has happened, and the error says so.
func TestEtcdRefusesWhatIsTooLongForIt(t *testing.T) {
	t.Parallel()
	servers := newCluster(t, 1, "--max-request-bytes", "8192")
	cfg := config(0, endpoints(servers)...)
	found(t, cfg)
	b := open(t, cfg)
	base := load(t, b)
	_, err := b.CAS(base.Version, make([]byte, 100<<10), opID(1, 1))
	if !errors.Is(err, belfry.ErrLimit) || errors.Is(err, belfry.ErrUnknown) || !strings.Contains(err.Error(), "--max-request-bytes") {
		t.Errorf("got %v, want %v and the flag of etcd", err, belfry.ErrLimit)
	}
	wantUpdates(t, b)
}

// A full etcd refuses writes and goes on answering.
func TestAFullEtcdSaysSo(t *testing.T) {
	t.Parallel()
	servers := newCluster(t, 1, "--quota-backend-bytes", "1000000")
	cfg := config(0, endpoints(servers)...)
	found(t, cfg)
	b := open(t, cfg)
	c := client(t, servers...)
	within(t, 20*time.Second, func() error {
		if _, err := c.Put(ask(t), "filler", strings.Repeat("x", 200<<10)); err == nil {
			return errors.New("not full yet")
		}
		return nil
	})
	base := load(t, b)
	_, err := b.CAS(base.Version, []byte("x"), opID(1, 1))
	if !errors.Is(err, belfry.ErrRestricted) || errors.Is(err, belfry.ErrUnknown) || !strings.Contains(err.Error(), "defragment") {
		t.Errorf("got %v, want %v and a remedy", err, belfry.ErrRestricted)
	}
	wantUpdates(t, b)
}

func TestUsersOfEtcd(t *testing.T) {
	t.Parallel()
	servers := newCluster(t, 1)
	cfg := config(0, endpoints(servers)...)
	found(t, cfg)
	c := client(t, servers...)
	ctx := ask(t)
	grant := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"root", "belfry", "reader", "nobody"} {
		_, err := c.UserAdd(ctx, user, "secret")
		grant(err)
	}
	_, err := c.UserGrantRole(ctx, "root", "root")
	grant(err)
	for role, right := range map[string]clientv3.PermissionType{
		"belfry": clientv3.PermissionType(clientv3.PermReadWrite), "reader": clientv3.PermissionType(clientv3.PermRead),
	} {
		_, err := c.RoleAdd(ctx, role)
		grant(err)
		_, err = c.RoleGrantPermission(ctx, role, cfg.key(), "", right)
		grant(err)
		_, err = c.UserGrantRole(ctx, role, role)
		grant(err)
	}
	_, err = c.AuthEnable(ctx)
	grant(err)

	as := func(user, password string) Config {
		of := cfg
		of.Username, of.Password = user, password
		return of
	}
	may := open(t, as("belfry", "secret"))
	op := opID(1, 1)
	add(t, may, op)
	wantUpdates(t, may, op)

	reader := open(t, as("reader", "secret"))
	base := load(t, reader)
	if _, err := reader.CAS(base.Version, []byte("x"), opID(1, 2)); !errors.Is(err, belfry.ErrPermission) || errors.Is(err, belfry.ErrUnknown) {
		t.Errorf("a reader writes: %v, want %v", err, belfry.ErrPermission)
	}
	for _, of := range []Config{as("nobody", "secret"), cfg} {
		_, err := open(t, of).Load()
		if !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("user %q: %v, want %v", of.Username, err, belfry.ErrPermission)
		}
		wantHelpful(t, err, servers[0].endpoint())
	}
	if _, err := Open(as("belfry", "wrong")); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("a wrong password: %v, want %v", err, belfry.ErrPermission)
	}
	wantUpdates(t, may, op)

	// An etcd that was restarted knows no login any more.
	servers[0].kill()
	servers[0].start()
	again := opID(1, 3)
	add(t, patient{may}, again)
	wantUpdates(t, may, op, again)
}

func hasWarning(all []Warning, kind string) bool {
	for _, w := range all {
		if w.Kind == kind {
			return true
		}
	}
	return false
}

func TestWarningsOfMembers(t *testing.T) {
	t.Parallel()
	servers := newRepository(t, 1)
	b := open(t, config(0, servers[0].endpoint(), "127.0.0.1:1"))
	m := b.Members()
	if len(m) != 2 || m[0].Err != nil || m[0].Version == "" || m[1].Err == nil {
		t.Fatalf("members: %+v", m)
	}
	all := b.Warnings()
	if got := hasWarning(all, WarnVersion); got != Outdated(m[0].Version) {
		t.Errorf("etcd %s: warned of the version is %v", m[0].Version, got)
	}
	if !hasWarning(all, WarnMember) || hasWarning(all, WarnSize) {
		t.Errorf("warnings: %+v", all)
	}
}

func TestOutdated(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"3.4.23": true, "3.4.99": true, "3.5.29": true, "3.5.30": false, "3.5.31": false, "3.5.30-rc.0": true,
		"3.6.0": true, "3.6.10": true, "3.6.11": false, "3.7.0": false, "4.0.0": false, "": true, "x": true,
	} {
		if got := Outdated(version); got != want {
			t.Errorf("Outdated(%q) = %v, want %v", version, got, want)
		}
	}
}
