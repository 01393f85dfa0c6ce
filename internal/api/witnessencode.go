package api

import (
	"fmt"
	"regexp"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/witness"
)

func resourcesOf(names []string) (all []belfry.Resource, err error) {
	for _, name := range names {
		r, err := belfry.ParseResource(name)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func witnessNodes(all []witness.Witness) (nodes []*belfryv1.WitnessNode) {
	for _, w := range all {
		nodes = append(nodes, &belfryv1.WitnessNode{
			NodeId: w.Node.String(), Node: w.Name, Addresses: w.Addresses, Rank: uint32(w.Rank),
			CoLocated: w.CoLocated, HoldsResource: w.HoldsOne, Zone: w.Zone, State: w.State.String(),
		})
	}
	return nodes
}

// changesOf is what clients are told. Thousands are told of the same change one
// after the other: they share what is the same to all.
func (w *witnessService) changesOf(all []belfry.ResourceChange) (changes []*belfryv1.ResourceChange) {
	for i := range all {
		changes = append(changes, w.changeOf(&all[i]))
	}
	return changes
}

// A changeStamp is what of a change is the same for all clients. Nobody writes to it
// any more.
type changeStamp struct {
	version     belfry.ResourceVersion
	first, last time.Time
	message     *belfryv1.ResourceChange // with these fields only
}

// stamp is that of the newest change, in most cases.
func (w *witnessService) stamp(c *belfry.ResourceChange) *changeStamp {
	if s := w.newest.Load(); s != nil && s.version == c.Level.Version && s.first.Equal(c.First) && s.last.Equal(c.Last) {
		return s
	}
	s := &changeStamp{version: c.Level.Version, first: c.First, last: c.Last, message: &belfryv1.ResourceChange{}}
	s.message.Version, s.message.First, s.message.Last = versionOf(c.Level.Version), timestamp(c.First), timestamp(c.Last)
	w.newest.Store(s)
	return s
}

func (w *witnessService) changeOf(c *belfry.ResourceChange) *belfryv1.ResourceChange {
	s := w.stamp(c)
	m := &belfryv1.ResourceChange{
		Seq: c.Seq, Count: c.Count, Resource: string(c.Resource), Holder: c.Holder, Addresses: c.Addresses,
		First: s.message.First, Last: s.message.Last, AtAffected: c.AtAffected, Flapped: c.Flapped, Reregister: c.Reregister,
	}
	if c.Resource != "" {
		m.State, m.Version = c.Level.State.String(), s.message.Version
	}
	if c.HasAt {
		m.AtState = c.Level.At.String()
	}
	if c.Move != nil {
		m.Move = &belfryv1.ClientMove{Id: c.Move.ID, To: c.Move.To, Addresses: c.Move.Addresses, Reason: c.Move.Reason.String()}
	}
	return m
}

func versionOf(v belfry.ResourceVersion) *belfryv1.ResourceVersion {
	return &belfryv1.ResourceVersion{Origin: v.Origin.String(), Incarnation: uint32(v.Incarnation), Seq: v.Seq, Reported: v.Reported}
}

func knownOf(k *belfryv1.KnownResource) (known witness.Known, err error) {
	if known.Resource, err = belfry.ParseResource(k.GetResource()); err != nil {
		return known, err
	}
	if known.Level.State, err = belfry.ParseResourceState(k.GetState()); err != nil {
		return known, err
	}
	if k.GetAtState() != "" {
		if known.Level.At, err = belfry.ParseResourceState(k.GetAtState()); err != nil {
			return known, err
		}
	}
	v := k.GetVersion()
	known.Level.Version = belfry.ResourceVersion{Incarnation: belfry.Incarnation(v.GetIncarnation()), Seq: v.GetSeq(), Reported: v.GetReported()}
	if v.GetOrigin() == "" { // of a client that keeps the state only
		return known, nil
	}
	if known.Level.Version.Origin, err = belfry.ParseNodeID(v.GetOrigin()); err != nil {
		return known, fmt.Errorf("%w: known.version.origin: %w", belfry.ErrUsage, err)
	}
	return known, nil
}

// selectorOf reads which registrations are meant; it refuses one that names
// nothing at all.
func selectorOf(s *belfryv1.RegistrationSelector) (chosen witness.Selector, err error) {
	chosen = witness.Selector{All: s.GetAll(), Protocol: s.GetProtocol(), At: s.GetAt()}
	if s.GetKey() != "" {
		if chosen.Key, err = witness.ParseKey(s.GetKey()); err != nil {
			return chosen, err
		}
	}
	if s.GetResource() != "" {
		if chosen.Resource, err = belfry.ParseResource(s.GetResource()); err != nil {
			return chosen, err
		}
	}
	for _, e := range []struct {
		name, text string
		to         **regexp.Regexp
	}{{"client", s.GetClient(), &chosen.Client}, {"principal", s.GetPrincipal(), &chosen.Principal}} {
		if e.text == "" {
			continue
		}
		if *e.to, err = regexp.Compile(e.text); err != nil {
			return chosen, fmt.Errorf("%w: %s %q: %w", belfry.ErrUsage, e.name, e.text, err)
		}
	}
	if !chosen.All && chosen.Key == (witness.Key{}) && chosen.Resource == "" && chosen.Client == nil && chosen.Principal == nil && chosen.Protocol == "" && chosen.At == "" {
		return chosen, fmt.Errorf("%w: nothing says which registrations are meant; name a resource, a client or a node, or all", belfry.ErrUsage)
	}
	return chosen, nil
}

func registrationStatus(s *witness.Status) *belfryv1.WitnessRegistration {
	m := &belfryv1.WitnessRegistration{
		Key: s.Key.String(), Protocol: s.Owner.Protocol, Principal: s.Owner.Principal, Client: s.Client, At: s.At,
		Waits: uint32(s.Waits), Pending: uint32(s.Pending), Created: timestamp(s.Created), Seq: s.Seq,
	}
	for _, r := range s.Resources {
		k := &belfryv1.KnownResource{Resource: string(r.Name), State: r.Level.State.String(), Version: versionOf(r.Level.Version)}
		if r.HasAt {
			k.AtState = r.Level.At.String()
		}
		m.Resources = append(m.Resources, k)
	}
	return m
}

func resourceStatus(r *witness.ResourceStatus) *belfryv1.WitnessResource {
	m := &belfryv1.WitnessResource{
		Name: string(r.Name), State: r.Level.State.String(), Since: timestamp(r.Since),
		Registrations: uint32(r.Registrations), HeldUntil: timestamp(r.Overridden),
	}
	for _, i := range r.Instances {
		m.Instances = append(m.Instances, &belfryv1.WitnessInstance{Node: i.Node, Verdict: i.Verdict.String(), State: i.State.String(), Awaited: i.Awaited})
	}
	return m
}
