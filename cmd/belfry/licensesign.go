package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/license"
	"github.com/belfry-ha/belfry/internal/strictyaml"
)

// licenseSignView is license sign in JSON.
type licenseSignView struct {
	License licenseView `json:"license" doc:"what was signed"`
	File    string      `json:"file" doc:"file that was written; empty: none"`
	Text    string      `json:"text" doc:"the license file"`
}

// licenseRevokeView is license sign --revoke in JSON.
type licenseRevokeView struct {
	Product string   `json:"product" doc:"whose licenses are revoked"`
	Serial  int64    `json:"serial" doc:"each list has a higher one"`
	Revoked []string `json:"revoked" doc:"licenses, sorted"`
	KeyID   string   `json:"key_id" doc:"of the key that signed"`
	File    string   `json:"file" doc:"file that was written; empty: none"`
	Text    string   `json:"text" doc:"the list"`
}

// A description is a license as a vendor writes it: the fields of the license,
// with times as dates too.
type description struct {
	LicenseID        string            `json:"license_id"`
	Product          string            `json:"product"`
	Edition          string            `json:"edition"`
	Features         []string          `json:"features"`
	Binding          describedBinding  `json:"binding"`
	Capacity         describedCapacity `json:"capacity"`
	NotBefore        dated             `json:"not_before"`
	NotAfter         dated             `json:"not_after"`
	GraceDays        *int              `json:"grace_days"`
	MaintenanceUntil dated             `json:"maintenance_until"`
	IssuedAt         dated             `json:"issued_at"`
	Supersedes       []string          `json:"supersedes"`
	Customer         string            `json:"customer"`
}

type describedBinding struct {
	Cluster belfry.ClusterID `json:"cluster"`
	Nodes   []belfry.NodeID  `json:"nodes"`
	Any     bool             `json:"any"`
}

type describedCapacity struct {
	Nodes       int64 `json:"nodes"`
	Cores       int64 `json:"cores"`
	MemoryBytes int64 `json:"memory_bytes"`
}

// dated is a day as one text of a description.
type dated struct{ day }

// UnmarshalText is that of day, which embedding a named string does not give.
func (d *dated) UnmarshalText(text []byte) error { return d.day.UnmarshalText(text) }

// signFlags are the fields of a description as flags, and what else signing takes.
type signFlags struct {
	description
	key, out        string
	clusters, nodes []string
	memory          string
	grace           int
	revoke          []string
	serial          int64
}

func newLicenseSign(a *app) *cobra.Command {
	f := &signFlags{}
	cmd := &cobra.Command{
		Use:   "sign [DESCRIPTION]",
		Short: "Sign a license, or a list of revoked ones",
		Long: `Sign a license, for the vendor of a product. DESCRIPTION is a file in YAML or
JSON with the fields below, - is standard input; flags add to it, and win over it.
A misspelt field is refused. The license goes to standard output, or with --out to
a file, which is never overwritten. This asks no agent.

  license_id: L-2026-17          # the name that you give it
  product: acme-db               # letters, digits, dots, _ and -
  edition: standard
  features: [backup, replica]
  binding:                       # exactly one of cluster, nodes, any: true
    cluster: 0b7c2a9e-54f1-4a6e-9d5b-3c1f8e2a7d60
  capacity: {nodes: 4, cores: 0, memory_bytes: 0}    # 0: no limit
  not_before: 2026-01-01         # a date in UTC, or a time
  not_after: 2026-12-31          # the whole day
  grace_days: 14                 # then it works with warnings
  maintenance_until: 2026-12-31  # releases made up to then
  supersedes: [L-2025-03]        # whose place it takes
  customer: Example GmbH

With --revoke a list of revoked licenses of --product is signed instead. It
replaces every list with a lower --serial.`,
		Example: `  belfry license sign acme.yaml --key acme.key > acme.license
  belfry license sign --key acme.key --id L-1 --product acme-db --any --not-after 2027-06-30
  belfry license sign --key acme.key --product acme-db --revoke L-1 --serial 3 --out acme.revoked`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%q is one argument too many", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.licenseSign(cmd, args, f) },
	}
	f.add(cmd)
	return cmd
}

