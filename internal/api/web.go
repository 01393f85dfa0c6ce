package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const (
	sessionCookie = "belfry_session"
	bodyTimeout   = 10 * time.Second // until the whole body of a request is there (security.md)
)

// WebOptions are what the web handler needs.
type WebOptions struct {
	// Token says whether a bearer token is good. It takes as long for a bad one
	// as for a good one. Who holds a good one is an operator: a token is never an
	// administrator's (ecosystem.md 7).
	Token func(token string) bool
	// Metrics is served at /metrics. Nil: nothing is.
	Metrics http.Handler
	// Hosts are the names by which browsers may reach the listener, beside
	// localhost and addresses.
	Hosts []string
}

// web answers browsers and other speakers of HTTP.
type web struct {
	s     *Server
	opts  WebOptions
	calls *bucket
}

// Web is the handler of the web listener: JSON under /v1/, server-sent events
// at /v1/events/stream and /v1/witness/stream, /metrics and /healthz. All but the last two, and these
// too if the listener is not on loopback, need the token: as a bearer, or in
// the cookie that POST /v1/session sets.
func (s *Server) Web(opts WebOptions) http.Handler {
	w := &web{s: s, opts: opts, calls: newBucket(callRate, callBurst, time.Now())}
	mux := http.NewServeMux()
	mux.Handle("/v1/", w.gateway())
	mux.HandleFunc("GET /v1/events/stream", w.stream)
	mux.HandleFunc("GET /v1/witness/stream", w.witnessStream)
	mux.HandleFunc("POST /v1/session", w.session)
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("ok\n")) })
	if opts.Metrics != nil {
		mux.Handle("GET /metrics", opts.Metrics)
	}
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		writeError(rw, &belfry.Error{Op: r.URL.Path, Err: fmt.Errorf("%w: nothing is served here; the API begins at /v1/", belfry.ErrNotFound)})
	})
	return w.guard(mux)
}

// gateway is the JSON form of the services.
func (w *web) gateway() http.Handler {
	gateway := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{EmitUnpopulated: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, rw http.ResponseWriter, r *http.Request, err error) {
			if s := status.Convert(err); s.Code() == codes.InvalidArgument && len(s.Details()) == 0 {
				w.s.malformed.Add(1) // the gateway's own: it could not read the request
				err = &belfry.Error{Op: r.URL.Path, Err: fmt.Errorf("%w: %s; send the request's fields as a JSON object", belfry.ErrUsage, strings.TrimPrefix(s.Message(), "proto: "))}
			}
			writeError(rw, err)
		}),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, rw http.ResponseWriter, r *http.Request, code int) {
			err := fmt.Errorf("%w: no %s here", belfry.ErrNotFound, r.Method)
			if code == http.StatusMethodNotAllowed {
				err = fmt.Errorf("%w: %s is not for this path", belfry.ErrUnsupported, r.Method)
			}
			writeError(rw, &belfry.Error{Op: r.URL.Path, Err: err})
		}),
	)
	var conn grpc.ClientConnInterface = newInside(w.s)
	ctx := context.Background() // the gateway closes connections with it; this one has nothing to close
	for _, err := range []error{
		belfryv1.RegisterEventServiceHandlerClient(ctx, gateway, belfryv1.NewEventServiceClient(conn)),
		belfryv1.RegisterNodeServiceHandlerClient(ctx, gateway, belfryv1.NewNodeServiceClient(conn)),
		belfryv1.RegisterLinkServiceHandlerClient(ctx, gateway, belfryv1.NewLinkServiceClient(conn)),
		belfryv1.RegisterHandlerServiceHandlerClient(ctx, gateway, belfryv1.NewHandlerServiceClient(conn)),
		belfryv1.RegisterConfigServiceHandlerClient(ctx, gateway, belfryv1.NewConfigServiceClient(conn)),
		belfryv1.RegisterWitnessServiceHandlerClient(ctx, gateway, belfryv1.NewWitnessServiceClient(conn)),
		belfryv1.RegisterLicenseServiceHandlerClient(ctx, gateway, belfryv1.NewLicenseServiceClient(conn)),
	} {
		if err != nil {
			panic(err) // a path of http.yaml does not compile: no input leads here
		}
	}
	return gateway
}

