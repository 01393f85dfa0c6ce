package wire

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
)

// AppendBody appends the encoded body to dst. It wraps ErrUsage when a field
// that is not a duration is out of its range, and ErrLimit when a list is too
// long; dst then comes back as it was.
func AppendBody(dst []byte, b Body) ([]byte, error) {
	out, err := dst, error(nil)
	switch b := b.(type) {
	case *Heartbeat:
		out, err = b.append(dst)
	case *RelayAsk:
		out, err = b.append(dst)
	case *RelayResult:
		out, err = b.append(dst)
	case *Claims:
		out, err = b.append(dst)
	case *Notice:
		out, err = b.append(dst)
	case *View:
		out, err = b.append(dst)
	default:
		err = fmt.Errorf("%w: body of type %T; one of the six of this package", belfry.ErrUsage, b)
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

func (h *Heartbeat) append(dst []byte) ([]byte, error) {
	if err := h.check(); err != nil {
		return dst, err
	}
	first := byte(kindHeartbeat)
	var echoOf, hold uint32
	if h.Echo && h.Hold <= maxHold { // an older echo could be mistaken for a young one
		first |= flagEcho
		echoOf, hold = h.EchoOf, steps(h.Hold, clockUnit, max24)
	}
	if h.Probe {
		first |= flagProbe
	}
	if h.Answer {
		first |= flagAnswer
	}
	if h.Wanted {
		first |= flagWanted
	}
	if len(h.Claims) > 0 || h.ExactPause > 0 || h.NumOthers > 0 || len(h.OneWays) > 0 {
		first |= flagMore
	}
	dst = appendCommon(dst, first, h.Link, h.LinkState, h.Seq)
	dst = append24(dst, h.SentAt)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(stepsUp(h.Announced, time.Millisecond, max16)))
	dst = append(dst, h.Loss)
	dst = append24(dst, echoOf)
	dst = append24(dst, hold)
	dst = append24(dst, h.View)
	dst = append(dst, h.Health|h.Pause<<4)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(h.Fresh.Subject))
	age := steps(h.Fresh.Age, ageUnit, max12)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(h.Fresh.Verdict)|uint16(age)<<4)
	if len(h.Claims) > 0 {
		dst = append(dst, sectionClaims, byte(len(h.Claims)*claimSize))
		dst = appendClaims(dst, h.Claims)
	}
	if h.ExactPause > 0 {
		dst = append(dst, sectionPause, 4)
		dst = binary.LittleEndian.AppendUint32(dst, stepsUp(h.ExactPause, time.Millisecond, max32))
	}
	if h.NumOthers > 0 {
		dst = append(dst, sectionLinks, h.NumOthers*linkViewSize)
		for _, o := range h.Others[:h.NumOthers] {
			dst = append(dst, o.Link|byte(o.State)<<4, o.Loss)
		}
	}
	if len(h.OneWays) > 0 {
		dst = append(dst, sectionOneWays, byte(len(h.OneWays)*oneWaySize))
		for _, w := range h.OneWays {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(w.Hearer))
			dst = binary.LittleEndian.AppendUint16(dst, uint16(w.Heard))
			dst = binary.LittleEndian.AppendUint16(dst, w.Links)
			dst = binary.LittleEndian.AppendUint16(dst, uint16(steps(w.Age, ageUnit, max16)))
		}
	}
	return dst, nil
}

func (h *Heartbeat) check() error {
	if err := checkCommon(h.Link, h.LinkState); err != nil {
		return err
	}
	switch {
	case h.SentAt > max24:
		return outOfRange("send clock", h.SentAt, max24)
	case h.Echo && h.EchoOf > max24:
		return outOfRange("echo", h.EchoOf, max24)
	case h.View > max24:
		return outOfRange("view hash", h.View, max24)
	case h.Health > maxHealth:
		return outOfRange("health score", h.Health, maxHealth)
	case h.Pause > 15:
		return outOfRange("pause", h.Pause, 15)
	case h.Fresh.Verdict > belfry.VerdictLeft:
		return outOfRange("verdict", h.Fresh.Verdict, belfry.VerdictLeft)
	}
	if int(h.NumOthers) > len(h.Others) {
		return outOfRange("views of links", h.NumOthers, uint8(len(h.Others)))
	}
	for _, o := range h.Others[:h.NumOthers] {
		if err := checkCommon(o.Link, o.State); err != nil {
			return err
		}
	}
	if len(h.OneWays) > MaxOneWays {
		return fmt.Errorf("%w: %d one-way links; at most %d", belfry.ErrLimit, len(h.OneWays), MaxOneWays)
	}
	return checkClaims(h.Claims, MaxHeartbeatClaims)
}

func (r *RelayAsk) append(dst []byte) ([]byte, error) {
	if err := checkCommon(r.Link, r.LinkState); err != nil {
		return dst, err
	}
	dst = appendCommon(dst, kindRelayAsk, r.Link, r.LinkState, r.Seq)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(r.Subject))
	return binary.LittleEndian.AppendUint16(dst, r.Burst), nil
}

