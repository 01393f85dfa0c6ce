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
)

// nodeView is a node in JSON.
type nodeView struct {
	ID              string   `json:"id" doc:"UUID"`
	Name            string   `json:"name" doc:"name"`
	Number          uint32   `json:"number" doc:"the node's number within its cluster"`
	Incarnation     uint32   `json:"incarnation" doc:"how often its agent has started; 0: not known"`
	Verdict         string   `json:"verdict" doc:"joining, up, stalled, unreachable, down or left"`
	Cause           string   `json:"cause" doc:"why the verdict stands; - for no cause"`
	Since           *instant `json:"since" doc:"when the verdict began"`
	ForSeconds      *float64 `json:"for_seconds" doc:"how long it has lasted"`
	LastHeard       *instant `json:"last_heard" doc:"when this node last heard it; null for never, or itself"`
	AgeSeconds      *float64 `json:"age_seconds" doc:"age of the newest fact about it; null for this node"`
	Observers       uint32   `json:"observers" doc:"how many nodes saw the evidence"`
	LinksUp         uint32   `json:"links_up" doc:"links to it that are up"`
	LinksTotal      uint32   `json:"links_total" doc:"links to it"`
	IntervalSeconds *float64 `json:"interval_seconds" doc:"heartbeat interval, the smallest of its links"`
	MaxWaitSeconds  *float64 `json:"max_wait_seconds" doc:"how long after the interval a heartbeat counts as missed"`
	Self            bool     `json:"self" doc:"it is the node that answers"`
	Note            string   `json:"note" doc:"anything else worth knowing; may be empty"`
	Addresses       []string `json:"addresses" doc:"heartbeat addresses"`
	PID             *uint32  `json:"pid" doc:"process of its agent"`
	Version         *string  `json:"version" doc:"version of its agent"`
	Started         *instant `json:"started" doc:"when its agent started"`
}

// nodeListView is node list in JSON.
type nodeListView struct {
	Nodes []nodeView `json:"nodes" doc:"by name"`
}

// nodeShowView is node show in JSON: the node, with its evidence.
type nodeShowView struct {
	nodeView
	Evidence []evidenceView `json:"evidence" doc:"of the verdict, in the order it came"`
}

// evidenceView is one row of node why.
type evidenceView struct {
	Time *instant `json:"time" doc:"when it was seen"`
	By   string   `json:"by" doc:"name of the node that saw it"`
	Link string   `json:"link" doc:"network it was seen on; may be empty"`
	Text string   `json:"text" doc:"what was seen"`
}

