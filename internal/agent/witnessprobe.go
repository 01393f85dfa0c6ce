package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/witness"
)

const (
	// probeEvery is the time between two tries of a probe, probeWait how long one
	// may take; of those that time out it takes two.
	probeEvery = time.Second
	probeWait  = 500 * time.Millisecond

	// The first word of a probe is for the worse only after firstTries, which have
	// to fit into what a witness waits for it (witness.md 2).
	firstTries = 3
	firstEvery = 100 * time.Millisecond
)

// probe tries again and again. A try that is refused is an answer; one that is not
// answered may be lost.
func (o *observers) probe(ctx context.Context, source string, try func(context.Context) error) {
	told, missed, tried := belfry.ResourceUnknown, 0, 0
	for ctx.Err() == nil {
		tried++
		err := tryFor(ctx, probeWait, try)
		state := belfry.ResourceAvailable
		if err == nil {
			missed = 0
		} else {
			missed++
			state = belfry.ResourceUnavailable
			if told == belfry.ResourceUnknown && tried < firstTries || missed < 2 && timedOut(err) {
				state = told
			}
		}
		if state != told && ctx.Err() == nil {
			told = state
			o.agent.witness.tell(witness.Observed{Source: source, State: state, At: time.Now()})
		}
		pause := probeEvery
		if told == belfry.ResourceUnknown {
			pause = firstEvery
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func tryFor(ctx context.Context, d time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return try(ctx)
}

func timedOut(err error) bool {
	timeout := net.Error(nil)
	return errors.As(err, &timeout) && timeout.Timeout()
}

// connects tells whether somebody takes connections at an address.
func connects(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// newProbeClient makes a client that holds no connections: each try is to find out
// whether one can be made. What a probe is redirected to is not asked.
func newProbeClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// maxProbeBody is what is read of an answer, in bytes.
const maxProbeBody = 64 << 10

// answers tells whether a URL answers with success, or somewhere else to look
// (RFC 9110 15.3, 15.4).
func answers(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "belfry")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxProbeBody)); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
