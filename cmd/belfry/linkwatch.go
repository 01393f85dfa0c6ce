package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// linkChangeView is one line of a watch of links in JSON.
type linkChangeView struct {
	Kind    string    `json:"kind" doc:"state: as it is when it is first shown; change: another state or reason, or a threshold crossed; left: it does not meet the flags any longer; ended: the peer is not watched any longer"`
	Time    *instant  `json:"time" doc:"when it was told"`
	Node    string    `json:"node" doc:"whose link it is: what that node hears itself"`
	Version uint64    `json:"version" doc:"of that node's link database"`
	Peer    string    `json:"peer" doc:"name of the other node"`
	Network string    `json:"network" doc:"name of the network"`
	From    string    `json:"from" doc:"the state that was told last; empty: none"`
	State   string    `json:"state" doc:"the present one; empty: not known, as of a link that ended"`
	Link    *linkView `json:"link" doc:"all of it, without delays, history and transitions; null: of kind left and ended"`
}

// A linkWatcher writes what changes of links, line by line.
type linkWatcher struct {
	*app
	filtered bool
	shown    map[string]*linkRow // by id of the peer and network
}

func (a *app) newLinkWatcher(filtered bool) *linkWatcher {
	return &linkWatcher{app: a, filtered: filtered, shown: map[string]*linkRow{}}
}

// followLinks hands on what the agent tells of its links, one after the other,
// until ctx ends. It outlives the agent: it asks again, from the version that it
// has.
func (a *app) followLinks(ctx context.Context, c *client.Client, filter client.LinkFilter, take func(*belfryv1.WatchLinksResponse) error) error {
	incarnation, version := uint32(0), uint64(0)
	told, waits := false, false
	for {
		for resp, err := range c.WatchLinks(ctx, filter, incarnation, version) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				if !told || !passes(err) {
					return err
				}
				if !waits {
					a.sayf("%s; asking again until it answers", a.plain(err))
				}
				waits = true
				break
			}
			incarnation, version = resp.GetIncarnation(), resp.GetVersion()
			told, waits = true, false
			if err := take(resp); err != nil {
				return err
			}
		}
		if !pause(ctx, watchRetry, nil) {
			return ctx.Err()
		}
	}
}

// pollLinks does the same for another node, whose agent is asked each second.
func (a *app) pollLinks(ctx context.Context, c *client.Client, node string, filter client.LinkFilter, take func(*belfryv1.WatchLinksResponse) error) error {
	for known, waits := false, false; ; {
		request, cancel := context.WithTimeout(ctx, lookTime(!known))
		links, err := c.LinksWhere(request, node, filter)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			known, waits = true, false
			resp := &belfryv1.WatchLinksResponse{NodeName: links.GetNodeName(), Version: links.GetVersion(), Snapshot: true, Links: links.GetLinks()}
			if err := take(resp); err != nil {
				return err
			}
		case !known || !passes(err):
			return err
		case !waits:
			waits = true
			a.notef("%s; asking again until it answers", a.plain(err))
		}
		if !pause(ctx, watchInterval, nil) {
			return ctx.Err()
		}
	}
}

func linkRowKey(peerID, network string) string { return peerID + "/" + network }

// take writes what a response changes of what was shown. A snapshot is compared
// with it, so that an agent that starts again repeats nothing.
func (w *linkWatcher) take(resp *belfryv1.WatchLinksResponse) error {
	now := time.Now()
	for _, r := range resp.GetRemoved() {
		w.remove(now, resp, linkRowKey(r.GetPeerId(), r.GetNetwork()), r.GetState())
	}
	there := map[string]bool{}
	for _, l := range resp.GetLinks() {
		key := linkRowKey(l.GetPeerId(), l.GetNetwork())
		there[key] = true
		was := w.shown[key]
		w.shown[key] = l
		if resp.GetSnapshot() && was != nil && was.GetState() == l.GetState() && was.GetReason() == l.GetReason() {
			continue
		}
		w.write(now, resp, was, l)
	}
	if resp.GetSnapshot() {
		for _, key := range w.sorted() {
			if !there[key] {
				w.remove(now, resp, key, "")
			}
		}
	}
	return w.out.flush()
}

// sorted are the keys of what is shown, by peer and network.
func (w *linkWatcher) sorted() []string {
	keys := make([]string, 0, len(w.shown))
	for key := range w.shown {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		x, y := w.shown[a], w.shown[b]
		return cmp.Or(cmp.Compare(x.GetPeer(), y.GetPeer()), cmp.Compare(x.GetNetwork(), y.GetNetwork()), cmp.Compare(a, b))
	})
	return keys
}

