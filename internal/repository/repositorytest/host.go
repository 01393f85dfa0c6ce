package repositorytest

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
)

// A document of these tests is the list of the updates that led to it, so that
// each one says what it follows.
const opSize = 16

func appendOp(doc []byte, op repository.OpID) []byte { return append(slices.Clone(doc), op[:]...) }

func holds(doc []byte, op repository.OpID) bool {
	for ; len(doc) >= opSize; doc = doc[opSize:] {
		if repository.OpID(doc[:opSize]) == op {
			return true
		}
	}
	return false
}

func opID(host, number int) (op repository.OpID) {
	op[0] = 1
	binary.LittleEndian.PutUint32(op[4:], uint32(host))
	binary.LittleEndian.PutUint32(op[8:], uint32(number))
	return op
}

// giveSlot makes an update one that gives the slot of the next host.
func giveSlot(op repository.OpID) repository.OpID { op[1] = 1; return op }

// slotsGiven is how many slots a document and those before it have given.
func slotsGiven(doc []byte) int {
	slots := 1 // the founder's
	for ; len(doc) >= opSize; doc = doc[opSize:] {
		if doc[1] == 1 {
			slots = max(slots, int(binary.LittleEndian.Uint32(doc[4:]))+1)
		}
	}
	return slots
}

func nodeID(host int) belfry.NodeID { return belfry.NodeID{0xb, byte(host)} }

// sign is a checksum in the place of a signature: these tests are about order,
// and make millions of records. Real signatures have tests of their own.
func sign(node belfry.NodeID) repository.Sign {
	return func(m []byte) []byte {
		s := make([]byte, 64)
		copy(s, node[:])
		binary.LittleEndian.PutUint32(s[16:], crc32.ChecksumIEEE(m))
		return s
	}
}

func verify(node belfry.NodeID) repository.Verify {
	return func(m, s []byte) bool { return slices.Equal(s, sign(node)(m)) }
}

func admit(signer belfry.NodeID, _ []byte) (repository.Verify, error) {
	if signer[0] != 0xb {
		return nil, belfry.ErrNotMember
	}
	return verify(signer), nil
}

// config is that of a host in the given start of its agent and of its machine.
func config(host, incarnation, boot int) repository.Config {
	return repository.Config{
		Node: nodeID(host), Host: host, Incarnation: uint64(incarnation), Boot: repository.UUID{0xc, byte(host), byte(boot), byte(boot >> 8)},
		Sign: sign(nodeID(host)), Own: verify(nodeID(host)), Admit: admit, Holds: holds,
	}
}

// layout is the smallest for so many hosts.
func layout(hosts int) repository.Layout {
	const block = repository.BlockSize
	return repository.CompactLayout(hosts, block, int64(1+2*hosts)*block)
}

func header(hosts, disks, index int) repository.Header {
	h := repository.Header{
		Repository: repository.UUID{1}, Cluster: belfry.ClusterID{2}, Epoch: 1, Sequence: 1, Index: uint8(index),
		Layout: layout(hosts), Created: time.Unix(0, 0).UTC(), Label: "test",
	}
	for i := range disks {
		h.Disks = append(h.Disks, repository.UUID{3, byte(i)})
	}
	return h
}

func founder() repository.Founder {
	c := config(0, 1, 0)
	return repository.Founder{Node: c.Node, Incarnation: c.Incarnation, Boot: c.Boot, Sign: c.Sign}
}

// first is the document of generation 1.
func first() []byte { return appendOp(nil, opID(0, 0)) }

// format makes the disks of one repository.
func format(hosts, disks int) ([]*Disk, error) {
	var all []*Disk
	for i := range disks {
		h := header(hosts, disks, i)
		d := NewDisk(make([]byte, h.Layout.Size()))
		if err := repository.Format(d.Open(), h, founder(), first(), opID(0, 0)); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// retry calls again as long as the store says that this helps.
func retry(store *repository.Store, times int, call func() error) error {
	var err error
	for range times {
		err = call()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, repository.Settling):
			if err := store.Settled(); err != nil {
				return err
			}
		case errors.Is(err, repository.Preempted), errors.Is(err, belfry.ErrUnknown), errors.Is(err, repository.Lost):
		default:
			return err
		}
	}
	return err
}
