package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/license"
)

// nodeLicenseView is what the configuration gives one member, in JSON.
type nodeLicenseView struct {
	Node   string   `json:"node" doc:"name"`
	State  string   `json:"state" doc:"locked, unlocked, grace, expired, over_capacity or revoked"`
	Until  *instant `json:"until" doc:"first instant with another state, if only time passes; null: none"`
	Reason string   `json:"reason" doc:"why; what would be right"`
}

// unlockedFileView is a license of the configuration in JSON.
type unlockedFileView struct {
	License  licenseView `json:"license" doc:"what the file says"`
	Proven   bool        `json:"proven" doc:"a key that is trusted has signed it"`
	Unlocked *instant    `json:"unlocked" doc:"when; null: not known"`
	Operator string      `json:"operator" doc:"who unlocked it; empty: not known"`
	Node     string      `json:"node" doc:"where"`
}

// productView is one product in JSON.
type productView struct {
	Product     string             `json:"product" doc:"name"`
	State       string             `json:"state" doc:"on the node that was asked: locked, unlocked, grace, expired, over_capacity or revoked"`
	Until       *instant           `json:"until" doc:"first instant with another state, if only time passes; null: none"`
	Reason      string             `json:"reason" doc:"why; what would be right"`
	LicenseID   string             `json:"license_id" doc:"that decides; empty: none of the product can be read"`
	Nodes       []nodeLicenseView  `json:"nodes" doc:"what the configuration gives each member that reads it"`
	Licenses    []unlockedFileView `json:"licenses" doc:"by id"`
	Revocations uint64             `json:"revocations" doc:"serial of the issuer's list of revoked ones; 0: there is none"`
}

// licenseShowView is license show in JSON.
type licenseShowView struct {
	Node          string        `json:"node" doc:"that was asked"`
	Generation    uint64        `json:"generation" doc:"of the configuration in force there"`
	Time          *instant      `json:"time" doc:"that counted as now"`
	BehindSeconds *float64      `json:"clock_behind_seconds" doc:"by how much the node's clock is before it; null: it counted"`
	Products      []productView `json:"products" doc:"by name"`
}

// licenseChangeView is what the changes of licenses write in JSON.
type licenseChangeView struct {
	Product     string            `json:"product" doc:"that it is about"`
	LicenseID   string            `json:"license_id" doc:"that it is about; empty: none"`
	KeyID       string            `json:"key_id" doc:"of the issuer that it is about; empty: none"`
	Serial      uint64            `json:"serial" doc:"of the list of revoked licenses that it is about; 0: none"`
	Revoked     []string          `json:"revoked" doc:"licenses on that list"`
	Generation  uint64            `json:"generation" doc:"of the configuration in force"`
	Changed     bool              `json:"changed" doc:"false: it was so already; with dry_run: it would change"`
	DryRun      bool              `json:"dry_run" doc:"nothing was changed"`
	Replicated  bool              `json:"replicated" doc:"a majority of the members has it on disk too; false: it is only stored"`
	Nodes       []string          `json:"nodes" doc:"members that have it in force"`
	States      []nodeLicenseView `json:"states" doc:"how the product stands on each member that reads it"`
	Unconfirmed []string          `json:"unconfirmed" doc:"members that are up and did not confirm the change, each with the reason"`
}

