package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// witnessListView is witness list in JSON.
type witnessListView struct {
	Registrations []witnessRegistrationView `json:"registrations" doc:"by witness and key"`
	Resources     []witnessResourceView     `json:"resources" doc:"that somebody is registered for, or that an operator holds in a state; by witness and name"`
	Witnesses     []witnessNodeView         `json:"witnesses" doc:"by name"`
}

// witnessNodeView is one witness.
type witnessNodeView struct {
	Node          string `json:"node" doc:"its name"`
	Registrations uint64 `json:"registrations" doc:"that meet the flags; more than are listed where there are many"`
	Draining      bool   `json:"draining" doc:"it takes no registrations"`
	Error         string `json:"error" doc:"why it did not answer; empty: it did"`
}

// witnessRegistrationView is one registration.
type witnessRegistrationView struct {
	Key       string             `json:"key" doc:"32 hexadecimal digits"`
	Witness   string             `json:"witness" doc:"name of the node"`
	Protocol  string             `json:"protocol" doc:"native"`
	Principal string             `json:"principal" doc:"whose it is: uid N or client NAME"`
	Client    string             `json:"client" doc:"what the program calls itself"`
	At        string             `json:"at" doc:"node or address that it uses; empty: it said none"`
	Resources []witnessKnownView `json:"resources" doc:"by name"`
	Waits     uint32             `json:"waits" doc:"calls that wait for changes; 0: nobody listens"`
	Pending   uint32             `json:"pending" doc:"changes that it has not read"`
	Created   *instant           `json:"created" doc:"when it was registered first"`
	Told      uint64             `json:"told" doc:"changes that it was told of"`
}

// witnessKnownView is a resource as one registration sees it.
type witnessKnownView struct {
	Name    string `json:"name" doc:"of the resource"`
	State   string `json:"state" doc:"available, unavailable or unknown"`
	AtState string `json:"at_state" doc:"of the holder that the client uses; empty: it said none"`
}

// witnessResourceView is a resource at one witness.
type witnessResourceView struct {
	Name          string                `json:"name" doc:"of the resource"`
	Witness       string                `json:"witness" doc:"name of the node that says so"`
	State         string                `json:"state" doc:"available, unavailable or unknown"`
	Since         *instant              `json:"since" doc:"when it last changed"`
	Registrations uint32                `json:"registrations" doc:"for it"`
	HeldUntil     *instant              `json:"held_until" doc:"an operator holds it in this state until then; null: nobody does"`
	Holders       []witnessInstanceView `json:"holders" doc:"by id of the node"`
}

// witnessInstanceView is a resource on one of its holders.
type witnessInstanceView struct {
	Node    string `json:"node" doc:"its name"`
	Verdict string `json:"verdict" doc:"that the witness holds of it"`
	State   string `json:"state" doc:"of the resource there"`
	Awaited bool   `json:"awaited" doc:"it has not said yet how it is"`
}

// selectorFlags choose registrations.
type selectorFlags struct {
	s belfryv1.RegistrationSelector
}

func (f *selectorFlags) register(cmd *cobra.Command, all bool) {
	flags := cmd.Flags()
	flags.StringVar(&f.s.Key, "registration", "", "only this one: 32 hexadecimal digits")
	flags.StringVar(&f.s.Client, "client", "", "only clients whose name matches this expression")
	flags.StringVar(&f.s.Principal, "principal", "", "only those of whom matches this expression: 'uid 1000', 'client web'")
	flags.StringVar(&f.s.Protocol, "protocol", "", "only of this protocol: native")
	flags.StringVar(&f.s.Resource, "resource", "", "only those for this resource")
	flags.StringVar(&f.s.At, "at", "", "only clients that use this node, or this address")
	if all {
		flags.BoolVar(&f.s.All, "all", false, "all there are")
	}
}

// selector is nil where no flag chooses.
func (f *selectorFlags) selector() *belfryv1.RegistrationSelector {
	s := &f.s
	if s.Key+s.Client+s.Principal+s.Protocol+s.Resource+s.At == "" && !s.All {
		return nil
	}
	return s
}

func newWitnessList(a *app) *cobra.Command {
	f := &selectorFlags{}
	var node string
	var limit uint32
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List registrations at all witnesses",
		Long: `List the registrations at all witnesses, with the clients' names and what they
depend on. With -o wide also the resources, as each witness holds them.`,
		Example: "  belfry witness list\n  belfry witness list --resource service/db -o wide",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.witnessList(ctx, c, &belfryv1.ListWitnessRequest{Node: node, Selector: f.selector(), Limit: limit})
			})
		},
	}
	f.register(cmd, false)
	cmd.Flags().StringVar(&node, "node", "", "only those at this witness")
	cmd.Flags().Uint32Var(&limit, "limit", 0, "most registrations of one witness (default 1000)")
	return cmd
}

func newWitnessShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show KEY",
		Short:   "Show one registration with its resources and their holders",
		Example: "  belfry witness show 6b310000000000000000000000000000",
		Args:    exactly(1, "the registration's key, as witness list shows it,"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.ListWitness(ctx, &belfryv1.ListWitnessRequest{Selector: &belfryv1.RegistrationSelector{Key: args[0]}})
				if err != nil {
					return err
				}
				return a.witnessShow(args[0], viewOfWitnesses(resp))
			})
		},
	}
}

// viewOfWitnesses is all that the witnesses answered.
func viewOfWitnesses(resp *belfryv1.ListWitnessResponse) witnessListView {
	v := witnessListView{Registrations: []witnessRegistrationView{}, Resources: []witnessResourceView{}, Witnesses: []witnessNodeView{}}
	for _, n := range resp.GetNodes() {
		v.Witnesses = append(v.Witnesses, witnessNodeView{n.GetNode(), n.GetTotal(), n.GetDraining(), n.GetError()})
		for _, r := range n.GetRegistrations() {
			one := witnessRegistrationView{
				Key: r.GetKey(), Witness: n.GetNode(), Protocol: r.GetProtocol(), Principal: r.GetPrincipal(), Client: r.GetClient(), At: r.GetAt(),
				Resources: []witnessKnownView{}, Waits: r.GetWaits(), Pending: r.GetPending(), Created: jsonTime(when(r.GetCreated())), Told: r.GetSeq(),
			}
			for _, k := range r.GetResources() {
				one.Resources = append(one.Resources, witnessKnownView{k.GetResource(), k.GetState(), k.GetAtState()})
			}
			v.Registrations = append(v.Registrations, one)
		}
		for _, r := range n.GetResources() {
			one := witnessResourceView{
				Name: r.GetName(), Witness: n.GetNode(), State: r.GetState(), Since: jsonTime(when(r.GetSince())),
				Registrations: r.GetRegistrations(), HeldUntil: jsonTime(when(r.GetHeldUntil())), Holders: []witnessInstanceView{},
			}
			for _, i := range r.GetInstances() {
				one.Holders = append(one.Holders, witnessInstanceView{i.GetNode(), i.GetVerdict(), i.GetState(), i.GetAwaited()})
			}
			v.Resources = append(v.Resources, one)
		}
	}
	return v
}

func (a *app) witnessList(ctx context.Context, c *client.Client, req *belfryv1.ListWitnessRequest) error {
	resp, err := c.ListWitness(ctx, req)
	if err != nil {
		return err
	}
	v := viewOfWitnesses(resp)
	a.silentWitnesses(v.Witnesses)
	return a.show(document{
		value: v,
		rows:  rowsOf(v.Registrations),
		table: func(o *output, wide bool) {
			witnessTable(v.Registrations).write(o)
			if wide {
				fmt.Fprintln(o)
				resourceTable(v.Resources).write(o)
			}
		},
	})
}

// silentWitnesses warns of those that did not answer.
func (a *app) silentWitnesses(nodes []witnessNodeView) {
	for _, n := range nodes {
		if n.Error != "" {
			a.notef("%s does not answer: %s", n.Node, n.Error)
		}
	}
}

func witnessTable(all []witnessRegistrationView) *table {
	t := newTable("KEY WITNESS CLIENT PRINCIPAL AT RESOURCES WAITS PENDING TOLD")
	for _, r := range all {
		var resources []string
		for _, k := range r.Resources {
			resources = append(resources, k.Name+"="+k.State)
		}
		t.add(r.Key, r.Witness, r.Client, r.Principal, r.At, strings.Join(resources, " "),
			strconv.Itoa(int(r.Waits)), strconv.Itoa(int(r.Pending)), strconv.FormatUint(r.Told, 10))
	}
	return t
}

func resourceTable(all []witnessResourceView) *table {
	t := newTable("RESOURCE WITNESS STATE HELD REGISTRATIONS HOLDERS")
	for _, r := range all {
		var holders []string
		for _, i := range r.Holders {
			holders = append(holders, cmp.Or(i.Node, "?")+"("+i.Verdict+")="+i.State)
		}
		held := ""
		if r.HeldUntil != nil {
			held = "until " + string(*r.HeldUntil)
		}
		t.add(r.Name, r.Witness, r.State, held, strconv.Itoa(int(r.Registrations)), strings.Join(holders, " "))
	}
	return t
}

func (a *app) witnessShow(key string, v witnessListView) error {
	a.silentWitnesses(v.Witnesses)
	if len(v.Registrations) == 0 {
		return failf(belfry.ErrNotFound, "no registration %s at the witnesses that answer; belfry witness list lists them", key)
	}
	of := map[string]bool{}
	for _, r := range v.Registrations {
		for _, k := range r.Resources {
			of[r.Witness+" "+k.Name] = true
		}
	}
	resources := []witnessResourceView{}
	for _, r := range v.Resources {
		if of[r.Witness+" "+r.Name] {
			resources = append(resources, r)
		}
	}
	v.Resources = resources
	return a.show(document{
		value: v,
		rows:  rowsOf(v.Registrations),
		table: func(o *output, _ bool) {
			witnessTable(v.Registrations).write(o)
			fmt.Fprintln(o)
			resourceTable(v.Resources).write(o)
		},
	})
}