func (r *RelayResult) append(dst []byte) ([]byte, error) {
	if err := checkCommon(r.Link, r.LinkState); err != nil {
		return dst, err
	}
	dst = appendCommon(dst, kindRelayResult, r.Link, r.LinkState, r.Seq)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(r.Subject))
	dst = binary.LittleEndian.AppendUint16(dst, r.Burst)
	dst = append(dst, r.Unanswered, r.Loss)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(steps(r.HeardAgo, time.Millisecond, max16)))
	if r.KernelAnswers {
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}

func (v *View) append(dst []byte) ([]byte, error) {
	if err := checkCommon(v.Link, v.LinkState); err != nil {
		return dst, err
	}
	if len(v.Buckets) == 0 || len(v.Buckets) > MaxBuckets {
		return dst, fmt.Errorf("%w: view of %d buckets; 1 to %d", belfry.ErrLimit, len(v.Buckets), MaxBuckets)
	}
	dst = appendCommon(dst, kindView, v.Link, v.LinkState, v.Seq)
	dst = binary.LittleEndian.AppendUint16(dst, v.First)
	for _, hash := range v.Buckets {
		if hash > max24 {
			return dst, outOfRange("bucket hash", hash, max24)
		}
		dst = append24(dst, hash)
	}
	return dst, nil
}

func (c *Claims) append(dst []byte) ([]byte, error) {
	if err := checkCommon(c.Link, c.LinkState); err != nil {
		return dst, err
	}
	if len(c.Claims) == 0 {
		return dst, fmt.Errorf("%w: no claims; 1 to %d", belfry.ErrUsage, MaxClaims)
	}
	if err := checkClaims(c.Claims, MaxClaims); err != nil {
		return dst, err
	}
	dst = appendCommon(dst, kindClaims, c.Link, c.LinkState, c.Seq)
	return appendClaims(append(dst, byte(len(c.Claims))), c.Claims), nil
}

func (n *Notice) append(dst []byte) ([]byte, error) {
	if err := checkCommon(n.Link, n.LinkState); err != nil {
		return dst, err
	}
	if len(n.Data) == 0 {
		return dst, fmt.Errorf("%w: notice without bytes; 1 to %d", belfry.ErrUsage, MaxNotice)
	}
	if len(n.Data) > MaxNotice {
		return dst, fmt.Errorf("%w: notice of %d bytes; at most %d", belfry.ErrLimit, len(n.Data), MaxNotice)
	}
	return append(appendCommon(dst, kindNotice, n.Link, n.LinkState, n.Seq), n.Data...), nil
}

func appendCommon(dst []byte, first byte, link uint8, state belfry.LinkState, seq uint16) []byte {
	return binary.LittleEndian.AppendUint16(append(dst, first, link|byte(state)<<4), seq)
}

func appendClaims(dst []byte, claims []belfry.Claim) []byte {
	for _, c := range claims {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(c.Subject))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(c.Incarnation))
		dst = binary.LittleEndian.AppendUint16(dst, c.Turn)
		dst = append(dst, byte(c.Verdict)|byte(c.Cause)<<4, c.Observers)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(steps(c.Age, ageUnit, max16)))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(c.Origin))
	}
	return dst
}

func append24(dst []byte, v uint32) []byte {
	return append(dst, byte(v), byte(v>>8), byte(v>>16))
}

func checkCommon(link uint8, state belfry.LinkState) error {
	if link > 15 {
		return outOfRange("link index", link, 15)
	}
	if state > belfry.LinkFlapping {
		return outOfRange("link state", state, belfry.LinkFlapping)
	}
	return nil
}

func checkClaims(claims []belfry.Claim, most int) error {
	if len(claims) > most {
		return fmt.Errorf("%w: %d claims; at most %d", belfry.ErrLimit, len(claims), most)
	}
	for _, c := range claims {
		if c.Verdict > belfry.VerdictLeft {
			return outOfRange("verdict", c.Verdict, belfry.VerdictLeft)
		}
		if c.Cause > belfry.CauseRemoved {
			return outOfRange("cause", c.Cause, belfry.CauseRemoved)
		}
	}
	return nil
}

const maxHealth = 8 // cluster.md 9

func outOfRange[T ~uint8 | ~uint32](field string, value, most T) error {
	return fmt.Errorf("%w: %s %d; at most %d", belfry.ErrUsage, field, uint32(value), uint32(most))
}

// steps is d in whole units, rounded down, between 0 and most.
func steps(d, unit time.Duration, most uint32) uint32 {
	return uint32(min(max(d/unit, 0), time.Duration(most)))
}

// stepsUp is steps, rounded up.
func stepsUp(d, unit time.Duration, most uint32) uint32 {
	n := steps(d, unit, most)
	if n < most && time.Duration(n)*unit < d {
		n++
	}
	return n
}
