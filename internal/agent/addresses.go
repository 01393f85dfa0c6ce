package agent

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/belfry-ha/belfry"
)

// inner are the interfaces of container engines and hypervisors that only this
// machine's guests see. Their addresses are often the same on all machines.
var inner = regexp.MustCompile(`^(docker\d*|br-[0-9a-f]{12}|virbr\d+.*|podman\d+|cni.*|veth.*|lxc.*|lxdbr\d+|flannel.*|cali.*|vnet\d+)$`)

// OwnAddresses are the addresses under which a new member is to be reached,
// with the size of their networks: those that are named, each of which must be
// this machine's; else one of each interface that is up and leads elsewhere,
// IPv4 before IPv6.
func OwnAddresses(named []string) ([]netip.Prefix, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	if len(named) > 0 {
		return namedAddresses(interfaces, named)
	}
	var found []netip.Prefix
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || inner.MatchString(i.Name) {
			continue
		}
		all := slices.DeleteFunc(prefixesOf(i), func(p netip.Prefix) bool { return !p.Addr().IsGlobalUnicast() })
		slices.SortStableFunc(all, func(a, b netip.Prefix) int { return a.Addr().BitLen() - b.Addr().BitLen() })
		if len(all) > 0 {
			found = append(found, all[0])
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: no interface that is up has an address that others could reach; name one with --address", belfry.ErrNotFound)
	}
	return found, nil
}

func namedAddresses(interfaces []net.Interface, named []string) (found []netip.Prefix, err error) {
	for _, text := range named {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%w: --address %s: not an IP address; for example 10.0.0.1", belfry.ErrUsage, text)
		}
		own, ok := prefixOf(interfaces, addr.Unmap())
		if !ok {
			return nil, fmt.Errorf("%w: --address %s: not an address of this machine; ip address lists them", belfry.ErrUsage, text)
		}
		if slices.Contains(found, own) {
			return nil, fmt.Errorf("%w: --address %s: named twice", belfry.ErrUsage, text)
		}
		found = append(found, own)
	}
	return found, nil
}

// prefixOf finds the address among those of the interfaces. All of 127.0.0.0/8
// is this machine's (RFC 1122 3.2.1.3); clusters for trying out use a third
// number for each network.
func prefixOf(interfaces []net.Interface, addr netip.Addr) (netip.Prefix, bool) {
	if addr.Is4() && addr.IsLoopback() {
		return netip.PrefixFrom(addr, 24), true
	}
	for _, i := range interfaces {
		for _, p := range prefixesOf(i) {
			if p.Addr() == addr {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

// faultOf is what is wrong with the interface that has an address; empty:
// nothing, or there is none.
func faultOf(interfaces []net.Interface, addr netip.Addr) string {
	for _, i := range interfaces {
		for _, p := range prefixesOf(i) {
			switch {
			case p.Addr() != addr:
			case i.Flags&net.FlagUp == 0:
				return fmt.Sprintf("%s is set down; run: ip link set %s up", i.Name, i.Name)
			case i.Flags&net.FlagRunning == 0:
				return i.Name + " has no carrier; look at its cable and at the other end"
			}
		}
	}
	return ""
}

func prefixesOf(i net.Interface) (prefixes []netip.Prefix) {
	addrs, err := i.Addrs()
	if err != nil { // it has just gone
		return nil
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok {
			addr, _ := netip.AddrFromSlice(ip.IP)
			bits, _ := ip.Mask.Size()
			prefixes = append(prefixes, netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	return prefixes
}

// networksFor gives each address of a new member the name of the network that
// it is on: that of a member with an address of the same prefix, or with one that
// lies in it where the size of that network is not known, else the next netN. Of
// two addresses on one network the first counts.
func (t *Table) networksFor(addresses []netip.Prefix, port uint16) []Network {
	names, used := map[netip.Prefix]string{}, map[string]bool{}
	for _, n := range t.Nodes {
		for _, network := range n.Networks {
			used[network.Name] = true
			if network.Bits > 0 {
				names[network.prefix()] = network.Name
			}
		}
	}
	var networks []Network
	taken := map[string]bool{}
	for _, a := range addresses {
		name := cmp.Or(names[a.Masked()], t.unsized(a))
		for i := 1; name == ""; i++ {
			if next := fmt.Sprintf("net%d", i); !used[next] {
				name = next
			}
		}
		names[a.Masked()], used[name] = name, true
		if !taken[name] {
			networks = append(networks, Network{Name: name, Heartbeat: netip.AddrPortFrom(a.Addr(), port), Bits: a.Bits()})
		}
		taken[name] = true
	}
	return networks
}

// place names the networks of an applicant. It refuses addresses that a member
// has, and those from which no member is reached: links are within networks
// (cluster.md 2), so that it would stay joining, and count in a majority.
func (t *Table) place(who *applicant) error {
	networks := t.networksFor(who.addresses, who.node.Networks[0].Heartbeat.Port())
	if n, address, taken := t.owner(networks); taken {
		return fmt.Errorf("%w: %s is the address of node %s; name this node's own with --address", belfry.ErrExist, address, n.Name)
	}
	who.node.Networks = networks
	if !slices.ContainsFunc(t.Nodes, func(n Node) bool { return len(linksTo(who.node, n)) > 0 }) {
		return fmt.Errorf("%w: no network in common: %s has %s, the members have %s; name an address of this machine on one of their networks with --address", belfry.ErrUsage, who.node.Name, placesText(networks), placesText(t.networks()))
	}
	return nil
}

// networks are those of all members, one address of each, by name.
func (t *Table) networks() (all []Network) {
	for _, n := range t.Nodes {
		for _, network := range n.Networks {
			if !slices.ContainsFunc(all, func(o Network) bool { return o.Name == network.Name && o.prefix() == network.prefix() }) {
				all = append(all, network)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y Network) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// maxPlaces is how many networks a message names.
const maxPlaces = 8

// placesText names networks for messages, as an address with the size of its
// network's prefix.
func placesText(networks []Network) string {
	var texts []string
	for _, n := range networks[:min(len(networks), maxPlaces)] {
		text := n.Heartbeat.Addr().String()
		if n.Bits > 0 {
			text += fmt.Sprintf("/%d", n.Bits)
		}
		texts = append(texts, text)
	}
	if more := len(networks) - maxPlaces; more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(texts, " ")
}

// unsized is the name of a network of unknown size with an address in this
// prefix; empty: there is none.
func (t *Table) unsized(a netip.Prefix) string {
	for _, n := range t.Nodes {
		for _, network := range n.Networks {
			if network.Bits == 0 && a.Contains(network.Heartbeat.Addr()) {
				return network.Name
			}
		}
	}
	return ""
}

// prefix is the network of the address; zero if its size is not known.
func (n Network) prefix() netip.Prefix {
	if n.Bits == 0 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(n.Heartbeat.Addr(), n.Bits).Masked()
}

// owner finds the member that has one of these networks' addresses.
func (t *Table) owner(networks []Network) (Node, netip.AddrPort, bool) {
	for _, n := range t.Nodes {
		for _, its := range n.Networks {
			for _, mine := range networks {
				if its.Heartbeat == mine.Heartbeat {
					return n, its.Heartbeat, true
				}
			}
		}
	}
	return Node{}, netip.AddrPort{}, false
}
