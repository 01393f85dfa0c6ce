package repository

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// The range of the poll (repository.md, From message to member).
const (
	pollMin = time.Second
	pollMax = time.Minute
)

func (v *validator) resources() {
	seen := map[string]bool{}
	for i, r := range v.Resources {
		path := fmt.Sprintf("resources[%d]", i)
		kind, subject, _ := strings.Cut(r.Name, "/")
		v.word(path+".name", kind+"/", "service/", "share/", "name/", "address/")
		v.want(subject != "" && !strings.ContainsAny(subject, "@ "), path+".name", "%q; want KIND/SUBJECT, without a node", r.Name)
		v.unique(seen, path+".name", r.Name)
		v.want(len(r.Holders) > 0, path+".holders", "none; want the nodes that can hold it")
		v.nodeNames(path+".holders", r.Holders)
		if kind, subject, _ := strings.Cut(r.Watch, ":"); r.Watch != "" {
			v.word(path+".watch", kind+":", "unit:", "process:", "file:", "tcp:", "http:")
			v.want(subject != "", path+".watch", "%q; want KIND:SUBJECT", r.Watch)
		}
		if r.Address != "" {
			v.clientAddress(path+".address", r.Address)
		}
		if r.Probe.IsValid() && r.Probe.Addr().IsUnspecified() {
			v.want(r.Probe.Port() != 0, path+".probe", "%s; want a port", r.Probe)
		} else if r.Probe.IsValid() {
			v.address(path+".probe", r.Probe)
		}
		v.want(r.ProbePath == "" || r.Probe.IsValid() && strings.HasPrefix(r.ProbePath, "/"), path+".probe_path", "%q; want a path that begins with /, beside a probe", r.ProbePath)
	}
}

// clientAddress wants IP or IP:PORT in the form that is written.
func (v *validator) clientAddress(path, text string) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.String() == text {
		v.address(path, netip.AddrPortFrom(ip, 1))
		return
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil || a.String() != text {
		v.usage(path, "%q; want IP or IP:PORT", text)
		return
	}
	v.address(path, a)
}

// nodeNames wants members, none twice.
func (v *validator) nodeNames(path string, names []string) {
	seen := map[string]bool{}
	for i, n := range names {
		at := fmt.Sprintf("%s[%d]", path, i)
		v.node(at, n)
		v.unique(seen, at, n)
	}
}

func (v *validator) witness() {
	v.nodeNames("witness.drained", v.Witness.Drained)
	seen := map[string]bool{}
	for i, n := range v.Witness.NetNames {
		path := fmt.Sprintf("witness.net_names[%d]", i)
		v.netName(path+".name", n.Name, seen)
		for j, alias := range n.Aliases {
			v.netName(fmt.Sprintf("%s.aliases[%d]", path, j), alias, seen)
		}
		for j, a := range n.Addresses {
			v.address(fmt.Sprintf("%s.addresses[%d]", path, j), netip.AddrPortFrom(a, 1))
		}
		v.want(n.AnyShare != (len(n.Shares) > 0), path+".shares", "%d, any_share %t; want either shares, or any_share", len(n.Shares), n.AnyShare)
		shares := map[string]bool{}
		for j, s := range n.Shares {
			at := fmt.Sprintf("%s.shares[%d].name", path, j)
			v.want(s.Name != "", at, "missing; want the share's")
			v.unique(shares, at, strings.ToLower(s.Name))
		}
	}
	if len(v.Witness.NetNames) > 0 {
		v.groupNames()
	}
}

// netName wants what SMB clients may ask for; case does not count ([MS-SWN] 3.1.4.2).
func (v *validator) netName(path, s string, seen map[string]bool) {
	v.want(s != "" && !strings.ContainsAny(s, ` \/:*?"<>|`), path, "%q; want a name without blanks and \\/:*?\"<>|", s)
	v.unique(seen, path, strings.ToLower(s))
}

