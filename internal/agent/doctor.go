package agent

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/security"
)

// A Level is how bad a finding is.
type Level uint8

// The levels. Unknown: the check could not be made.
const (
	LevelOK Level = iota
	LevelWarning
	LevelFailure
	LevelUnknown
)

var levelNames = [...]string{"ok", "warning", "failure", "unknown"}

// String is the word in listings.
func (l Level) String() string { return levelNames[l] }

// A Finding is the answer of one check. Text says what is so and, unless that
// is fine, what to do.
type Finding struct {
	Check string
	Level Level
	Text  string
}

// Checks are the names of all checks, in the order in which they are made. The
// last ten need an agent that answers.
var Checks = []string{"state", "keys", "certificate", "requests", "secret", "audit", "socket", "addresses", "clock", "streams", "links", "members", "limits", "journal", "producers", "repository", "licenses", "witness"}

// Ages from which the doctor speaks up (security.md, Keys).
const (
	certificateWarning = 10 * 24 * time.Hour // left of it
	secretWarning      = 48 * time.Hour      // a secret lives 24 h
	socketTimeout      = time.Second
)

// Ask asks the running agent. Each is called once at most.
type Ask struct {
	Status func() (*belfryv1.GetStatusResponse, error)
	Links  func() ([]*belfryv1.Link, error) // all of its own
}

// Diagnose makes the named checks of the agent with these settings, whether it
// runs or not; ask gets what it says. It only reads.
// Names that are not in Checks are left out. A check gives one finding if all is
// fine, else one for each thing that is not.
func Diagnose(settings config.Settings, now time.Time, names []string, ask Ask) (found []Finding) {
	ask.Status = sync.OnceValues(ask.Status)
	d := doctor{settings: settings, now: now, ask: ask}
	alone := map[string]func() (Level, string){
		"state": d.state, "keys": d.keys, "certificate": d.certificate, "secret": d.secret, "audit": d.audit, "socket": d.socket,
	}
	shared := map[string]func() findings{
		"requests": d.requests, "addresses": d.addresses, "clock": d.clock, "streams": d.streams, "links": d.links, "members": d.members, "limits": d.limits,
		"journal": d.journal, "producers": d.producers, "repository": d.repository, "licenses": d.licenses, "witness": d.witness,
	}
	for _, name := range names {
		var list findings
		if check := alone[name]; check != nil {
			level, text := check()
			list.add(level, "%s", text)
		} else if check := shared[name]; check != nil {
			list = check()
		}
		for _, f := range list {
			f.Check = name
			found = append(found, f)
		}
	}
	return found
}

// A doctor makes checks.
type doctor struct {
	settings config.Settings
	now      time.Time
	ask      Ask // the same answer at each call
}

// findings are those of one check, whose name is still to be filled in.
type findings []Finding

func (f *findings) add(level Level, format string, args ...any) {
	*f = append(*f, Finding{Level: level, Text: fmt.Sprintf(format, args...)})
}

// orElse is f, or that all is fine.
func (f findings) orElse(format string, args ...any) findings {
	if len(f) == 0 {
		f.add(LevelOK, format, args...)
	}
	return f
}

// foreign tells that the state directory belongs to another user, as whom all
// that lies in it has to be judged.
func (d doctor) foreign() (text string, foreign bool) {
	info, err := os.Stat(d.settings.State)
	if err != nil {
		return "", false // the check itself says why
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == os.Geteuid() {
		return "", false
	}
	return fmt.Sprintf("%s belongs to uid %d; run belfry doctor as that user", d.settings.State, stat.Uid), true
}

func (d doctor) state() (Level, string) {
	info, err := os.Stat(d.settings.State)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return LevelFailure, fmt.Sprintf("%s is not there; belfry init or belfry join makes it, the setting state names another", d.settings.State)
	case err != nil:
		return LevelUnknown, fmt.Sprintf("%v; run belfry doctor as the user of the agent", err)
	case !info.IsDir():
		return LevelFailure, d.settings.State + " is not a directory; name one with the setting state"
	case info.Mode().Perm()&0o077 != 0:
		return LevelFailure, fmt.Sprintf("%s has mode %04o, others can look into it; run: chmod 700 %s", d.settings.State, info.Mode().Perm(), d.settings.State)
	}
	return d.room(info)
}

