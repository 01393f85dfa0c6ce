package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/config"
)

// matrixView is link matrix in JSON: every figure, whatever --metric shows.
type matrixView struct {
	Nodes      []string         `json:"nodes" doc:"all members, by name"`
	Unanswered []unansweredView `json:"unanswered" doc:"nodes whose links are not known, by name"`
	Links      []matrixCellView `json:"links" doc:"by node, peer, then network; a pair that does not watch each other has none"`
}

// unansweredView is a node that did not tell its links in JSON.
type unansweredView struct {
	Node  string `json:"node" doc:"name of the node"`
	Error string `json:"error" doc:"its verdict, or why it did not answer"`
}

// matrixCellView is what one node hears of another on one network in JSON.
type matrixCellView struct {
	Node          string   `json:"node" doc:"who hears"`
	Peer          string   `json:"peer" doc:"who is heard"`
	Network       string   `json:"network" doc:"name of the network"`
	State         string   `json:"state" doc:"init, up, down, one-way-in, one-way-out, degraded, unknown, …"`
	LossRatio     float64  `json:"loss_ratio" doc:"share of heartbeats that did not arrive; 1 while none does"`
	RTTSeconds    *float64 `json:"rtt_seconds" doc:"mean round trip; null: not measured yet"`
	JitterSeconds *float64 `json:"jitter_seconds" doc:"variation of the delay"`
	TwoWay        bool     `json:"two_way" doc:"it works in both directions now, whatever its state is called"`
}

// metrics are what a cell of the table can show.
var metrics = map[string]func(*belfryv1.LinkMatrixCell) cell{
	"state": func(c *belfryv1.LinkMatrixCell) cell { return stateCell(c.GetState(), c.GetTwoWay()) },
	"loss":  func(c *belfryv1.LinkMatrixCell) cell { return cell{text: ratio(c.GetLossRatio())} },
	"rtt": func(c *belfryv1.LinkMatrixCell) cell {
		if !c.GetRttKnown() {
			return cell{}
		}
		return cell{text: span(c.GetRtt().AsDuration())}
	},
	"jitter": func(c *belfryv1.LinkMatrixCell) cell { return cell{text: span(c.GetJitter().AsDuration())} },
}

var metricNames = []string{"state", "loss", "rtt", "jitter"}

