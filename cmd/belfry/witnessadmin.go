package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// witnessInfoView is witness info in JSON.
type witnessInfoView struct {
	Node       string                 `json:"node" doc:"name of the node that answers"`
	Incomplete bool                   `json:"incomplete" doc:"there are fewer than two witnesses"`
	Witnesses  []witnessCandidateView `json:"witnesses" doc:"in the order in which to try them"`
}

// witnessCandidateView is a node where a client may register.
type witnessCandidateView struct {
	Rank          uint32   `json:"rank" doc:"from 1"`
	Node          string   `json:"node" doc:"its name"`
	Addresses     []string `json:"addresses" doc:"HOST:PORT of its API, the best first"`
	CoLocated     bool     `json:"co_located" doc:"it is the node that is used: both die together"`
	HoldsResource bool     `json:"holds_resource" doc:"it holds one of the resources"`
	Zone          string   `json:"zone" doc:"empty: it has none"`
	State         string   `json:"state" doc:"its verdict"`
}

// witnessChangeView is what witness move, drain, set and force-unregister did.
type witnessChangeView struct {
	ID            string             `json:"id" doc:"of the move; empty: it is none"`
	DryRun        bool               `json:"dry_run" doc:"nothing was changed"`
	Registrations uint64             `json:"registrations" doc:"that it is about, at all witnesses"`
	Arrived       *uint64            `json:"arrived" doc:"of them, that use the new place within the time of --wait; null: nobody waited"`
	Witnesses     []witnessMatchView `json:"witnesses" doc:"by name"`
}

// witnessMatchView is what it is about at one witness.
type witnessMatchView struct {
	Node          string   `json:"node" doc:"its name"`
	Registrations []string `json:"registrations" doc:"their keys"`
	Error         string   `json:"error" doc:"why it did not answer; empty: it did"`
}

func newWitnessInfo(a *app) *cobra.Command {
	var accessed, name string
	cmd := &cobra.Command{
		Use:   "info [RESOURCE...]",
		Short: "Show the witnesses in the order in which a client tries them",
		Long: `Show the witnesses in the order in which a client tries them: those that share
the fate of the node that it uses come last.`,
		Example: "  belfry witness info --at b service/db",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				info, err := c.WitnessNodes(ctx, name, accessed, args)
				if err != nil {
					return err
				}
				return a.witnessInfo(info)
			})
		},
	}
	cmd.Flags().StringVar(&accessed, "at", "", "the node, or an address of one, that the client uses (default the one that is asked)")
	cmd.Flags().StringVar(&name, "name", "", "what the client calls itself: equal witnesses are spread by it")
	return cmd
}