// remove writes that a link is not shown any longer, if it was: in a state that
// is not meant, or none, where it ended.
func (w *linkWatcher) remove(now time.Time, resp *belfryv1.WatchLinksResponse, key, state string) {
	was := w.shown[key]
	if was == nil {
		return // it came and went between two responses, or before this watch
	}
	delete(w.shown, key)
	kind := "ended"
	if state != "" || w.filtered && resp.GetSnapshot() {
		kind = "left"
	}
	w.line(linkChangeView{
		Kind: kind, Time: jsonTime(now), Node: resp.GetNodeName(), Version: resp.GetVersion(),
		Peer: was.GetPeer(), Network: was.GetNetwork(), From: was.GetState(), State: state,
	}, now, was, nil)
}

func (w *linkWatcher) write(now time.Time, resp *belfryv1.WatchLinksResponse, was, l *linkRow) {
	kind := "state"
	if was != nil {
		kind = "change"
	}
	view := viewOfLink(l)
	w.line(linkChangeView{
		Kind: kind, Time: jsonTime(now), Node: resp.GetNodeName(), Version: resp.GetVersion(),
		Peer: l.GetPeer(), Network: l.GetNetwork(), From: was.GetState(), State: l.GetState(), Link: &view,
	}, now, was, l)
}

// line writes one change, of a link that was and is, each nil if there is none,
// in the form that -o chose, in one line but for yaml.
func (w *linkWatcher) line(v linkChangeView, now time.Time, was, l *linkRow) {
	if w.object(v) {
		return
	}
	parts := []string{clock(now), printable(v.Peer + "/" + v.Network)}
	from, to := linkStateCell(was).text, v.State
	if l != nil {
		to = linkStateCell(l).text
	}
	switch {
	case to == "" || from == "" || from == to:
		parts = append(parts, cmp.Or(to, v.Kind))
	default:
		parts = append(parts, from+" -> "+to)
	}
	if v.Kind == "left" && v.State != "" {
		parts = append(parts, v.Kind)
	}
	if l != nil {
		parts = append(parts, linkFields(l, w.form == formWide))
	}
	fmt.Fprintln(w.out, strings.Join(parts, "  "))
}

// object writes one change for programs; false: the form is one for people.
func (a *app) object(v any) bool {
	switch a.form {
	case formJSON, formJSONL:
		_ = a.out.json(v, "") // it is gathered; what fails shows when it is flushed
	case formYAML:
		fmt.Fprintln(a.out, "---")
		_ = a.out.yaml(v)
	default:
		return false
	}
	return true
}

// linkFields are the KEY=VALUE of a line.
func linkFields(l *linkRow, wide bool) string {
	fields := []string{"loss=" + ratio(l.GetLossRatio())}
	add := func(key, value string) {
		if value != "" {
			fields = append(fields, key+"="+fieldValue(value))
		}
	}
	add("rtt", linkRTT(l))
	add("jitter", span(l.GetJitter().AsDuration()))
	if wide {
		add("interval", span(l.GetInterval().AsDuration()))
		add("maxwait", span(l.GetMaxWait().AsDuration()))
		fields = append(fields, fmt.Sprintf("deviation=%d/%d", l.GetDeviation(), l.GetMaxDeviation()))
		add("interface", l.GetInterface())
		add("local", l.GetLocal())
		add("remote", l.GetRemote())
		add("peerstate", l.GetPeerState())
	}
	add("reason", l.GetReason())
	return strings.Join(fields, " ")
}

// watchLinks is link list and link show with --watch: look writes the picture
// that a person at a terminal sees. node is another one, or empty.
func (a *app) watchLinks(ctx context.Context, node string, filter client.LinkFilter, filtered bool, look func(context.Context, *client.Client) error) error {
	ctx, cancel := a.stream(ctx)
	defer cancel()
	opening, opened := context.WithTimeout(ctx, defaultTimeout)
	defer opened()
	c, err := a.dial(opening)
	if err != nil {
		return err
	}
	defer c.Close()
	if a.draws() {
		return a.redraw(ctx, a.linkNews(ctx, c, node, filter), func(ctx context.Context) error { return look(ctx, c) })
	}
	if _, err := a.linksWhere(opening, c, node, filter); err != nil {
		return err // which says more than the stream does
	}
	w := a.newLinkWatcher(filtered)
	if node != "" {
		return a.pollLinks(ctx, c, node, filter, w.take)
	}
	return a.followLinks(ctx, c, filter, w.take)
}

// linkNews has a value when something changed of the links; of another node's
// nobody tells.
func (a *app) linkNews(ctx context.Context, c *client.Client, node string, filter client.LinkFilter) <-chan struct{} {
	if node != "" {
		return nil
	}
	news := make(chan struct{}, 1)
	go func() {
		_ = a.followLinks(ctx, c, filter, func(*belfryv1.WatchLinksResponse) error {
			select {
			case news <- struct{}{}:
			default:
			}
			return nil
		}) // what is wrong shows in the next look
	}()
	return news
}