func (f *signFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.key, "key", "", "file with the private key, which only its owner can read")
	flags.StringVar(&f.out, "out", "", "FILE for what is signed; - or without: standard output")
	flags.StringVar(&f.LicenseID, "id", "", "name of the license among those of the product")
	flags.StringVar(&f.Product, "product", "", "name of the product")
	flags.StringVar(&f.Edition, "edition", "", "edition of the product")
	flags.StringArrayVar(&f.Features, "feature", nil, "feature that it grants; may be given several times")
	flags.StringArrayVar(&f.clusters, "cluster", nil, "UUID of the cluster that it is bound to")
	flags.StringArrayVar(&f.nodes, "node", nil, "UUID of a node that it is bound to; may be given several times")
	flags.BoolVar(&f.Binding.Any, "any", false, "it is bound to nothing")
	flags.Int64Var(&f.Capacity.Nodes, "nodes", 0, "how many nodes it covers; 0: no limit")
	flags.Int64Var(&f.Capacity.Cores, "cores", 0, "how many cores it covers; 0: no limit")
	flags.StringVar(&f.memory, "memory", "", "how much memory it covers, for example 64GiB; 0B: no limit")
	flags.Var(&f.NotBefore.day, "not-before", "first day, or second")
	flags.Var(&f.NotAfter.day, "not-after", "last day, or second")
	flags.IntVar(&f.grace, "grace-days", license.DefaultGraceDays, "days after that for which the product works with warnings")
	flags.Var(&f.MaintenanceUntil.day, "maintenance-until", "releases made up to this day, or second, are covered")
	flags.Var(&f.IssuedAt.day, "issued-at", "when it counts as signed (default now)")
	flags.StringArrayVar(&f.Supersedes, "supersedes", nil, "license whose place it takes; may be given several times")
	flags.StringVar(&f.Customer, "customer", "", "whom it is for, in one line")
	flags.StringArrayVar(&f.revoke, "revoke", nil, "license that is revoked; may be given several times")
	flags.Int64Var(&f.serial, "serial", 0, "with --revoke: number of the list, higher than that of the one before")
}

// ofRevocation are the flags that go with --revoke.
var ofRevocation = []string{"key", "out", "product", "issued-at", "revoke", "serial"}

func (a *app) licenseSign(cmd *cobra.Command, args []string, f *signFlags) error {
	if f.key == "" {
		return usagef("--key FILE is missing: the private key that signs")
	}
	revoking := cmd.Flags().Changed("revoke") || cmd.Flags().Changed("serial")
	for _, name := range signFlagNames {
		if revoking && cmd.Flags().Changed(name) && !slices.Contains(ofRevocation, name) {
			return usagef("--%s is of a license; a list of revoked ones takes --product, --revoke, --serial and --issued-at", name)
		}
	}
	if revoking && len(args) > 0 {
		return usagef("%s: a description is of a license; a list of revoked ones takes --product, --revoke, --serial and --issued-at", args[0])
	}
	key, err := signingKey(f.key)
	if err != nil {
		return err
	}
	if revoking {
		return a.signRevocations(f, key)
	}
	d, source, err := a.described(args)
	if err != nil {
		return err
	}
	if err := f.over(cmd, &d); err != nil {
		return err
	}
	l, err := d.license()
	if err != nil {
		return err
	}
	file, err := license.Sign(l, key)
	if err != nil {
		return source.named(err)
	}
	v := licenseSignView{License: viewOfLicense(file.Unproven(), file.KeyID()), Text: string(file.Encode())}
	if v.File, err = a.signed(f.out, v.Text); err != nil {
		return err
	}
	return a.show(document{value: v, table: func(o *output, _ bool) {
		signedText(o, v.File, v.Text, fmt.Sprintf("license %s of %s", v.License.LicenseID, v.License.Product), v.License.KeyID)
	}})
}

// signFlagNames are those of a license.
var signFlagNames = []string{
	"id", "edition", "feature", "cluster", "node", "any", "nodes", "cores", "memory", "not-before", "not-after", "grace-days",
	"maintenance-until", "supersedes", "customer",
}

// signed writes the file that was asked for; the name is empty if none was.
func (a *app) signed(out, text string) (string, error) {
	if out == "" || out == "-" {
		return "", nil
	}
	return out, createFile(out, 0o644, []byte(text))
}

// signedText is the file itself, or where it is.
func signedText(o *output, file, text, what, key string) {
	if file == "" {
		fmt.Fprint(o, text)
		return
	}
	fmt.Fprintf(o, "%s, signed by key %s: %s\n", what, key, printable(file))
}

// A describer knows the file that a description came from; nil: from flags.
type describer struct{ source *strictyaml.Source }

// named puts the place of a field before an error about it.
func (d describer) named(err error) error {
	if d.source == nil {
		return err
	}
	return d.source.Locate(ofNothing(err))
}

func (a *app) described(args []string) (d description, from describer, err error) {
	if len(args) == 0 {
		return d, from, nil
	}
	text, err := a.readInput(args[0], strictyaml.MaxText)
	if err != nil {
		return d, from, err
	}
	from.source, err = strictyaml.Read(strictyaml.Options{File: args[0]}, text, &d)
	return d, from, err
}

