package repository

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// linesOf is a difference as people read it; consequences have a mark.
func linesOf(changes []Change) (lines []string) {
	for _, c := range changes {
		mark := ""
		if c.Consequence {
			mark = "! "
		}
		lines = append(lines, mark+c.Text)
	}
	return lines
}

// The difference of the two golden documents, as `config plan` would print it.
func TestDiffOfTheGoldenDocuments(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, c := range Diff(testDocument(), testDocumentNext()) {
		mark := " "
		if c.Consequence {
			mark = "!"
		}
		fmt.Fprintf(&b, "%s %-10s %s\n", mark, c.Section, c.Text)
	}
	goldenFile(t, "document-diff.golden", []byte(b.String()))
}

// Each kind of change, in the words of those who run the cluster.
func TestDiffSaysWhatChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		edit func(*Document)
		want []string
	}{
		{func(*Document) {}, nil},
		{func(d *Document) { d.Schema = 2 }, []string{"the document's schema 1 -> 2"}},
		{func(d *Document) { d.Cluster.Name = "new name" }, []string{`cluster name köln -> "new name"`}},

		{func(d *Document) { d.Nodes = append(d.Nodes, newcomer(new(4))) }, []string{"e joins as number 5, slot 4", "! heartbeats on net2 begin"}},
		{func(d *Document) { d.Nodes = append(d.Nodes, newcomer(nil)) }, []string{"e joins as number 5, without a slot", "! heartbeats on net2 begin"}},
		{func(d *Document) { remove(d, 2, 9, at(9)) }, []string{"d leaves"}},
		{func(d *Document) { remove(d, 1, 9, at(9)) }, []string{"b leaves", "! heartbeats on net1 end"}}, // a has nobody, net2 was disabled
		{func(d *Document) { d.Nodes[2].Name = "z" }, []string{"d is called z"}},
		{func(d *Document) { d.Nodes[2].Intent = "" }, []string{
			"d is started", "! heartbeats on net2 begin", // with a and with b, which have no link there with each other
		}},
		{func(d *Document) { d.Nodes[1].Intent = IntentStopped }, []string{"b is stopped", "! b is held left until it is started", "! heartbeats on net1 end"}},
		{func(d *Document) { d.Nodes[0].Zone = "" }, []string{"node a zone hall-a -> none"}},
		{func(d *Document) { d.Nodes[0].Slot = nil }, []string{"node a slot 0 -> none"}},
		{func(d *Document) { d.Nodes[0].Key = []byte{7} }, []string{"node a key is changed"}},
		{func(d *Document) { d.Nodes[0].Certificate = nil }, []string{"node a certificate is changed"}},
		{func(d *Document) { d.Nodes[0].Capacity.MemoryBytes = 1 }, []string{"node a capacity memory_bytes 68719476736 -> 1"}},
		{func(d *Document) { d.Nodes[0].Addresses[0].Heartbeat = netip.MustParseAddrPort("10.0.1.7:1") }, []string{
			"address of a on net1 heartbeat 10.0.1.1:7431 -> 10.0.1.7:1",
		}},
		{func(d *Document) { d.Nodes[0].Addresses = d.Nodes[0].Addresses[1:] }, []string{
			"address of a on net1 is removed", "! a loses its only link", "! b loses its only link", "! heartbeats on net1 end",
		}},
		{func(d *Document) { // two addresses on one network
			d.Nodes[0].Addresses = append(d.Nodes[0].Addresses, Address{Network: "net2", Heartbeat: netip.MustParseAddrPort("10.0.2.9:1")})
		}, []string{
			"address of a on net2 bits 24 -> 0", "address of a on net2 heartbeat 10.0.2.1:7431 -> 10.0.2.9:1",
			"node a addresses network net1, heartbeat 10.0.1.1:7431, bits 24, network net2, heartbeat 10.0.2.1:7431, bits 24 -> " +
				"network net1, heartbeat 10.0.1.1:7431, bits 24, network net2, heartbeat 10.0.2.1:7431, bits 24, network net2, heartbeat 10.0.2.9:1",
			"the order of the addresses of a changes",
		}},
		{func(d *Document) { slices.Reverse(d.Nodes) }, []string{"the order of the nodes changes"}},
		{func(d *Document) { d.Former[0].Removed.Time = at(1) }, []string{
			"former node a0030000-0000-0000-0000-000000000000 removed time 2026-03-01T05:00:00Z -> 2026-03-01T01:00:00Z",
		}},

		{func(d *Document) { d.Networks = append(d.Networks, Network{Name: "net3", Port: 7}) }, []string{"network net3 is added: port 7"}},
		{func(d *Document) { d.Networks[1].Priority = 0 }, []string{"network net2 priority 5 -> 0"}},
		{func(d *Document) { d.Networks[1].Prefix = netip.Prefix{} }, []string{"network net2 prefix 10.0.2.0/24 -> none"}},
		{func(d *Document) { d.Links[0].Disabled, d.Links[0].Priority = false, nil }, []string{
			"link a - b on net2 disabled yes -> no", "link a - b on net2 priority 3 -> default", "! heartbeats on net2 begin",
		}},
		{func(d *Document) { d.Links = append(d.Links, Link{A: "a", B: "b", Network: "net1", Disabled: true}) }, []string{
			"link a - b on net1 is added: disabled", "! a loses its only link", "! b loses its only link", "! heartbeats on net1 end",
		}},

		{func(d *Document) { d.Repository.Spares = nil; d.Repository.Poll = "" }, []string{"repository poll 5s -> default", "repository spares d8000000-0000-0000-0000-000000000000 -> none"}},
		{func(d *Document) { d.Repository.Epoch = 3; d.Repository.Areas.Disks = d.Repository.Areas.Disks[:1] }, []string{
			"repository areas hosts 8, slot_size 262144, record_offset 4096, payload_offset 1048576, disks d1000000-0000-0000-0000-000000000000, d2000000-0000-0000-0000-000000000000, d3000000-0000-0000-0000-000000000000" +
				" -> hosts 8, slot_size 262144, record_offset 4096, payload_offset 1048576, disks d1000000-0000-0000-0000-000000000000",
			"repository epoch 2 -> 3", "! all members open the disks of epoch 3",
		}},
		{func(d *Document) { d.Moving = testDocument().Moving }, []string{
			"the repository moves: epoch 3, areas hosts 16, slot_size 1048576, record_offset 4096, payload_offset 1048576, disks d4000000-0000-0000-0000-000000000000",
			"! nothing else is changed until the repository has moved to epoch 3",
		}},

		{func(d *Document) { d.Tunables["node_timeout"] = "5s" }, []string{"tunable node_timeout 3s -> 5s"}},
		{func(d *Document) { delete(d.Tunables, "node_timeout"); d.Tunables["policy"] = "path" }, []string{"tunable node_timeout 3s -> default", "tunable policy default -> path"}},

		{func(d *Document) { d.Resources[0].Holders = []string{"a", "b", "d"}; d.Resources[0].Watch = "" }, []string{
			"resource service/db holders a, b -> a, b, d", "resource service/db watch unit:postgresql.service -> none",
		}},
		{func(d *Document) { d.Resources = nil }, []string{"resource service/db is removed", "! clients are told nothing more of service/db"}},
		{func(d *Document) {
			d.Resources = append(d.Resources, Resource{Name: "service/web", Holders: []string{"a"}})
		}, []string{"resource service/web is added: holders a"}},
		{func(d *Document) { d.Witness.Drained = []string{"a"} }, []string{"a is drained", "b is drained no more", "! clients of the witness on a are sent to others"}},
		{func(d *Document) { d.Witness.NetNames[0].Shares = nil; d.Witness.NetNames[0].AnyShare = true }, []string{
			"net name FS1 any_share no -> yes", "net name FS1 shares name data, scale_out -> none",
		}},
		{func(d *Document) { d.Linked[0].CA = Digest{1} }, []string{"linked cluster bonn ca is changed"}},
		{func(d *Document) { d.Handlers[0].Scope, d.Handlers[0].Edge = "", "" }, []string{"handler page edge failing -> both", "handler page scope cluster -> local"}},
		{func(d *Document) { d.Handlers[0].Nodes = nil; d.Handlers[0].Where = "" }, []string{
			"handler page nodes a -> all", `handler page where "value > 90 &&\n\tnode != \"d\"" -> none`,
		}},
		{func(d *Document) { d.Handlers[0].Where = strings.Repeat("x", 99) }, []string{
			`handler page where "value > 90 &&\n\tnode != \"d\"" -> "` + strings.Repeat("x", 80) + `"…`,
		}},
		{func(d *Document) { d.Handlers[0].On = strings.Split("abcdefghijklmnopqr", "") }, []string{
			"handler page on node.state, filesystem.usage:/var -> a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p and 2 more",
		}},
		{func(d *Document) { d.Handlers = nil }, []string{"handler page is removed", "! handler page runs no more"}},

		{func(d *Document) { d.Licenses.Files = append(d.Licenses.Files, "x", "y") }, []string{"2 licenses are added"}},
		{func(d *Document) { d.Licenses.Files[0] = "x" }, []string{"a license is added", "a license is removed"}},
		{func(d *Document) { d.Licenses.Revocations[0] = "x" }, []string{"a revocation list is added", "a revocation list is removed"}},
		{func(d *Document) { d.Licenses.Mark = at(8) }, []string{"licenses mark 2026-03-01T07:00:00Z -> 2026-03-01T08:00:00Z"}},
		{func(d *Document) { d.Licenses.Activations = nil }, []string{"activation of L-1 on a0010000-0000-0000-0000-000000000000 at 2026-03-01T06:00:00Z is removed"}},

		{func(d *Document) {
			d.Roles = append(d.Roles, Grant{Subjects: []string{"uid:1000", "uid:7"}, Role: "admin"})
		}, []string{
			"the grant to uid:1000, uid:7: admin is added", "! uid:1000 becomes admin", "! uid:7 becomes admin",
		}},
		{func(d *Document) { d.Roles[0].Role = "" }, []string{
			"the grant to uid:1000, group:dba, client:web: observe:process.*@own, emit:user.backup is added",
			"the grant to uid:1000, group:dba, client:web: operator, observe:process.*@own, emit:user.backup is removed",
			"! group:dba is operator no more", "! uid:1000 is operator no more", // the client is one by its certificate
		}},

		{func(d *Document) { d.Security.CA[0], d.Security.CA[1] = d.Security.CA[1], d.Security.CA[0] }, []string{"the order of the authorities changes"}},
		{func(d *Document) { d.Security.CANext = false }, []string{"the second authority is to sign yes -> no"}},
		{func(d *Document) { d.Security.CA = d.Security.CA[:1] }, []string{"an authority is removed", "! certificates under the authority that is removed are refused"}},
		{func(d *Document) { d.Security.CAKeys = nil }, []string{
			"an authority's key is taken from a", "! no node can sign certificates; an administrator signs with the key that was kept elsewhere",
		}},
		{func(d *Document) { d.Security.CAKeys[0].Sealed[0] ^= 1 }, []string{"an authority's key is sealed to a anew"}},
		{func(d *Document) { d.Security.Tokens[0].Hash = Digest{1} }, []string{"a join token for role node is changed"}},
		{func(d *Document) { d.Security.Tokens = nil }, []string{"a join token for role node is used up, revoked or over"}},
		{func(d *Document) { d.Security.Tokens = append(d.Security.Tokens, manyTokens(1)...) }, []string{"a join token for role node is made, until 2026-03-01T08:00:00Z"}},
		{func(d *Document) { d.Security.Clients[0].Role = "reader" }, []string{"client web role operator -> reader"}}, // a grant makes it an operator all the same
		{func(d *Document) { d.Security.Clients = nil; d.Roles = nil }, []string{
			"the grant to uid:1000, group:dba, client:web: operator, observe:process.*@own, emit:user.backup is removed", "client web is removed",
			"! client:web is operator no more", "! group:dba is operator no more", "! uid:1000 is operator no more", "! client web is refused",
		}},
		{func(d *Document) { d.Security.Clients[0].Keys = nil }, []string{"the keys of client web are changed"}},
		{func(d *Document) { d.Security.Revoked = []string{"1f", "3d"} }, []string{"certificate 2e is revoked no more", "certificate 3d is revoked"}},
		{func(d *Document) { d.Security.Datagram.Epoch = 10; d.Security.Datagram.Secret = Digest{1} }, []string{"datagram keys epoch 9 -> 10", "datagram keys secret_hash is changed"}},

		{func(d *Document) { d.Confirm = testDocument().Confirm }, []string{"generation 7 comes back unless `belfry config confirm` is run before 2026-03-01T09:00:00Z"}},
		{func(d *Document) { d.Ops, d.History = nil, nil }, nil},
	} {
		d := copyOf(t, settled())
		c.edit(&d)
		if diff := cmp.Diff(c.want, linesOf(Diff(settled(), d))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// What is long, or written in another way only, is said not to be the same.
func TestDiffOfWhatLooksTheSame(t *testing.T) {
	t.Parallel()
	a, b := settled(), copyOf(t, settled())
	a.Handlers[0].Where = strings.Repeat("x", 99)
	b.Handlers[0].Where = strings.Repeat("x", 98)
	a.Handlers[0].Edge, b.Handlers[0].Edge = "both", ""
	want := []string{"handler page edge stays both, written otherwise", "handler page where is changed"}
	if diff := cmp.Diff(want, linesOf(Diff(a, b))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A node whose other links go is told of, and what it has left.
func TestDiffCountsTheLinksOfEachNode(t *testing.T) {
	t.Parallel()
	three := func() Document {
		d := copyOf(t, settled())
		d.Nodes[2].Intent, d.Links = "", nil
		return d
	}
	for _, c := range []struct {
		edit func(*Document)
		want []string
	}{
		{func(d *Document) { d.Networks = d.Networks[:1]; dropNetwork(d, "net2") }, []string{
			"address of a on net2 is removed", "address of b on net2 is removed", "address of d on net2 is removed", "network net2 is removed",
			"! a has only net1 left", "! b has only net1 left", "! d has only net1 left", "! heartbeats on net2 end",
		}},
		{func(d *Document) { d.Nodes[2].Addresses = d.Nodes[2].Addresses[1:] }, []string{"address of d on net1 is removed", "! d has only net2 left"}},
		{func(d *Document) { d.Nodes[2].Addresses = []Address{{Network: "net3"}} }, []string{
			"address of d on net1 is removed", "address of d on net2 is removed", "address of d on net3 is added", "! d loses all its 2 links",
		}},
		{func(d *Document) { d.Links = []Link{{A: "a", B: "b", Network: "net1", Disabled: true}} }, []string{ // over d both hear somebody
			"link a - b on net1 is added: disabled",
		}},
	} {
		d := three()
		c.edit(&d)
		if diff := cmp.Diff(c.want, linesOf(Diff(three(), d))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func dropNetwork(d *Document, name string) {
	for i := range d.Nodes {
		d.Nodes[i].Addresses = slices.DeleteFunc(d.Nodes[i].Addresses, func(a Address) bool { return a.Network == name })
	}
}

// Whatever is changed in a document is in the difference, in both directions,
// and no secret ever is.
func TestDiffMissesNothingAndTellsNoSecret(t *testing.T) {
	t.Parallel()
	var tried int
	original := everything()
	eachEdit(t, func(path string, changed Document) {
		tried++
		machine := strings.HasPrefix(path, "ops") || strings.HasPrefix(path, "history")
		for _, pair := range [][2]Document{{original, changed}, {changed, original}} {
			changes := Diff(pair[0], pair[1])
			if said := len(changes) > 0; said == machine {
				t.Errorf("%s: the difference is %q", path, linesOf(changes))
			}
			text := strings.Join(linesOf(changes), "\n")
			for _, secret := range append(secretsOf(t, pair[0]), secretsOf(t, pair[1])...) {
				if strings.Contains(text, secret) {
					t.Errorf("%s: it tells the secret %q:\n%s", path, secret, text)
				}
			}
		}
	})
	if tried < 250 {
		t.Errorf("only %d changes tried", tried)
	}
}

// eachEdit calls do with a document in which one value is another one, or one
// entry is gone.
func eachEdit(t *testing.T, do func(path string, changed Document)) {
	t.Helper()
	count := 0
	var walk func(v reflect.Value, path string, target int) string
	walk = func(v reflect.Value, path string, target int) (hit string) {
		visit := func(edit func()) {
			if count == target {
				edit()
				hit = path
			}
			count++
		}
		switch typ := v.Type(); {
		case isText(typ):
			visit(func() { bump(v) })
		case typ == byteList:
			visit(func() { v.SetBytes(append([]byte{v.Bytes()[0] ^ 1}, v.Bytes()[1:]...)) })
		case typ.Kind() == reflect.Struct:
			for i, rule := range fieldRules[typ] {
				hit += walk(v.Field(i), join(path, rule.name), target)
			}
		case typ.Kind() == reflect.Pointer:
			hit += walk(v.Elem(), path, target)
			visit(func() { v.SetZero() })
		case typ.Kind() == reflect.Slice:
			for i := range v.Len() {
				hit += walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), target)
			}
			if v.Len() > 0 {
				visit(func() { v.SetLen(v.Len() - 1) })
			}
		case typ.Kind() == reflect.Map:
			visit(func() { v.Set(reflect.ValueOf(map[string]string{"node_timeout": "3s", "allowance": ""})) })
		default:
			visit(func() { bump(v) })
		}
		return hit
	}
	for target := 0; ; target++ {
		d := copyOf(t, everything())
		count = 0
		path := walk(reflect.ValueOf(&d).Elem(), "", target)
		if path == "" {
			return
		}
		do(path, d)
	}
}

// bump makes one value another one.
func bump(v reflect.Value) {
	switch x := v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(x.Add(time.Second)))
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.AddrPortFrom(x.Addr().Next(), x.Port())))
	case netip.Addr:
		v.Set(reflect.ValueOf(x.Next()))
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(x.Addr(), x.Bits()-1)))
	default:
		switch {
		case v.Kind() == reflect.Array:
			v.Index(v.Len() - 1).SetUint(v.Index(v.Len()-1).Uint() ^ 1)
		case v.Kind() == reflect.Bool:
			v.SetBool(!v.Bool())
		case v.Kind() == reflect.String:
			v.SetString(v.String() + "x")
		case v.CanInt():
			v.SetInt(v.Int() + 1)
		default:
			v.SetUint(v.Uint() + 1)
		}
	}
}