func newLicenseUnlock(a *app) *cobra.Command {
	var product string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "unlock FILE",
		Short: "Unlock a product on all nodes with a license file",
		Long: `Unlock a product on all nodes with a license file. FILE of - is standard input. The
file is judged first; what is refused is neither written nor sent. Then it goes
into the cluster's configuration, which each node reads and judges by itself: no
message carries it, and a node that is down or joins later unlocks the product when
it starts.

Its issuer has to be trusted: belfry license issuer add. It takes the role admin,
and a cluster with a repository.`,
		Example: "  belfry license issuer add acme-db acme.key.pub\n  belfry license unlock acme.license",
		Args:    exactly(1, "the license file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readInput(args[0], license.MaxFile)
			if err != nil {
				return err
			}
			file, err := license.Parse(license.Tidy(text)) // what is no license needs no agent
			if err != nil {
				return ofFile(inputName(args[0]), err)
			}
			return a.commitConfig(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.UnlockLicense(ctx, file.Encode(), product, dryRun)
				if err != nil {
					return err
				}
				v := a.licenseChange(answer, answer.GetProduct(), answer.GetStates(), dryRun)
				v.LicenseID = answer.GetLicenseId()
				return a.showLicenseChange(v, answer.GetMembers(), fmt.Sprintf("license %s of %s", v.LicenseID, v.Product), "is in the configuration")
			})
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "refuse a license of another product")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func newLicenseRemove(a *app) *cobra.Command {
	var product, revocations string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "remove [ID]",
		Short: "Take a license back out, or what its issuer has revoked",
		Long: `Take a license out of the cluster's configuration: the product is locked on all nodes,
unless another license of it is there. With --revocations FILE the issuer's list of
revoked licenses is put in force instead; it takes the place of the list before. It
takes the role admin.`,
		Example: "  belfry license remove L-2026-17\n  belfry license remove --revocations acme.revoked",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usagef("%q is one argument too many", args[1])
			case len(args) == 1 && revocations != "":
				return usagef("%s and --revocations: name a license, or a list", args[0])
			case len(args) == 0 && revocations == "":
				return usagef("the license's id is missing, as license show -o wide lists it, or --revocations FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if revocations != "" {
				return a.licenseRevoke(cmd.Context(), revocations, dryRun)
			}
			return a.commitConfig(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				answer, err := c.RemoveLicense(ctx, args[0], product, dryRun)
				if err != nil {
					return err
				}
				v := a.licenseChange(answer, answer.GetProduct(), answer.GetStates(), dryRun)
				v.LicenseID = answer.GetLicenseId()
				return a.showLicenseChange(v, answer.GetMembers(), fmt.Sprintf("license %s of %s", v.LicenseID, v.Product), "is removed")
			})
		},
		ValidArgsFunction: a.completeLicense,
	}
	cmd.Flags().StringVar(&product, "product", "", "whose license it is, where several have one of that id")
	cmd.Flags().StringVar(&revocations, "revocations", "", "FILE with the issuer's list of revoked licenses")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) licenseRevoke(ctx context.Context, name string, dryRun bool) error {
	text, err := a.readInput(name, license.MaxFile)
	if err != nil {
		return err
	}
	list, err := license.ParseRevocations(license.Tidy(text))
	if err != nil {
		return ofFile(inputName(name), err)
	}
	return a.commitConfig(ctx, func(ctx context.Context, c *client.Client) error {
		answer, err := c.RevokeLicenses(ctx, list.Encode(), dryRun)
		if err != nil {
			return err
		}
		v := a.licenseChange(answer, answer.GetProduct(), answer.GetStates(), dryRun)
		v.Serial, v.Revoked = answer.GetSerial(), append([]string{}, answer.GetRevoked()...)
		return a.showLicenseChange(v, answer.GetMembers(), fmt.Sprintf("list %d of revoked licenses of %s", v.Serial, v.Product), "is in force")
	})
}

// licenseChange is what all changes answer alike.
func (a *app) licenseChange(got answer, product string, states []*belfryv1.NodeLicense, dryRun bool) licenseChangeView {
	return licenseChangeView{
		Product: product, Revoked: []string{}, Generation: got.GetGeneration(), Changed: got.GetChanged(), DryRun: dryRun, Replicated: got.GetReplicated(),
		Nodes: append([]string{}, got.GetNodes()...), States: viewsOfNodeLicenses(states), Unconfirmed: a.unconfirmed(got.GetUnconfirmed()),
	}
}

