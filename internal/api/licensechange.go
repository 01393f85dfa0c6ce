package api

import (
	"context"
	"fmt"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/api/licenseview"
	"github.com/belfry-ha/belfry/internal/license"
)

// Changes of licenses are judged here, by the document in force at this node,
// before the node that makes changes is asked: what is refused is neither
// written nor sent (P1). There they are judged again, by the newest document.

// UnlockLicense returns when all members that are up have the file, and so have
// unlocked the product by themselves.
func (l *licenseService) UnlockLicense(ctx context.Context, req *belfryv1.UnlockLicenseRequest) (*belfryv1.UnlockLicenseResponse, error) {
	const op = "UnlockLicense"
	standing, _, err := l.s.standing()
	var granted license.License
	if err == nil {
		req.Author, req.NodeId, req.Text = l.s.author(ctx), standing.Node.String(), string(license.Tidy([]byte(req.GetText())))
		var u licenseview.Unlocking
		if u, err = l.s.unlocking(req); err == nil {
			granted, err = u.Admit(standing.Document, clockNow(standing))
		}
	}
	if err != nil {
		return nil, licenseFault(op, err)
	}
	if req.GetDryRun() {
		u, _ := l.s.unlocking(req) // it is read above
		made, err := l.s.tryLicense(ctx, op, granted.Product, u.Change())
		if err != nil {
			return nil, err
		}
		return &belfryv1.UnlockLicenseResponse{
			Generation: made.generation, Changed: made.changed, Product: granted.Product, LicenseId: string(granted.ID), Members: made.members, States: made.states,
		}, nil
	}
	return led(ctx, l.s, belfryv1.LicenseService_UnlockLicense_FullMethodName, req, l.s.unlockLicense)
}

func (s *Server) unlocking(req *belfryv1.UnlockLicenseRequest) (licenseview.Unlocking, error) {
	node, err := belfry.ParseNodeID(req.GetNodeId())
	return licenseview.Unlocking{
		Text: []byte(req.GetText()), Product: req.GetProduct(), Node: node, Operator: req.GetAuthor(), Mark: s.opts.Licenses.Mark,
	}, err
}

func (s *Server) unlockLicense(ctx context.Context, req *belfryv1.UnlockLicenseRequest) (*belfryv1.UnlockLicenseResponse, error) {
	const op = "UnlockLicense"
	u, err := s.unlocking(req)
	if err != nil {
		return nil, &belfry.Error{Op: op, Err: err}
	}
	f, err := license.Parse(u.Text)
	if err != nil {
		return nil, licenseFault(op, err)
	}
	l := f.Unproven()
	made, err := s.changeLicenses(ctx, op, string(l.ID), l.Product, req.GetAuthor(), u.Change())
	if err != nil {
		return nil, err
	}
	return &belfryv1.UnlockLicenseResponse{
		Generation: made.generation, Changed: made.changed, Replicated: made.replicated, Nodes: made.nodes, Product: l.Product, LicenseId: string(l.ID),
		Members: made.members, States: made.states, Unconfirmed: made.unconfirmed,
	}, nil
}

// RemoveLicense likewise.
func (l *licenseService) RemoveLicense(ctx context.Context, req *belfryv1.RemoveLicenseRequest) (*belfryv1.RemoveLicenseResponse, error) {
	const op = "RemoveLicense"
	standing, _, err := l.s.standing()
	if err == nil {
		req.Author = l.s.author(ctx)
		req.Product, err = licenseview.Removed(standing.Document, req.GetLicenseId(), req.GetProduct())
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetLicenseId(), Err: err}
	}
	if req.GetDryRun() {
		made, err := l.s.tryLicense(ctx, op, req.GetProduct(), licenseview.Remove(req.GetLicenseId(), req.GetProduct()))
		if err != nil {
			return nil, err
		}
		return &belfryv1.RemoveLicenseResponse{
			Generation: made.generation, Changed: made.changed, Product: req.GetProduct(), LicenseId: req.GetLicenseId(), Members: made.members, States: made.states,
		}, nil
	}
	return led(ctx, l.s, belfryv1.LicenseService_RemoveLicense_FullMethodName, req, l.s.removeLicense)
}