func newLinkMatrixCommand(a *app) *cobra.Command {
	var network string
	var watch bool
	metric := metricNames[0]
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show what every node hears of every other",
		Long: `Show what every node hears of every other, a table for each network. A row is
what its node hears of the peers in the columns: - is nothing, because the two
do not watch each other, and ? is not known, because the node is down or did not
answer within two seconds. A link that flaps says besides whether it works now.` + watchHelp + `
A line is what --metric shows of one link and of what it was.`,
		Example: "  belfry link matrix\n  belfry link matrix --network net2\n  belfry link matrix --metric rtt\n  belfry link matrix --watch",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if metrics[metric] == nil {
				return unknownMetric(metric)
			}
			if watch {
				return a.watchMatrix(cmd.Context(), network, metric)
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.linkMatrix(ctx, c, network, metric)
			})
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "show only this network (default all)")
	cmd.Flags().BoolVar(&watch, "watch", false, "go on with what changes, until interrupted")
	cmd.Flags().StringVar(&metric, "metric", metric, "what to show: "+strings.Join(metricNames, ", "))
	_ = cmd.RegisterFlagCompletionFunc("network", a.completeLinkWord((*belfryv1.Link).GetNetwork)) // the flags are there
	_ = cmd.RegisterFlagCompletionFunc("metric", cobra.FixedCompletions(metricNames, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func unknownMetric(metric string) error {
	if near, ok := config.Nearest(metric, metricNames); ok {
		return usagef("unknown metric %q; did you mean %s?", metric, near)
	}
	return usagef("unknown metric %q; one of %s", metric, strings.Join(metricNames, ", "))
}

func (a *app) linkMatrix(ctx context.Context, c *client.Client, network, metric string) error {
	answer, err := a.askMatrix(ctx, c, network)
	if err != nil {
		return err
	}
	view := viewOfMatrix(answer)
	return a.show(document{
		value: view,
		rows:  rowsOf(view.Links),
		table: func(o *output, _ bool) { matrixTables(o, answer.GetRows(), metric) },
	})
}

// unknownNetwork names those there are.
func unknownNetwork(ctx context.Context, c *client.Client, network string, err error) error {
	links, listErr := c.Links(ctx, "")
	if listErr != nil {
		return err
	}
	var known []string
	for _, l := range links.GetLinks() {
		known = append(known, l.GetNetwork())
	}
	slices.Sort(known)
	known = slices.Compact(known)
	if near, ok := config.Nearest(network, known); ok {
		return failf(belfry.ErrNotFound, "no link on network %q; did you mean %s?", network, near)
	}
	return failf(belfry.ErrNotFound, "no link on network %q; one of %s", network, strings.Join(known, ", "))
}

// matrixTables has a table for each network, with its name above it if there
// are several.
func matrixTables(o *output, rows []*belfryv1.LinkMatrixRow, metric string) {
	cells := map[string]map[[2]string]*belfryv1.LinkMatrixCell{} // by network, then node and peer
	var networks []string
	for _, r := range rows {
		for _, c := range r.GetCells() {
			if cells[c.GetNetwork()] == nil {
				cells[c.GetNetwork()] = map[[2]string]*belfryv1.LinkMatrixCell{}
				networks = append(networks, c.GetNetwork())
			}
			cells[c.GetNetwork()][[2]string{r.GetNode(), c.GetPeer()}] = c
		}
	}
	slices.Sort(networks)
	if len(networks) == 0 { // one node alone, or nobody answers
		matrixTable(rows, nil, metric).write(o)
	}
	for i, network := range networks {
		if len(networks) > 1 {
			if i > 0 {
				fmt.Fprintln(o)
			}
			fmt.Fprintf(o, "network %s\n", printable(network))
		}
		matrixTable(rows, cells[network], metric).write(o)
	}
}

func matrixTable(rows []*belfryv1.LinkMatrixRow, cells map[[2]string]*belfryv1.LinkMatrixCell, metric string) *table {
	t := &table{}
	heads := []string{"FROM/TO"}
	for _, r := range rows {
		heads = append(heads, r.GetNode())
	}
	t.add(heads...)
	for _, r := range rows {
		line := []cell{{text: r.GetNode()}}
		for _, peer := range rows {
			c := cells[[2]string{r.GetNode(), peer.GetNode()}]
			switch {
			case peer == r:
				line = append(line, cell{})
			case !r.GetAnswered():
				line = append(line, cell{text: "?"})
			case c == nil:
				line = append(line, cell{})
			default:
				line = append(line, metrics[metric](c))
			}
		}
		t.addCells(line...)
	}
	return t
}

func viewOfMatrix(m *belfryv1.GetLinkMatrixResponse) matrixView {
	v := matrixView{Nodes: []string{}, Unanswered: []unansweredView{}, Links: []matrixCellView{}}
	for _, r := range m.GetRows() {
		v.Nodes = append(v.Nodes, r.GetNode())
		if !r.GetAnswered() {
			v.Unanswered = append(v.Unanswered, unansweredView{r.GetNode(), r.GetError()})
		}
		for _, c := range r.GetCells() {
			v.Links = append(v.Links, *viewOfCell(r.GetNode(), c))
		}
	}
	return v
}

func viewOfCell(node string, c *belfryv1.LinkMatrixCell) *matrixCellView {
	v := &matrixCellView{
		Node: node, Peer: c.GetPeer(), Network: c.GetNetwork(), State: c.GetState(),
		LossRatio: c.GetLossRatio(), JitterSeconds: jsonSeconds(c.GetJitter().AsDuration()), TwoWay: c.GetTwoWay(),
	}
	if c.GetRttKnown() {
		v.RTTSeconds = jsonSeconds(c.GetRtt().AsDuration())
	}
	return v
}
