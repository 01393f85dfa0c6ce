package security

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// auditKey is the same in every run.
var auditKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

var auditPublic = auditKey.Public().(ed25519.PublicKey)

func openAudit(t *testing.T, dir string, size int64) *AuditLog {
	t.Helper()
	return openAuditBy(t, dir, size, auditKey)
}

func openAuditBy(t *testing.T, dir string, size int64, key ed25519.PrivateKey) *AuditLog {
	t.Helper()
	log, err := OpenAuditLog(AuditOptions{Dir: dir, Sign: func(m []byte) []byte { return ed25519.Sign(key, m) }, maxSize: size})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// writeAudit writes records as one run of an agent does.
func writeAudit(t *testing.T, dir string, size int64, records ...Record) {
	t.Helper()
	writeAuditTo(t, openAudit(t, dir, size), size, records...)
}

func writeAuditTo(t *testing.T, log *AuditLog, size int64, records ...Record) {
	t.Helper()
	for _, r := range records {
		log.Audit(r)
		if size != 0 { // else all go into one file
			if err := log.flush(time.Now(), false); err != nil {
				t.Fatal(err)
			}
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := log.Run(ended); err != nil {
		t.Fatal(err)
	}
}

func auditRecords(n int) (records []Record) {
	for i := range n {
		records = append(records, Record{Time: time.Unix(int64(i), 0), Subject: "uid 1000", Role: "admin", Right: "configure", Operation: "SetConfig", Target: fmt.Sprintf("tunables.x%d", i), Generation: uint64(i), Result: ResultDone})
	}
	return records
}

func TestTheAuditLogIsChainedOverStartsAndFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeAudit(t, dir, 0, auditRecords(3)...)
	writeAudit(t, dir, 700, auditRecords(20)...)
	sum, err := CheckAudit(dir, auditPublic)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Last != 25 || sum.Signed != 25 || sum.First < 2 || sum.Lost != 0 { // 23 records, 2 checkpoints; the oldest files are gone
		t.Errorf("%+v; want the last of 25, which is signed", sum)
	}
	names, err := filepath.Glob(filepath.Join(dir, "audit.log*"))
	if err != nil || len(names) != auditFiles {
		t.Errorf("%d files, %v; want %d", len(names), err, auditFiles)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", name, info.Mode(), err)
		}
	}
}

// TestTheFirstBrokenRecordIsNamed changes one thing after the other.
func TestTheFirstBrokenRecordIsNamed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		change     func(lines []string) []string
	}{
		{"nothing", "", func(l []string) []string { return l }},
		{"unfinished line", "", func(l []string) []string { return append(l, `{"n":`) }},
		{"text changed", "line 4, after record 3: the chain is broken: the line before", func(l []string) []string {
			l[2] = strings.Replace(l[2], "tunables.x2", "tunables.x9", 1)
			return l
		}},
		{"record taken out", "line 3, after record 2: the chain is broken: number 4 follows 2", func(l []string) []string { return append(l[:2], l[3:]...) }},
		{"order changed", "line 2, after record 1: the chain is broken: number 3 follows 1", func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }},
		{"spelling changed", "line 2, after record 1: the chain is broken: not in the form", func(l []string) []string { l[1] = " " + l[1]; return l }},
		{"rubbish", "line 1, after record 0: the chain is broken: not a record", func(l []string) []string { l[0] = "rubbish\n"; return l }},
		{"all written anew", "line 5, after record 4: the chain is broken: the checkpoint is not signed", rewriteAudit},
	} {
		dir := t.TempDir()
		writeAudit(t, dir, 0, auditRecords(4)...)
		name := filepath.Join(dir, auditName)
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := tt.change(strings.SplitAfter(strings.TrimSuffix(string(data), "\n")+"\n", "\n")[:5])
		if err := os.WriteFile(name, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = CheckAudit(dir, auditPublic)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, belfry.ErrPermission) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v\nwant %q", tt.name, err, tt.want)
		}
	}
}

