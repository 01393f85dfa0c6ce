package wire

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// spentAt leaves a million datagrams to draw a new boot in.
const spentAt = max32 - 1<<20

// Seal appends to dst one datagram for a member. The form is long until each
// side has shown the other's present boot, and again when 60 s have passed
// without proof that the member still knows mine. It wraps ErrNotMember,
// ErrUsage and ErrLimit as AppendBody does, and ErrLimit when the counter is
// used up (after 2^32-1 datagrams to one member): then Reboot is due.
func (e *Endpoint) Seal(now time.Time, dst []byte, to belfry.NodeID, body Body) ([]byte, error) {
	out, err := e.seal(now, dst, to, body)
	if err != nil {
		return dst, &belfry.Error{Op: "wire.seal", Node: to, Err: err}
	}
	return out, nil
}

func (e *Endpoint) seal(now time.Time, dst []byte, to belfry.NodeID, body Body) ([]byte, error) {
	p := e.peers[to]
	if p == nil || !p.member {
		return dst, fmt.Errorf("%w: nothing is sent to it", belfry.ErrNotMember)
	}
	h := header{
		form: formLong, epoch: byte(e.epochs.current & 15), cluster: e.tag,
		number: e.number, incarnation: byte(e.incarnation),
	}
	counter := &p.longCounter
	if p.sendsShort(now) {
		h.form, counter = formShort, &p.shortCounter
	} else {
		h.fullIncarnation, h.boot, h.peerBoot = e.incarnation, e.boot, p.shown()
	}
	if *counter == max32 {
		return dst, fmt.Errorf("%w: its counter is used up; draw a new boot", belfry.ErrLimit)
	}
	h.counter = *counter + 1

	start := len(dst)
	out, err := AppendBody(h.append(dst), body)
	if err != nil {
		return dst, err
	}
	if size := len(out) - start + tagSize; size > MaxSize {
		return dst, fmt.Errorf("%w: datagram of %d bytes; at most %d", belfry.ErrLimit, size, MaxSize)
	}
	*counter++
	e.spent = e.spent || *counter >= spentAt
	head := start + h.size()
	return e.sendKey(p, h.form).Seal(out[:head], e.nonceOf(h.counter), out[head:], out[start:head]), nil
}

func (e *Endpoint) sendKey(p *peer, form byte) cipher.AEAD {
	cache, receiverBoot := &p.longKeys, belfry.Boot(0)
	if form == formShort {
		cache, receiverBoot = &p.shortKeys, p.present.boot
	}
	epoch := e.epochs.current
	key := cache.get(epoch)
	if key == nil {
		key = path{
			form: form, epoch: epoch, sender: e.self, receiver: p.id,
			incarnation: e.incarnation, boot: e.boot, receiverBoot: receiverBoot,
		}.key(e.epochs.prk[epoch])
		cache.put(epoch, key)
	}
	return key
}

// nonceOf is 8 zero bytes and the counter. No pair (key, nonce) comes twice,
// because the sender's boot is in the key.
func (e *Endpoint) nonceOf(counter uint32) []byte {
	binary.LittleEndian.PutUint32(e.nonce[8:], counter)
	return e.nonce[:]
}
