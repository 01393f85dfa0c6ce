package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// DecodeBody reads what AppendBody writes. The result shares no memory with
// data. It wraps ErrUnsupported for a kind it does not know, and ErrUsage for
// anything else that is wrong: a length, or a value that no sender of this
// protocol has. It is strict because the greatest claim stands: a verdict
// from beyond the list would outrank all others.
func DecodeBody(data []byte) (Body, error) {
	if len(data) < commonSize {
		return nil, badLength("body", len(data), commonSize)
	}
	link, state := data[1]&0x0f, belfry.LinkState(data[1]>>4)
	if state > belfry.LinkFlapping {
		return nil, outOfRange("link state", state, belfry.LinkFlapping)
	}
	seq := binary.LittleEndian.Uint16(data[2:])
	switch kind := data[0] & 7; kind {
	case kindHeartbeat:
		return decodeHeartbeat(data, link, state, seq)
	case kindRelayAsk:
		if len(data) != relayAskSize {
			return nil, badLength("relay ask", len(data), relayAskSize)
		}
		return &RelayAsk{
			Link: link, LinkState: state, Seq: seq,
			Subject: belfry.NodeNumber(binary.LittleEndian.Uint16(data[4:])),
			Burst:   binary.LittleEndian.Uint16(data[6:]),
		}, nil
	case kindRelayResult:
		if len(data) != relayResultSize {
			return nil, badLength("relay result", len(data), relayResultSize)
		}
		return &RelayResult{
			Link: link, LinkState: state, Seq: seq,
			Subject:       belfry.NodeNumber(binary.LittleEndian.Uint16(data[4:])),
			Burst:         binary.LittleEndian.Uint16(data[6:]),
			Unanswered:    data[8],
			Loss:          data[9],
			HeardAgo:      time.Duration(binary.LittleEndian.Uint16(data[10:])) * time.Millisecond,
			KernelAnswers: data[12]&1 != 0,
		}, nil
	case kindClaims:
		claims, err := decodeClaimList(data[commonSize:])
		if err != nil {
			return nil, err
		}
		return &Claims{Link: link, LinkState: state, Seq: seq, Claims: claims}, nil
	case kindNotice:
		text := data[commonSize:]
		if len(text) == 0 || len(text) > MaxNotice {
			return nil, badLength("notice", len(text), MaxNotice)
		}
		return &Notice{Link: link, LinkState: state, Seq: seq, Data: bytes.Clone(text)}, nil
	case kindView:
		return decodeView(data, link, state, seq)
	default:
		return nil, fmt.Errorf("%w: body of kind %d; 1 to %d", belfry.ErrUnsupported, kind, kindView)
	}
}

