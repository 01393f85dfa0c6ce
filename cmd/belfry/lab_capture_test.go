package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// heartbeatSize is the UDP payload of a heartbeat that carries no claims:
// short header, body and tag (cluster.md 3).
const heartbeatSize = 8 + 24 + 12

// captured is what the wire saw of one direction since a time, in the order
// it was sent.
func (w *wire) captured(d direction, since time.Time) (all []packet, news <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.packets {
		if p.direction == d && !p.sent.Before(since) {
			all = append(all, p)
		}
	}
	return all, w.news
}

// await waits until the packets of one direction since a time are enough.
func (w *wire) await(d direction, since time.Time, limit time.Duration, enough func([]packet) bool) ([]packet, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		packets, news := w.captured(d, since)
		if enough(packets) {
			return packets, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return packets, fmt.Errorf("not within %s", limit)
		}
	}
}

// roundTrips is how long the newest round trips lasted on the wire: a datagram
// to the node that came lately, with the newest that had come to the peer when
// it was sent, whose time it echoes.
func (w *wire) roundTrips(node, peer string) (all []time.Duration) {
	now := time.Now()
	there, _ := w.captured(direction{node, peer, labNetwork(1)}, now.Add(-time.Minute))
	back, _ := w.captured(direction{peer, node, labNetwork(1)}, now.Add(-time.Second))
	for _, b := range back {
		if b.lost || b.arrived().After(now) {
			continue
		}
		known := 0 // two, since the second may have crossed b inside the peer
		for _, t := range slices.Backward(there) {
			if !t.lost && t.arrived().Before(b.sent) && known < 2 {
				all = append(all, t.delay+b.delay)
				known++
			}
		}
	}
	return all
}

// gaps are the times between heartbeats as they left their sender.
func gaps(packets []packet) (all []time.Duration) {
	var last time.Time
	for _, p := range packets {
		if p.size != heartbeatSize {
			continue
		}
		if !last.IsZero() {
			all = append(all, p.sent.Sub(last).Round(time.Millisecond))
		}
		last = p.sent
	}
	return all
}

// period waits until the heartbeats of each direction have a period, which must
// be what the receiver reports as announced.
func (l *lab) period(ts *testscript.TestScript, _ bool, args []string) {
	bounds := durations(ts, args[2:])
	low, high := bounds[0], bounds[1]
	outside := func(gap time.Duration) bool { return gap < low || gap > high }
	begin := time.Now()
	for _, d := range l.directions(ts, args) {
		packets, err := l.wire.await(d, begin, time.Minute, func(packets []packet) bool {
			all := gaps(packets)
			return len(all) >= 3 && !slices.ContainsFunc(all[len(all)-3:], outside)
		})
		seen := gaps(packets)
		if err != nil {
			ts.Fatalf("no three heartbeats in a row from %s to %s are %s to %s apart: %v: %v", d.from, d.to, low, high, err, seen)
		}
		newest := seen[len(seen)-3:]
		announced := l.announced(ts, d, begin)
		fmt.Fprintf(ts.Stdout(), "%s>%s: heartbeats %v apart, announced %s\n", d.from, d.to, newest, announced)
	}
}

// announced waits until a receiver reports a period that is the newest on the
// wire, to a tenth: in between, what a claim or an answer announced stands
// there, and the period may move once more.
func (l *lab) announced(ts *testscript.TestScript, d direction, since time.Time) (got time.Duration) {
	l.pollLink(ts, d.to, d.from, 30*time.Second, func(link *belfryv1.Link) bool {
		packets, _ := l.wire.captured(d, since)
		all := gaps(packets)
		period := all[len(all)-1]
		got = link.GetAnnounced().AsDuration()
		return (got - period).Abs() <= period/10
	})
	return got
}

// missed delays the next heartbeat and looks in the evidence whether the
// receiver held it missed.
func (l *lab) missed(ts *testscript.TestScript, neg bool, args []string) {
	d := l.directions(ts, args)[0]
	late := durations(ts, args[2:])[0]
	receiver := l.dial(ts, d.to)
	defer receiver.Close()
	begin := time.Now()
	l.late(ts, false, args)
	packets, err := l.wire.await(d, begin, time.Minute, func(packets []packet) bool {
		return slices.ContainsFunc(packets, func(p packet) bool { return p.scripted })
	})
	if err != nil {
		ts.Fatalf("no heartbeat from %s to %s: %v", d.from, d.to, err)
	}
	held := packets[slices.IndexFunc(packets, func(p packet) bool { return p.scripted })]
	<-time.After(time.Until(held.arrived().Add(100 * time.Millisecond)))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node, err := receiver.Node(ctx, d.from)
	ts.Check(err)
	found := false
	for _, e := range node.GetEvidence() {
		if at := e.GetTime().AsTime(); at.After(begin) && at.Before(held.arrived().Add(50*time.Millisecond)) {
			ts.Logf("%s %s", at.Format("15:04:05.000"), e.GetText())
			found = found || strings.HasPrefix(e.GetText(), "heartbeat missed")
		}
	}
	switch {
	case found && neg:
		ts.Fatalf("%s held a heartbeat missed that was %s late", d.to, late)
	case !found && !neg:
		ts.Fatalf("%s did not miss the heartbeat that was %s late", d.to, late)
	}
}
