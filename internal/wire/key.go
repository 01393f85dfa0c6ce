package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// A Secret is the group secret of one epoch: 32 random bytes that all members
// share (security.md, Keys). It does not print.
type Secret [32]byte

// Format writes "secret", whatever the verb, so that no log or error shows it.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("secret")) }

// wipe overwrites the secret.
func (s *Secret) wipe() { clear(s[:]) }

// A path is what one key is for: datagrams of one form from one start of the
// sender to one receiver. In short form also to one start of the receiver.
type path struct {
	form         byte
	epoch        uint32
	sender       belfry.NodeID
	receiver     belfry.NodeID
	incarnation  belfry.Incarnation // of the sender
	boot         belfry.Boot        // of the sender
	receiverBoot belfry.Boot        // short form only
}

const keyLabel = "belfry datagram v1"

// key is the HKDF info of cluster.md 3, Sealing, applied to the epoch's
// pseudorandom key (RFC 5869 2.2: the secret, extracted with the cluster's
// UUID as salt).
func (p path) key(prk []byte) cipher.AEAD {
	info := make([]byte, 0, 96)
	info = append(info, keyLabel...)
	info = append(info, p.form)
	info = binary.LittleEndian.AppendUint32(info, p.epoch)
	info = append(info, p.sender[:]...)
	info = append(info, p.receiver[:]...)
	info = binary.LittleEndian.AppendUint32(info, uint32(p.incarnation))
	info = binary.LittleEndian.AppendUint32(info, uint32(p.boot))
	if p.form == formShort {
		info = binary.LittleEndian.AppendUint32(info, uint32(p.receiverBoot))
	}
	key, err := hkdf.Expand(sha256.New, prk, string(info), 32)
	if err != nil {
		panic("wire: hkdf: " + err.Error()) // 32 bytes are always possible
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("wire: aes: " + err.Error()) // the key has 32 bytes
	}
	aead, err := cipher.NewGCMWithTagSize(block, tagSize)
	if err != nil {
		panic("wire: gcm: " + err.Error()) // 12 is an allowed size
	}
	return aead
}

func extract(secret Secret, cluster belfry.ClusterID) []byte {
	prk, err := hkdf.Extract(sha256.New, secret[:], cluster[:])
	if err != nil {
		panic("wire: hkdf: " + err.Error()) // it fails for no input of ours
	}
	return prk
}

// keys caches the ciphers of one path in up to three epochs. The zero value is
// empty.
type keys [3]struct {
	epoch uint32
	aead  cipher.AEAD
}

func (k *keys) get(epoch uint32) cipher.AEAD {
	for i := range k {
		if k[i].aead != nil && k[i].epoch == epoch {
			return k[i].aead
		}
	}
	return nil
}

// put takes an empty place, else that of the oldest epoch.
func (k *keys) put(epoch uint32, aead cipher.AEAD) {
	oldest := 0
	for i := range k {
		if k[i].aead == nil {
			oldest = i
			break
		}
		if k[i].epoch < k[oldest].epoch {
			oldest = i
		}
	}
	k[oldest].epoch, k[oldest].aead = epoch, aead
}
