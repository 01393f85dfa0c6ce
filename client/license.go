package client

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A LicenseStatus is what a product may do on one node.
type LicenseStatus struct {
	Product string
	State   belfry.LicenseState
	// Until is the first instant with another state, if only time passes; zero:
	// there is none.
	Until  time.Time
	Reason string // why; what would be right
	ID     string // of the license that decides; empty: none of the product can be read
	// Text is its file, as its issuer signed it. A program that is worth protecting
	// takes nobody's word, the agent's neither: it checks these bytes with the key
	// that it has built in, and their binding against Cluster and Node.
	Text        []byte
	Cluster     belfry.ClusterID
	Node        belfry.NodeID
	NodeName    string
	Generation  uint64        // of the configuration that it follows from
	Time        time.Time     // that counted as now
	ClockBehind time.Duration // by how much the node's clock is before it; zero: it counted
}

// Usable tells whether the product may work: unlocked, or in grace.
func (s LicenseStatus) Usable() bool { return s.State.Usable() }

// A License follows one product on the agent's node. It outlives its connection:
// while the agent is away the last status stands, and when it is back Next
// returns what has changed meanwhile.
//
// Next is for one caller at a time; the other methods are safe for concurrent
// use.
type License struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it is over; err is set before
	news   chan struct{} // has a value when status may be another one

	mu     sync.Mutex
	status LicenseStatus
	number uint64 // of status
	err    error

	told uint64 // number that Next has returned
}

// License is how a product stands on the agent's node, from its memory, and then
// how that changes. A product that the cluster knows nothing of is locked, and
// no error. ctx bounds the opening only; Close ends it.
//
// ErrUsage for what is no name of a product, ErrUnsupported where the cluster has
// no repository, ErrPermission where the program may not observe anything.
func (c *Client) License(ctx context.Context, product string) (*License, error) {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &License{cancel: cancel, done: make(chan struct{}), news: make(chan struct{}, 1)}
	opened := make(chan error, 1)
	go l.run(running, c, product, opened)
	var err error
	select {
	case err = <-opened:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		<-l.done
		return nil, err
	}
	return l, nil
}

// run follows until ctx ends or the agent says what another attempt would not
// change.
func (l *License) run(ctx context.Context, c *Client, product string, opened chan<- error) {
	defer close(l.done)
	wait := backoffMin
	for {
		began, err := l.session(ctx, c, product, opened)
		if began {
			opened, wait = nil, backoffMin
		}
		reason := c.errorOf(err)
		if opened != nil {
			opened <- reason // has room
			return
		}
		if ctx.Err() != nil || final(err) {
			l.mu.Lock()
			if l.err == nil {
				l.err = reason
			}
			l.mu.Unlock()
			return
		}
		// Half to all of it, so that the programs of one agent do not come back in step.
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		wait = min(2*wait, backoffMax)
	}
}

// session is one stream; began: it has had a status.
func (l *License) session(ctx context.Context, c *Client, product string, opened chan<- error) (began bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.licenses.WatchLicense(ctx, &belfryv1.WatchLicenseRequest{Product: product})
	for err == nil {
		var resp *belfryv1.WatchLicenseResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		l.take(licenseStatusOf(resp.GetStatus()))
		if !began && opened != nil {
			opened <- nil // has room
		}
		began = true
	}
	return began, err
}

