package main

import (
	"context"
	"fmt"
	"maps"
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

func newLinkCommand(a *app) *cobra.Command {
	return newGroup(a, "link", "Show the links of this node and what is measured on them", newLinkListCommand(a), newLinkShowCommand(a), newLinkMatrixCommand(a))
}

// watchHelp is what --watch does, in the commands of links.
const watchHelp = `

--watch goes on until it is interrupted: at a terminal it draws the same again
each second and with each change; elsewhere, and with -o json, it writes a line
for each link as it is and then for each change. It outlives the agent.`

func newLinkListCommand(a *app) *cobra.Command {
	var node string
	var watch bool
	f := &linkFilterFlags{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the links of this node, or of another",
		Long: `List the link database of this node: what it hears itself of each of its peers
on each network. Another node has its own, and may hear others than this one:
--node asks it.

Flags narrow the list down: a link has to be one of each list that is given, and
beyond one of the thresholds, if there are any. With --watch a link that was
beyond one is shown until it is at nine tenths of it or less. A link that flaps
says besides whether it works now.` + watchHelp,
		Example: `  belfry link list
  belfry link list -o wide
  belfry link list --node b
  belfry link list --state down,one-way-out,no-carrier
  belfry link list --watch --loss-over 2% --rtt-over 50ms -o json`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			if watch {
				return a.watchLinks(cmd.Context(), node, filter, f.set(), func(ctx context.Context, c *client.Client) error {
					return a.linkList(ctx, c, node, filter)
				})
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.linkList(ctx, c, node, filter)
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "the node whose links to list (default this one)")
	cmd.Flags().BoolVar(&watch, "watch", false, "go on with what changes, until interrupted")
	f.register(a, cmd)
	_ = cmd.RegisterFlagCompletionFunc("node", a.completeNode)
	return cmd
}

func newLinkShowCommand(a *app) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:     "show PEER[/NETWORK]",
		Short:   "Show all that is measured of the links to a node",
		Long:    `Show all that is measured of the links to a node, a sheet for each.` + watchHelp,
		Example: "  belfry link show b\n  belfry link show b/net1 -o json\n  belfry link show b/net1 --watch",
		Args:    exactly(1, "PEER or PEER/NETWORK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if peer, network, both := strings.Cut(args[0], "/"); both && network == "" {
				return usagef("%s: no network after the /; all links to a node are belfry link show %s", args[0], peer)
			}
			if watch {
				return a.watchPeer(cmd.Context(), args[0])
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.linkShow(ctx, c, args[0])
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on with what changes, until interrupted")
	return cmd
}

func (a *app) linkList(ctx context.Context, c *client.Client, node string, filter client.LinkFilter) error {
	links, err := a.linksWhere(ctx, c, node, filter)
	if err == nil && len(links.GetLinks()) == 0 {
		err = noSuchLinks(ctx, c, node, filter)
	}
	if err != nil {
		return err
	}
	return a.showLinks(links, linkTable)
}

// noSuchLinks says which network or interface of a filter no link has, where that
// is why it leaves none: a name that is mistyped must not look like a quiet node.
func noSuchLinks(ctx context.Context, c *client.Client, node string, filter client.LinkFilter) error {
	if len(filter.Networks)+len(filter.Interfaces) == 0 {
		return nil
	}
	all, err := c.LinksWhere(ctx, node, client.LinkFilter{})
	if err != nil {
		return err
	}
	for _, list := range []struct {
		what  string
		named []string
		of    func(*belfryv1.Link) string
	}{
		{"network", filter.Networks, (*belfryv1.Link).GetNetwork},
		{"interface", filter.Interfaces, (*belfryv1.Link).GetInterface},
	} {
		there := map[string]bool{}
		for _, l := range all.GetLinks() {
			if name := list.of(l); name != "" {
				there[name] = true
			}
		}
		for _, name := range list.named {
			if !there[name] && len(there) > 0 {
				return failf(belfry.ErrNotFound, "no link has %s %q; one of %s", list.what, name, strings.Join(slices.Sorted(maps.Keys(there)), ", "))
			}
		}
	}
	return nil
}

// linksWhere asks for links, and says which nodes there are where one that was
// named is unknown.
func (a *app) linksWhere(ctx context.Context, c *client.Client, node string, filter client.LinkFilter) (*belfryv1.ListLinksResponse, error) {
	links, err := c.LinksWhere(ctx, node, filter)
	if !isNotFound(err) {
		return links, err
	}
	nodes, listErr := c.Nodes(ctx)
	for _, name := range append([]string{node}, filter.Peers...) {
		if _, known := findNode(name, nodes); listErr == nil && !known && name != "" {
			return nil, unknownNode(name, nodes, belfry.ErrNotFound)
		}
	}
	return nil, err
}

func (a *app) linkShow(ctx context.Context, c *client.Client, name string) error {
	links, err := a.linksTo(ctx, c, name)
	if err != nil {
		return err
	}
	return a.showLinks(links, linkSheets)
}

// watchPeer is link show with --watch. The peer and the network have to be there
// when it begins.
func (a *app) watchPeer(ctx context.Context, name string) error {
	peer, network, _ := strings.Cut(name, "/")
	filter := client.LinkFilter{Peers: []string{peer}}
	if network != "" {
		filter.Networks = []string{network}
	}
	if !a.draws() {
		err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
			_, err := a.linksTo(ctx, c, name)
			return err
		})
		if err != nil {
			return err
		}
	}
	return a.watchLinks(ctx, "", filter, false, func(ctx context.Context, c *client.Client) error {
		return a.linkShow(ctx, c, name)
	})
}

