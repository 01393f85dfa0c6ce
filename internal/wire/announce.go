package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/belfry-ha/belfry"
)

// An Announce tells a node that waits with a join token where the cluster is
// (security.md, Joining). It is the only datagram that is not sealed: whoever
// receives it has no keys yet. Decoding proves nothing. The receiver first
// compares the authority with its token, checks that Certificate is under it
// and names From, and then calls VerifyAnnounce with the certificate's key.
type Announce struct {
	Notice      [AnnouncedNotice]byte // opaque here (repository.md)
	From        belfry.NodeID         // not zero
	Port        uint16                // of the streams, TCP; not zero
	Certificate []byte                // of From, X.509 in DER; not empty
	Authority   []byte                // that Certificate is under, the same
}

const (
	// AnnouncedNotice is the size of a notice, in bytes.
	AnnouncedNotice = 81

	announceDomain = "belfry-announce-v1\x00"
	// What stands beside the certificates: head, notice, sender, port, two
	// lengths and the signature.
	announceFixed = announceSize + AnnouncedNotice + len(belfry.NodeID{}) + 2 + 2 + 2 + ed25519.SignatureSize
)

// AppendAnnounce appends a whole datagram to dst, signed by the sender's
// identity. It wraps ErrUsage if a field is empty, and ErrLimit if it would be
// larger than MaxSize.
func AppendAnnounce(dst []byte, cluster belfry.ClusterID, a Announce, identity ed25519.PrivateKey) ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if size := announceFixed + len(a.Certificate) + len(a.Authority); size > MaxSize {
		return nil, fmt.Errorf("%w: announce of %d bytes; at most %d", belfry.ErrLimit, size, MaxSize)
	}
	begin := len(dst)
	head := announceHead(cluster)
	dst = append(dst, head[:]...)
	dst = append(dst, a.Notice[:]...)
	dst = append(dst, a.From[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, a.Port)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(a.Certificate)))
	dst = append(dst, a.Certificate...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(a.Authority)))
	dst = append(dst, a.Authority...)
	return append(dst, ed25519.Sign(identity, announceText(dst[begin:]))...), nil
}

// DecodeAnnounce reads what AppendAnnounce writes for that cluster. The result
// shares memory with data. It wraps ErrUsage for everything that is wrong.
func DecodeAnnounce(data []byte, cluster belfry.ClusterID) (a Announce, err error) {
	if len(data) < announceFixed || len(data) > MaxSize {
		return Announce{}, fmt.Errorf("%w: announce of %d bytes; %d to %d", belfry.ErrUsage, len(data), announceFixed, MaxSize)
	}
	if [announceSize]byte(data) != announceHead(cluster) {
		return Announce{}, fmt.Errorf("%w: not the head of an announce of cluster %s", belfry.ErrUsage, cluster)
	}
	rest := data[announceSize : len(data)-ed25519.SignatureSize]
	rest = rest[copy(a.Notice[:], rest):]
	rest = rest[copy(a.From[:], rest):]
	a.Port, rest = binary.LittleEndian.Uint16(rest), rest[2:]
	if a.Certificate, rest, err = takeBytes(rest); err != nil {
		return Announce{}, err
	}
	if a.Authority, rest, err = takeBytes(rest); err != nil {
		return Announce{}, err
	}
	if len(rest) != 0 {
		return Announce{}, fmt.Errorf("%w: announce with %d bytes too many; none", belfry.ErrUsage, len(rest))
	}
	if err := a.check(); err != nil {
		return Announce{}, err
	}
	return a, nil
}

// VerifyAnnounce says whether the holder of an identity has signed the
// datagram. It costs one check of a signature, about 60 µs.
func VerifyAnnounce(data []byte, identity ed25519.PublicKey) bool {
	if len(data) < announceFixed || len(identity) != ed25519.PublicKeySize {
		return false
	}
	signed := len(data) - ed25519.SignatureSize
	return ed25519.Verify(identity, announceText(data[:signed]), data[signed:])
}

// announceHead is the short form's head with neither sender nor counter.
func announceHead(cluster belfry.ClusterID) [announceSize]byte {
	digest := sha256.Sum256(cluster[:])
	return [announceSize]byte{formAnnounce << 4, digest[0]}
}

// announceText is what is signed: a signature for another purpose is none here.
func announceText(data []byte) []byte { return append([]byte(announceDomain), data...) }

func (a *Announce) check() error {
	switch {
	case a.From.IsZero():
		return fmt.Errorf("%w: announce of the zero node; a node id is needed", belfry.ErrUsage)
	case a.Port == 0:
		return fmt.Errorf("%w: announce of port 0; 1 to 65535", belfry.ErrUsage)
	case len(a.Certificate) == 0 || len(a.Authority) == 0:
		return fmt.Errorf("%w: announce without certificates; the node's and its authority's", belfry.ErrUsage)
	}
	return nil
}

// takeBytes cuts off bytes with their length, 16 bits, before them.
func takeBytes(data []byte) (taken, rest []byte, err error) {
	if len(data) < 2 {
		return nil, nil, fmt.Errorf("%w: announce ends in a length; two bytes", belfry.ErrUsage)
	}
	n := int(binary.LittleEndian.Uint16(data))
	if data = data[2:]; n > len(data) {
		return nil, nil, fmt.Errorf("%w: announce ends %d bytes early", belfry.ErrUsage, n-len(data))
	}
	return data[:n:n], data[n:], nil
}
