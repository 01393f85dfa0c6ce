package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
)

// linkListView is link list and link show in JSON.
type linkListView struct {
	Node    string     `json:"node" doc:"whose link database it is: what this node hears itself"`
	Version uint64     `json:"version" doc:"of the database; it grows with every change"`
	Links   []linkView `json:"links" doc:"by peer, then network"`
}

// linkView is one directed link in JSON.
type linkView struct {
	Peer                string           `json:"peer" doc:"name of the other node"`
	PeerID              string           `json:"peer_id" doc:"UUID of the other node"`
	Network             string           `json:"network" doc:"name of the network"`
	Local               string           `json:"local" doc:"address of this end"`
	Remote              string           `json:"remote" doc:"address of the other end"`
	State               string           `json:"state" doc:"init, up, down, one-way-in, one-way-out, degraded, unknown, …"`
	Reason              string           `json:"reason" doc:"why; may be empty"`
	Since               *instant         `json:"since" doc:"when the state began"`
	LastSent            *instant         `json:"last_sent" doc:"last heartbeat sent"`
	LastReceived        *instant         `json:"last_received" doc:"last heartbeat received"`
	LastEcho            *instant         `json:"last_echo" doc:"last time the peer proved that it hears this node"`
	LossRatio           float64          `json:"loss_ratio" doc:"share of heartbeats that did not arrive"`
	RTTSeconds          *float64         `json:"rtt_seconds" doc:"mean round trip; null: not measured yet"`
	RTTDeviationSeconds *float64         `json:"rtt_deviation_seconds" doc:"its deviation"`
	RTTLastSeconds      *float64         `json:"rtt_last_seconds" doc:"the last one measured"`
	JitterSeconds       *float64         `json:"jitter_seconds" doc:"variation of the delay"`
	IntervalSeconds     *float64         `json:"interval_seconds" doc:"between the heartbeats that this node sends"`
	AnnouncedSeconds    *float64         `json:"announced_seconds" doc:"interval that the peer announces"`
	MaxWaitSeconds      *float64         `json:"max_wait_seconds" doc:"how long after the interval a heartbeat counts as missed"`
	MaxDeviation        uint32           `json:"max_deviation" doc:"the link is down above this deviation of sequence numbers"`
	Deviation           uint32           `json:"deviation" doc:"heartbeats expected and not received"`
	Sent                uint64           `json:"sent" doc:"heartbeats sent"`
	Received            uint64           `json:"received" doc:"heartbeats received"`
	Lost                uint64           `json:"lost" doc:"heartbeats lost on the way here"`
	Reordered           uint64           `json:"reordered" doc:"heartbeats that came out of order"`
	Duplicate           uint64           `json:"duplicate" doc:"heartbeats that came twice"`
	DelaysSeconds       []float64        `json:"delays_seconds" doc:"the last round trips that were measured, oldest first"`
	History             []adaptationView `json:"history" doc:"how interval, max_wait and max_deviation came to be what they are, oldest first"`
	PeerState           string           `json:"peer_state" doc:"the peer's view of the same link; empty: not known"`
	PeerLossRatio       float64          `json:"peer_loss_ratio" doc:"the loss that the peer sees"`
	PeerAgeSeconds      *float64         `json:"peer_age_seconds" doc:"how old the peer's view is"`
}

// adaptationView is one step of the adapted parameters in JSON.
type adaptationView struct {
	Time                *instant `json:"time" doc:"when a parameter had moved by a quarter"`
	IntervalSeconds     *float64 `json:"interval_seconds" doc:"between the heartbeats that this node sends"`
	MaxWaitSeconds      *float64 `json:"max_wait_seconds" doc:"how long after the interval a heartbeat counts as missed"`
	MaxDeviation        uint32   `json:"max_deviation" doc:"receptions that may be missing"`
	RTTSeconds          *float64 `json:"rtt_seconds" doc:"mean round trip that it was computed from"`
	RTTDeviationSeconds *float64 `json:"rtt_deviation_seconds" doc:"its deviation"`
	JitterSeconds       *float64 `json:"jitter_seconds" doc:"variation of the delay"`
	LossRatio           float64  `json:"loss_ratio" doc:"loss that was assumed"`
	Why                 string   `json:"why" doc:"what decided on the interval: path, rate, quiet, target, min or max"`
}

