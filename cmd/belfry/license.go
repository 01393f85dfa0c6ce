package main

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/license"
)

// keygenView is license keygen in JSON.
type keygenView struct {
	PrivateKey string `json:"private_key" doc:"file that signs; 0600, and to be kept secret"`
	PublicKey  string `json:"public_key" doc:"file that verifies"`
	KeyID      string `json:"key_id" doc:"start of the SHA-256 of the public key, as licenses name it"`
}

// bindingView says where a license holds.
type bindingView struct {
	Cluster string   `json:"cluster" doc:"UUID of the cluster; empty: it is not bound to one"`
	Nodes   []string `json:"nodes" doc:"UUIDs of the nodes; none: it is not bound to nodes"`
	Any     bool     `json:"any" doc:"it holds everywhere"`
}

// capacityView says how much of a cluster a license covers.
type capacityView struct {
	Nodes       int64 `json:"nodes" doc:"0: no limit"`
	Cores       int64 `json:"cores" doc:"0: no limit"`
	MemoryBytes int64 `json:"memory_bytes" doc:"0: no limit"`
}

// licenseView is what a license file says, in JSON.
type licenseView struct {
	LicenseID        string       `json:"license_id" doc:"the issuer's name for it"`
	Product          string       `json:"product" doc:"what it is for"`
	Edition          string       `json:"edition" doc:"may be empty"`
	Features         []string     `json:"features" doc:"sorted"`
	Binding          bindingView  `json:"binding" doc:"where it holds"`
	Capacity         capacityView `json:"capacity" doc:"how much of a cluster it covers"`
	NotBefore        *instant     `json:"not_before" doc:"first second; null: from ever"`
	NotAfter         *instant     `json:"not_after" doc:"last second; null: for ever"`
	GraceDays        int          `json:"grace_days" doc:"days after not_after for which the product goes on with warnings"`
	MaintenanceUntil *instant     `json:"maintenance_until" doc:"last second at which a covered release was made; null: all releases"`
	IssuedAt         *instant     `json:"issued_at" doc:"when it was signed"`
	Supersedes       []string     `json:"supersedes" doc:"licenses whose place it takes"`
	Customer         string       `json:"customer" doc:"may be empty"`
	KeyID            string       `json:"key_id" doc:"of the key that is said to have signed"`
}

// licenseVerifyView is license verify in JSON.
type licenseVerifyView struct {
	License licenseView `json:"license" doc:"what the file says; proven only if the signature is"`
	Proven  bool        `json:"proven" doc:"one of the keys that were given has signed it"`
	State   string      `json:"state" doc:"locked, unlocked, grace, expired, over_capacity or revoked"`
	Until   *instant    `json:"until" doc:"first instant with another state, if only time passes; null: none"`
	Reason  string      `json:"reason" doc:"why; what would be right"`
	At      *instant    `json:"at" doc:"the time that counted as now"`
	Assumed []string    `json:"assumed" doc:"what was not compared, because it was not given"`
}

func newLicenseCommand(a *app) *cobra.Command {
	return newGroup(a, "license", "Unlock products on all nodes; make, sign and verify licenses", newLicenseIssuer(a), newLicenseKeygen(a),
		newLicenseRemove(a), newLicenseShow(a), newLicenseSign(a), newLicenseUnlock(a), newLicenseVerify(a))
}

func newLicenseKeygen(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key that signs licenses",
		Long: `Make a key that signs licenses, for the vendor of a product: the private key in
FILE, readable by its owner only, the public one in FILE.pub. Neither is ever
overwritten. The public key goes into the product, and to those who verify; the
private one stays where nobody else reads it, with a copy in a safe place. This
asks no agent.`,
		Example: "  belfry license keygen acme.key",
		Args:    exactly(1, "the file for the private key"),
		RunE: func(_ *cobra.Command, args []string) error {
			public, key, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			v := keygenView{args[0], args[0] + ".pub", license.KeyIDOf(public).String()}
			if err := writePair(v.PrivateKey, v.PublicKey, key); err != nil {
				return err
			}
			return a.show(document{
				value: v,
				table: func(o *output, _ bool) {
					fmt.Fprintf(o, "key %s: %s signs, %s verifies\n", v.KeyID, printable(v.PrivateKey), printable(v.PublicKey))
				},
			})
		},
	}
}

// verifyFlags say against what a license is held.
type verifyFlags struct {
	keys        []string
	cluster     string
	node        string
	at          day
	released    day
	revocations string
}

