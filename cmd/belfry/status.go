package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// statusInterval is the time between two pictures of status --watch.
const statusInterval = time.Second

// statusView is status in JSON.
type statusView struct {
	Cluster       clusterView `json:"cluster" doc:"the cluster"`
	Node          nodeRef     `json:"node" doc:"the node that answers"`
	Time          *instant    `json:"time" doc:"of the answer"`
	Generation    uint64      `json:"generation" doc:"of the member table"`
	NodesUp       uint32      `json:"nodes_up" doc:"nodes whose verdict is up"`
	NodesTotal    uint32      `json:"nodes_total" doc:"all members"`
	LinksUp       uint32      `json:"links_up" doc:"links of the answering node that are up"`
	LinksTotal    uint32      `json:"links_total" doc:"all links of the answering node"`
	OldestSeconds *float64    `json:"oldest_fact_seconds" doc:"age of the oldest fact in this answer"`
	Nodes         []nodeView  `json:"nodes" doc:"by name"`

	Repository *repositoryStateView `json:"repository" doc:"of the answering node; null: the members keep the configuration"`
	Licenses   []licenseStateView   `json:"licenses" doc:"products on the answering node, by name"`
	Witnesses  []witnessStateView   `json:"witnesses" doc:"of the answering node, and others that have said how they do; they are asked while clients are registered"`
}

// licenseStateView is one product in JSON.
type licenseStateView struct {
	Product   string   `json:"product" doc:"name"`
	State     string   `json:"state" doc:"locked, unlocked, grace, expired, over_capacity or revoked"`
	Reason    string   `json:"reason" doc:"why; what would be right"`
	Until     *instant `json:"until" doc:"first instant with another state, if only time passes; null: none"`
	LicenseID string   `json:"license_id" doc:"that decides; empty: none"`
}

// witnessStateView is how one witness does.
type witnessStateView struct {
	Node          string `json:"node" doc:"its name"`
	State         string `json:"state" doc:"serving, draining or off"`
	Registrations uint32 `json:"registrations" doc:"of clients; of other nodes about as many"`
}

type repositoryStateView struct {
	ID         string   `json:"id" doc:"UUID"`
	Kind       string   `json:"kind" doc:"disk, file or etcd"`
	State      string   `json:"state" doc:"searching, ready, restricted or leaving"`
	Reason     string   `json:"reason" doc:"why changes are refused on this node; empty: they are not"`
	Generation uint64   `json:"generation" doc:"in force on this node"`
	Read       *instant `json:"read" doc:"when it was read last"`
	Slot       int32    `json:"slot" doc:"host slot of this node; -1: none, it only reads"`
}

type clusterView struct {
	ID   string `json:"id" doc:"UUID"`
	Name string `json:"name" doc:"name"`
}

type nodeRef struct {
	ID   string `json:"id" doc:"UUID"`
	Name string `json:"name" doc:"name"`
}

func newStatusCommand(a *app) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster on one screen",
		Long: `Show the cluster as this node holds it, on one screen. The answer comes from
the agent's memory: a dead node never makes it wait. "oldest fact" says how
old the least fresh thing in it is.`,
		Example: "  belfry status\n  belfry status -o json | jq '.nodes[] | select(.verdict != \"up\")'",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.statusWatch(cmd.Context())
			}
			return a.ask(cmd.Context(), a.status)
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again every second, until interrupted")
	return cmd
}

func (a *app) status(ctx context.Context, c *client.Client) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	view := viewOfStatus(s)
	return a.show(document{
		value: view,
		table: func(o *output, wide bool) {
			statusLine(o, s)
			licenseLine(o, s.GetLicenses())
			witnessesLine(o, view.Witnesses)
			nodeTable(s.GetNodes(), when(s.GetTime()), wide, "NODE VERDICT FOR LINKS INTERVAL MAXWAIT NOTE").write(o)
		},
	})
}