func newLinkCommand(a *app) *cobra.Command {
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the links of this node",
		Example: "  belfry link list\n  belfry link list -o wide",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), a.linkList)
		},
	}
	show := &cobra.Command{
		Use:     "show PEER[/NETWORK]",
		Short:   "Show all that is measured of the links to a node",
		Example: "  belfry link show b\n  belfry link show b/net1 -o json",
		Args:    exactly(1, "PEER or PEER/NETWORK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.linkShow(ctx, c, args[0])
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	return newGroup(a, "link", "Show the links of this node and what is measured on them", list, show)
}

func (a *app) linkList(ctx context.Context, c *client.Client) error {
	links, err := c.Links(ctx, "")
	if err != nil {
		return err
	}
	return a.showLinks(links, linkTable)
}

func (a *app) linkShow(ctx context.Context, c *client.Client, name string) error {
	peer, network, _ := strings.Cut(name, "/")
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	node, ok := findNode(peer, nodes)
	if !ok {
		return unknownNode(peer, nodes, belfry.ErrNotFound)
	}
	if node.GetSelf() {
		return failf(belfry.ErrNotFound, "%s is this node, which has no link to itself; name another node", peer)
	}
	links, err := c.Links(ctx, node.GetName())
	if err != nil {
		return err
	}
	var networks []string
	for _, l := range links.GetLinks() {
		networks = append(networks, l.GetNetwork())
	}
	if network != "" && !slices.Contains(networks, network) {
		if near, ok := config.Nearest(network, networks); ok {
			return failf(belfry.ErrNotFound, "no link to %s on network %q; did you mean %s/%s?", peer, network, peer, near)
		}
		return failf(belfry.ErrNotFound, "no link to %s on network %q; one of %s", peer, network, strings.Join(networks, ", "))
	}
	if network != "" {
		links.Links = slices.DeleteFunc(links.Links, func(l *belfryv1.Link) bool { return l.GetNetwork() != network })
	}
	return a.showLinks(links, linkSheets)
}

func (a *app) showLinks(links *belfryv1.ListLinksResponse, table func(*output, []*belfryv1.Link, time.Time, bool)) error {
	views := make([]linkView, len(links.GetLinks()))
	for i, l := range links.GetLinks() {
		views[i] = viewOfLink(l)
	}
	return a.show(document{
		value: linkListView{Node: links.GetNodeName(), Version: links.GetVersion(), Links: views},
		rows:  rowsOf(views),
		table: func(o *output, wide bool) { table(o, links.GetLinks(), time.Now(), wide) },
	})
}

func linkTable(o *output, links []*belfryv1.Link, now time.Time, wide bool) {
	heads := "PEER NETWORK STATE FOR LOSS RTT JITTER INTERVAL MAXWAIT PEERSTATE"
	if wide {
		heads += " DEVIATION MAXDEVIATION RECEIVED LOST LOCAL REMOTE REASON"
	}
	t := newTable(heads)
	for _, l := range links {
		row := []cell{
			{text: l.GetPeer()},
			{text: l.GetNetwork()},
			linkStateCell(l),
			{text: sinceText(now, when(l.GetSince()))},
			{text: ratio(l.GetLossRatio())},
			{text: linkRTT(l)},
			{text: span(l.GetJitter().AsDuration())},
			{text: span(l.GetInterval().AsDuration())},
			{text: span(l.GetMaxWait().AsDuration())},
			{text: l.GetPeerState()},
		}
		if wide {
			row = append(row,
				cell{text: strconv.Itoa(int(l.GetDeviation()))},
				cell{text: positive(l.GetMaxDeviation())},
				cell{text: strconv.FormatUint(l.GetReceived(), 10)},
				cell{text: strconv.FormatUint(l.GetLost(), 10)},
				cell{text: l.GetLocal()},
				cell{text: l.GetRemote()},
				cell{text: l.GetReason()},
			)
		}
		t.addCells(row...)
	}
	t.write(o)
}

// linkSheets has a line for each thing that is measured, a sheet for each link.
func linkSheets(o *output, links []*belfryv1.Link, now time.Time, _ bool) {
	for i, l := range links {
		if i > 0 {
			fmt.Fprintln(o)
		}
		t := &table{}
		t.add("link", l.GetPeer()+"/"+l.GetNetwork())
		t.add("local", l.GetLocal())
		t.add("remote", l.GetRemote())
		t.addCells(cell{text: "state"}, linkStateCell(l))
		t.add("reason", l.GetReason())
		t.add("for", sinceText(now, when(l.GetSince())))
		t.add("sent", strconv.FormatUint(l.GetSent(), 10)+lastText(now, when(l.GetLastSent())))
		t.add("received", strconv.FormatUint(l.GetReceived(), 10)+lastText(now, when(l.GetLastReceived())))
		t.add("echo", strings.TrimPrefix(lastText(now, when(l.GetLastEcho())), ", "))
		t.add("loss", fmt.Sprintf("%s, %d lost, %d reordered, %d twice", ratio(l.GetLossRatio()), l.GetLost(), l.GetReordered(), l.GetDuplicate()))
		t.add("rtt", linkRTTs(l))
		t.add("jitter", span(l.GetJitter().AsDuration()))
		t.add("interval", span(l.GetInterval().AsDuration()))
		t.add("announced", span(l.GetAnnounced().AsDuration()))
		t.add("maxwait", span(l.GetMaxWait().AsDuration()))
		t.add("deviation", fmt.Sprintf("%d of at most %d", l.GetDeviation(), l.GetMaxDeviation()))
		t.add("peerstate", peerView(l))
		t.add("delays", delaysText(l))
		t.write(o)
		linkHistory(o, l, now)
	}
}

// delaysText is the last round trips, oldest first.
func delaysText(l *belfryv1.Link) string {
	var texts []string
	for _, d := range l.GetDelays() {
		texts = append(texts, span(d.AsDuration()))
	}
	return strings.Join(texts, " ")
}

// linkHistory says how the adapted parameters came to be what they are.
func linkHistory(o *output, l *belfryv1.Link, now time.Time) {
	if len(l.GetHistory()) == 0 {
		return
	}
	fmt.Fprintln(o)
	t := &table{}
	t.add("BEFORE", "INTERVAL", "MAXWAIT", "MAXDEV", "RTT", "DEVIATION", "JITTER", "LOSS", "WHY")
	for _, h := range l.GetHistory() {
		t.add(ago(now.Sub(when(h.GetTime()))), span(h.GetInterval().AsDuration()), span(h.GetMaxWait().AsDuration()),
			strconv.Itoa(int(h.GetMaxDeviation())), span(h.GetRtt().AsDuration()), span(h.GetRttDeviation().AsDuration()),
			span(h.GetJitter().AsDuration()), ratio(h.GetLossRatio()), h.GetWhy())
	}
	t.write(o)
}

func lastText(now, at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return ", last " + ago(now.Sub(at)) + " ago"
}

func peerView(l *belfryv1.Link) string {
	if l.GetPeerState() == "" {
		return ""
	}
	return fmt.Sprintf("%s, loss %s, %s ago", l.GetPeerState(), ratio(l.GetPeerLossRatio()), ago(l.GetPeerAge().AsDuration()))
}

func linkRTT(l *belfryv1.Link) string {
	if !l.GetRttKnown() {
		return ""
	}
	return span(l.GetRtt().AsDuration())
}

func linkRTTs(l *belfryv1.Link) string {
	if !l.GetRttKnown() {
		return ""
	}
	return fmt.Sprintf("%s, deviation %s, last %s", linkRTT(l), span(l.GetRttDeviation().AsDuration()), span(l.GetRttLast().AsDuration()))
}

func linkStateCell(l *belfryv1.Link) cell {
	c := cell{text: l.GetState(), color: yellow}
	switch l.GetState() {
	case belfry.LinkUp.String():
		c.color = green
	case belfry.LinkDown.String(), belfry.LinkNoCarrier.String():
		c.color = red
	case belfry.LinkAdminDown.String():
		c.color = plain
	}
	return c
}

func viewOfLink(l *belfryv1.Link) linkView {
	v := linkView{
		Peer: l.GetPeer(), PeerID: l.GetPeerId(), Network: l.GetNetwork(), Local: l.GetLocal(), Remote: l.GetRemote(),
		State: l.GetState(), Reason: l.GetReason(), Since: jsonTime(when(l.GetSince())),
		LastSent: jsonTime(when(l.GetLastSent())), LastReceived: jsonTime(when(l.GetLastReceived())),
		LastEcho: jsonTime(when(l.GetLastEcho())), LossRatio: l.GetLossRatio(),
		JitterSeconds:    jsonSeconds(l.GetJitter().AsDuration()),
		IntervalSeconds:  jsonSeconds(l.GetInterval().AsDuration()),
		AnnouncedSeconds: jsonSeconds(l.GetAnnounced().AsDuration()),
		MaxWaitSeconds:   jsonSeconds(l.GetMaxWait().AsDuration()),
		MaxDeviation:     l.GetMaxDeviation(), Deviation: l.GetDeviation(),
		Sent: l.GetSent(), Received: l.GetReceived(), Lost: l.GetLost(), Reordered: l.GetReordered(), Duplicate: l.GetDuplicate(),
		PeerState: l.GetPeerState(), PeerLossRatio: l.GetPeerLossRatio(),
		PeerAgeSeconds: jsonSeconds(l.GetPeerAge().AsDuration()),
	}
	v.DelaysSeconds, v.History = []float64{}, []adaptationView{}
	for _, d := range l.GetDelays() {
		v.DelaysSeconds = append(v.DelaysSeconds, d.AsDuration().Seconds())
	}
	for _, h := range l.GetHistory() {
		v.History = append(v.History, adaptationView{
			Time: jsonTime(when(h.GetTime())), IntervalSeconds: jsonSeconds(h.GetInterval().AsDuration()),
			MaxWaitSeconds: jsonSeconds(h.GetMaxWait().AsDuration()), MaxDeviation: h.GetMaxDeviation(),
			RTTSeconds: jsonSeconds(h.GetRtt().AsDuration()), RTTDeviationSeconds: jsonSeconds(h.GetRttDeviation().AsDuration()),
			JitterSeconds: jsonSeconds(h.GetJitter().AsDuration()), LossRatio: h.GetLossRatio(), Why: h.GetWhy(),
		})
	}
	if l.GetRttKnown() {
		v.RTTSeconds = jsonSeconds(l.GetRtt().AsDuration())
		v.RTTDeviationSeconds = jsonSeconds(l.GetRttDeviation().AsDuration())
		v.RTTLastSeconds = jsonSeconds(l.GetRttLast().AsDuration())
	}
	return v
}
