package client

import "github.com/belfry-ha/belfry"

// counted is, by registration, how many occurrences gaps over several events
// stand for that an agent's journal will tell as new, if the agent is restarted
// now: all that came in such gaps since the last place in the journal up to which
// everything was told, without those that lie before a number that was told of the
// same event. Nobody can say which of what is new they are, so the
// first ones are, and whoever adds up has each occurrence once.
type counted map[uint32]uint64

// less takes n off.
func (c counted) less(registration uint32, n uint64) {
	if had := c[registration]; had > 0 {
		c[registration] = had - min(had, n)
	}
}

// tell notes a gap that the program was told live.
func (c counted) tell(n *belfry.Notification) {
	if n.Kind == belfry.KindGap && n.Entry == 0 && n.Gap != nil && n.Gap.Known {
		c[n.Registration] += n.Gap.Total
	}
}

// again cuts what was counted before off what a journal tells again; false: all of it was.
func (c counted) again(n *belfry.Notification) bool {
	left := c[n.Registration]
	if left == 0 || n.Entry == 0 || n.Kind != belfry.KindOccurrence && n.Kind != belfry.KindGap {
		return true
	}
	if t := total(n); t <= left {
		c[n.Registration] -= t
		return false
	}
	delete(c, n.Registration)
	skipped := min(left, n.Skipped) // they came before
	n.Skipped -= skipped
	left -= skipped
	if n.Gap != nil {
		gap := *n.Gap
		gap.Total -= left
		n.Gap = &gap
	} else {
		n.Count -= left
	}
	n.First = min(n.First+left, n.Last)
	return true
}