// Room on the disk of the state directory from which the doctor speaks up: a
// member that can not write its table or its keys takes no change any more.
const (
	roomWarning = 16 << 20
	roomFailure = 1 << 20
)

func (d doctor) room(info fs.FileInfo) (Level, string) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(d.settings.State, &disk); err != nil {
		return LevelUnknown, fmt.Sprintf("%s: %v; run belfry doctor where the agent runs", d.settings.State, err)
	}
	free := disk.Bavail * uint64(disk.Bsize)
	level := LevelWarning
	switch {
	case free < roomFailure:
		level = LevelFailure
	case free >= roomWarning:
		return LevelOK, fmt.Sprintf("%s, mode %04o", d.settings.State, info.Mode().Perm())
	}
	return level, fmt.Sprintf("%d KiB are free on the disk of %s; a member that can not write takes no change and renews nothing: make room there", free>>10, d.settings.State)
}

// load reads the keys; with a level other than LevelOK the text says why not.
func (d doctor) load() (*security.Keys, Level, string) {
	if text, foreign := d.foreign(); foreign {
		return nil, LevelUnknown, text
	}
	keys, err := security.Load(filepath.Join(d.settings.State, "keys"))
	if errors.Is(err, fs.ErrPermission) {
		return nil, LevelUnknown, fmt.Sprintf("%v; run belfry doctor as the user of the agent", err)
	}
	if errors.Is(err, fs.ErrNotExist) && !belongs(d.settings.State) {
		return nil, LevelUnknown, noKeys
	}
	if err != nil {
		return nil, LevelFailure, err.Error()
	}
	return keys, LevelOK, ""
}

// noKeys stands where a directory belongs to no cluster yet.
const noKeys = "there are no keys yet"

func (d doctor) keys() (Level, string) {
	keys, level, text := d.load()
	if text == noKeys && !missing(filepath.Join(d.settings.State, joiningDir)) {
		return LevelFailure, "belfry join or belfry init was cut off in " + d.settings.State + ": run it again and it goes on, a join with the same token as long as that counts, or with a new one"
	}
	if text == noKeys {
		return LevelFailure, d.settings.State + " belongs to no cluster; belfry init makes one, belfry join TOKEN enters one"
	}
	if keys == nil {
		return level, text
	}
	if text := d.sealing(keys); text != "" {
		return LevelWarning, text
	}
	return LevelOK, fmt.Sprintf("of node %s, readable by their owner only", keys.Node)
}

// sealing says what is wrong with the key that opens the authority's. What else
// is wrong with keys or table the checks of these say.
func (d doctor) sealing(keys *security.Keys) string {
	members, err := OpenMembers(d.settings.State)
	if err != nil {
		return ""
	}
	n, listed := members.Table().Node(keys.Node)
	if !listed || len(n.Sealing) == 0 {
		return ""
	}
	dir := filepath.Join(d.settings.State, keysDir)
	const remedy = "this node can not sign for the authority; put the file back from a copy, or take the node out with belfry leave and join again"
	switch key, err := security.LoadSealingKey(dir); {
	case err != nil:
		return err.Error() + "; " + remedy
	case key == nil:
		return fmt.Sprintf("%s has no sealing key: %s", dir, remedy)
	case !bytes.Equal(key.Public(), n.Sealing):
		return fmt.Sprintf("the sealing key in %s is not the one that the members know: %s", dir, remedy)
	}
	return ""
}