func (a *app) witnessInfo(info *belfryv1.GetNodeInformationResponse) error {
	v := witnessInfoView{Node: info.GetNodeName(), Incomplete: info.GetIncomplete(), Witnesses: []witnessCandidateView{}}
	for _, w := range info.GetWitnesses() {
		v.Witnesses = append(v.Witnesses, witnessCandidateView{
			w.GetRank(), w.GetNode(), append([]string{}, w.GetAddresses()...), w.GetCoLocated(), w.GetHoldsResource(), w.GetZone(), w.GetState(),
		})
	}
	if v.Incomplete {
		a.notef("fewer than two witnesses: the client would be alone with one")
	}
	return a.show(document{
		value: v,
		rows:  rowsOf(v.Witnesses),
		table: func(o *output, _ bool) {
			t := newTable("RANK NODE ADDRESSES CO-LOCATED HOLDS ZONE STATE")
			for _, w := range v.Witnesses {
				t.add(strconv.Itoa(int(w.Rank)), w.Node, strings.Join(w.Addresses, " "), yes(w.CoLocated), yes(w.HoldsResource), w.Zone, w.State)
			}
			t.write(o)
		},
	})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// witnessChanged shows what a change is about: exit status 1 where it is about
// nothing, or where a witness did not answer.
func (a *app) witnessChanged(v witnessChangeView, some bool, matches []*belfryv1.WitnessMatch, done string) error {
	v.Witnesses = []witnessMatchView{}
	var silent []string
	for _, m := range matches {
		v.Witnesses = append(v.Witnesses, witnessMatchView{m.GetNode(), append([]string{}, m.GetRegistrations()...), m.GetError()})
		v.Registrations += uint64(len(m.GetRegistrations()))
		if m.GetError() != "" {
			silent = append(silent, m.GetNode())
			a.notef("%s does not answer: %s", m.GetNode(), m.GetError())
		}
	}
	err := a.show(document{
		value: v,
		rows:  rowsOf(v.Witnesses),
		table: func(o *output, _ bool) {
			if v.DryRun {
				done = "nothing is changed: a dry run"
			}
			fmt.Fprintf(o, "%d registrations at %d witnesses; %s\n", v.Registrations, len(v.Witnesses)-len(silent), done)
		},
	})
	switch {
	case err != nil:
		return err
	case some && v.Registrations == 0:
		return failf(belfry.ErrNotFound, "no registration is meant; belfry witness list lists them")
	case len(silent) > 0:
		return failf(belfry.ErrNotFound, "%s did not answer; do it again when they do", strings.Join(silent, ", "))
	}
	return nil
}

func newWitnessMove(a *app) *cobra.Command {
	f := &selectorFlags{}
	req := &belfryv1.MoveClientsRequest{}
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "move --to NODE|ADDRESS",
		Short: "Ask clients to use another node",
		Long: `Ask clients to use another node, or another address. The flags choose which
clients; --all is all. With --wait it tells how many of them use it, and the exit
code is 1 when some do not.`,
		Example: "  belfry witness move --at b --to c --dry-run\n  belfry witness move --resource service/db --to 10.0.0.3 --wait 10s",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(req.GetTo()) == 0 {
				return usagef("--to is missing; name the node or address to go to")
			}
			if cmd.Flags().Changed("wait") && wait <= 0 {
				return usagef("--wait %s: a duration is positive; for example 10s", wait)
			}
			if wait > 0 && a.timeout == 0 {
				a.timeout = wait + defaultTimeout
			}
			req.Selector = f.selector()
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error { return a.witnessMove(ctx, c, req, wait) })
		},
	}
	f.register(cmd, true)
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait for the clients to use it")
	cmd.Flags().StringSliceVar(&req.To, "to", nil, "nodes or addresses to go to, the best first")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "operator or balance: what clients are told (default operator)")
	dryRunFlag(cmd, &req.DryRun)
	return cmd
}

// witnessMove asks clients to move, and waits for them if it is to.
func (a *app) witnessMove(ctx context.Context, c *client.Client, req *belfryv1.MoveClientsRequest, wait time.Duration) error {
	begin := time.Now()
	resp, err := c.MoveClients(ctx, req)
	if err != nil {
		return err
	}
	v := witnessChangeView{ID: resp.GetId(), DryRun: req.GetDryRun()}
	var asked uint64
	done := "they are asked to go to " + strings.Join(req.GetTo(), ", ")
	if wait > 0 && !req.GetDryRun() {
		arrived, all, err := waitMoved(ctx, c, req, resp.GetMatches(), wait)
		if err != nil {
			return err
		}
		v.Arrived, asked = &arrived, all
		done += fmt.Sprintf("; %d use it after %s", arrived, shortDuration(time.Since(begin)))
	}
	if err := a.witnessChanged(v, true, resp.GetMatches(), done); err != nil {
		return err
	}
	if v.Arrived != nil && *v.Arrived < asked {
		return failf(belfry.ErrNotFound, "%d of %d clients have not moved; a client that only watches does not, and belfry witness list shows what each uses", asked-*v.Arrived, asked)
	}
	return nil
}

// movedPoll is between two looks whether clients have moved.
const movedPoll = 100 * time.Millisecond

