package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/belfry-ha/belfry/bench/side"
)

// subjectNATS is the one subject that is used: more would only cost the server
// lookups, because it merges nothing.
const subjectNATS = "bench"

// Arguments of a server: it speaks TLS, or keeps streams in the directory that is
// the last argument, and syncs each write.
const (
	withTLS   = "tls"
	withStore = "store"
	withSync  = "sync"
)

// playServer is a NATS server as it comes, without logs, until in ends; or one
// with TLS 1.3, or with JetStream. It says its address, and its certificate if it has one.
func playServer(args []string, in io.Reader, out io.Writer) error {
	opts := server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true}
	var certificate []byte
	if len(args) == 1 && args[0] == withTLS {
		own, err := side.OwnCertificate()
		if err != nil {
			return err
		}
		certificate = own.Certificate[0]
		opts.TLSConfig = &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13}
	}
	if slices.Contains(args, withStore) {
		opts.JetStream, opts.StoreDir, opts.SyncAlways = true, args[len(args)-1], slices.Contains(args, withSync)
	}
	s, err := server.NewServer(&opts)
	if err != nil {
		return err
	}
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(side.EndTimeout) {
		return errors.New("the server is not ready")
	}
	fmt.Fprintln(out, s.ClientURL(), base64.StdEncoding.EncodeToString(certificate))
	_, err = io.Copy(io.Discard, in)
	return err
}

// playStalled subscribes and never takes a message. A line on its input asks
// for one line: how many wait, how many the library dropped, whether the
// server still holds the connection.
func playStalled(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("the address of the server is missing")
	}
	dropsAreCounted := func(*nats.Conn, *nats.Subscription, error) {} // instead of a line on standard error
	c, err := nats.Connect(args[0], nats.NoReconnect(), nats.ErrorHandler(dropsAreCounted))
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.SubscribeSync(subjectNATS)
	if err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	for {
		var ask [1]byte
		if _, err := io.ReadFull(in, ask[:]); err != nil {
			return nil // the parent is done
		}
		waiting, _, err := s.Pending()
		if err != nil {
			waiting = 0
		}
		dropped, _ := s.Dropped()
		fmt.Fprintln(out, waiting, dropped, c.IsConnected())
	}
}

// A natsServer is the server's process.
type natsServer struct {
	child *side.Child
	url   string
	opts  []nats.Option // to connect with
}

func startNATS(args ...string) (*natsServer, error) {
	c, line, err := side.StartRole("nats-server", args...)
	if err != nil {
		return nil, err
	}
	s := &natsServer{child: c}
	certificate := ""
	s.url, certificate, _ = strings.Cut(line, " ")
	if certificate == "" {
		return s, nil
	}
	der, err := base64.StdEncoding.DecodeString(certificate)
	if err != nil {
		return nil, errors.Join(err, c.End())
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.Join(err, c.End())
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	s.opts = []nats.Option{nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13})}
	return s, nil
}

func (s *natsServer) stop() error { return s.child.End() }

// A natsBus is a publisher and subscribers, each with a connection of its own.
type natsBus struct {
	server    *natsServer
	publisher *nats.Conn
	consumers []*nats.Conn
	message   [8]byte // the number of the subject; Publish copies it
}

func (b *natsBus) open(_ context.Context, consumers, _ int, deliver func(int, delivery)) (err error) {
	for i := range consumers {
		c, err := nats.Connect(b.server.url, b.server.opts...)
		if err != nil {
			return err
		}
		b.consumers = append(b.consumers, c)
		s, err := c.Subscribe(subjectNATS, func(m *nats.Msg) {
			deliver(i, delivery{subject: int(binary.LittleEndian.Uint64(m.Data)), count: 1})
		})
		if err != nil {
			return err
		}
		if err := errors.Join(s.SetPendingLimits(-1, -1), c.Flush()); err != nil {
			return err
		}
	}
	b.publisher, err = nats.Connect(b.server.url, b.server.opts...)
	return err
}

func (b *natsBus) post(_ context.Context, subject int) error {
	binary.LittleEndian.PutUint64(b.message[:], uint64(subject))
	return b.publisher.Publish(subjectNATS, b.message[:])
}

func (b *natsBus) servers() []int { return []int{b.server.child.PID()} }

func (b *natsBus) close() error {
	var errs []error
	for _, c := range append(b.consumers, b.publisher) {
		if c != nil {
			errs = append(errs, c.LastError())
			c.Close()
		}
	}
	return errors.Join(errs...)
}

// A stalledNATS is a subscriber that takes nothing, in a process of its own.
type stalledNATS struct{ child *side.Child }

func startStalled(url string) (*stalledNATS, error) {
	c, line, err := side.StartRole("nats-stalled", url)
	if err != nil {
		return nil, err
	}
	if line != "ready" {
		return nil, errors.Join(fmt.Errorf("the subscriber said %q", line), c.End())
	}
	return &stalledNATS{c}, nil
}

// ask tells how many messages wait in the subscriber and how many it dropped.
func (s *stalledNATS) ask() (waiting, dropped int, connected bool, err error) {
	if _, err := s.child.In.Write([]byte{'?'}); err != nil {
		return 0, 0, false, err
	}
	line, err := s.child.Line()
	if err != nil {
		return 0, 0, false, err
	}
	f := strings.Fields(line)
	if len(f) != 3 {
		return 0, 0, false, fmt.Errorf("the subscriber said %q", line)
	}
	waiting, err = strconv.Atoi(f[0])
	dropped, err2 := strconv.Atoi(f[1])
	return waiting, dropped, f[2] == "true", errors.Join(err, err2)
}

// settled asks until the subscriber's numbers stand still.
func (s *stalledNATS) settled(ctx context.Context) (waiting, dropped int, connected bool, err error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		w, d, up, err := s.ask()
		if err != nil || w+d == waiting+dropped && w+d > 0 {
			return w, d, up, err
		}
		waiting, dropped = w, d
		select {
		case <-tick.C:
		case <-ctx.Done():
			return w, d, up, ctx.Err()
		}
	}
}