// guard lets pass what comes to the right host, with a token, and within the
// limits (security.md; ecosystem.md 7).
func (w *web) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		header := rw.Header()
		header.Set("Content-Security-Policy", "default-src 'self'")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		ctx, err := w.admit(r)
		if err != nil {
			writeError(rw, &belfry.Error{Op: r.URL.Path, Err: err})
			return
		}
		if r.Body != nil && r.Method != http.MethodGet && r.Method != http.MethodHead {
			_ = http.NewResponseController(rw).SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer can; then the server's own holds
			r.Body = http.MaxBytesReader(rw, r.Body, maxRequest)
		}
		next.ServeHTTP(rw, r.WithContext(ctx))
	})
}

func (w *web) admit(r *http.Request) (context.Context, error) {
	if !w.hostAllowed(r.Host) {
		w.s.denied.Add(1)
		return nil, fmt.Errorf("%w: host %q is not this listener's; use its address or localhost", belfry.ErrPermission, r.Host)
	}
	if err := sameOrigin(r); err != nil {
		w.s.denied.Add(1)
		return nil, err
	}
	if !w.calls.take(time.Now(), 1) {
		w.s.limited.Add(1)
		return nil, fmt.Errorf("%w: more than %d requests a second; slow down", belfry.ErrLimit, callRate)
	}
	subject := Subject{Client: "web", Web: true, Role: belfry.RoleOperator}
	if w.opts.Token == nil || !w.opts.Token(tokenOf(r)) {
		if (r.URL.Path == "/metrics" || r.URL.Path == "/healthz") && onLoopback(r) {
			return r.Context(), nil
		}
		w.s.denied.Add(1)
		return nil, errUnauthenticated
	}
	return withSubject(r.Context(), subject), nil
}

// errUnauthenticated is told from other lacks of a right by its HTTP status.
var errUnauthenticated = fmt.Errorf("%w: no token, or not a good one; send it as Authorization: Bearer TOKEN", belfry.ErrPermission)

// hostAllowed refuses names that an attacker's DNS could point here: an
// address in Host was typed by the user, a name was perhaps rebound.
func (w *web) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return true
	}
	return slices.ContainsFunc(w.opts.Hosts, func(name string) bool { return strings.EqualFold(name, host) })
}

// sameOrigin holds whatever changes something to JSON from our own pages: a
// form of another site can send neither.
func sameOrigin(r *http.Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return fmt.Errorf("%w: Content-Type is %q; send application/json", belfry.ErrUsage, r.Header.Get("Content-Type"))
	}
	origin := r.Header.Get("Origin")
	if origin == "" { // not a browser
		return nil
	}
	if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
		return fmt.Errorf("%w: Origin %q is another site", belfry.ErrPermission, origin)
	}
	return nil
}

func tokenOf(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		return cookie.Value
	}
	return ""
}

// onLoopback tells whether the listener, not the caller, is on loopback.
func onLoopback(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	addr, err := netip.ParseAddrPort(local.String())
	return err == nil && addr.Addr().Unmap().IsLoopback()
}

// session puts the token that the request carries into a cookie that no
// script can read, so that a page need not keep it.
func (w *web) session(rw http.ResponseWriter, r *http.Request) {
	http.SetCookie(rw, &http.Cookie{
		Name: sessionCookie, Value: tokenOf(r), Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
	rw.WriteHeader(http.StatusNoContent)
}

// webError is the error in JSON (ecosystem.md 3).
type webError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Op      string `json:"op,omitempty"`
	Node    string `json:"node,omitempty"`
	Subject string `json:"subject,omitempty"`
}

func writeError(rw http.ResponseWriter, err error) {
	s := status.Convert(statusOf(err))
	e := webError{Code: strings.ToUpper(s.Code().String()), Message: s.Message()}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			m := info.GetMetadata()
			e = webError{Code: info.GetReason(), Message: s.Message(), Op: m["op"], Node: m["node"], Subject: m["subject"]}
		}
	}
	code := runtime.HTTPStatusFromCode(s.Code())
	if errors.Is(err, errUnauthenticated) {
		code = http.StatusUnauthorized
		rw.Header().Set("WWW-Authenticate", `Bearer realm="belfry"`)
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(code)
	_ = json.NewEncoder(rw).Encode(e)
}