// secretsOf are the texts of a document that nobody may read in a difference.
func secretsOf(t *testing.T, d Document) (secrets []string) {
	t.Helper()
	add := func(values ...any) {
		for _, value := range values {
			text, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, strings.Trim(string(text), `"`))
		}
	}
	for _, k := range d.Security.CAKeys {
		add(k.Sealed, k.CA)
	}
	for _, k := range d.Security.Tokens {
		add(k.Hash, k.ID)
	}
	for _, c := range d.Security.Clients {
		for _, k := range c.Keys {
			add(k.Key)
		}
	}
	add(d.Security.Datagram.Secret)
	for _, f := range slices.Concat(d.Licenses.Files, d.Licenses.Revocations) {
		secrets = append(secrets, f, base64.StdEncoding.EncodeToString([]byte(f)))
		secrets = append(secrets, strings.Fields(f)...)
	}
	return slices.DeleteFunc(secrets, func(s string) bool { return len(s) < 5 || strings.Trim(s, "0") == "" || s == "BELFRY" })
}

// Two documents with a thousand nodes are compared in a moment: a plan is asked
// for by people.
func TestDiffOfManyNodes(t *testing.T) {
	t.Parallel()
	d := settled()
	d.Nodes = nil
	for i := range 1000 {
		n := testNode(1, fmt.Sprintf("n%d", i))
		n.ID = belfry.NodeID{byte(i), byte(i >> 8), 1}
		d.Nodes = append(d.Nodes, n)
	}
	changed := d
	changed.Nodes = slices.Clone(d.Nodes)
	changed.Nodes[999].Addresses = changed.Nodes[999].Addresses[:1]
	if diff := cmp.Diff([]string{"address of n999 on net2 is removed", "! n999 has only net1 left"}, linesOf(Diff(d, changed))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
