package agent

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/security"
)

// Offsets of a clock from which the doctor speaks up. Heartbeats need no common
// clock; tokens, certificates and the times of records do.
const (
	clockWarning = time.Second
	clockFailure = 30 * time.Second
)

// reportLife is how old reports may be: members are asked about once a minute,
// and a node that no longer leads keeps the last ones.
const reportLife = 3 * time.Minute

// agentStatus is what the agent says, with reports that are not too old; else a
// finding says that it says nothing.
func (d doctor) agentStatus() (*belfryv1.GetStatusResponse, findings) {
	status, err := d.ask.Status()
	if ending := d.ending(); err != nil && ending != "" {
		return nil, findings{{Level: LevelUnknown, Text: "needs an agent, and none runs here: " + ending}}
	}
	if err != nil {
		return nil, findings{{Level: LevelUnknown, Text: "needs an agent that answers: " + err.Error()}}
	}
	for _, n := range status.GetNodes() {
		if d.now.Sub(n.GetReport().GetAsked().AsTime()) > reportLife {
			n.Report = nil
		}
	}
	return status, nil
}

// ending is how this node's membership ended and what to do; empty: it has not,
// or that can not be read.
func (d doctor) ending() string {
	table, keys, wrong := d.table()
	if wrong != nil {
		return ""
	}
	if _, listed := table.Node(keys.Node); listed {
		return ""
	}
	return table.ending(d.settings.State, keys.Node)
}

// unasked is a finding if the agent has not asked the members, and so itself.
func unasked(status *belfryv1.GetStatusResponse) (found findings) {
	for _, n := range status.GetNodes() {
		if n.GetSelf() && n.GetReport() == nil {
			found.add(LevelUnknown, "this agent has not asked the members; with more than %d of them only the one that leads does, the running one with the lowest number: run belfry doctor there", pollAll)
		}
	}
	return found
}

// clock compares the clocks of the members with this node's.
func (d doctor) clock() (found findings) {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	if none := unasked(status); none != nil {
		return none
	}
	var widest time.Duration
	compared := 0
	for _, n := range status.GetNodes() {
		said := n.GetReport().GetClockOffset()
		if said == nil {
			said = n.GetStream().GetClockOffset()
		}
		switch {
		case n.GetSelf():
			continue
		case said != nil:
		case outOfTime(n.GetStream().GetError()):
			found.add(LevelFailure, "%s and this node do not agree on the time: %s; compare date on both, and see that time synchronisation runs: timedatectl", n.GetName(), readable(n.GetStream().GetError()))
			continue
		case n.GetVerdict() == belfry.VerdictUp.String():
			found.add(LevelUnknown, "%s has not said its time; see belfry link show %s, and look again in a minute", n.GetName(), n.GetName())
			continue
		default:
			continue // the check of the members tells of it
		}
		compared++
		offset := said.AsDuration()
		widest = max(widest, offset.Abs())
		if level := clockLevel(offset); level != LevelOK {
			found.add(level, "%s is %s %s this node; see that time synchronisation runs on both: timedatectl", n.GetName(), offset.Abs().Round(time.Millisecond), direction(offset))
		}
	}
	return found.orElse("%d other clocks at most %s apart from this one", compared, widest.Round(time.Millisecond))
}

func clockLevel(offset time.Duration) Level {
	switch {
	case offset.Abs() >= clockFailure:
		return LevelFailure
	case offset.Abs() >= clockWarning:
		return LevelWarning
	}
	return LevelOK
}

func direction(offset time.Duration) string {
	if offset < 0 {
		return "behind"
	}
	return "ahead of"
}

// table reads the member table and who this node is; with findings it could not.
func (d doctor) table() (*Table, *security.Keys, findings) {
	keys, level, text := d.load()
	if keys == nil {
		return nil, nil, findings{{Level: level, Text: text}}
	}
	members, err := OpenMembers(d.settings.State)
	if errors.Is(err, belfry.ErrNotMember) {
		return nil, nil, findings{{Level: LevelFailure, Text: err.Error()}}
	}
	if err != nil {
		return nil, nil, findings{{Level: LevelFailure, Text: err.Error()}}
	}
	return members.Table(), keys, nil
}