// take keeps a status. After a break the agent begins with the present one, which
// may be the one from before.
func (l *License) take(s LicenseStatus) {
	l.mu.Lock()
	same := l.number > 0 && l.status.sameAs(s)
	l.status = s
	if !same {
		l.number++
	}
	l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// sameAs leaves out what moves by itself.
func (s LicenseStatus) sameAs(o LicenseStatus) bool {
	return s.State == o.State && s.Reason == o.Reason && s.ID == o.ID && s.Until.Equal(o.Until) && string(s.Text) == string(o.Text) &&
		(s.ClockBehind > 0) == (o.ClockBehind > 0) && s.Node == o.Node
}

func licenseStatusOf(m *belfryv1.LicenseStatus) LicenseStatus {
	s := LicenseStatus{
		Product: m.GetProduct(), Reason: m.GetReason(), ID: m.GetLicenseId(), NodeName: m.GetNodeName(), Generation: m.GetGeneration(),
		Time: m.GetTime().AsTime(), ClockBehind: m.GetClockBehind().AsDuration(),
	}
	// What a newer agent calls otherwise is none of the states that unlock.
	s.State, _ = belfry.ParseLicenseState(m.GetState())
	s.Cluster, _ = belfry.ParseClusterID(m.GetClusterId())
	s.Node, _ = belfry.ParseNodeID(m.GetNodeId())
	if m.GetUntil() != nil {
		s.Until = m.GetUntil().AsTime()
	}
	if m.GetText() != "" {
		s.Text = []byte(m.GetText())
	}
	return s
}

// Status is the newest one. It does not wait.
func (l *License) Status() LicenseStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Next is the present status at the first call, and then waits for each that is
// another one; who is slow gets the newest. net.ErrClosed after Close; any other
// error is final too, except that of ctx: the product is then as the last status
// says, and License may be called again.
func (l *License) Next(ctx context.Context) (LicenseStatus, error) {
	for {
		l.mu.Lock()
		status, number, err := l.status, l.number, l.err
		l.mu.Unlock()
		if number != l.told {
			l.told = number
			return status, nil
		}
		if err != nil {
			return LicenseStatus{}, err
		}
		select {
		case <-l.news:
		case <-l.done:
			l.mu.Lock()
			if l.err == nil {
				l.err = net.ErrClosed
			}
			l.mu.Unlock()
		case <-ctx.Done():
			return LicenseStatus{}, ctx.Err()
		}
	}
}

// Close ends it. The last status stays.
func (l *License) Close() {
	l.mu.Lock()
	if l.err == nil {
		l.err = net.ErrClosed
	}
	l.mu.Unlock()
	l.cancel()
	<-l.done
}

// Licenses is how all products stand, on each node by the configuration; product,
// if it is not empty, narrows it to one. The files are described, and not in it.
func (c *Client) Licenses(ctx context.Context, product string) (*belfryv1.ListLicensesResponse, error) {
	resp, err := c.licenses.ListLicenses(ctx, &belfryv1.ListLicensesRequest{Product: product})
	return resp, c.errorOf(err)
}

// UnlockLicense has a license file put into the cluster's configuration, from
// where each node unlocks the product by itself; product, if it is not empty, is
// the one that it must be of. With dryRun it is only judged. What is refused
// leaves no trace.
//
// ErrPermission: no key that is trusted has signed it, it is another cluster's,
// has ended or was revoked; ErrStale: another one has taken its place; ErrExist:
// another file of its id is there; ErrUsage, ErrLimit: it is no license.
func (c *Client) UnlockLicense(ctx context.Context, text []byte, product string, dryRun bool) (*belfryv1.UnlockLicenseResponse, error) {
	resp, err := c.licenses.UnlockLicense(ctx, &belfryv1.UnlockLicenseRequest{Text: string(text), Product: product, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// RemoveLicense takes a license out of the configuration; product may be empty if
// only one has a license of that id. ErrNotFound: there is none.
func (c *Client) RemoveLicense(ctx context.Context, id, product string, dryRun bool) (*belfryv1.RemoveLicenseResponse, error) {
	resp, err := c.licenses.RemoveLicense(ctx, &belfryv1.RemoveLicenseRequest{LicenseId: id, Product: product, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// RevokeLicenses puts an issuer's list of revoked licenses into the configuration.
// ErrPermission: no key that is trusted has signed it; ErrStale: a newer one is
// there.
func (c *Client) RevokeLicenses(ctx context.Context, text []byte, dryRun bool) (*belfryv1.RevokeLicensesResponse, error) {
	resp, err := c.licenses.RevokeLicenses(ctx, &belfryv1.RevokeLicensesRequest{Text: string(text), DryRun: dryRun})
	return resp, c.errorOf(err)
}

// AddIssuer has the cluster trust a key, in PEM, for one product.
func (c *Client) AddIssuer(ctx context.Context, product, key string, dryRun bool) (*belfryv1.AddIssuerResponse, error) {
	resp, err := c.licenses.AddIssuer(ctx, &belfryv1.AddIssuerRequest{Product: product, Key: key, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// RemoveIssuer ends that: what the key has signed counts no more. ErrNotFound: it
// is not trusted.
func (c *Client) RemoveIssuer(ctx context.Context, product, keyID string, dryRun bool) (*belfryv1.RemoveIssuerResponse, error) {
	resp, err := c.licenses.RemoveIssuer(ctx, &belfryv1.RemoveIssuerRequest{Product: product, KeyId: keyID, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// Issuers are the keys that the cluster trusts, by product.
func (c *Client) Issuers(ctx context.Context) ([]*belfryv1.LicenseIssuer, error) {
	resp, err := c.licenses.ListIssuers(ctx, &belfryv1.ListIssuersRequest{})
	return resp.GetIssuers(), c.errorOf(err)
}