// showLicenseChange says what a change came to, and how the product stands then.
func (a *app) showLicenseChange(v licenseChangeView, members uint32, what, is string) error {
	return a.show(document{value: v, table: func(o *output, _ bool) {
		switch {
		case v.DryRun && v.Changed:
			fmt.Fprintf(o, "%s: generation %d would be followed by %d; nothing is changed\n", printable(what), v.Generation, v.Generation+1)
		case !v.Changed:
			fmt.Fprintf(o, "%s %s already (generation %d)\n", printable(what), is, v.Generation)
		default:
			level := levelStored
			if v.Replicated {
				level = levelReplicated
			}
			fmt.Fprintf(o, "%s %s: generation %d %s, in force on %s\n", printable(what), is, v.Generation, level, someNodes(v.Nodes, int(members)))
		}
		for _, group := range alike(v.States) {
			fmt.Fprintf(o, "%s is %s on %s: %s\n", printable(v.Product), group.State, printable(strings.Join(group.nodes, " ")), printable(group.Reason))
		}
	}})
}

// likeNodes are nodes with one state for one reason.
type likeNodes struct {
	nodeLicenseView
	nodes []string
}

// alike puts nodes together that stand alike, in the order in which they come.
func alike(states []nodeLicenseView) (groups []likeNodes) {
	at := map[[2]string]int{}
	for _, s := range states {
		key := [2]string{s.State, s.Reason}
		i, known := at[key]
		if !known {
			i = len(groups)
			at[key] = i
			groups = append(groups, likeNodes{nodeLicenseView: s})
		}
		groups[i].nodes = append(groups[i].nodes, s.Node)
	}
	return groups
}

func viewsOfNodeLicenses(states []*belfryv1.NodeLicense) []nodeLicenseView {
	views := make([]nodeLicenseView, len(states))
	for i, s := range states {
		views[i] = nodeLicenseView{s.GetNode(), s.GetState(), jsonTime(when(s.GetUntil())), s.GetReason()}
	}
	return views
}

func newLicenseShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [PRODUCT]",
		Short: "Show what products may do, on each node",
		Long: `Show what the products may do whose licenses or issuers the cluster's configuration
has, or one product: its state on the node that is asked, by its own judgement, and
what the configuration gives each other node that reads it. -o wide shows the
licenses too.`,
		Example: "  belfry license show\n  belfry license show acme-db -o wide\n  belfry license show -o json | jq '.products[] | select(.state != \"unlocked\")'",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%q is one argument too many", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.licenseShow(ctx, c, strings.Join(args, ""))
			})
		},
		ValidArgsFunction: a.completeProduct,
	}
	return cmd
}

func (a *app) licenseShow(ctx context.Context, c *client.Client, product string) error {
	answer, err := c.Licenses(ctx, product)
	if err != nil {
		return err
	}
	v := licenseShowView{Node: answer.GetNodeName(), Generation: answer.GetGeneration(), Time: jsonTime(when(answer.GetTime())), Products: []productView{}}
	if behind := answer.GetClockBehind(); behind != nil {
		v.BehindSeconds = jsonSeconds(behind.AsDuration())
		a.notef("the clock of %s is %s before a time that has passed; licenses are judged as of %s; set the clock", v.Node, behind.AsDuration().Round(time.Second), seconds(v.Time))
	}
	for _, p := range answer.GetProducts() {
		v.Products = append(v.Products, viewOfProduct(p))
	}
	return a.show(document{
		value: v,
		rows:  rowsOf(v.Products),
		table: func(o *output, wide bool) {
			t := newTable("PRODUCT STATE LICENSE UNTIL NODES WHY")
			for _, p := range v.Products {
				for i, group := range alike(p.Nodes) {
					row := []string{p.Product, group.State, p.LicenseID, untilText(group.Until), strings.Join(group.nodes, " "), group.Reason}
					if i > 0 {
						row[0], row[2] = "", ""
					}
					t.add(row...)
				}
			}
			t.write(o)
			if !wide {
				return
			}
			for _, p := range v.Products {
				p.text(o)
			}
		},
	})
}