// linksTo are the links to PEER[/NETWORK].
func (a *app) linksTo(ctx context.Context, c *client.Client, name string) (*belfryv1.ListLinksResponse, error) {
	peer, network, _ := strings.Cut(name, "/")
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	node, ok := findNode(peer, nodes)
	if !ok {
		return nil, unknownNode(peer, nodes, belfry.ErrNotFound)
	}
	if node.GetSelf() {
		return nil, failf(belfry.ErrNotFound, "%s is this node, which has no link to itself; name another node", peer)
	}
	links, err := c.Links(ctx, node.GetName())
	if err != nil {
		return nil, err
	}
	var networks []string
	for _, l := range links.GetLinks() {
		networks = append(networks, l.GetNetwork())
	}
	if network != "" && !slices.Contains(networks, network) {
		if near, ok := config.Nearest(network, networks); ok {
			return nil, failf(belfry.ErrNotFound, "no link to %s on network %q; did you mean %s/%s?", peer, network, peer, near)
		}
		return nil, failf(belfry.ErrNotFound, "no link to %s on network %q; one of %s", peer, network, strings.Join(networks, ", "))
	}
	if network != "" {
		links.Links = slices.DeleteFunc(links.Links, func(l *belfryv1.Link) bool { return l.GetNetwork() != network })
	}
	return links, nil
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
		t.add("local", l.GetLocal()+interfaceText(l))
		t.add("remote", l.GetRemote())
		t.addCells(cell{text: "state"}, linkStateCell(l))
		t.add("reason", l.GetReason())
		t.add("for", sinceText(now, when(l.GetSince())))
		t.add("sent", strconv.FormatUint(l.GetSent(), 10)+lastText(now, when(l.GetLastSent())))
		t.add("received", strconv.FormatUint(l.GetReceived(), 10)+lastText(now, when(l.GetLastReceived())))
		t.add("echo", strings.TrimPrefix(lastText(now, when(l.GetLastEcho())), ", "))
		t.add("rx", rxText(l))
		t.add("loss", fmt.Sprintf("%s, %d lost, %d reordered, %d twice", ratio(l.GetLossRatio()), l.GetLost(), l.GetReordered(), l.GetDuplicate()))
		t.add("rtt", linkRTTs(l))
		t.add("losses", fmt.Sprintf("%s of 10s, %s of 60s, %s of 600s", ratio(l.GetLoss_10SRatio()), ratio(l.GetLoss_60SRatio()), ratio(l.GetLoss_600SRatio())))
		t.add("quantiles", quantilesText(l))
		t.add("jitter", span(l.GetJitter().AsDuration()))
		t.add("interval", span(l.GetInterval().AsDuration()))
		t.add("announced", span(l.GetAnnounced().AsDuration()))
		t.add("maxwait", span(l.GetMaxWait().AsDuration()))
		t.add("deviation", fmt.Sprintf("%d of at most %d", l.GetDeviation(), l.GetMaxDeviation()))
		t.add("changes", fmt.Sprintf("up %d, down %d, flap penalty %d", l.GetUps(), l.GetDowns(), l.GetFlapPenalty()))
		t.add("peerstate", peerView(l))
		t.add("delays", delaysText(l))
		t.write(o)
		linkHistory(o, l, now)
		linkTransitions(o, l, now)
	}
}

// interfaceText is what the near end is plugged into, as far as is known.
func interfaceText(l *belfryv1.Link) string {
	if l.GetInterface() == "" {
		return ""
	}
	text := " on " + l.GetInterface()
	if l.GetSpeedMbits() > 0 {
		text += fmt.Sprintf(", %d Mbit/s", l.GetSpeedMbits())
	}
	if l.GetMtuBytes() > 0 {
		text += fmt.Sprintf(", MTU %d", l.GetMtuBytes())
	}
	if !l.GetCarrier() {
		text += ", does not work"
	}
	return text
}

func rxText(l *belfryv1.Link) string {
	if l.GetRx() {
		return "up"
	}
	return "down"
}

func quantilesText(l *belfryv1.Link) string {
	if l.GetRttMin() == nil {
		return ""
	}
	return fmt.Sprintf("min %s, p50 %s, p99 %s", span(l.GetRttMin().AsDuration()), span(l.GetRttP50().AsDuration()), span(l.GetRttP99().AsDuration()))
}

// linkTransitions are the changes of state, oldest first.
func linkTransitions(o *output, l *belfryv1.Link, now time.Time) {
	if len(l.GetTransitions()) == 0 {
		return
	}
	fmt.Fprintln(o)
	t := newTable("BEFORE FROM TO REASON")
	for _, c := range l.GetTransitions() {
		t.add(ago(now.Sub(when(c.GetTime()))), c.GetFrom(), c.GetTo(), c.GetReason())
	}
	t.write(o)
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

func linkStateCell(l *belfryv1.Link) cell { return stateCell(l.GetState(), l.GetTwoWay()) }

// stateCell is a state for people. One that flaps says besides whether it works
// now: its name does not tell.
func stateCell(state string, twoWay bool) cell {
	c := cell{text: state, color: yellow}
	switch state {
	case belfry.LinkFlapping.String():
		c.text += ", up"
		if !twoWay {
			c = cell{text: state + ", down", color: red}
		}
	case belfry.LinkUp.String():
		c.color = green
	case belfry.LinkDown.String(), belfry.LinkNoCarrier.String():
		c.color = red
	case belfry.LinkAdminDown.String():
		c.color = plain
	}
	return c
}