// addresses compares the heartbeat addresses with those of this machine and of
// the other members.
func (d doctor) addresses() findings {
	table, keys, wrong := d.table()
	if wrong != nil {
		return wrong
	}
	if ending := d.ending(); ending != "" {
		return findings{{Level: LevelFailure, Text: ending}}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return findings{{Level: LevelUnknown, Text: err.Error() + "; run belfry doctor where the agent runs"}}
	}
	own := func(addr netip.Addr) (netip.Prefix, string, bool) {
		prefix, here := prefixOf(interfaces, addr)
		return prefix, faultOf(interfaces, addr), here
	}
	return table.checkAddresses(keys.Node, own)
}

// checkAddresses judges those of one member; own finds the prefix that this
// machine has for an address, and what is wrong with its interface.
func (t *Table) checkAddresses(self belfry.NodeID, own func(netip.Addr) (prefix netip.Prefix, fault string, here bool)) (found findings) {
	node, _ := t.Node(self)
	var names []string
	for _, network := range node.Networks {
		addr := network.Heartbeat.Addr()
		names = append(names, network.Name+" "+addr.String())
		prefix, fault, here := own(addr)
		switch {
		case !here:
			found.add(LevelFailure, "%s: %s is not an address of this machine, no heartbeat leaves from it; give it back to an interface (ip address). If the address has changed for good, belfry node remove %s and join again. If this machine, or its state, is a copy of another, that would remove the original: stop this agent instead, and remove its state directory", network.Name, addr, node.Name)
		case fault != "":
			found.add(LevelWarning, "%s: no heartbeat leaves from %s: %s", network.Name, addr, fault)
		case network.Bits != 0 && !addr.IsLoopback() && prefix.Bits() != network.Bits:
			found.add(LevelWarning, "%s: %s has the prefix /%d here, /%d in the member table; correct the interface's, or remove this node and join again", network.Name, addr, prefix.Bits(), network.Bits)
		}
		t.checkNeighbours(node, network, &found)
	}
	for _, n := range t.Nodes {
		if n.ID != self && len(linksTo(node, n)) == 0 {
			found.add(LevelWarning, "no network in common with %s, which has %s, this node has %s: no heartbeat goes between the two, and what each knows of the other is what a third one says. Have one of them leave, and join again with an --address on a network of the other", n.Name, placesText(n.Networks), placesText(node.Networks))
		}
	}
	return found.orElse("%s", strings.Join(names, ", "))
}

// checkNeighbours compares one network of a node with those of the other members.
func (t *Table) checkNeighbours(node Node, network Network, found *findings) {
	for _, n := range t.Nodes {
		for _, its := range n.Networks {
			switch {
			case n.ID == node.ID:
			case its.Heartbeat == network.Heartbeat:
				found.add(LevelFailure, "%s: %s has the address %s too; remove one of the two nodes and let it join with another", network.Name, n.Name, its.Heartbeat)
			case its.Name == network.Name && its.prefix().IsValid() && network.prefix().IsValid() && its.prefix() != network.prefix():
				found.add(LevelWarning, "%s: %s is in %s there, in %s here; if no router joins them, correct the prefix of one", network.Name, n.Name, its.prefix(), network.prefix())
			}
		}
	}
}

// members judges what the members said, and who can sign for them.
func (d doctor) members() findings {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	table, _, wrong := d.table()
	if wrong != nil {
		return wrong
	}
	found := unasked(status)
	asked := found == nil
	for _, n := range status.GetNodes() {
		checkMember(n, &found)
	}
	if alone(status) {
		found.add(LevelWarning, "no other member is up, as far as this node hears. They may be down, or its networks cut. If its state was copied, or restored from a backup, the others refuse it: it says so in belfry doctor streams while another agent has its identity, and is a member again by itself when none has. If it was removed meanwhile, its agent ends when more than half of the others say so")
	}
	if !asked {
		return found
	}
	table.checkRotation(status, &found)
	table.checkHolders(status, d.now, &found)
	return found.orElse("%d, all with generation %d", len(status.GetNodes()), status.GetGeneration())
}