func (s *Server) removeLicense(ctx context.Context, req *belfryv1.RemoveLicenseRequest) (*belfryv1.RemoveLicenseResponse, error) {
	made, err := s.changeLicenses(ctx, "RemoveLicense", req.GetLicenseId(), req.GetProduct(), req.GetAuthor(), licenseview.Remove(req.GetLicenseId(), req.GetProduct()))
	if err != nil {
		return nil, err
	}
	return &belfryv1.RemoveLicenseResponse{
		Generation: made.generation, Changed: made.changed, Replicated: made.replicated, Nodes: made.nodes, Product: req.GetProduct(), LicenseId: req.GetLicenseId(),
		Members: made.members, States: made.states, Unconfirmed: made.unconfirmed,
	}, nil
}

// RevokeLicenses likewise.
func (l *licenseService) RevokeLicenses(ctx context.Context, req *belfryv1.RevokeLicensesRequest) (*belfryv1.RevokeLicensesResponse, error) {
	const op = "RevokeLicenses"
	standing, _, err := l.s.standing()
	var list license.Revocations
	if err == nil {
		req.Author, req.Text = l.s.author(ctx), string(license.Tidy([]byte(req.GetText())))
		list, err = licenseview.Revocations(standing.Document, []byte(req.GetText()))
	}
	if err != nil {
		return nil, licenseFault(op, err)
	}
	if req.GetDryRun() {
		made, err := l.s.tryLicense(ctx, op, list.Product, licenseview.Revoke([]byte(req.GetText()), l.s.opts.Licenses.Mark))
		if err != nil {
			return nil, err
		}
		return revoked(made, list), nil
	}
	return led(ctx, l.s, belfryv1.LicenseService_RevokeLicenses_FullMethodName, req, l.s.revokeLicenses)
}

func (s *Server) revokeLicenses(ctx context.Context, req *belfryv1.RevokeLicensesRequest) (*belfryv1.RevokeLicensesResponse, error) {
	const op = "RevokeLicenses"
	f, err := license.ParseRevocations([]byte(req.GetText()))
	if err != nil {
		return nil, licenseFault(op, err)
	}
	list := f.Unproven()
	made, err := s.changeLicenses(ctx, op, fmt.Sprintf("%s %d", list.Product, list.Serial), list.Product, req.GetAuthor(), licenseview.Revoke([]byte(req.GetText()), s.opts.Licenses.Mark))
	if err != nil {
		return nil, err
	}
	return revoked(made, list), nil
}

func revoked(made licensesChanged, list license.Revocations) *belfryv1.RevokeLicensesResponse {
	resp := &belfryv1.RevokeLicensesResponse{
		Generation: made.generation, Changed: made.changed, Replicated: made.replicated, Nodes: made.nodes, Product: list.Product, Serial: uint64(list.Serial),
		Members: made.members, States: made.states, Unconfirmed: made.unconfirmed,
	}
	for _, id := range list.Revoked {
		resp.Revoked = append(resp.Revoked, string(id))
	}
	return resp
}

// AddIssuer likewise.
func (l *licenseService) AddIssuer(ctx context.Context, req *belfryv1.AddIssuerRequest) (*belfryv1.AddIssuerResponse, error) {
	const op = "AddIssuer"
	_, _, err := l.s.standing()
	if err == nil {
		_, err = licenseview.ReadIssuer(req.GetProduct(), req.GetKey())
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetProduct(), Err: err}
	}
	req.Author = l.s.author(ctx)
	if req.GetDryRun() {
		key, _ := licenseview.ReadIssuer(req.GetProduct(), req.GetKey()) // it is read above
		made, err := l.s.tryLicense(ctx, op, req.GetProduct(), licenseview.AddIssuer(req.GetProduct(), key))
		if err != nil {
			return nil, err
		}
		return &belfryv1.AddIssuerResponse{
			Generation: made.generation, Changed: made.changed, Product: req.GetProduct(), KeyId: license.KeyIDOf(key).String(), Members: made.members, States: made.states,
		}, nil
	}
	return led(ctx, l.s, belfryv1.LicenseService_AddIssuer_FullMethodName, req, l.s.addIssuer)
}

func (s *Server) addIssuer(ctx context.Context, req *belfryv1.AddIssuerRequest) (*belfryv1.AddIssuerResponse, error) {
	const op = "AddIssuer"
	key, err := licenseview.ReadIssuer(req.GetProduct(), req.GetKey())
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetProduct(), Err: err}
	}
	id := license.KeyIDOf(key).String()
	made, err := s.changeLicenses(ctx, op, req.GetProduct()+" "+id, req.GetProduct(), req.GetAuthor(), licenseview.AddIssuer(req.GetProduct(), key))
	if err != nil {
		return nil, err
	}
	return &belfryv1.AddIssuerResponse{
		Generation: made.generation, Changed: made.changed, Replicated: made.replicated, Nodes: made.nodes, Product: req.GetProduct(), KeyId: id,
		Members: made.members, States: made.states, Unconfirmed: made.unconfirmed,
	}, nil
}

