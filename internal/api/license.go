package api

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api/licenseview"
	"github.com/belfry-ha/belfry/internal/license"
	"github.com/belfry-ha/belfry/internal/repository"
)

// Licenses is how products stand on this node. It is safe for concurrent use.
type Licenses interface {
	// Standing is how they stand by the document in force, and a channel that is
	// closed when that may be otherwise. It may have to judge a new document.
	Standing() (*licenseview.Standing, <-chan struct{})
	// Latest is how they stood when they were judged last; nil: they were not yet. It
	// never waits.
	Latest() *licenseview.Standing
	// Mark is the time mark of the next generation that this node makes.
	Mark(committed, issued time.Time) time.Time
}

type licenseService struct {
	belfryv1.UnimplementedLicenseServiceServer
	s *Server
}

// standing is that of the options, or ErrUnsupported.
func (s *Server) standing() (*licenseview.Standing, <-chan struct{}, error) {
	if s.opts.Licenses == nil || s.opts.Documents == nil {
		return nil, nil, fmt.Errorf("%w: licenses lie in the cluster's repository, and this cluster has none; make one with belfry init --repository", belfry.ErrUnsupported)
	}
	standing, changed := s.opts.Licenses.Standing()
	return standing, changed, nil
}

// GetLicense answers from memory.
func (l *licenseService) GetLicense(_ context.Context, req *belfryv1.GetLicenseRequest) (*belfryv1.GetLicenseResponse, error) {
	standing, _, err := l.s.standing()
	if err == nil {
		err = license.CheckProduct(req.GetProduct())
	}
	if err != nil {
		return nil, &belfry.Error{Op: "GetLicense", Subject: req.GetProduct(), Err: err}
	}
	return &belfryv1.GetLicenseResponse{Status: l.s.licenseStatus(standing, req.GetProduct())}, nil
}

