package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
)

// A keptRepository is one that scripts break: nodes a and b, generation 1 by a
// and generation 2 by b, and something secret in each place that has secrets.
type keptRepository struct {
	number byte // another one is another cluster
	layout repository.Layout
	disks  []repository.UUID
}

func newKeptRepository(number byte, disks int) keptRepository {
	k := keptRepository{number: number, layout: repository.CompactLayout(4, 8*repository.BlockSize, 9*repository.BlockSize)}
	for i := range disks {
		k.disks = append(k.disks, repository.UUID{0xd0, number, byte(i)})
	}
	return k
}

func keptKey(node byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{node + 1}, ed25519.SeedSize))
}

func keptNode(node byte) belfry.NodeID { return belfry.NodeID{0xa0, node} }

func (k keptRepository) header(index int) repository.Header {
	return repository.Header{
		Repository: repository.UUID{k.number}, Cluster: belfry.ClusterID{0xc0, k.number}, Epoch: 1, Sequence: 1, Index: uint8(index), Disks: k.disks,
		Layout: k.layout, Created: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Label: fmt.Sprint("kept ", k.number),
	}
}

// secrets are in the document, and must never be shown.
const keptSecret = "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff"

func (k keptRepository) document(generation uint64, before []byte) ([]byte, error) {
	when := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	h := k.header(0)
	var secret repository.Digest
	if err := secret.UnmarshalText([]byte(keptSecret)); err != nil {
		return nil, err
	}
	d := repository.Document{
		Schema: 1, Cluster: repository.Cluster{Name: "kept", UUID: h.Cluster, Created: when},
		Networks: []repository.Network{{Name: "net1"}},
		Repository: repository.Storage{Kind: repository.KindDisk, UUID: h.Repository, Epoch: 1, Areas: &repository.Areas{
			Hosts: k.layout.Hosts, SlotSize: k.layout.SlotSize, RecordOffset: k.layout.RecordOffset, PayloadOffset: k.layout.PayloadOffset, Disks: k.disks,
		}},
		Security: repository.Security{Tokens: []repository.Token{{ID: "0011223344556677", Hash: secret, Expires: when.Add(time.Hour), Role: "node"}}},
	}
	for node := range byte(2) {
		address := netip.AddrFrom4([4]byte{10, 0, 0, node + 1})
		d.Nodes = append(d.Nodes, repository.Node{
			Name: string('a' + rune(node)), ID: keptNode(node), Number: belfry.NodeNumber(node + 1), Slot: new(int(node)), Key: keptKey(node).Public().(ed25519.PublicKey),
			Addresses: []repository.Address{{Network: "net1", Heartbeat: netip.AddrPortFrom(address, 7431)}}, Streams: netip.AddrPortFrom(address, 7432),
		})
	}
	d.History = []repository.Entry{{Generation: 1, Time: when, Author: "root"}}
	if generation == 2 {
		d.Tunables = map[string]string{"node_timeout": "3s"}
		d.History = append(d.History, repository.Entry{Generation: 2, Time: when.Add(time.Hour), Author: "uid:1000 at b", Node: keptNode(1), Text: "config set", Hash: sha256.Sum256(before)})
	}
	return repository.Encode(d)
}

func (k keptRepository) config(node byte) repository.Config {
	private := keptKey(node)
	return repository.Config{
		Node: keptNode(node), Host: int(node), Incarnation: 1, Boot: repository.UUID{1}, Local: true, Settled: true,
		Sign:  func(m []byte) []byte { return ed25519.Sign(private, m) },
		Own:   repository.VerifyKey(private.Public().(ed25519.PublicKey)),
		Holds: repository.HoldsOp,
		Admit: func(signer belfry.NodeID, _ []byte) (repository.Verify, error) {
			return repository.VerifyKey(keptKey(signer[1]).Public().(ed25519.PublicKey)), nil
		},
	}
}