// rewriteAudit is what somebody does who can write the file and has no key.
func rewriteAudit([]string) (lines []string) {
	var c chain
	for _, r := range append(auditRecords(4), Record{Operation: opCheckpoint}) {
		r.Subject = "nobody"
		text, err := c.append(nil, r, func([]byte) []byte { return make([]byte, ed25519.SignatureSize) })
		if err != nil {
			panic(err)
		}
		lines = append(lines, string(text))
	}
	return lines
}

func TestNothingIsLostSilently(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := openAudit(t, dir, 0)
	good := log.file
	refusing, err := os.Open(good.Name()) // for reading only: each write fails, as on a full disk
	if err != nil {
		t.Fatal(err)
	}
	log.file = refusing
	for _, r := range auditRecords(maxAuditQueue + 5) {
		log.Audit(r)
	}
	if err := log.flush(time.Now(), false); err == nil {
		t.Fatal("no error where nothing can be written")
	}
	log.file = good
	if err := errors.Join(refusing.Close(), log.flush(time.Now(), true), good.Close()); err != nil {
		t.Fatal(err)
	}
	sum, err := CheckAudit(dir, auditPublic)
	want := AuditSummary{First: 1, Last: maxAuditQueue + 2, Signed: maxAuditQueue + 2, At: sum.At, Lost: 1}
	if diff := cmp.Diff(want, sum); diff != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	data, err := os.ReadFile(good.Name())
	if err != nil || !strings.Contains(string(data), `"audit.lost","target":"","generation":0,"result":"5 records"`) {
		t.Errorf("%v; the log does not say that 5 records were lost", err)
	}
}

// TestALogThatIsTakenAwayIsWrittenAnew: the agent holds the file open, so that
// without care it would go on writing where nobody can read.
func TestALogThatIsTakenAwayIsWrittenAnew(t *testing.T) {
	t.Parallel()
	for what, take := range map[string]func(name string, data []byte) error{
		"removed": func(name string, _ []byte) error { return os.Remove(name) },
		"cut":     func(name string, data []byte) error { return os.Truncate(name, int64(len(data)/2)) },
		"replaced": func(name string, data []byte) error {
			return errors.Join(os.Remove(name), os.WriteFile(name, bytes.Replace(data, []byte("uid 1000"), []byte("uid 1001"), 1), 0o600))
		},
	} {
		dir := t.TempDir()
		log := openAudit(t, dir, 0)
		log.Audit(auditRecords(1)[0])
		if err := log.flush(time.Now(), false); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, auditName)
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := take(name, data); err != nil {
			t.Fatal(err)
		}
		log.Audit(auditRecords(2)[1])
		if err := errors.Join(log.flush(time.Now(), false), log.file.Close()); err != nil {
			t.Fatal(err)
		}
		if data, err = os.ReadFile(name); err != nil || !bytes.Contains(data, []byte("tunables.x1")) || !bytes.Contains(data, []byte(opReplaced)) {
			t.Errorf("%s: %v; the record is not in the log:\n%s", what, err, data)
		}
		if sum, err := CheckAudit(dir, auditPublic); !errors.Is(err, belfry.ErrPermission) {
			t.Errorf("%s: %+v, %v; want a broken chain", what, sum, err)
		}
	}
}

// TestALogIsWholeOverAChangeOfIdentity: the node left and joined again. What the
// former identity signs after that is not the node's.
func TestALogIsWholeOverAChangeOfIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	former := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	formerPublic := former.Public().(ed25519.PublicKey)
	writeAuditTo(t, openAuditBy(t, dir, 0, former), 0, auditRecords(1)...)
	if sum, err := CheckAudit(dir, auditPublic, formerPublic); err != nil || sum.Signed != 2 {
		t.Errorf("before the present identity has signed: %+v, %v", sum, err)
	}
	writeAudit(t, dir, 0, auditRecords(1)...)
	if sum, err := CheckAudit(dir, auditPublic, formerPublic); err != nil || sum.Last != 4 || sum.Signed != 4 {
		t.Errorf("%+v, %v; want four records, signed up to the last", sum, err)
	}
	if sum, err := CheckAudit(dir, auditPublic); !errors.Is(err, belfry.ErrPermission) {
		t.Errorf("without the former key: %+v, %v; want a broken chain", sum, err)
	}
	writeAuditTo(t, openAuditBy(t, dir, 0, former), 0, auditRecords(1)...)
	if sum, err := CheckAudit(dir, auditPublic, formerPublic); !errors.Is(err, belfry.ErrPermission) || sum.Signed != 4 {
		t.Errorf("the former identity signs again: %+v, %v; want a broken chain after record 4", sum, err)
	}
}