// over puts what flags say over a description. A binding is replaced as a whole.
func (f *signFlags) over(cmd *cobra.Command, d *description) error {
	given := cmd.Flags().Changed
	for name, set := range map[string]func(){
		"id":      func() { d.LicenseID = f.LicenseID },
		"product": func() { d.Product = f.Product }, "edition": func() { d.Edition = f.Edition },
		"feature": func() { d.Features = f.Features }, "nodes": func() { d.Capacity.Nodes = f.Capacity.Nodes },
		"cores": func() { d.Capacity.Cores = f.Capacity.Cores }, "not-before": func() { d.NotBefore = f.NotBefore },
		"not-after": func() { d.NotAfter = f.NotAfter }, "grace-days": func() { d.GraceDays = &f.grace },
		"maintenance-until": func() { d.MaintenanceUntil = f.MaintenanceUntil }, "issued-at": func() { d.IssuedAt = f.IssuedAt },
		"supersedes": func() { d.Supersedes = f.Supersedes }, "customer": func() { d.Customer = f.Customer },
	} {
		if given(name) {
			set()
		}
	}
	if given("memory") {
		n, ok := belfry.ParseValue("bytes", f.memory)
		if !ok || n < 0 || n != float64(int64(n)) {
			return usagef("--memory %s: not an amount of memory; write for example 64GiB", f.memory)
		}
		d.Capacity.MemoryBytes = int64(n)
	}
	return f.bind(given, d)
}

func (f *signFlags) bind(given func(string) bool, d *description) error {
	if !given("cluster") && !given("node") && !given("any") {
		return nil
	}
	if len(f.clusters) > 1 {
		return usagef("--cluster is given twice; a license is bound to one cluster, to nodes, or to nothing (--any)")
	}
	b := describedBinding{Any: f.Binding.Any}
	for _, text := range f.clusters {
		id, err := belfry.ParseClusterID(text)
		if err != nil {
			return usagef("--cluster %s: not the UUID of a cluster; belfry status -o json has it", text)
		}
		b.Cluster = id
	}
	for _, text := range f.nodes {
		id, err := belfry.ParseNodeID(text)
		if err != nil {
			return usagef("--node %s: not the UUID of a node; belfry node list -o json has them", text)
		}
		b.Nodes = append(b.Nodes, id)
	}
	d.Binding = b
	return nil
}

// license is what is described; its parts are judged when it is signed.
func (d description) license() (l license.License, err error) {
	l = license.License{
		ID: license.ID(d.LicenseID), Product: d.Product, Edition: d.Edition, Features: d.Features,
		Binding: license.Binding(d.Binding), Capacity: license.Capacity(d.Capacity), GraceDays: license.DefaultGraceDays, Customer: d.Customer,
	}
	for _, id := range d.Supersedes {
		l.Supersedes = append(l.Supersedes, license.ID(id))
	}
	if d.GraceDays != nil {
		l.GraceDays = *d.GraceDays
	}
	if l.NotBefore, err = d.NotBefore.begin(); err != nil {
		return l, err
	}
	if l.NotAfter, err = d.NotAfter.end(); err != nil {
		return l, err
	}
	if l.MaintenanceUntil, err = d.MaintenanceUntil.end(); err != nil {
		return l, err
	}
	l.IssuedAt, err = d.IssuedAt.orNow()
	return l, err
}

// orNow is the time itself, or now to the second.
func (d day) orNow() (time.Time, error) {
	if d == "" {
		return time.Now().UTC().Truncate(time.Second), nil
	}
	return d.begin()
}

func (a *app) signRevocations(f *signFlags, key []byte) error {
	issued, err := f.IssuedAt.orNow()
	if err != nil {
		return err
	}
	r := license.Revocations{Product: f.Product, Serial: f.serial, IssuedAt: issued}
	for _, id := range f.revoke {
		r.Revoked = append(r.Revoked, license.ID(id))
	}
	file, err := license.SignRevocations(r, key)
	if err != nil {
		return err
	}
	v := licenseRevokeView{Product: r.Product, Serial: r.Serial, Revoked: []string{}, KeyID: file.KeyID().String(), Text: string(file.Encode())}
	for _, id := range file.Unproven().Revoked {
		v.Revoked = append(v.Revoked, string(id))
	}
	if v.File, err = a.signed(f.out, v.Text); err != nil {
		return err
	}
	return a.show(document{value: v, table: func(o *output, _ bool) {
		signedText(o, v.File, v.Text, fmt.Sprintf("list %d of %s with %s", v.Serial, v.Product, plural(uint64(len(v.Revoked)), "license")), v.KeyID)
	}})
}