func untilText(t *instant) string {
	if t == nil {
		return ""
	}
	return seconds(t)
}

// text is the licenses of a product, a fact a line.
func (p productView) text(o *output) {
	for _, f := range p.Licenses {
		fmt.Fprintln(o)
		signed := fmt.Sprintf("%s, by key %s", seconds(f.License.IssuedAt), f.License.KeyID)
		if !f.Proven {
			signed += ", which is not trusted"
		}
		unlocked := ""
		if f.Unlocked != nil {
			unlocked = fmt.Sprintf("%s, by %s", seconds(f.Unlocked), f.Operator)
		}
		for _, l := range append(licenseLines(f.License), [][2]string{{"signed", signed}, {"unlocked", unlocked}}...) {
			if l[1] != "" {
				fmt.Fprintf(o, "%-12s%s\n", l[0], printable(l[1]))
			}
		}
	}
	if p.Revocations > 0 {
		fmt.Fprintf(o, "\n%s: list %d of revoked licenses is in force\n", printable(p.Product), p.Revocations)
	}
}

func viewOfProduct(p *belfryv1.ProductLicense) productView {
	s := p.GetStatus()
	v := productView{
		Product: s.GetProduct(), State: s.GetState(), Until: jsonTime(when(s.GetUntil())), Reason: s.GetReason(), LicenseID: s.GetLicenseId(),
		Nodes: viewsOfNodeLicenses(p.GetNodes()), Licenses: []unlockedFileView{}, Revocations: p.GetRevocations(),
	}
	for _, f := range p.GetFiles() {
		v.Licenses = append(v.Licenses, unlockedFileView{
			License: viewOfFile(s.GetProduct(), f), Proven: f.GetProven(), Unlocked: jsonTime(when(f.GetUnlocked())), Operator: f.GetOperator(), Node: f.GetNode(),
		})
	}
	return v
}

func viewOfFile(product string, f *belfryv1.LicenseFile) licenseView {
	return licenseView{
		LicenseID: f.GetLicenseId(), Product: product, Edition: f.GetEdition(), Features: append([]string{}, f.GetFeatures()...),
		Binding: bindingView{f.GetCluster(), append([]string{}, f.GetBoundNodes()...), f.GetAny()},
		Capacity: capacityView{
			Nodes: int64(f.GetCapacityNodes()), Cores: int64(f.GetCapacityCores()), MemoryBytes: int64(f.GetCapacityMemoryBytes()),
		},
		NotBefore: jsonTime(when(f.GetNotBefore())), NotAfter: jsonTime(when(f.GetNotAfter())), GraceDays: int(f.GetGraceDays()),
		MaintenanceUntil: jsonTime(when(f.GetMaintenanceUntil())), IssuedAt: jsonTime(when(f.GetIssuedAt())),
		Supersedes: append([]string{}, f.GetSupersedes()...), Customer: f.GetCustomer(), KeyID: f.GetKeyId(),
	}
}

// completeProduct offers the products to the shell.
func (a *app) completeProduct(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		a.complete(cmd, func(ctx context.Context, c *client.Client) error {
			answer, err := c.Licenses(ctx, "")
			for _, p := range answer.GetProducts() {
				names = append(names, p.GetStatus().GetProduct())
			}
			return err
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeLicense offers the ids of licenses to the shell.
func (a *app) completeLicense(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	if len(args) == 0 {
		a.complete(cmd, func(ctx context.Context, c *client.Client) error {
			answer, err := c.Licenses(ctx, "")
			for _, p := range answer.GetProducts() {
				for _, f := range p.GetFiles() {
					ids = append(ids, f.GetLicenseId())
				}
			}
			return err
		})
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