// write makes the files, and leaves copies of both documents.
func (k keptRepository) write(paths []string, copies string) error {
	first, err := k.document(1, nil)
	if err != nil {
		return err
	}
	c := k.config(0)
	founder := repository.Founder{Node: c.Node, Incarnation: c.Incarnation, Boot: c.Boot, Sign: c.Sign}
	for i, path := range paths {
		if _, err := os.Stat(path); err != nil {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := disk.Create(path, k.layout.Size()); err != nil {
				return err
			}
		}
		// A busy disk may take longer than a call may; then it is formatted again.
		err := disk.Format(path, false, k.header(i), founder, first, repository.OpID{1})
		for attempt := 0; err != nil && attempt < 3; attempt++ {
			err = disk.Format(path, true, k.header(i), founder, first, repository.OpID{1})
		}
		if err != nil {
			return err
		}
	}
	host, err := disk.OpenHost(disk.HostConfig{Repository: k.config(1), Paths: paths, Deadline: time.Minute, Patience: time.Minute})
	if err != nil {
		return err
	}
	base, err := host.Load()
	if err != nil {
		return err
	}
	second, err := k.document(2, first)
	if err != nil {
		return err
	}
	if _, err := host.CAS(base.Version, second, repository.OpID{2}); err != nil {
		return err
	}
	if err := host.Close(); err != nil {
		return err
	}
	if err := os.MkdirAll(copies, 0o700); err != nil {
		return err
	}
	for name, text := range map[string][]byte{"1": first, "2": second} {
		if err := os.WriteFile(filepath.Join(copies, fmt.Sprintf("%d-%s", k.number, name)), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// alone runs a command that sees no block devices: those of this machine may hold
// repositories of other tests. Who may not do that may not read them either.
func alone() {
	runtime.LockOSThread() // the namespace is the thread's
	err := syscall.Unshare(syscall.CLONE_NEWNS)
	for _, step := range []func() error{
		func() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") },
		func() error { return syscall.Mount("tmpfs", "/sys", "tmpfs", 0, "") },
		func() error { return os.MkdirAll("/sys/class/block", 0o755) },
	} {
		if err == nil {
			err = step()
		}
	}
	path, err := exec.LookPath(os.Args[1])
	if err == nil {
		err = syscall.Exec(path, os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, "alone:", err)
	os.Exit(126)
}

// cmdRepository makes a repository of node a and b on these files or devices,
// one a mirror of the other, and copies of its two generations in the folder
// copies: repository NUMBER FILE…
func cmdRepository(ts *testscript.TestScript, neg bool, args []string) {
	number, err := strconv.ParseUint(strings.Join(args[:min(1, len(args))], ""), 10, 8)
	if neg || len(args) < 2 || err != nil {
		ts.Fatalf("usage: repository NUMBER FILE...")
	}
	var paths []string
	for _, name := range args[1:] {
		paths = append(paths, ts.MkAbs(name))
	}
	ts.Check(newKeptRepository(byte(number), len(paths)).write(paths, ts.MkAbs("copies")))
}

// cmdOccupy works on a repository as the agent of a node does, until the end of
// the script or until it is said to stop: occupy FILE 0|1|-.
func cmdOccupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: occupy FILE 0|1|-")
	}
	path, all := ts.MkAbs(args[0]), ts.Value(occupations{}).(map[string]*disk.Host)
	if args[1] == "-" {
		ts.Check(all[path].Close())
		return
	}
	number, err := strconv.ParseUint(args[1], 10, 1)
	ts.Check(err)
	k := newKeptRepository(1, 1)
	cfg := k.config(byte(number))
	cfg.Incarnation = 2
	host, err := disk.OpenHost(disk.HostConfig{Repository: cfg, Paths: []string{path}})
	ts.Check(err)
	ts.Defer(func() { _ = host.Close() })
	all[path] = host
}

// cmdCommit makes the host that occupies a file write both of its records anew.
func cmdCommit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: commit FILE")
	}
	host := ts.Value(occupations{}).(map[string]*disk.Host)[ts.MkAbs(args[0])]
	for range 2 {
		_, err := host.Load()
		ts.Check(err)
	}
}

// cmdFlip turns one bit of the byte at an offset; a negative one counts from the
// end of the file: flip FILE OFFSET.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	text, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(text)
	}
	text[at] ^= 1
	ts.Check(writeOver(ts.MkAbs(args[0]), text))
}

// cmdHeader sets one byte of both copies of a boot record, and makes their
// checksums fit, as a newer agent may: header FILE OFFSET HEX.
func cmdHeader(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: header FILE OFFSET HEX")
	}
	text, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	value, err := strconv.ParseUint(args[2], 16, 8)
	ts.Check(err)
	for _, block := range [][]byte{text[:repository.BlockSize], text[len(text)-repository.BlockSize:]} {
		block[at] = byte(value)
		sum := crc32.Checksum(block[:repository.BlockSize-4], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(block[repository.BlockSize-4:], sum)
	}
	ts.Check(writeOver(ts.MkAbs(args[0]), text))
}

// writeOver keeps the file what it is: who has it open sees the change.
func writeOver(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	return errors.Join(err, f.Close())
}

// occupations finds the hosts that a script has started, by path.
type occupations struct{}

// cmdHang has nobody open a file any more, until the end of the script: who
// tries waits for an answer of this process (fanotify(7)), as for a disk that is
// gone.
func cmdHang(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hang FILE")
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		ts.Value(skipKey{}).(testscript.T).Skip("needs: fanotify")
	}
	ts.Defer(func() { _ = unix.Close(fd) }) // which answers all that wait
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, ts.MkAbs(args[0])); err != nil {
		ts.Value(skipKey{}).(testscript.T).Skip("needs: fanotify")
	}
}

// cmdLoop makes a block device of a file, until the end of the script, and puts
// its path into a variable: loop VARIABLE FILE.
func cmdLoop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: loop VARIABLE FILE")
	}
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	ts.Check(err)
	defer unix.Close(control)
	number := -1
	for n := 3000; number < 0; n++ {
		if err := unix.IoctlSetInt(control, unix.LOOP_CTL_ADD, n); err == nil {
			number = n
		} else if err != unix.EEXIST { //nolint:errorlint // an errno
			ts.Fatalf("loop device: %v", err)
		}
	}
	path := fmt.Sprint("/dev/loop", number)
	file, err := os.OpenFile(ts.MkAbs(args[1]), os.O_RDWR, 0)
	ts.Check(err)
	defer file.Close()
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	ts.Check(err)
	defer device.Close()
	ts.Check(unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(file.Fd())))
	ts.Defer(func() {
		ts.Check(waitUntil(10*time.Second, func() error { return removeLoop(path, number) }))
	})
	ts.Setenv(args[0], path)
}

func removeLoop(path string, number int) error {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0); err != nil && err != unix.ENXIO { //nolint:errorlint // an errno
		device.Close()
		return err
	}
	device.Close()
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(control)
	return unix.IoctlSetInt(control, unix.LOOP_CTL_REMOVE, number)
}

func TestKeptSecretIsInTheDocument(t *testing.T) {
	t.Parallel()
	doc, err := newKeptRepository(1, 1).document(2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(doc, []byte(keptSecret)) {
		t.Error("scripts look for a secret that is not in the document")
	}
}