// waitMoved is how many of those who were asked use one of the new places, at whichever
// witness they are registered now: all of them, or those that do when the time is over.
// A client that has just gone over to another witness is asked at both, and counts once.
func waitMoved(ctx context.Context, c *client.Client, req *belfryv1.MoveClientsRequest, matches []*belfryv1.WitnessMatch, wait time.Duration) (come, all uint64, err error) {
	asked := map[string]bool{}
	for _, m := range matches {
		for _, key := range m.GetRegistrations() {
			asked[key] = true
		}
	}
	deadline := time.After(wait)
	for {
		arrived := map[string]bool{}
		for _, to := range req.GetTo() {
			if host, _, err := net.SplitHostPort(to); err == nil {
				to = host
			}
			s := req.GetSelector()
			there := &belfryv1.RegistrationSelector{Key: s.GetKey(), Client: s.GetClient(), Principal: s.GetPrincipal(), Protocol: s.GetProtocol(), Resource: s.GetResource(), At: to}
			list, err := c.ListWitness(ctx, &belfryv1.ListWitnessRequest{Selector: there, Limit: mostListed})
			if err != nil {
				return 0, 0, err
			}
			for _, n := range list.GetNodes() {
				for _, r := range n.GetRegistrations() {
					if asked[r.GetKey()] {
						arrived[r.GetKey()] = true
					}
				}
			}
		}
		if len(arrived) == len(asked) {
			return uint64(len(arrived)), uint64(len(asked)), nil
		}
		select {
		case <-time.After(movedPoll):
		case <-deadline:
			return uint64(len(arrived)), uint64(len(asked)), nil
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
}

// mostListed is the most registrations that one witness lists.
const mostListed = 10_000

func newWitnessDrain(a *app) *cobra.Command {
	req := &belfryv1.DrainNodeRequest{}
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Empty a node of clients",
		Long: `Empty a node of clients: it is no witness for new ones, those that are registered
there register elsewhere, and those that use its resources are asked to move where
there is another holder. Until --undo, also when agents start again.`,
		Example: "  belfry witness drain b --rate 10\n  belfry witness drain b --undo",
		Args:    exactly(1, "the node's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Node = args[0]
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.DrainNode(ctx, req)
				if err != nil {
					return a.unknownTo(ctx, c, req.GetNode(), err)
				}
				done := req.GetNode() + " is being drained"
				if req.GetUndo() {
					done = req.GetNode() + " takes clients again"
				}
				return a.witnessChanged(witnessChangeView{ID: resp.GetId(), DryRun: req.GetDryRun()}, false, resp.GetMatches(), done)
			})
		},
		ValidArgsFunction: a.completeNode,
	}
	cmd.Flags().Uint32Var(&req.Rate, "rate", 0, "clients a second, at each witness (default 50)")
	cmd.Flags().BoolVar(&req.Undo, "undo", false, "let it fill again")
	dryRunFlag(cmd, &req.DryRun)
	return cmd
}

func newWitnessSet(a *app) *cobra.Command {
	var d time.Duration
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "set RESOURCE STATE",
		Short: "Hold a resource in a state, whatever is reported",
		Long: `Hold a resource in a state for a time, whatever its holders report: available,
unavailable or unknown. With the state "reported" what they report counts again.`,
		Example: "  belfry witness set service/db unavailable --for 1h\n  belfry witness set service/db reported",
		Args:    exactly(2, "the resource and its state"),
		RunE: func(cmd *cobra.Command, args []string) error {
			state, reported := belfry.ResourceUnknown, args[1] == "reported"
			if !reported {
				var err error
				if state, err = belfry.ParseResourceState(args[1]); err != nil {
					return err
				}
				if d == 0 {
					return usagef("--for is missing; say for how long, for example --for 1h")
				}
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				var matches []*belfryv1.WitnessMatch
				var err error
				switch {
				case dryRun:
					matches, err = c.ResourceClients(ctx, args[0])
				case reported:
					matches, err = c.UnsetResource(ctx, args[0])
				default:
					matches, err = c.SetResource(ctx, args[0], state, d)
				}
				if err != nil {
					return err
				}
				return a.witnessChanged(witnessChangeView{DryRun: dryRun}, false, matches, printable(args[0])+" is "+args[1])
			})
		},
	}
	cmd.Flags().DurationVar(&d, "for", 0, "how long, 1s to 168h")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func newWitnessEnd(a *app) *cobra.Command {
	f := &selectorFlags{}
	req := &belfryv1.EndRegistrationsRequest{}
	cmd := &cobra.Command{
		Use:   "force-unregister",
		Short: "End registrations",
		Long: `End registrations, as if nobody had used them. A client that lives registers
again. The flags choose which; --all is all.`,
		Example: "  belfry witness force-unregister --client '^old-' --dry-run",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Selector = f.selector()
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.EndRegistrations(ctx, req)
				if err != nil {
					return err
				}
				return a.witnessChanged(witnessChangeView{DryRun: req.GetDryRun()}, true, resp.GetMatches(), "they are ended")
			})
		},
	}
	f.register(cmd, true)
	dryRunFlag(cmd, &req.DryRun)
	return cmd
}