// statusWatch shows the status until ctx ends: in place on a terminal, else
// one after the other.
func (a *app) statusWatch(ctx context.Context) error {
	if a.form == formJSON {
		a.form = formJSONL // a stream of objects has one on each line
	}
	deadline := ctx
	if a.timeout > 0 {
		var cancel context.CancelFunc
		deadline, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	c, err := a.dial(deadline)
	if err != nil {
		return err
	}
	defer c.Close()
	for first := true; ; first = false {
		request, cancel := context.WithTimeout(deadline, defaultTimeout)
		if a.form.isTable() && a.terminal() {
			fmt.Fprint(a.out, "\x1b[H\x1b[J") // ECMA-48: home, erase to the end
		} else if !first && a.form.isTable() {
			fmt.Fprintln(a.out)
		}
		err := a.status(request, c)
		cancel()
		if err == nil {
			err = a.out.flush()
		}
		if err != nil {
			return err
		}
		select {
		case <-deadline.Done():
			return deadline.Err()
		case <-time.After(statusInterval):
		}
	}
}

func viewOfStatus(s *belfryv1.GetStatusResponse) statusView {
	return statusView{
		Cluster:       clusterView{ID: s.GetClusterId(), Name: s.GetClusterName()},
		Node:          nodeRef{ID: s.GetNodeId(), Name: s.GetNodeName()},
		Time:          jsonTime(when(s.GetTime())),
		Generation:    s.GetGeneration(),
		NodesUp:       s.GetNodesUp(),
		NodesTotal:    s.GetNodesTotal(),
		LinksUp:       s.GetLinksUp(),
		LinksTotal:    s.GetLinksTotal(),
		OldestSeconds: jsonSeconds(s.GetOldestFact().AsDuration()),
		Nodes:         viewsOfNodes(s.GetNodes(), when(s.GetTime())),
		Repository:    viewOfRepositoryState(s.GetRepository()),
		Licenses:      viewsOfLicenses(s.GetLicenses()),
		Witnesses:     viewsOfWitnesses(s),
	}
}

func viewsOfLicenses(s *belfryv1.LicensesStatus) []licenseStateView {
	views := []licenseStateView{}
	for _, p := range s.GetProducts() {
		views = append(views, licenseStateView{p.GetProduct(), p.GetState(), p.GetReason(), jsonTime(when(p.GetUntil())), p.GetLicenseId()})
	}
	return views
}

// licenseLine says how many products work, and names the others, if there are any.
func licenseLine(o *output, s *belfryv1.LicensesStatus) {
	if len(s.GetProducts()) == 0 {
		return
	}
	unlocked := uint32(0)
	var others []cell
	for _, p := range s.GetProducts() {
		if p.GetState() == "unlocked" {
			unlocked++
			continue
		}
		others = append(others, cell{text: printable(p.GetProduct() + " " + p.GetState()), color: yellow})
	}
	color := green
	if len(others) > 0 {
		color = yellow
	}
	o.paint(cell{text: fmt.Sprintf("licenses %d/%d unlocked", unlocked, len(s.GetProducts())), color: color})
	for _, c := range others {
		fmt.Fprint(o, "  ")
		o.paint(c)
	}
	if behind := s.GetClockBehind(); behind != nil {
		fmt.Fprint(o, "  ")
		o.paint(cell{text: "clock " + shortDuration(behind.AsDuration()) + " behind", color: yellow})
	}
	fmt.Fprintln(o)
}

func viewsOfWitnesses(s *belfryv1.GetStatusResponse) []witnessStateView {
	views := []witnessStateView{}
	if w := s.GetWitness(); w != nil {
		views = append(views, witnessStateView{s.GetNodeName(), w.GetState(), w.GetRegistrations()})
	}
	for _, o := range s.GetWitness().GetOthers() {
		views = append(views, witnessStateView{o.GetNode(), o.GetState(), o.GetRegistrations()})
	}
	slices.SortFunc(views, func(a, b witnessStateView) int { return strings.Compare(a.Node, b.Node) })
	return views
}

// witnessesLine says how many clients each witness has, if there are any, or if one of
// the witnesses serves none.
func witnessesLine(o *output, all []witnessStateView) {
	if !slices.ContainsFunc(all, func(v witnessStateView) bool { return v.Registrations > 0 || v.State != "serving" }) {
		return
	}
	fmt.Fprint(o, "witnesses")
	for _, v := range all {
		c := cell{text: fmt.Sprintf("%s %s %d", printable(v.Node), printable(v.State), v.Registrations), color: green}
		if v.State != "serving" {
			c.color = yellow
		}
		fmt.Fprint(o, "  ")
		o.paint(c)
	}
	fmt.Fprintln(o)
}

func viewOfRepositoryState(r *belfryv1.RepositoryStatus) *repositoryStateView {
	if r == nil {
		return nil
	}
	return &repositoryStateView{
		ID: r.GetId(), Kind: r.GetKind(), State: r.GetState(), Reason: r.GetReason(), Generation: r.GetGeneration(),
		Read: jsonTime(when(r.GetRead())), Slot: r.GetSlot(),
	}
}

// statusLine is the whole cluster in one line.
func statusLine(o *output, s *belfryv1.GetStatusResponse) {
	fmt.Fprintf(o, "cluster %s  ", printable(s.GetClusterName()))
	counts(o, "nodes", s.GetNodesUp(), s.GetNodesTotal())
	counts(o, "links", s.GetLinksUp(), s.GetLinksTotal())
	if r := s.GetRepository(); r != nil {
		c := cell{text: "repository " + printable(r.GetState()), color: green}
		if r.GetState() != "ready" {
			c.color = yellow
		}
		o.paint(c)
		fmt.Fprintf(o, " generation %d  ", r.GetGeneration())
	}
	fmt.Fprintf(o, "oldest fact %s\n", ago(s.GetOldestFact().AsDuration()))
}

func counts(o *output, what string, up, total uint32) {
	c := cell{text: fmt.Sprintf("%s %d/%d up", what, up, total), color: green}
	if up < total {
		c.color = yellow
	}
	o.paint(c)
	fmt.Fprint(o, "  ")
}
