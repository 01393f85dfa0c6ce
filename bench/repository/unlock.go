package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/bench/side"
	"github.com/belfry-ha/belfry/client"
	"github.com/belfry-ha/belfry/internal/license"
)

const (
	product    = "bench"
	unlockEach = 20
)

// measureUnlock unlocks a product at a of eight nodes, and takes the time until
// a program at each of them has it unlocked.
func measureUnlock(ctx context.Context, b *bench) (_ []side.Row, err error) {
	const nodes = 8
	c, err := startCluster(ctx, nodes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	issuer, err := license.EncodePublicKey(public)
	if err != nil {
		return nil, err
	}
	if _, err := c.clients[0].AddIssuer(ctx, product, string(issuer), false); err != nil {
		return nil, err
	}
	var followed []*client.License
	for _, at := range c.clients {
		l, err := at.License(ctx, product)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		followed = append(followed, l)
	}
	var all []percentiles
	n := 0
	err = b.turns(ctx, "unlock", func(ctx context.Context) error {
		var took []time.Duration
		for range b.scaled(unlockEach) {
			n++
			one, err := unlockOnce(ctx, c.clients[0], followed, key, fmt.Sprint("L-", n))
			if err != nil {
				return err
			}
			took = append(took, one)
		}
		all = append(all, percentilesOf(took))
		return nil
	})
	return []side.Row{
		{Work: "from the request until unlocked at all, p50", Unit: "ms", Ours: side.Pick(all, p50), Target: side.Target{Own: 100}},
		{Work: "the same, p99", Unit: "ms", Ours: side.Pick(all, p99), Target: side.Target{Own: 100}, Note: "20 licenses in each repetition: p99 is the longest"},
	}, err
}

// unlockOnce leaves the product as it was.
func unlockOnce(ctx context.Context, at *client.Client, followed []*client.License, key ed25519.PrivateKey, id string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, toldTimeout)
	defer cancel()
	f, err := license.Sign(license.License{
		ID: license.ID(id), Product: product, Binding: license.Binding{Any: true}, IssuedAt: time.Now().Add(-time.Hour).Truncate(time.Second),
	}, key)
	if err != nil {
		return 0, err
	}
	begin, ended := time.Now(), make(chan error, 1)
	go func() {
		_, err := at.UnlockLicense(ctx, f.Encode(), product, false)
		ended <- err
	}()
	last, err := allAre(ctx, followed, belfry.LicenseUnlocked)
	if err := errors.Join(err, <-ended); err != nil {
		return 0, err
	}
	if _, err := at.RemoveLicense(ctx, id, product, false); err != nil {
		return 0, err
	}
	_, err = allAre(ctx, followed, belfry.LicenseLocked)
	return last.Sub(begin), err
}

// allAre waits until all have a state, and returns when the last had it.
func allAre(ctx context.Context, followed []*client.License, want belfry.LicenseState) (last time.Time, err error) {
	times, errs := make([]time.Time, len(followed)), make(chan error, len(followed))
	for i, l := range followed {
		go func() {
			var err error
			for err == nil && l.Status().State != want {
				_, err = l.Next(ctx)
			}
			times[i] = time.Now()
			errs <- err
		}()
	}
	for range followed {
		err = errors.Join(err, <-errs)
	}
	for _, at := range times {
		if at.After(last) {
			last = at
		}
	}
	return last, err
}
