package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/license"
)

// The products of the demonstration: one is unlocked while all agents run, the
// other while one of them is down.
const (
	demoProduct  = "demo-db"
	demoProduct2 = "demo-web"
)

// watchConfig asks all nodes to tell what comes into force there, and which
// product is unlocked.
func (d *demo) watchConfig(ctx context.Context) error {
	for _, r := range []belfry.Registration{
		{Class: "config.changed", Subject: "*", Scope: belfry.ScopeCluster},
		{Class: "license.state", Subject: demoProduct, Scope: belfry.ScopeCluster},
		{Class: "license.state", Subject: demoProduct2, Scope: belfry.ScopeCluster},
	} {
		if err := d.main.register(ctx, r); err != nil {
			return fmt.Errorf("%s:%s: %w", r.Class, r.Subject, err)
		}
	}
	for _, n := range d.cluster.nodes[1:] {
		for _, class := range []string{"config.changed", "license.state"} {
			if err := d.waitActive(ctx, n.Name, class, ""); err != nil {
				return fmt.Errorf("%s does not know of the registration for %s: %w", n.Name, class, err)
			}
		}
	}
	return nil
}

// changeTunable changes one at a. The other nodes are told that there is a
// generation, and read it from the repository.
func (d *demo) changeTunable(ctx context.Context) ([]figure, error) {
	if err := d.watchConfig(ctx); err != nil {
		return nil, err
	}
	begin := time.Now()
	answer, err := d.main.client.SetConfig(ctx, "tunables.stall_max", "9s", false)
	if err != nil {
		return nil, err
	}
	took := time.Since(begin)
	figures := []figure{
		{"tunable", answer.GetSetting().GetPath()},
		{"value", answer.GetSetting().GetValue()},
		{"before", answer.GetBefore()},
		{"generation", answer.GetGeneration()},
		{"command", took},
	}
	return d.assimilated(ctx, figures, begin, answer.GetGeneration())
}

// assimilated adds when a generation came into force at b and at c, by what these
// say themselves.
func (d *demo) assimilated(ctx context.Context, figures []figure, since time.Time, generation uint64) ([]figure, error) {
	for _, n := range d.cluster.nodes[1:] {
		told, err := d.main.next(ctx, "config.changed", func(t belfry.Notification) bool {
			return occurrence(t) && t.NodeName == n.Name && fmt.Sprint(fieldsOf(t)["generation"]) == fmt.Sprint(generation)
		})
		if err != nil {
			return nil, fmt.Errorf("generation %d at %s: %w", generation, n.Name, err)
		}
		figures = append(figures, figure{n.Name, told.Time.Sub(since)})
	}
	return figures, nil
}

// moveRepository gives the repository's file another path. Who comes to change or
// to read it finds that it is gone, and looks for it by its identifier.
func (d *demo) moveRepository(ctx context.Context) ([]figure, error) {
	from := filepath.Join(d.cluster.dir, localRepository)
	to := filepath.Join(d.cluster.dir, "elsewhere.belfry")
	begin := time.Now()
	if err := os.Rename(from, to); err != nil {
		return nil, err
	}
	for {
		answer, err := d.main.client.SetConfig(ctx, "tunables.stall_max", "8s", false)
		if err == nil {
			figures := []figure{{"from", filepath.Base(from)}, {"to", filepath.Base(to)}, {"generation", answer.GetGeneration()}, {"changed_after", time.Since(begin)}}
			return d.assimilated(ctx, figures, begin, answer.GetGeneration())
		}
		if !errors.Is(err, belfry.ErrRestricted) {
			return nil, err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// A demoVendor sells the products.
type demoVendor struct {
	key    ed25519.PrivateKey
	issuer string // its public key, PEM
}

func newDemoVendor() (*demoVendor, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := license.EncodePublicKey(public)
	return &demoVendor{key, string(text)}, err
}

// license is one of a product for one cluster, for a month.
func (v *demoVendor) license(product, id, cluster string) ([]byte, error) {
	bound, err := belfry.ParseClusterID(cluster)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	f, err := license.Sign(license.License{
		ID: license.ID(id), Product: product, Binding: license.Binding{Cluster: bound}, NotAfter: now.AddDate(0, 1, 0), GraceDays: license.DefaultGraceDays, IssuedAt: now,
	}, v.key)
	return f.Encode(), err
}

// unlockProduct unlocks one at a. No message carries the license.
func (d *demo) unlockProduct(ctx context.Context) ([]figure, error) {
	var err error
	if d.vendor, err = newDemoVendor(); err != nil {
		return nil, err
	}
	return d.unlock(ctx, demoProduct, "D-1", "a", "b", "c")
}

// unlockWithoutC unlocks the other one while c is down.
func (d *demo) unlockWithoutC(ctx context.Context) ([]figure, error) {
	return d.unlock(ctx, demoProduct2, "D-2", "a", "b")
}

// unlock has the vendor's license put into the configuration at a, and waits until
// these nodes have said that they have unlocked the product.
func (d *demo) unlock(ctx context.Context, product, id string, nodes ...string) ([]figure, error) {
	status, err := d.main.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	text, err := d.vendor.license(product, id, status.GetClusterId())
	if err != nil {
		return nil, err
	}
	if _, err := d.main.client.AddIssuer(ctx, product, d.vendor.issuer, false); err != nil {
		return nil, err
	}
	begin := time.Now()
	answer, err := d.main.client.UnlockLicense(ctx, text, product, false)
	if err != nil {
		return nil, err
	}
	figures := []figure{{"product", product}, {"license", answer.GetLicenseId()}, {"generation", answer.GetGeneration()}}
	for _, name := range nodes {
		told, err := d.main.next(ctx, "license.state", func(n belfry.Notification) bool {
			return occurrence(n) && n.Event.Subject == product && n.NodeName == name && fieldOf(n, "to") == belfry.LicenseUnlocked.String()
		})
		if err != nil {
			return nil, fmt.Errorf("%s at %s: %w", product, name, err)
		}
		figures = append(figures, figure{name, told.Time.Sub(begin)})
	}
	return figures, nil
}

// unlocksItself is how long after since the agent of c had the product unlocked
// that was unlocked while it was down. It begins when somebody answers there.
func (d *demo) unlocksItself(ctx context.Context, since time.Time) (time.Duration, error) {
	c, err := d.cluster.nodes[2].dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	l, err := c.License(ctx, demoProduct2)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	for {
		s, err := l.Next(ctx)
		if err != nil {
			return 0, fmt.Errorf("%s at c is %s (%s): %w", demoProduct2, l.Status().State, l.Status().Reason, err)
		}
		if s.State == belfry.LicenseUnlocked {
			return time.Since(since), nil
		}
	}
}
