package repository

import (
	"bytes"
	"crypto/ed25519"

	"github.com/belfry-ha/belfry"
)

const (
	recordMagic     = "BELFRYC1"
	recordDomain    = "belfry-record-v1\x00"
	signatureOffset = BlockSize - 4 - ed25519.SignatureSize
	flagChosen      = 1 << 0
)

// A Record is what one host has to say on one disk: which ballot it has
// promised, and which value it has accepted in which ballot. A generation of
// zero is no value yet.
type Record struct {
	Repository  UUID
	Disk        UUID
	Epoch       uint64
	Host        uint32
	Copy        uint16
	Chosen      bool // known to be committed
	Writer      belfry.NodeID
	Incarnation uint64
	Sequence    uint64 // of this host's records, from 1
	Promised    Ballot // mbal
	Accepted    Ballot // bal
	Generation  uint64
	Slot        uint32 // of the payload
	Length      uint32 // of the payload, bytes
	Payload     Digest
	Previous    Digest
	Op          OpID
	Boot        UUID // boot id of the writer's kernel (proc_sys_kernel(5))
}

// Sign is the writer's Ed25519 signature of a message.
type Sign func(message []byte) []byte

// Verify tells whether a signature of a message is one signer's.
type Verify func(message, signature []byte) bool

// VerifyKey is Verify for a public key.
func VerifyKey(key ed25519.PublicKey) Verify {
	return func(message, signature []byte) bool { return ed25519.Verify(key, message, signature) }
}

func (r *Record) fields(f *field) error {
	var flags, codec uint16
	if r.Chosen {
		flags = flagChosen
	}
	f.bytes(0, []byte(recordMagic))
	f.bytes(8, r.Repository[:])
	f.bytes(24, r.Disk[:])
	integer(f, 40, &r.Epoch)
	integer(f, 48, &r.Host)
	integer(f, 52, &r.Copy)
	integer(f, 54, &flags)
	f.bytes(56, r.Writer[:])
	integer(f, 72, &r.Incarnation)
	integer(f, 80, &r.Sequence)
	integer(f, 88, &r.Promised)
	integer(f, 96, &r.Accepted)
	integer(f, 104, &r.Generation)
	integer(f, 112, &r.Slot)
	integer(f, 116, &r.Length)
	integer(f, 120, &codec)
	f.bytes(128, r.Payload[:])
	f.bytes(160, r.Previous[:])
	f.bytes(192, r.Op[:])
	f.bytes(208, r.Boot[:])
	if f.write {
		return nil
	}
	if err := f.end(signatureOffset); err != nil {
		return err
	}
	r.Chosen = flags == flagChosen
	if flags&^flagChosen != 0 || codec != 0 {
		return blockError("flags %#x, codec %d of the record; only a newer agent knows them", flags, codec)
	}
	return r.check()
}

// check refuses what no agent writes.
func (r *Record) check() error {
	empty := r.Generation == 0
	switch {
	case r.Sequence == 0 || r.Promised == 0 || r.Epoch == 0:
		return blockError("record without sequence, ballot or epoch")
	case r.Accepted > r.Promised:
		return blockError("accepted ballot %#x above the promised one %#x", r.Accepted, r.Promised)
	case r.Slot > 1 || r.Copy > 1:
		return blockError("copy %d, payload slot %d; 0 or 1", r.Copy, r.Slot)
	case empty && (r.Accepted != 0 || r.Length != 0 || r.Chosen || r.Payload != Digest{} || r.Previous != Digest{} || r.Op != OpID{}):
		return blockError("record with a value but no generation")
	case !empty && (r.Accepted == 0 || r.Length == 0 || r.Length > MaxSlotSize):
		return blockError("generation %d with ballot %#x and %d bytes", r.Generation, r.Accepted, r.Length)
	}
	return nil
}

// EncodeRecord writes and signs the block.
func EncodeRecord(r Record, sign Sign) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	block := make([]byte, BlockSize)
	if err := r.fields(&field{block: block, write: true}); err != nil {
		return nil, err
	}
	signature := sign(signed(block))
	if len(signature) != ed25519.SignatureSize {
		return nil, blockError("signature of %d bytes; %d", len(signature), ed25519.SignatureSize)
	}
	copy(block[signatureOffset:], signature)
	putCRC(block)
	return block, nil
}

// A place is where a record is read from. A record that says otherwise was
// misdirected, is a copy, or is of another disk.
type place struct {
	repository, disk UUID
	epoch            uint64
	host, copy       int
	slotSize         int64
}

// decodeRecord checks all but the signature, in the order: magic, place, CRC,
// fields. errEmpty: never written.
func decodeRecord(block []byte, at place) (Record, error) {
	if len(block) != BlockSize || !bytes.HasPrefix(block, []byte(recordMagic)) {
		if allZero(block) {
			return Record{}, errEmpty
		}
		return Record{}, blockError("no record")
	}
	var r Record
	err := r.fields(&field{block: block})
	switch {
	case r.Repository != at.repository || r.Disk != at.disk || r.Epoch != at.epoch:
		return Record{}, blockError("record of repository %s, disk %s, epoch %d", r.Repository, r.Disk, r.Epoch)
	case int64(r.Host) != int64(at.host) || int(r.Copy) != at.copy:
		return Record{}, blockError("record of host slot %d, copy %d", r.Host, r.Copy)
	case !crcFits(block):
		return Record{}, blockError("record with a wrong checksum")
	case err != nil:
		return Record{}, err
	case int64(r.Length) > at.slotSize:
		return Record{}, blockError("payload of %d bytes in a slot of %d", r.Length, at.slotSize)
	}
	return r, nil
}

// signed is the message that the signature of a record covers.
func signed(block []byte) []byte {
	return append([]byte(recordDomain), block[:signatureOffset]...)
}

// verified tells whether the block's signature is the signer's.
func verified(block []byte, verify Verify) bool {
	return verify(signed(block), block[signatureOffset:crcOffset])
}

// version is the value that the record holds.
func (r *Record) version() Version {
	return Version{r.Repository, r.Epoch, r.Accepted, r.Generation, r.Payload}
}
