package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// linkState waits until a node holds a link in a state, or one of several, and says
// what it went through.
func (l *lab) linkState(ts *testscript.TestScript, _ bool, args []string) {
	if args[3] != "within" {
		ts.Fatalf("usage: lab linkstate NODE PEER/NETWORK STATE|STATE... within TIME")
	}
	states := strings.Split(args[2], "|")
	took := l.awaitState(ts, args[0], args[1], durations(ts, args[4:5])[0], func(link *belfryv1.Link) bool { return slices.Contains(states, link.GetState()) })
	ts.Logf("%s holds its link to %s %s after %s", args[0], args[1], args[2], took)
}

// awaitState polls a link until its state is as wanted, and fails with all that
// it was in between.
func (l *lab) awaitState(ts *testscript.TestScript, node, to string, limit time.Duration, wanted func(*belfryv1.Link) bool) time.Duration {
	begin := time.Now()
	var path []string
	l.pollLink(ts, node, to, limit+10*time.Second, func(link *belfryv1.Link) bool {
		state := link.GetState() + " (" + link.GetReason() + ")"
		if len(path) == 0 || path[len(path)-1] != state {
			path = append(path, state)
		}
		switch {
		case wanted(link):
			return true
		case time.Since(begin) > limit:
			ts.Fatalf("%s and its link to %s for %s: %s", node, to, limit, strings.Join(path, ", "))
		}
		return false
	})
	return time.Since(begin)
}

// carrierLoss pulls the cable of a node again and again, and looks how much later
// than the kernel told so the link has none, by the row. When the kernel tells is
// not the agent's: where another carrier on the machine changed within a second,
// whoever's it was, it waits out that second (net/core/link_watch.c).
func (l *lab) carrierLoss(ts *testscript.TestScript, _ bool, args []string) {
	node, to := args[0], args[1]
	_, network, _ := strings.Cut(to, "/")
	limit := durations(ts, args[2:3])[0]
	count, err := strconv.Atoi(args[3])
	ts.Check(err)
	n := l.node(ts, node)
	var longest, kernel time.Duration
	for range count {
		carrier, err := n.ns.watchCarrier(n.device(network))
		ts.Check(err)
		begin := time.Now()
		l.cable(ts, false, []string{node, network, "out"})
		told, err := carrier.lost()
		ts.Check(err)
		kernel = max(kernel, told.Sub(begin))
		l.awaitState(ts, node, to, 10*time.Second, func(link *belfryv1.Link) bool {
			if link.GetState() != belfry.LinkNoCarrier.String() {
				return false
			}
			since := link.GetSince().AsTime()
			if since.Before(begin) || since.Sub(told) > limit {
				ts.Fatalf("in the row %s after the kernel told, and %s after the cable was pulled; want %s at most after the first",
					since.Sub(told), since.Sub(begin), limit)
			}
			longest = max(longest, since.Sub(told))
			return true
		})
		l.cable(ts, false, []string{node, network, "in"})
		// Whatever it is then: a link that comes and goes so often is flapping.
		l.awaitState(ts, node, to, 10*time.Second, func(link *belfryv1.Link) bool { return link.GetState() != belfry.LinkNoCarrier.String() })
	}
	fmt.Fprintf(ts.Stdout(), "carrier loss is in the row within %s of %d times (the kernel took up to %s to tell)\n", longest, count, kernel)
}