// WatchLicense sends how a product stands, and again when that is otherwise and
// the connection has taken what was before: a slow reader gets the newest.
func (l *licenseService) WatchLicense(req *belfryv1.WatchLicenseRequest, stream grpc.ServerStreamingServer[belfryv1.WatchLicenseResponse]) error {
	const op = "WatchLicense"
	err := license.CheckProduct(req.GetProduct())
	var told *belfryv1.LicenseStatus
	for err == nil {
		var standing *licenseview.Standing
		var changed <-chan struct{}
		if standing, changed, err = l.s.standing(); err != nil {
			break
		}
		if status := l.s.licenseStatus(standing, req.GetProduct()); !sameLicense(told, status) {
			told = status
			if err := stream.Send(&belfryv1.WatchLicenseResponse{Status: status}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	return &belfry.Error{Op: op, Subject: req.GetProduct(), Err: err}
}

// sameLicense leaves out what moves by itself.
func sameLicense(a, b *belfryv1.LicenseStatus) bool {
	if a == nil {
		return false
	}
	return a.GetState() == b.GetState() && a.GetReason() == b.GetReason() && a.GetLicenseId() == b.GetLicenseId() && a.GetText() == b.GetText() &&
		proto.Equal(a.GetUntil(), b.GetUntil()) && (a.GetClockBehind() == nil) == (b.GetClockBehind() == nil)
}

// licenseStatus is a product on this node, with its file.
func (s *Server) licenseStatus(standing *licenseview.Standing, product string) *belfryv1.LicenseStatus {
	v := standing.Verdict(product)
	return &belfryv1.LicenseStatus{
		Product: product, State: v.State.String(), Until: timestamp(v.Until), Reason: v.Reason, LicenseId: string(v.License), Text: string(v.File),
		ClusterId: standing.Document.Cluster.UUID.String(), NodeId: standing.Node.String(), NodeName: memberName(standing.Document, standing.Node),
		Generation: standing.Document.Generation(), Time: timestamppb.New(v.Time), ClockBehind: behind(v.Behind),
	}
}

func behind(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}

// memberName is the name of a node, or the start of the id of one that is gone.
func memberName(d *repository.Document, id belfry.NodeID) string {
	for i := range d.Nodes {
		if d.Nodes[i].ID == id {
			return d.Nodes[i].Name
		}
	}
	return hex.EncodeToString(id[:4])
}

// ListLicenses answers from memory.
func (l *licenseService) ListLicenses(_ context.Context, req *belfryv1.ListLicensesRequest) (*belfryv1.ListLicensesResponse, error) {
	standing, _, err := l.s.standing()
	if err == nil && req.GetProduct() != "" {
		err = license.CheckProduct(req.GetProduct())
	}
	if err != nil {
		return nil, &belfry.Error{Op: "ListLicenses", Subject: req.GetProduct(), Err: err}
	}
	d := standing.Document
	resp := &belfryv1.ListLicensesResponse{
		NodeName: memberName(d, standing.Node), Generation: d.Generation(), Time: timestamppb.New(standing.Time), ClockBehind: behind(standing.Behind),
	}
	products := licenseview.Products(d)
	if req.GetProduct() != "" {
		products = []string{req.GetProduct()}
	}
	for _, product := range products {
		p := &belfryv1.ProductLicense{
			Status: l.s.licenseStatus(standing, product), Nodes: nodeLicenses(d, product, clockNow(standing)), Revocations: uint64(licenseview.Serial(d, product)),
		}
		p.Status.Text = ""
		for _, f := range licenseview.Files(d, product) {
			p.Files = append(p.Files, licenseFile(d, f))
		}
		resp.Products = append(resp.Products, p)
	}
	return resp, nil
}

// clockNow is that of a standing, as of now.
func clockNow(standing *licenseview.Standing) licenseview.Clock {
	c := standing.Clock
	c.Now = time.Now()
	return c
}

func nodeLicenses(d *repository.Document, product string, c licenseview.Clock) (list []*belfryv1.NodeLicense) {
	c.LastRead = time.Time{} // each node's own
	for _, m := range licenseview.Members(d, product, c) {
		list = append(list, &belfryv1.NodeLicense{Node: m.Name, State: m.Verdict.State.String(), Reason: m.Verdict.Reason, Until: timestamp(m.Verdict.Until)})
	}
	return list
}

func licenseFile(d *repository.Document, f licenseview.File) *belfryv1.LicenseFile {
	l := f.License
	m := &belfryv1.LicenseFile{
		LicenseId: string(l.ID), Edition: l.Edition, Features: l.Features, Customer: l.Customer, Any: l.Binding.Any,
		CapacityNodes: uint64(l.Capacity.Nodes), CapacityCores: uint64(l.Capacity.Cores), CapacityMemoryBytes: uint64(l.Capacity.MemoryBytes),
		NotBefore: timestamp(l.NotBefore), NotAfter: timestamp(l.NotAfter), GraceDays: uint32(l.GraceDays),
		MaintenanceUntil: timestamp(l.MaintenanceUntil), IssuedAt: timestamp(l.IssuedAt), KeyId: f.KeyID.String(), Proven: f.Proven,
	}
	for _, id := range l.Supersedes {
		m.Supersedes = append(m.Supersedes, string(id))
	}
	if !l.Binding.Cluster.IsZero() {
		m.Cluster = l.Binding.Cluster.String()
	}
	for _, n := range l.Binding.Nodes {
		m.BoundNodes = append(m.BoundNodes, n.String())
	}
	if a := f.Activation; !a.Time.IsZero() {
		m.Operator, m.Node, m.Unlocked = a.Operator, memberName(d, a.Node), timestamppb.New(a.Time)
	}
	return m
}

// licensesStatus is for the status of this node; nil: it has no licenses. Nobody
// who asks how the cluster is waits for a license.
func (s *Server) licensesStatus() *belfryv1.LicensesStatus {
	if s.opts.Licenses == nil {
		return nil
	}
	standing := s.opts.Licenses.Latest()
	if standing == nil {
		return nil
	}
	status := &belfryv1.LicensesStatus{ClockBehind: behind(standing.Behind)}
	for _, product := range licenseview.Products(standing.Document) {
		v := standing.Verdict(product)
		status.Products = append(status.Products, &belfryv1.LicensedProduct{
			Product: product, State: v.State.String(), Reason: v.Reason, Until: timestamp(v.Until), LicenseId: string(v.License),
		})
	}
	return status
}

// ListIssuers answers from memory.
func (l *licenseService) ListIssuers(context.Context, *belfryv1.ListIssuersRequest) (*belfryv1.ListIssuersResponse, error) {
	standing, _, err := l.s.standing()
	if err != nil {
		return nil, &belfry.Error{Op: "ListIssuers", Err: err}
	}
	resp := &belfryv1.ListIssuersResponse{}
	for _, k := range licenseview.SortedIssuers(standing.Document) {
		text, err := license.EncodePublicKey(k.Key)
		if err != nil {
			return nil, &belfry.Error{Op: "ListIssuers", Err: err}
		}
		resp.Issuers = append(resp.Issuers, &belfryv1.LicenseIssuer{Product: k.Product, KeyId: license.KeyIDOf(k.Key).String(), Key: string(text)})
	}
	return resp, nil
}
