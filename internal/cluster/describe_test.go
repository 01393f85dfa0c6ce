package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
)

// names of hosts by id, for printing.
func (n *network) name(id belfry.NodeID) string {
	if id.IsZero() {
		return "self"
	}
	return n.byID(id).name
}

func (n *network) elapsed(t time.Time) string {
	return fmt.Sprintf("%.3fs", t.Sub(n.start).Round(time.Millisecond).Seconds())
}

// describe is one change as scripts print it.
func (n *network) describe(h *host, c Change) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", n.elapsed(n.now), h.name)
	switch c := c.(type) {
	case NodeChange:
		fmt.Fprintf(&b, "%s %v -> %v (%v)", c.Name, c.From, c.To, c.Cause)
	case LinkChange:
		fmt.Fprintf(&b, "link %s/%s %v -> %v, %s", n.name(c.Peer), c.Network, c.From, c.To, c.Reason)
	case LinkFailed:
		fmt.Fprintf(&b, "link %s/%s flaps and works no longer", n.name(c.Peer), c.Network)
	case ContactChange:
		fmt.Fprintf(&b, "contact %s %s, %d of %d links: %s", c.Name, map[bool]string{true: "up", false: "down"}[c.Up], c.LinksUp, c.LinksTotal, c.Reason)
	case Restarted:
		fmt.Fprintf(&b, "%s runs as incarnation %d", c.Name, c.Incarnation)
	case WasDown:
		fmt.Fprintf(&b, "was %v (%v) by the word of %s", c.Verdict, c.Cause, n.name(c.By))
	case Isolated:
		fmt.Fprintf(&b, "isolated %v", c.On)
	case NonTransitive:
		b.WriteString("pairs")
		for _, pair := range c.Pairs {
			fmt.Fprintf(&b, " %s|%s", n.name(pair[0]), n.name(pair[1]))
		}
		b.WriteString(", connected")
		for _, id := range c.Connected {
			b.WriteString(" " + n.name(id))
		}
	}
	return b.String()
}

// agree tells whether all running machines hold the same claims.
func (n *network) agree() bool {
	var views []uint32
	for _, h := range n.hosts {
		if h.running && !h.frozen && !h.dead {
			views = append(views, h.m.View())
		}
	}
	slices.SortFunc(views, cmp.Compare)
	return len(slices.Compact(views)) <= 1
}