func newLicenseVerify(a *app) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Say what a license file is good for",
		Long: `Say what a license file is good for: whether one of the keys has signed it, what
it would unlock on a node, until when, and why not. FILE of - is standard input.
It exits with 0 if the product may work: unlocked, or in grace. This asks no agent,
and unlocks nothing.

Without --cluster or --node it is judged where it is bound to. Capacity is judged
in a cluster only, which knows its members.`,
		Example: `  belfry license verify acme.license --key acme.key.pub
  belfry license verify acme.license --key acme.key.pub --cluster 0b7c2a9e-54f1-4a6e-9d5b-3c1f8e2a7d60 --at 2027-01-15`,
		Args: exactly(1, "the license file"),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := a.readInput(args[0], license.MaxFile)
			if err != nil {
				return err
			}
			return a.licenseVerify(args[0], text, f)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.keys, "key", nil, "file with a public key of the product's issuer; may be given several times")
	flags.StringVar(&f.cluster, "cluster", "", "UUID of the cluster where it is to hold")
	flags.StringVar(&f.node, "node", "", "UUID of the node where it is to hold")
	flags.Var(&f.at, "at", "judge it as of this time (default now)")
	flags.Var(&f.released, "released", "when the product's release was made, for maintenance_until")
	flags.StringVar(&f.revocations, "revocations", "", "file with the issuer's list of revoked licenses")
	return cmd
}

func (a *app) licenseVerify(name string, text []byte, f verifyFlags) error {
	file, err := license.Parse(license.Tidy(text))
	if err != nil {
		return ofFile(name, err)
	}
	said := file.Unproven()
	in := license.Input{Product: said.Product, Files: [][]byte{file.Encode()}, Now: time.Now().Truncate(time.Second)}
	for _, name := range f.keys {
		key, err := issuerKey(name)
		if err != nil {
			return err
		}
		in.Issuers = append(in.Issuers, license.Issuer{Product: said.Product, Key: key})
	}
	assumed, err := f.place(&in, said)
	if err != nil {
		return err
	}
	if err := f.times(&in); err != nil {
		return err
	}
	if in.Revocations, err = f.revoked(a, said.Product); err != nil {
		return err
	}
	verdict := license.Evaluate(in)
	_, unproven := file.Verify(in.Issuers)
	v := licenseVerifyView{
		License: viewOfLicense(said, file.KeyID()), Proven: unproven == nil, State: verdict.State.String(), Until: jsonTime(verdict.Until),
		Reason: verdict.Reason, At: jsonTime(verdict.Time), Assumed: append([]string{}, assumed...),
	}
	switch {
	case unproven != nil && len(in.Issuers) == 0:
		v.Reason = fmt.Sprintf("license %s: no key was given, so that nothing is proven; add --key FILE with the public key of its issuer", said.ID)
	case unproven != nil && !f.has(in.Issuers, file.KeyID()):
		v.Reason = fmt.Sprintf("license %s: key %s is said to have signed, which is none of those given; add --key FILE with that key, if you trust it", said.ID, file.KeyID())
	}
	if err := a.show(document{value: v, table: func(o *output, _ bool) { verdictText(o, v) }}); err != nil || verdict.State.Usable() {
		return err
	}
	if err := a.out.flush(); err != nil {
		return err
	}
	return status{code: exitFailed} // the answer is no, and stands there
}

func (verifyFlags) has(issuers []license.Issuer, id license.KeyID) bool {
	return slices.ContainsFunc(issuers, func(i license.Issuer) bool { return license.KeyIDOf(i.Key) == id })
}

// place puts a node into the input that the license is held against, and says
// what nobody named.
func (f verifyFlags) place(in *license.Input, l license.License) (assumed []string, err error) {
	in.Cluster, in.Node = l.Binding.Cluster, belfry.NodeID{0xff}
	if len(l.Binding.Nodes) > 0 {
		in.Node = l.Binding.Nodes[0]
	}
	if f.cluster != "" {
		if in.Cluster, err = belfry.ParseClusterID(f.cluster); err != nil {
			return nil, usagef("--cluster %s: not the UUID of a cluster; belfry status -o json has it", f.cluster)
		}
	} else if !l.Binding.Cluster.IsZero() {
		assumed = append(assumed, "the cluster is the one that it is bound to")
	}
	if f.node != "" {
		if in.Node, err = belfry.ParseNodeID(f.node); err != nil {
			return nil, usagef("--node %s: not the UUID of a node; belfry node list -o json has them", f.node)
		}
	} else if len(l.Binding.Nodes) > 0 {
		assumed = append(assumed, "the node is one that it is bound to")
	}
	if l.Capacity != (license.Capacity{}) {
		assumed = append(assumed, "the node is within the capacity")
	}
	in.Members = []license.Member{{Node: in.Node, Joined: 1, Cores: 1, MemoryBytes: 1}}
	return assumed, nil
}