func (d doctor) certificate() (Level, string) {
	keys, level, text := d.load()
	if keys == nil {
		return level, text
	}
	begin, end := keys.Certificate.Leaf.NotBefore, keys.Certificate.Leaf.NotAfter
	until := end.UTC().Format(time.RFC3339)
	switch left := end.Sub(d.now); {
	case d.now.Before(begin):
		return LevelFailure, fmt.Sprintf("begins only at %s by this machine's clock, which is behind: streams are refused; set it, and see that time synchronisation runs: timedatectl", begin.UTC().Format(time.RFC3339))
	case left <= 0:
		return LevelFailure, fmt.Sprintf("ended at %s by this machine's clock, streams are refused; if that clock is ahead, set it: timedatectl; else start a member that holds the authority's key, or sign the request with belfry ca sign", until)
	case left < certificateWarning:
		return LevelWarning, fmt.Sprintf("ends at %s and has not been renewed; see that a member that holds the authority's key runs, or sign the request with belfry ca sign", until)
	}
	return LevelOK, "until " + until
}

func (d doctor) secret() (Level, string) {
	keys, level, text := d.load()
	if keys == nil {
		return level, text
	}
	info, err := os.Stat(filepath.Join(d.settings.State, "keys", fmt.Sprintf("group-%d", keys.Epoch)))
	if err != nil {
		return LevelUnknown, err.Error() + "; restart the agent, which asks another member for it"
	}
	age := d.now.Sub(info.ModTime()).Truncate(time.Minute)
	if age > secretWarning {
		return LevelWarning, fmt.Sprintf("epoch %d is %s old; a running leader draws a new one each day: see belfry status", keys.Epoch, age)
	}
	return LevelOK, fmt.Sprintf("epoch %d", keys.Epoch)
}

func (d doctor) audit() (Level, string) {
	keys, level, text := d.load()
	if keys == nil {
		return level, text
	}
	sum, err := security.CheckAudit(d.settings.State, keys.Public(), formerKeys(d.settings.State)...)
	switch {
	case errors.Is(err, belfry.ErrNotFound):
		return LevelWarning, err.Error()
	case err != nil:
		return LevelFailure, err.Error()
	case sum.Last == 0:
		return LevelOK, "no record yet"
	case sum.Lost > 0:
		return LevelWarning, fmt.Sprintf("records %d to %d, whole, but %d of them tell of records that found no room; give the state directory's disk some", sum.First, sum.Last, sum.Lost)
	}
	return LevelOK, fmt.Sprintf("records %d to %d, signed up to %d", sum.First, sum.Last, sum.Signed)
}

// formerKeys are the identities that the directory had before.
func formerKeys(state string) (former []ed25519.PublicKey) {
	entries, err := os.ReadDir(filepath.Join(state, formerDir))
	if err != nil { // it had none
		return nil
	}
	for _, e := range entries {
		if keys, err := security.Load(filepath.Join(state, formerDir, e.Name(), keysDir)); err == nil {
			former = append(former, keys.Public())
		}
	}
	return former
}

func (d doctor) socket() (Level, string) {
	path := d.settings.Socket.Path
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.ending() != "":
		return LevelWarning, path + " is not there: no agent runs, and none can: " + d.ending()
	case errors.Is(err, fs.ErrNotExist):
		return LevelWarning, path + " is not there: no agent runs; start it with systemctl start belfry or belfry agent"
	case err != nil:
		return LevelUnknown, fmt.Sprintf("%v; run belfry doctor as the user of the agent", err)
	case info.Mode().Type() != fs.ModeSocket:
		return LevelFailure, path + " is not a socket; remove it or choose another with the setting socket.path"
	case info.Mode().Perm()&0o007 != 0:
		return LevelFailure, fmt.Sprintf("%s has mode %04o, every user reaches it; run: chmod 660 %s", path, info.Mode().Perm(), path)
	}
	conn, err := net.DialTimeout("unix", path, socketTimeout)
	if err != nil {
		return LevelFailure, fmt.Sprintf("%s does not answer (%v); start the agent again", path, errors.Unwrap(err))
	}
	_ = conn.Close() // nothing was asked
	return LevelOK, fmt.Sprintf("%s, mode %04o", path, info.Mode().Perm())
}
