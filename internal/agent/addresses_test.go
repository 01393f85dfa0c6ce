package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

func TestNetworksAreNamedByTheirPrefix(t *testing.T) {
	t.Parallel()
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	table := &Table{Nodes: []Node{{Networks: []Network{{Name: "old", Heartbeat: netip.MustParseAddrPort("10.0.7.1:7431")}}}}}
	for _, tt := range []struct {
		name      string
		addresses []netip.Prefix
		want      string
	}{
		{"the first node", prefixes("10.0.0.1/24", "10.0.1.1/24"), "net1 10.0.0.1:7431, net2 10.0.1.1:7431"},
		{"on both, in another order", prefixes("10.0.1.2/24", "10.0.0.2/24"), "net2 10.0.1.2:7431, net1 10.0.0.2:7431"},
		{"on one, and on a new one", prefixes("10.0.0.3/24", "fd00::3/64"), "net1 10.0.0.3:7431, net3 [fd00::3]:7431"},
		{"twice on one", prefixes("10.0.0.4/24", "10.0.0.5/24"), "net1 10.0.0.4:7431"},
		{"in a network whose size nobody knows", prefixes("10.0.7.2/24"), "old 10.0.7.2:7431"},
		{"another size of prefix is another network", prefixes("10.0.0.6/25"), "net4 10.0.0.6:7431"},
	} {
		networks := table.networksFor(tt.addresses, 7431)
		table.Nodes = append(table.Nodes, Node{Networks: networks})
		var got []string
		for _, n := range networks {
			got = append(got, n.Name+" "+n.Heartbeat.String())
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, diff)
		}
	}
}

func TestAnApplicantHasANetworkInCommonWithAMember(t *testing.T) {
	t.Parallel()
	at := func(name, text string) Network {
		p := netip.MustParsePrefix(text)
		return Network{Name: name, Heartbeat: netip.AddrPortFrom(p.Addr(), 7431), Bits: p.Bits()}
	}
	one := []Node{{Name: "a", Networks: []Network{at("net1", "10.0.0.1/24")}}}
	two := append(one[:1:1], Node{Name: "b", Networks: []Network{at("net1", "10.0.0.2/24"), at("net2", "10.0.1.2/24")}})
	routed := append(one[:1:1], Node{Name: "b", Networks: []Network{at("net1", "10.0.5.2/24")}})
	for _, tt := range []struct {
		name    string
		members []Node
		address string
		want    string // in the error; empty: it may come
	}{
		{"with the only member", one, "10.0.0.9/24", ""},
		{"with one of two", two, "10.0.1.9/24", ""},
		{"by a router, on a network that has the same name", routed, "10.0.5.9/24", ""},
		{"with none", two, "10.9.0.9/24", "wrong use: no network in common: n has 10.9.0.9/24, the members have 10.0.0.1/24 10.0.1.2/24; name an address of this machine on one of their networks with --address"},
		{"with the same addresses and another prefix", one, "10.0.0.9/16", "n has 10.0.0.9/16, the members have 10.0.0.1/24;"},
		{"of another family", one, "fd00::9/64", "n has fd00::9/64, the members have 10.0.0.1/24;"},
	} {
		p := netip.MustParsePrefix(tt.address)
		who := applicant{node: Node{Name: "n", Networks: []Network{at("", tt.address)}}, addresses: []netip.Prefix{p}}
		err := (&Table{Nodes: tt.members}).place(&who)
		if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, belfry.ErrUsage) || !strings.Contains(got, tt.want)) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

func TestAddressesThatAreNamedMustBeThisMachines(t *testing.T) {
	t.Parallel()
	if got, err := OwnAddresses([]string{"127.0.9.1", "127.0.10.1"}); err != nil || len(got) != 2 || got[0].String() != "127.0.9.1/24" {
		t.Errorf("loopback: %v, %v", got, err)
	}
	for text, want := range map[string]string{"x": "not an IP address", "192.0.2.77": "not an address of this machine"} {
		if _, err := OwnAddresses([]string{text}); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want ErrUsage with %q", text, err, want)
		}
	}
	if _, err := OwnAddresses([]string{"127.0.9.1", "127.0.9.1"}); !errors.Is(err, belfry.ErrUsage) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("twice: %v; want ErrUsage", err)
	}
}

func TestInterfacesOfGuestsAreNotTheClusters(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"docker0": true, "br-0a1b2c3d4e5f": true, "virbr0": true, "veth12ab": true, "cni0": true, "vnet3": true,
		"eth0": false, "br0": false, "bond0": false, "enp3s0": false, "br-lan": false, "wg0": false,
	} {
		if got := inner.MatchString(name); got != want {
			t.Errorf("%s: inner %t; want %t", name, got, want)
		}
	}
}