func TestALineThatACrashLeftIsCutOffAndTheCutRecorded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeAudit(t, dir, 0, auditRecords(2)...)
	f, err := os.OpenFile(filepath.Join(dir, auditName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"n":4,"ti`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	writeAudit(t, dir, 0)
	sum, err := CheckAudit(dir, auditPublic)
	if err != nil || sum.Last != 5 { // 2, checkpoint, torn, checkpoint
		t.Errorf("%+v, %v; want 5 records", sum, err)
	}
}

func TestDenialsOfOneSubjectAreWrittenTenASecondAndTheRestCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var records []Record
	for _, subject := range []string{"uid 1", "uid 2"} {
		for range 25 {
			records = append(records, Record{Time: time.Unix(100, 0), Subject: subject, Result: ResultDenied})
		}
	}
	records = append(records, Record{Time: time.Unix(101, 0), Subject: "uid 2", Result: ResultDenied})
	writeAudit(t, dir, 0, records...)
	data, err := os.ReadFile(filepath.Join(dir, auditName))
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(data, []byte(`"result":"denied"`)); got != 21 {
		t.Errorf("%d denials written; want 10 of each and the one after", got)
	}
	if got := bytes.Count(data, []byte(`"result":"15 more denials in one second"`)); got != 2 {
		t.Errorf("%d counts; want one for each subject", got)
	}
}

func TestPlantedSecretsAreNotInTheAuditLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := Token{}.Text()
	texts := []string{token, "x" + token + "y", token + token, strings.Repeat("x", maxAuditText-20) + token}
	var records []Record
	for _, text := range texts {
		records = append(records, Record{Subject: text, Role: text, Right: text, Operation: text, Target: text, Result: text})
	}
	writeAudit(t, dir, 0, records...)
	data, err := os.ReadFile(filepath.Join(dir, auditName))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(token[len(tokenBeginning):len(tokenBeginning)+8])) {
		t.Errorf("the log holds the token:\n%s", data)
	}
	if !bytes.Contains(data, []byte("x[token]")) {
		t.Error("the log does not say where one was")
	}
}

// BenchmarkAudit is what a caller pays: no disk, no lock held over one.
func BenchmarkAudit(b *testing.B) {
	log := &AuditLog{wake: make(chan struct{}, 1)}
	r := auditRecords(1)[0]
	for b.Loop() {
		log.Audit(r)
	}
}

// FuzzAuditChain: whatever is written can be followed, and no other text is
// taken for the next line.
func FuzzAuditChain(f *testing.F) {
	f.Add([]byte(`{"n":1}`), "uid 1000", "done")
	first, err := new(chain).append(nil, auditRecords(1)[0], nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.TrimSuffix(first, newline), "\xff\n\"", "belfry1.belfry1.abc")
	f.Fuzz(func(t *testing.T, text []byte, subject, result string) {
		var written, read chain
		signers := []ed25519.PublicKey{auditPublic}
		own, err := written.append(nil, Record{Subject: subject, Result: result}.clean(), nil)
		if err != nil {
			t.Fatal(err)
		}
		own = bytes.TrimSuffix(own, newline)
		if _, err := read.follow(own, true, &signers); err != nil || read != written || bytes.ContainsAny(own, "\n") {
			t.Fatalf("%q is not followed: %v", own, err)
		}
		before := read
		l, err := read.follow(text, true, &signers)
		switch {
		case err != nil && read != before:
			t.Fatalf("%q was refused and moved the chain", text)
		case err == nil && (l.N != 2 || l.Prev != fmt.Sprintf("%x", before.hash)):
			t.Fatalf("%q was taken for the line after %q", text, own)
		}
	})
}
