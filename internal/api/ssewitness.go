package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// witnessStream is GET /v1/witness/stream: server-sent events (WHATWG HTML 9.2)
// of one registration. The query holds the fields of ClientRegistration by their
// names in witness.proto, but for what the client knows; resources is called
// resource and may stand several times. The first event, registered, is what the
// resources are; each change follows as an event of that name. A connection that
// breaks begins anew: with the same key it is the same registration.
func (w *web) witnessStream(rw http.ResponseWriter, r *http.Request) {
	const op = "WatchChanges"
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	req, err := parseWitnessStream(r.URL.Query())
	subject := subjectFrom(ctx)
	if err == nil {
		err = w.s.judge(subject, belfryv1.WitnessService_WatchChanges_FullMethodName, "")
	}
	if err != nil {
		writeError(rw, err)
		return
	}
	o := &judgedStream{subject: subject, method: belfryv1.WitnessService_WatchChanges_FullMethodName, end: end}
	defer w.s.streams.add(o)()
	out := &witnessWriter{rw: rw, control: http.NewResponseController(rw)}
	err = (&witnessService{s: w.s}).watch(ctx, op, req, out.send)
	if !out.begun {
		writeError(rw, endedBy(ctx, err))
	}
}

// parseWitnessStream reads the query; ErrUsage for a field there is not.
func parseWitnessStream(query url.Values) (*belfryv1.WatchChangesRequest, error) {
	fail := func(format string, args ...any) error {
		return &belfry.Error{Op: "WatchChanges", Err: fmt.Errorf("%w: "+format, append([]any{belfry.ErrUsage}, args...)...)}
	}
	r := &belfryv1.ClientRegistration{Resources: query["resource"]}
	req := &belfryv1.WatchChangesRequest{Register: r}
	for name, values := range query {
		if name == "resource" {
			continue
		}
		if len(values) > 1 {
			return nil, fail("%s stands %d times; once is enough", name, len(values))
		}
		var err error
		switch value := values[0]; name {
		case "key":
			r.Key = value
		case "client":
			r.Client = value
		case "at":
			r.At = value
		case "eager":
			r.Eager, err = strconv.ParseBool(value)
		case "allow_missing":
			r.AllowMissing, err = strconv.ParseBool(value)
		case "keep_alive":
			var d time.Duration
			d, err = time.ParseDuration(value)
			req.KeepAlive = durationpb.New(d)
		default:
			return nil, fail("unknown field %q; there are resource, at, client, key, eager, allow_missing and keep_alive", name)
		}
		if err != nil {
			return nil, fail("%s is %q; write true, false, or for keep_alive a duration such as 5s", name, values[0])
		}
	}
	return req, nil
}

// A witnessWriter writes events and hands each on at once.
type witnessWriter struct {
	rw      http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (o *witnessWriter) send(resp *belfryv1.WatchChangesResponse) error {
	if !o.begun {
		o.begun = true
		o.rw.Header().Set("Content-Type", "text/event-stream")
		o.rw.WriteHeader(http.StatusOK)
	}
	var text []byte
	var err error
	event := func(name string, append func([]byte) ([]byte, error)) {
		if err == nil {
			text = fmt.Appendf(text, "event: %s\ndata: ", name)
			text, err = append(text)
			text = fmt.Append(text, "\n\n")
		}
	}
	options := protojson.MarshalOptions{EmitUnpopulated: true}
	if resp.GetRegistered() != nil {
		event("registered", func(b []byte) ([]byte, error) { return options.MarshalAppend(b, resp.GetRegistered()) })
	}
	for _, c := range resp.GetChanges() {
		event("change", func(b []byte) ([]byte, error) { return options.MarshalAppend(b, c) })
	}
	if len(text) == 0 {
		text = []byte(": keep-alive\n\n")
	}
	if err == nil {
		_, err = o.rw.Write(text)
	}
	if err != nil {
		return err
	}
	return o.control.Flush()
}