func decodeHeartbeat(data []byte, link uint8, state belfry.LinkState, seq uint16) (Body, error) {
	if len(data) < heartbeatSize {
		return nil, badLength("heartbeat", len(data), heartbeatSize)
	}
	fresh := binary.LittleEndian.Uint16(data[22:])
	h := &Heartbeat{
		Probe: data[0]&flagProbe != 0, Answer: data[0]&flagAnswer != 0, Wanted: data[0]&flagWanted != 0,
		Link: link, LinkState: state, Seq: seq,
		SentAt:    uint24(data[4:]),
		Announced: time.Duration(binary.LittleEndian.Uint16(data[7:])) * time.Millisecond,
		Loss:      data[9],
		View:      uint24(data[16:]),
		Health:    data[19] & 0x0f,
		Pause:     data[19] >> 4,
		Fresh: belfry.Freshness{
			Subject: belfry.NodeNumber(binary.LittleEndian.Uint16(data[20:])),
			Verdict: belfry.Verdict(fresh & 0x0f),
			Age:     time.Duration(fresh>>4) * ageUnit,
		},
	}
	if hold := time.Duration(uint24(data[13:])) * clockUnit; data[0]&flagEcho != 0 && hold <= maxHold {
		h.Echo, h.EchoOf, h.Hold = true, uint24(data[10:]), hold
	}
	if h.Health > maxHealth {
		return nil, outOfRange("health score", h.Health, maxHealth)
	}
	if h.Fresh.Verdict > belfry.VerdictLeft {
		return nil, outOfRange("verdict", h.Fresh.Verdict, belfry.VerdictLeft)
	}
	sections := data[heartbeatSize:]
	if data[0]&flagMore == 0 && len(sections) > 0 {
		return nil, badLength("heartbeat without sections", len(data), heartbeatSize)
	}
	if err := h.decodeSections(sections); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Heartbeat) decodeSections(data []byte) (err error) {
	var seen [256]bool
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(data[1]) {
			return fmt.Errorf("%w: section is cut off after %d bytes; type, length, bytes", belfry.ErrUsage, len(data))
		}
		kind, content := data[0], data[2:2+int(data[1])]
		data = data[2+len(content):]
		if seen[kind] && kind >= sectionClaims && kind <= sectionOneWays {
			return fmt.Errorf("%w: section %d comes twice; once each", belfry.ErrUsage, kind)
		}
		seen[kind] = true
		switch kind {
		case sectionClaims:
			h.Claims, err = decodeClaims(content)
		case sectionPause:
			if len(content) != 4 {
				return badLength("section of the exact pause", len(content), 4)
			}
			h.ExactPause = time.Duration(binary.LittleEndian.Uint32(content)) * time.Millisecond
		case sectionLinks:
			err = h.decodeOthers(content)
		case sectionOneWays:
			err = h.decodeOneWays(content)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *Heartbeat) decodeOthers(data []byte) error {
	if len(data)%linkViewSize != 0 || len(data) > len(h.Others)*linkViewSize {
		return badLength("section of links", len(data), len(h.Others)*linkViewSize)
	}
	for i := 0; i < len(data)/linkViewSize; i++ {
		v := belfry.LinkView{Link: data[i*linkViewSize] & 0x0f, State: belfry.LinkState(data[i*linkViewSize] >> 4), Loss: data[i*linkViewSize+1]}
		if err := checkCommon(v.Link, v.State); err != nil {
			return err
		}
		h.Others[i] = v
		h.NumOthers++
	}
	return nil
}

func (h *Heartbeat) decodeOneWays(data []byte) error {
	if len(data)%oneWaySize != 0 {
		return badLength("section of one-way links", len(data), oneWaySize)
	}
	if len(data) > 0 {
		h.OneWays = make([]belfry.OneWay, 0, len(data)/oneWaySize)
	}
	for ; len(data) > 0; data = data[oneWaySize:] {
		h.OneWays = append(h.OneWays, belfry.OneWay{
			Hearer: belfry.NodeNumber(binary.LittleEndian.Uint16(data)),
			Heard:  belfry.NodeNumber(binary.LittleEndian.Uint16(data[2:])),
			Links:  binary.LittleEndian.Uint16(data[4:]),
			Age:    time.Duration(binary.LittleEndian.Uint16(data[6:])) * ageUnit,
		})
	}
	return nil
}

func decodeView(data []byte, link uint8, state belfry.LinkState, seq uint16) (Body, error) {
	if n := len(data) - commonSize - 2; n <= 0 || n%3 != 0 || n/3 > MaxBuckets {
		return nil, fmt.Errorf("%w: view of %d bytes; a bucket and 1 to %d hashes of 3 bytes", belfry.ErrUsage, len(data), MaxBuckets)
	}
	v := &View{Link: link, LinkState: state, Seq: seq, First: binary.LittleEndian.Uint16(data[commonSize:])}
	for hashes := data[commonSize+2:]; len(hashes) > 0; hashes = hashes[3:] {
		v.Buckets = append(v.Buckets, uint24(hashes))
	}
	return v, nil
}

// decodeClaimList reads a count and as many claims.
func decodeClaimList(data []byte) ([]belfry.Claim, error) {
	if len(data) == 0 || data[0] == 0 || data[0] > MaxClaims || len(data) != 1+int(data[0])*claimSize {
		return nil, fmt.Errorf("%w: claims of %d bytes do not fit their count; 1 to %d of %d bytes each",
			belfry.ErrUsage, len(data), MaxClaims, claimSize)
	}
	return decodeClaims(data[1:])
}

func decodeClaims(data []byte) ([]belfry.Claim, error) {
	if len(data)%claimSize != 0 {
		return nil, badLength("section of claims", len(data), claimSize)
	}
	if len(data) == 0 {
		return nil, nil
	}
	claims := make([]belfry.Claim, 0, len(data)/claimSize)
	for ; len(data) > 0; data = data[claimSize:] {
		claims = append(claims, belfry.Claim{
			Subject:     belfry.NodeNumber(binary.LittleEndian.Uint16(data)),
			Incarnation: belfry.Incarnation(binary.LittleEndian.Uint32(data[2:])),
			Turn:        binary.LittleEndian.Uint16(data[6:]),
			Verdict:     belfry.Verdict(data[8] & 0x0f),
			Cause:       belfry.Cause(data[8] >> 4),
			Observers:   data[9],
			Age:         time.Duration(binary.LittleEndian.Uint16(data[10:])) * ageUnit,
			Origin:      belfry.NodeNumber(binary.LittleEndian.Uint16(data[12:])),
		})
	}
	return claims, checkClaims(claims, MaxClaims)
}

func uint24(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
}

func badLength(what string, got, want int) error {
	return fmt.Errorf("%w: %s of %d bytes; %d expected", belfry.ErrUsage, what, got, want)
}