func newNodeCommand(a *app) *cobra.Command {
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the nodes with their verdicts",
		Example: "  belfry node list\n  belfry node list -o json | jq -r '.nodes[] | select(.verdict == \"down\").name'",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), a.nodeList)
		},
	}
	show := &cobra.Command{
		Use:     "show NODE",
		Short:   "Show all that is known of a node",
		Example: "  belfry node show b\n  kill $(belfry node show b -o json | jq .pid)",
		Args:    exactly(1, "the node's name or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.nodeShow(ctx, c, args[0])
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	why := &cobra.Command{
		Use:   "why NODE",
		Short: "Show why a node's verdict stands: who saw what, in order",
		Long: `Show why a node's verdict stands: the evidence in the order it came, with the
time, the node that saw it and the network it was seen on.`,
		Example: "  belfry node why c",
		Args:    exactly(1, "the node's name or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.nodeWhy(ctx, c, args[0])
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	return newGroup(a, "node", "Show nodes, their verdicts and the evidence; stop, start and remove them",
		list, show, why, newNodeStop(a), newNodeStart(a), newNodeRemove(a))
}

func (a *app) nodeList(ctx context.Context, c *client.Client) error {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	views := viewsOfNodes(nodes, now)
	return a.show(document{
		value: nodeListView{Nodes: views},
		rows:  rowsOf(views),
		table: func(o *output, wide bool) {
			nodeTable(nodes, now, wide, "NODE VERDICT CAUSE FOR INCARNATION LINKS INTERVAL MAXWAIT NOTE").write(o)
		},
	})
}

// node asks for one node; a name that is not known is told with the nearest.
func (a *app) node(ctx context.Context, c *client.Client, name string) (*belfryv1.GetNodeResponse, error) {
	n, err := c.Node(ctx, name)
	if err == nil || !isNotFound(err) {
		return n, err
	}
	nodes, listErr := c.Nodes(ctx)
	if listErr != nil {
		return nil, err
	}
	return nil, unknownNode(name, nodes, belfry.ErrNotFound)
}

func (a *app) nodeShow(ctx context.Context, c *client.Client, name string) error {
	answer, err := a.node(ctx, c, name)
	if err != nil {
		return err
	}
	now := time.Now()
	view := nodeShowView{viewOfNode(answer.GetNode(), now), viewsOfEvidence(answer.GetEvidence())}
	return a.show(document{
		value: view,
		table: func(o *output, _ bool) { nodeSheet(view, now, answer.GetNode()).write(o) },
	})
}

func (a *app) nodeWhy(ctx context.Context, c *client.Client, name string) error {
	answer, err := a.node(ctx, c, name)
	if err != nil {
		return err
	}
	now := time.Now()
	view := nodeShowView{viewOfNode(answer.GetNode(), now), viewsOfEvidence(answer.GetEvidence())}
	return a.show(document{
		value: view,
		table: func(o *output, _ bool) { whyTable(o, answer, now) },
	})
}

// whyTable is the verdict in one line and its evidence below.
func whyTable(o *output, answer *belfryv1.GetNodeResponse, now time.Time) {
	n := answer.GetNode()
	fmt.Fprintf(o, "%s  ", printable(n.GetName()))
	o.paint(verdictCell(n))
	fmt.Fprintf(o, " (%s)  for %s", n.GetCause(), sinceText(now, when(n.GetSince())))
	if n.GetIncarnation() > 0 {
		fmt.Fprintf(o, "  incarnation %d", n.GetIncarnation())
	}
	if seen := witnesses(answer.GetEvidence()); len(seen) > 0 {
		fmt.Fprintf(o, "  seen by %s", strings.Join(seen, " "))
	}
	fmt.Fprintln(o)
	if len(answer.GetEvidence()) == 0 {
		return
	}
	t := newTable("TIME BY LINK EVIDENCE")
	for _, e := range answer.GetEvidence() {
		t.add(clock(when(e.GetTime())), e.GetBy(), e.GetLink(), e.GetText())
	}
	t.write(o)
}

// witnesses are the nodes that saw something, by name.
func witnesses(evidence []*belfryv1.Evidence) (names []string) {
	for _, e := range evidence {
		if e.GetBy() != "" {
			names = append(names, printable(e.GetBy()))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// clock is a time of day, to the millisecond, where this command runs.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("15:04:05.000")
}

// nodeTable has the columns that heads name; wide adds more.
func nodeTable(nodes []*belfryv1.Node, now time.Time, wide bool, heads string) *table {
	if wide {
		heads += " NUMBER PID VERSION ADDRESSES ID"
	}
	t := newTable(heads)
	for _, n := range nodes {
		var row []cell
		for head := range strings.FieldsSeq(heads) {
			row = append(row, nodeCell(n, now, head))
		}
		t.addCells(row...)
	}
	return t
}

func nodeCell(n *belfryv1.Node, now time.Time, head string) cell {
	switch head {
	case "NODE":
		return cell{text: n.GetName()}
	case "VERDICT":
		return verdictCell(n)
	case "CAUSE":
		return cell{text: n.GetCause()}
	case "FOR":
		return cell{text: sinceText(now, when(n.GetSince()))}
	case "INCARNATION":
		return cell{text: positive(n.GetIncarnation())}
	case "LINKS":
		return cell{text: nodeLinks(n)}
	case "INTERVAL":
		return cell{text: span(n.GetInterval().AsDuration())}
	case "MAXWAIT":
		return cell{text: span(n.GetMaxWait().AsDuration())}
	case "NOTE":
		return cell{text: nodeNote(n)}
	case "NUMBER":
		return cell{text: positive(n.GetNumber())}
	case "PID":
		return cell{text: positive(n.GetPid())}
	case "VERSION":
		return cell{text: n.GetVersion()}
	case "ADDRESSES":
		return cell{text: strings.Join(n.GetAddresses(), ",")}
	case "ID":
		return cell{text: n.GetId()}
	}
	return cell{}
}

func verdictCell(n *belfryv1.Node) cell {
	c := cell{text: n.GetVerdict(), color: yellow}
	switch n.GetVerdict() {
	case belfry.VerdictUp.String():
		c.color = green
	case belfry.VerdictDown.String():
		c.color = red
	case belfry.VerdictLeft.String():
		c.color = plain
	}
	return c
}

func nodeLinks(n *belfryv1.Node) string {
	if n.GetLinksTotal() == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", n.GetLinksUp(), n.GetLinksTotal())
}

func nodeNote(n *belfryv1.Node) string {
	if n.GetSelf() && n.GetNote() == "" {
		return "this node"
	}
	return n.GetNote()
}

// positive is empty for zero, which means not known.
func positive(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

// nodeSheet has a line for each thing that is known.
func nodeSheet(v nodeShowView, now time.Time, n *belfryv1.Node) *table {
	t := &table{}
	t.add("name", v.Name)
	t.add("id", v.ID)
	t.add("number", positive(v.Number))
	t.addCells(cell{text: "verdict"}, verdictCell(n))
	t.add("cause", v.Cause)
	t.add("for", sinceText(now, when(n.GetSince())))
	t.add("incarnation", positive(v.Incarnation))
	t.add("heard", heard(n, now))
	t.add("observers", positive(v.Observers))
	t.add("links", nodeLinks(n))
	t.add("interval", span(n.GetInterval().AsDuration()))
	t.add("maxwait", span(n.GetMaxWait().AsDuration()))
	t.add("addresses", strings.Join(v.Addresses, " "))
	t.add("pid", positive(n.GetPid()))
	t.add("version", n.GetVersion())
	t.add("running", sinceText(now, when(n.GetStarted())))
	t.add("note", nodeNote(n))
	t.add("evidence", plural(len(v.Evidence), "step")+"; belfry node why "+v.Name)
	return t
}

func heard(n *belfryv1.Node, now time.Time) string {
	if at := when(n.GetLastHeard()); !at.IsZero() {
		return ago(now.Sub(at)) + " ago"
	}
	return ""
}

func viewsOfNodes(nodes []*belfryv1.Node, now time.Time) []nodeView {
	views := make([]nodeView, len(nodes))
	for i, n := range nodes {
		views[i] = viewOfNode(n, now)
	}
	return views
}

func viewOfNode(n *belfryv1.Node, now time.Time) nodeView {
	v := nodeView{
		ID: n.GetId(), Name: n.GetName(), Number: n.GetNumber(), Incarnation: n.GetIncarnation(),
		Verdict: n.GetVerdict(), Cause: n.GetCause(), Since: jsonTime(when(n.GetSince())),
		LastHeard: jsonTime(when(n.GetLastHeard())), AgeSeconds: jsonSeconds(n.GetAge().AsDuration()),
		Observers: n.GetObservers(), LinksUp: n.GetLinksUp(), LinksTotal: n.GetLinksTotal(),
		IntervalSeconds: jsonSeconds(n.GetInterval().AsDuration()),
		MaxWaitSeconds:  jsonSeconds(n.GetMaxWait().AsDuration()),
		Self:            n.GetSelf(), Note: n.GetNote(), Addresses: append([]string{}, n.GetAddresses()...),
		Started: jsonTime(when(n.GetStarted())),
	}
	if since := when(n.GetSince()); !since.IsZero() {
		v.ForSeconds = jsonSeconds(now.Sub(since))
	}
	if n.GetPid() != 0 {
		v.PID = new(n.GetPid())
	}
	if n.GetVersion() != "" {
		v.Version = new(n.GetVersion())
	}
	return v
}

func viewsOfEvidence(evidence []*belfryv1.Evidence) []evidenceView {
	views := make([]evidenceView, len(evidence))
	for i, e := range evidence {
		views[i] = evidenceView{Time: jsonTime(when(e.GetTime())), By: e.GetBy(), Link: e.GetLink(), Text: e.GetText()}
	}
	return views
}