// RemoveIssuer likewise.
func (l *licenseService) RemoveIssuer(ctx context.Context, req *belfryv1.RemoveIssuerRequest) (*belfryv1.RemoveIssuerResponse, error) {
	const op = "RemoveIssuer"
	if _, _, err := l.s.standing(); err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetProduct(), Err: err}
	}
	req.Author = l.s.author(ctx)
	if req.GetDryRun() {
		made, err := l.s.tryLicense(ctx, op, req.GetProduct(), licenseview.RemoveIssuer(req.GetProduct(), req.GetKeyId()))
		if err != nil {
			return nil, err
		}
		return &belfryv1.RemoveIssuerResponse{
			Generation: made.generation, Changed: made.changed, Product: req.GetProduct(), KeyId: req.GetKeyId(), Members: made.members, States: made.states,
		}, nil
	}
	return led(ctx, l.s, belfryv1.LicenseService_RemoveIssuer_FullMethodName, req, l.s.removeIssuer)
}

func (s *Server) removeIssuer(ctx context.Context, req *belfryv1.RemoveIssuerRequest) (*belfryv1.RemoveIssuerResponse, error) {
	made, err := s.changeLicenses(ctx, "RemoveIssuer", req.GetProduct()+" "+req.GetKeyId(), req.GetProduct(), req.GetAuthor(), licenseview.RemoveIssuer(req.GetProduct(), req.GetKeyId()))
	if err != nil {
		return nil, err
	}
	return &belfryv1.RemoveIssuerResponse{
		Generation: made.generation, Changed: made.changed, Replicated: made.replicated, Nodes: made.nodes, Product: req.GetProduct(), KeyId: req.GetKeyId(),
		Members: made.members, States: made.states, Unconfirmed: made.unconfirmed,
	}, nil
}

// licensesChanged is what all these changes answer alike.
type licensesChanged struct {
	generation          uint64
	changed, replicated bool
	nodes, unconfirmed  []string
	members             uint32
	states              []*belfryv1.NodeLicense
}

// changeLicenses commits a change, and keeps who made it.
func (s *Server) changeLicenses(ctx context.Context, op, target, product, author string, change configview.Change) (licensesChanged, error) {
	standing, _, err := s.standing()
	if err != nil {
		return licensesChanged{}, &belfry.Error{Op: op, Err: err}
	}
	done, err := s.commitConfig(ctx, op, target, author, func(ConfigDocuments) (configview.Change, error) { return change, nil })
	if err != nil {
		return licensesChanged{}, licenseFault(op, err)
	}
	return licensesChanged{
		generation: done.After.Generation(), changed: done.Changed, replicated: done.Replicated, nodes: done.InForce, unconfirmed: s.missing(done),
		members: uint32(len(done.After.Nodes)), states: nodeLicenses(&done.After, product, clockNow(standing)),
	}, nil
}

// tryLicense says what a change would do, and does nothing.
func (s *Server) tryLicense(ctx context.Context, op, product string, change configview.Change) (made licensesChanged, err error) {
	standing, _, err := s.standing()
	if err != nil {
		return made, &belfry.Error{Op: op, Err: err}
	}
	base, next, changed, err := s.preview(ctx, s.opts.Documents, change)
	if err != nil {
		return made, licenseFault(op, err)
	}
	return licensesChanged{
		generation: base.Generation(), changed: changed, members: uint32(len(next.Nodes)), states: nodeLicenses(&next, product, clockNow(standing)),
	}, nil
}

// licenseFault is an error under the name of the call, without the operations
// below it; the license that it is about stays its subject.
func licenseFault(op string, err error) error {
	fault := &belfry.Error{Op: op, Err: err}
	for {
		inner, ok := fault.Err.(*belfry.Error) //nolint:errorlint // what stands around it has words of its own
		if !ok {
			return fault
		}
		fault.Err = inner.Err
		if inner.Subject != "" {
			fault.Subject = inner.Subject
		}
	}
}