// alone tells whether there are other members, none of which is up here.
func alone(status *belfryv1.GetStatusResponse) bool {
	nodes := status.GetNodes()
	return len(nodes) > 1 && !slices.ContainsFunc(nodes, func(n *belfryv1.Node) bool { return !n.GetSelf() && n.GetVerdict() == belfry.VerdictUp.String() })
}

// checkMember judges one member by its verdict and its report.
func checkMember(n *belfryv1.Node, found *findings) {
	name, report := n.GetName(), n.GetReport()
	held, ours := report.GetGeneration(), report.GetAskerGeneration()
	down := n.GetVerdict() == belfry.VerdictDown.String()
	switch {
	case n.GetLastHeard() == nil && (down || n.GetVerdict() == belfry.VerdictJoining.String()) && !n.GetSelf():
		found.add(LevelWarning, "%s has never been heard by this agent; start its agent, or take it out with belfry node remove %s (with --force while most members are down)", name, name)
	case down:
		found.add(LevelWarning, "%s is down; belfry node why %s tells the evidence", name, name)
	case held != 0 && held < ours:
		found.add(LevelWarning, "%s ran with generation %d while this node had %d; if it stays so for a minute, see belfry link show %s", name, held, ours, name)
	case held > ours:
		found.add(LevelWarning, "this node had generation %d while %s ran with %d; if it stays so for a minute, see belfry link show %s", ours, name, held, name)
	}
}

// checkRotation tells whom the replacement of the authority waits for.
func (t *Table) checkRotation(status *belfryv1.GetStatusResponse, found *findings) {
	if len(t.CA) < 2 {
		return
	}
	signs, _ := t.CA[0].Digest().MarshalText() // always nil
	for _, n := range status.GetNodes() {
		switch report := n.GetReport(); {
		case report == nil:
			found.add(LevelWarning, "the authority is being replaced, which waits for %s; start its agent, or take it out with belfry node remove %s", n.GetName(), n.GetName())
		case !t.CANext && report.GetAuthority() != string(signs):
			found.add(LevelWarning, "the authority is being replaced, and %s has not said that it renewed its certificate; it does within the hour, and members are asked once a minute; else see its log", n.GetName())
		}
	}
}

// checkHolders judges how many nodes can sign, and whether one is there. A
// cluster whose authority is offline has none.
func (t *Table) checkHolders(status *belfryv1.GetStatusResponse, now time.Time, found *findings) {
	if len(t.CA) == 0 || t.offline() {
		return
	}
	if len(t.CAKeys) == 0 {
		found.add(LevelWarning, "the nodes that held the authority's key were removed: nobody can join, and no certificate is renewed; another authority takes its place by itself while more than half of the members are up, else bring some back")
		return
	}
	ca := t.CA[0].Digest()
	if len(t.CA) > 1 && t.holders(ca) == 0 {
		return // nobody needs it any more; checkRotation tells the rest
	}
	if have, want := t.holders(ca), min(caHolders, len(t.Nodes)); have < want {
		found.add(LevelWarning, "%d of %d nodes hold the authority's key; another gets it by itself when the node that leads and one that holds it are up", have, want)
	}
	var names []string
	reachable := false
	for _, n := range status.GetNodes() {
		id, err := belfry.ParseNodeID(n.GetId())
		if err != nil || !t.holds(id, ca) {
			continue
		}
		names = append(names, n.GetName())
		reachable = reachable || n.GetReport() != nil || n.GetVerdict() == belfry.VerdictUp.String()
	}
	if reachable {
		return
	}
	ending := slices.ContainsFunc(status.GetNodes(), func(n *belfryv1.Node) bool {
		return n.GetReport() != nil && n.GetReport().GetCertificateEnd().AsTime().Sub(now) < certificateWarning
	})
	urgent := ""
	if ending {
		urgent = ", and a certificate ends within 10 days"
	}
	found.add(LevelWarning, "no node that holds the authority's key is up: nobody can join, no certificate is renewed%s; start one of %s", urgent, strings.Join(names, " "))
}
