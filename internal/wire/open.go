package wire

import (
	"crypto/cipher"
	"errors"
	"time"

	"github.com/belfry-ha/belfry"
)

// Opened is an authentic datagram that was not seen before.
type Opened struct {
	From        belfry.NodeID
	Number      belfry.NodeNumber
	Incarnation belfry.Incarnation
	Boot        belfry.Boot
	Epoch       uint32 // one after the present one: ask for the newest configuration at once
	// Proven says that the sender knew my present boot, so that this is no
	// recording from before it. Only what is proven is proof of life; claims
	// are harmless to repeat, since they are ordered (cluster.md 3).
	Proven bool
	Body   Body
}

// Open checks one datagram in the order of work of cluster.md 3 and returns
// the step that it failed, or Accepted. Accepted datagrams have a Body that
// shares no memory with the input. For RejectDuplicate Opened says who it is,
// without Body; else what was dropped leaves it empty.
//
// source is asked whether the address is bound to that sender and has not
// used up its tokens, after all that is cheaper and before any decryption: it
// returns Accepted, RejectSource or RejectRate. Nil accepts all.
//
// What does not authenticate changes nothing, and is never a reason to send.
func (e *Endpoint) Open(now time.Time, datagram []byte, source func(belfry.NodeID) Reason) (Opened, Reason) {
	h, reason := parseHeader(datagram, e.tag)
	if reason != Accepted {
		return Opened{}, reason
	}
	p := e.byNumber[h.number]
	if p == nil {
		return Opened{}, RejectSender
	}
	epoch, ok := e.epochs.open(now, h.epoch)
	if !ok {
		return Opened{}, RejectEpoch
	}
	if source != nil {
		if reason := source(p.id); reason != Accepted {
			return Opened{}, reason
		}
	}
	if h.form == formShort {
		return e.openShort(now, p, epoch, h, datagram)
	}
	return e.openLong(now, p, epoch, h, datagram)
}

// openShort tries the sessions whose incarnation has that low byte. What opens
// under the candidate's key proves both boots, as a long datagram that shows
// mine does: the key holds them. The peer sends so as soon as I have shown it
// its boot, and I must not depend on the one long datagram in which it showed
// me mine. The replaced session is tried too: a second agent that does not
// know of its replacement goes on in short form for a minute.
func (e *Endpoint) openShort(now time.Time, p *peer, epoch uint32, h header, datagram []byte) (Opened, Reason) {
	reason := RejectBoot
	for _, s := range [...]*session{p.present, p.candidate, p.previous} {
		if s == nil || byte(s.incarnation) != h.incarnation {
			continue
		}
		counter := s.short.expand(h.counter)
		plain := e.decrypt(e.receiveKey(p, s, formShort, epoch), counter, shortSize, datagram)
		if plain == nil {
			reason = RejectOpen
			continue
		}
		if !s.short.fresh(counter) {
			return Opened{}, RejectReplay
		}
		s.short.mark(counter)
		if s == p.previous {
			return e.fromReplaced(now, p, s, epoch)
		}
		if s != p.present {
			p.adopt(now, s)
		}
		p.prove(now)
		return opened(p, s, epoch, true, plain)
	}
	return Opened{}, reason
}

func (e *Endpoint) openLong(now time.Time, p *peer, epoch uint32, h header, datagram []byte) (Opened, Reason) {
	s := p.session(h.fullIncarnation, h.boot)
	known := s != nil
	if !known {
		if p.outdated(h.fullIncarnation, h.boot) {
			return Opened{}, RejectBoot
		}
		s = &session{incarnation: h.fullIncarnation, boot: h.boot} // lives on only if it authenticates
	}
	plain := e.decrypt(e.receiveKey(p, s, formLong, epoch), h.counter, longSize, datagram)
	if plain == nil {
		return Opened{}, RejectOpen
	}
	if !s.long.fresh(h.counter) {
		return Opened{}, RejectReplay
	}
	proven := h.peerBoot == e.boot
	if s == p.previous {
		s.long.mark(h.counter)
		return e.fromReplaced(now, p, s, epoch)
	}
	if s != p.present {
		if proven {
			p.adopt(now, s)
		} else if !p.propose(now, s) {
			return Opened{}, RejectBoot
		}
	}
	s.long.mark(h.counter)
	if proven {
		p.prove(now)
	} else {
		e.want(now, p)
	}
	return opened(p, s, epoch, proven, plain)
}

// fromReplaced judges a fresh datagram of the boot that the present one
// replaced: late, or a second agent that runs with a copy of the first one's
// state. The newest stays.
func (e *Endpoint) fromReplaced(now time.Time, p *peer, s *session, epoch uint32) (Opened, Reason) {
	if now.Sub(s.at) <= duplicateAfter {
		return Opened{}, RejectBoot
	}
	return Opened{From: p.id, Number: p.number, Incarnation: s.incarnation, Boot: s.boot, Epoch: epoch}, RejectDuplicate
}

func opened(p *peer, s *session, epoch uint32, proven bool, plain []byte) (Opened, Reason) {
	body, err := DecodeBody(plain)
	switch {
	case errors.Is(err, belfry.ErrUnsupported):
		return Opened{}, RejectKind
	case err != nil:
		return Opened{}, RejectDecode
	}
	return Opened{
		From: p.id, Number: p.number, Incarnation: s.incarnation, Boot: s.boot,
		Epoch: epoch, Proven: proven, Body: body,
	}, Accepted
}

// decrypt returns nil for what does not authenticate. The result is overwritten
// by the next call.
func (e *Endpoint) decrypt(key cipher.AEAD, counter uint32, head int, datagram []byte) []byte {
	plain, err := key.Open(e.plain[:0], e.nonceOf(counter), datagram[head:], datagram[:head])
	if err != nil {
		return nil
	}
	return plain
}

func (e *Endpoint) receiveKey(p *peer, s *session, form byte, epoch uint32) cipher.AEAD {
	cache, receiverBoot := &s.longKeys, belfry.Boot(0)
	if form == formShort {
		cache, receiverBoot = &s.shortKeys, e.boot
	}
	key := cache.get(epoch)
	if key == nil {
		key = path{
			form: form, epoch: epoch, sender: p.id, receiver: e.self,
			incarnation: s.incarnation, boot: s.boot, receiverBoot: receiverBoot,
		}.key(e.epochs.prk[epoch])
		cache.put(epoch, key)
	}
	return key
}