// groupNames wants nodes to differ in the names that SMB clients know them by:
// 15 characters in capitals (witness.md 7).
func (v *validator) groupNames() {
	groups := map[string]string{}
	for i, n := range v.Nodes {
		group := strings.ToUpper(n.Name[:min(len(n.Name), 15)])
		if by, ok := groups[group]; ok && by != n.Name {
			v.usage(fmt.Sprintf("nodes[%d].name", i), "%q and %q are both %s to SMB clients; want names that differ in their first 15 characters", by, n.Name, group)
		}
		groups[group] = n.Name
	}
}

func (v *validator) linked() {
	seen := map[string]bool{}
	for i, l := range v.Linked {
		path := fmt.Sprintf("linked[%d]", i)
		v.name(path+".name", l.Name)
		v.unique(seen, path+".name", l.Name)
		v.want(len(l.Addresses) > 0, path+".addresses", "none; want those of its agents")
		for j, a := range l.Addresses {
			v.address(fmt.Sprintf("%s.addresses[%d]", path, j), a)
		}
		v.want(l.CA != Digest{}, path+".ca", "missing; want the SHA-256 of its authority's certificate")
	}
}

func (v *validator) handlers() {
	seen := map[string]bool{}
	for i := range v.Handlers {
		h, path := &v.Handlers[i], fmt.Sprintf("handlers[%d]", i)
		v.name(path+".name", h.Name)
		v.unique(seen, path+".name", h.Name)
		v.want(len(h.On) > 0, path+".on", "names no event; for example node.state")
		for j, selector := range h.On {
			v.want(selector != "", fmt.Sprintf("%s.on[%d]", path, j), "is empty; want a selector like node.state")
		}
		v.word(path+".scope", h.Scope, "", "local", "cluster")
		v.word(path+".edge", h.Edge, "", "both", "failing", "recovered")
		v.word(path+".run_on", h.RunOn, "", "every", "origin", "one")
		v.want(h.RunOn != "one" || h.Scope == "cluster", path+".run_on", "one shares the events of the cluster; want scope cluster")
		v.want(len(h.Nodes) == 0 || h.Scope == "cluster", path+".nodes", "are given; want scope cluster")
		v.nodeNames(path+".nodes", h.Nodes)
		v.duration(path+".hold", h.Hold, 0, 365*24*time.Hour)
		v.duration(path+".min_interval", h.MinInterval, 0, 365*24*time.Hour)
		v.duration(path+".timeout", h.Timeout, time.Second, time.Hour)
		v.want(h.Attempts >= 0 && h.Attempts <= 100, path+".attempts", "%d; want 1 to 100, or 0 for 5", h.Attempts)
		v.want(h.Limit >= 0 && h.Limit <= 1<<20, path+".limit", "%d; want 0 to %d", h.Limit, 1<<20)
	}
}

func (v *validator) licenses() {
	l := &v.Licenses
	files := map[string]bool{}
	for i, text := range l.Files {
		path := fmt.Sprintf("licenses.files[%d]", i)
		v.want(text != "" && !files[text], path, "is empty or there twice; want each file once")
		files[text] = true
	}
	for i, text := range l.Revocations {
		v.want(text != "", fmt.Sprintf("licenses.revocations[%d]", i), "is empty; want the issuer's list")
	}
	for i, a := range l.Activations {
		path := fmt.Sprintf("licenses.activations[%d]", i)
		v.want(a.License != "", path+".license", "missing; want its id")
		v.want(!a.Node.IsZero(), path+".node", "missing; want where it was unlocked")
		v.want(!a.Time.IsZero(), path+".time", "missing; want when it was unlocked")
	}
	for i, k := range l.Issuers {
		path := fmt.Sprintf("licenses.issuers[%d]", i)
		v.want(k.Product != "", path+".product", "missing; want the one that it signs for")
		v.want(len(k.Key) == ed25519.PublicKeySize, path+".key", "%d bytes; want the %d of an Ed25519 key", len(k.Key), ed25519.PublicKeySize)
	}
}
