package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/config"
	"github.com/belfry-ha/belfry/internal/producer/node"
	"github.com/belfry-ha/belfry/internal/security"
	"github.com/belfry-ha/belfry/internal/transport"
)

func (a *Agent) apiOptions() api.Options {
	groups := security.LookupGroups()
	return api.Options{
		Events:   a.events,
		Cluster:  a,
		Config:   a,
		Members:  a,
		Leader:   a,
		Handlers: a.handlers,
		Witness:  a.witness,

		Declarations: declarations{a}, WitnessStatus: a.witnessStatus,

		Journal: journalView{a.journal},
		Joins:   joinDesk{a},
		Guest:   security.IsJoin,
		Identify: func(conn net.Conn) (api.Subject, error) {
			local, ok := conn.(*net.UnixConn)
			if !ok {
				return api.Subject{}, fmt.Errorf("%w: not a unix socket", belfry.ErrPermission)
			}
			c, err := security.PeerCredentials(local)
			if err != nil {
				return api.Subject{}, err
			}
			role := security.LocalRole(c.UID, c.Groups, uint32(os.Geteuid()), groups)
			return api.Subject{UID: c.UID, PID: c.PID, Groups: c.Groups, Role: role}, nil
		},
		IdentifyTLS: func(state tls.ConnectionState) (api.Subject, error) {
			id, err := security.Peer(state)
			if err != nil {
				return api.Subject{}, err
			}
			if id.Client == "" {
				return api.Subject{}, fmt.Errorf("%w: %s is a node; the API is for clients", belfry.ErrPermission, id)
			}
			public := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey) // verified by the handshake
			return api.Subject{Client: id.Client, Key: sha256.Sum256(public)}, a.clientListed(id.Client, public)
		},
		Decide: a.decide,
		Owns:   a.owns,

		Producers: func() *belfryv1.ProducersStatus { return producersStatus(a.runner.Running()) },
		Audit:     a.audit,

		Repository: a.repositoryStatus,
		Documents:  a.configDocuments(),
		Relocator:  a,
		Licenses:   a.apiLicenses(),

		Logger: a.log,
	}
}

// serve opens the doors: the unix socket, then the web listener.
func (a *Agent) serve() error {
	settings := a.opts.Config
	if err := a.server.ServeUnix(settings.Socket.Path, settings.Socket.Group); err != nil {
		return err
	}
	return a.serveWeb(settings.Web)
}

// Bounds of a slow client of the web listener; streams set none on writes.
const (
	webHeaderTimeout = 5 * time.Second
	webIdleTimeout   = 2 * time.Minute
	webHeaderBytes   = 16 << 10
)

// A webListener is the web listener under one set of settings.
type webListener struct {
	settings config.Web
	server   *http.Server                     // nil: no listener
	cert     *atomic.Pointer[tls.Certificate] // nil: no TLS
}

// close cuts what is open: streams never end by themselves, and their clients
// resume.
func (w webListener) close() error {
	if w.server == nil {
		return nil
	}
	return w.server.Close()
}

// serveWeb opens the web listener, if there is to be one.
func (a *Agent) serveWeb(web config.Web) error {
	next, err := a.openWeb(web)
	if err != nil {
		return err
	}
	a.web = next
	a.onStop("web", func(context.Context) error {
		a.webMu.Lock()
		defer a.webMu.Unlock()
		return a.web.close()
	})
	return nil
}

// ConfigRefused posts that a settings file was read again and is refused.
func (a *Agent) ConfigRefused(reason error) {
	a.notices.Tell(node.ConfigRefused, a.id.node.Name, time.Now(), belfry.EdgeFailing, &belfryv1.AgentConfigRefused{
		Node: a.id.node.Name, Reason: reason.Error(),
	})
}

// Reload takes up settings that need no restart: the handlers, the web
// listener's, and the certificate that lies under the same name now. On error
// everything goes on as it was.
func (a *Agent) Reload(settings config.Settings) error {
	if err := a.reloadWeb(settings); err != nil {
		return err
	}
	a.followHandlers(settings.Handlers, true)
	a.reloadWitness(settings)
	return nil
}

func (a *Agent) reloadWeb(settings config.Settings) error {
	a.webMu.Lock()
	defer a.webMu.Unlock()
	old, web := a.web, settings.Web
	cert, err := webCertificate(web)
	if err != nil {
		return err
	}
	switch {
	case old.settings.Listen == web.Listen && (cert == nil) == (old.cert == nil):
		if cert != nil {
			old.cert.Store(cert)
		}
		a.web.settings = web
		return nil
	case old.settings.Listen == web.Listen: // the address is free only without the old one
		if err := old.close(); err != nil {
			return err
		}
	}
	next, err := a.openWeb(web)
	if err != nil && old.settings.Listen == web.Listen {
		var again error
		a.web, again = a.openWeb(old.settings)
		return errors.Join(err, again)
	}
	if err != nil {
		return err
	}
	a.web = next
	return old.close() // closing twice does no harm
}

// webCertificate reads the listener's certificate; nil: none is set.
func webCertificate(web config.Web) (*tls.Certificate, error) {
	if web.TLS.Cert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(web.TLS.Cert, web.TLS.Key)
	if err != nil {
		return nil, &belfry.Error{Op: "agent", Subject: web.TLS.Cert, Err: fmt.Errorf("web.tls: %w", err)}
	}
	return &cert, nil
}

// clientSilence is how long a client of the web listener may not acknowledge what it
// is sent, before its connection and with it its streams end.
const clientSilence = 20 * time.Second

// A clientListener gives up on clients that are gone without a word.
type clientListener struct{ net.Listener }

// Accept is for [net.Listener].
func (l clientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = transport.GiveUp(conn, clientSilence)
	}
	return conn, err
}

func (a *Agent) openWeb(web config.Web) (webListener, error) {
	opened := webListener{settings: web}
	if web.Listen == "" {
		return opened, nil
	}
	cert, err := webCertificate(web)
	if err != nil {
		return webListener{}, err
	}
	listener, err := net.Listen("tcp", web.Listen)
	if err != nil {
		return webListener{}, listenError("web.listen", web.Listen, err)
	}
	listener = clientListener{listener}
	if cert != nil {
		held := new(atomic.Pointer[tls.Certificate])
		held.Store(cert)
		opened.cert = held
		listener = tls.NewListener(listener, &tls.Config{
			MinVersion:     tls.VersionTLS13,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return held.Load(), nil },
		})
	}
	token := a.opts.WebToken
	opened.server = &http.Server{
		Handler: a.server.Web(api.WebOptions{
			Token:   func(t string) bool { return sameToken(token, t) },
			Metrics: a.metricsHandler(),
		}),
		ReadHeaderTimeout: webHeaderTimeout,
		IdleTimeout:       webIdleTimeout,
		MaxHeaderBytes:    webHeaderBytes,
	}
	a.group.Go(func() error {
		if err := opened.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("web listener: %w", err)
		}
		return nil
	})
	return opened, nil
}