func (f verifyFlags) times(in *license.Input) error {
	at, err := f.at.begin()
	if err != nil {
		return err
	}
	if !at.IsZero() {
		in.Now = at
	}
	in.Released, err = f.released.begin()
	return err
}

// revoked reads the list that was given, which must be of the product.
func (f verifyFlags) revoked(a *app, product string) ([][]byte, error) {
	if f.revocations == "" {
		return nil, nil
	}
	text, err := a.readInput(f.revocations, license.MaxFile)
	if err != nil {
		return nil, err
	}
	list, err := license.ParseRevocations(license.Tidy(text))
	if err != nil {
		return nil, ofFile(f.revocations, err)
	}
	if of := list.Unproven().Product; of != product {
		return nil, usagef("%s: a list of %s; want one of %s", f.revocations, of, product)
	}
	return [][]byte{list.Encode()}, nil
}

func viewOfLicense(l license.License, key license.KeyID) licenseView {
	v := licenseView{
		LicenseID: string(l.ID), Product: l.Product, Edition: l.Edition, Features: append([]string{}, l.Features...),
		Binding:  bindingView{Nodes: []string{}, Any: l.Binding.Any},
		Capacity: capacityView(l.Capacity), NotBefore: jsonTime(l.NotBefore), NotAfter: jsonTime(l.NotAfter), GraceDays: l.GraceDays,
		MaintenanceUntil: jsonTime(l.MaintenanceUntil), IssuedAt: jsonTime(l.IssuedAt), Supersedes: []string{}, Customer: l.Customer, KeyID: key.String(),
	}
	if !l.Binding.Cluster.IsZero() {
		v.Binding.Cluster = l.Binding.Cluster.String()
	}
	for _, n := range l.Binding.Nodes {
		v.Binding.Nodes = append(v.Binding.Nodes, n.String())
	}
	for _, id := range l.Supersedes {
		v.Supersedes = append(v.Supersedes, string(id))
	}
	return v
}

// verdictText is a fact a line; what is not set has none.
func verdictText(o *output, v licenseVerifyView) {
	state := v.State
	if v.Until != nil {
		state += " until " + seconds(v.Until)
	}
	lines := append(licenseLines(v.License), [][2]string{{"signed", v.signed()}, {"judged", "as of " + seconds(v.At)}}...)
	for _, what := range v.Assumed {
		lines = append(lines, [2]string{"assumed", what})
	}
	for _, l := range append(lines, [2]string{"state", state}, [2]string{"why", v.Reason}) {
		if l[1] != "" {
			fmt.Fprintf(o, "%-12s%s\n", l[0], printable(l[1]))
		}
	}
}

func (v licenseVerifyView) signed() string {
	text := fmt.Sprintf("%s, by key %s", seconds(v.License.IssuedAt), v.License.KeyID)
	if !v.Proven {
		text += ", which is not proven"
	}
	return text
}

func licenseLines(v licenseView) [][2]string {
	bound := "any cluster"
	switch {
	case v.Binding.Cluster != "":
		bound = "cluster " + v.Binding.Cluster
	case len(v.Binding.Nodes) > 0:
		bound = "node " + strings.Join(v.Binding.Nodes, ", ")
	}
	var covers []string
	for _, part := range []struct {
		n    int64
		noun string
	}{{v.Capacity.Nodes, "node"}, {v.Capacity.Cores, "core"}} {
		if part.n > 0 {
			covers = append(covers, plural(uint64(part.n), part.noun))
		}
	}
	if n := v.Capacity.MemoryBytes; n > 0 {
		covers = append(covers, fmt.Sprintf("%d bytes of memory", n))
	}
	dates := seconds(v.NotBefore) + " to " + seconds(v.NotAfter)
	if v.NotAfter != nil {
		dates += fmt.Sprintf(", then %s of grace", plural(uint64(v.GraceDays), "day"))
	}
	return [][2]string{
		{"license", v.LicenseID},
		{"product", strings.TrimSuffix(v.Product+", edition "+v.Edition, ", edition ")},
		{"features", strings.Join(v.Features, ", ")},
		{"customer", v.Customer},
		{"bound to", bound},
		{"covers", cmp.Or(strings.Join(covers, ", "), "no limit")},
		{"dates", dates},
		{"releases", strings.TrimSuffix("up to "+seconds(v.MaintenanceUntil), "up to ever")},
		{"supersedes", strings.Join(v.Supersedes, ", ")},
	}
}

// seconds is a time as licenses have it; ever is none.
func seconds(t *instant) string {
	if t == nil {
		return "ever"
	}
	return strings.Replace(string(*t), ".000000000Z", "Z", 1)
}
