package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// site is the web handler on a loopback listener.
type site struct {
	*agent
	url string
}

func startSite(t *testing.T) *site {
	t.Helper()
	return startSiteWith(t, nil)
}

func startSiteWith(t *testing.T, j Journal) *site {
	t.Helper()
	a := &agent{events: newFakeEvents(), cluster: &fakeCluster{}}
	a.Server = New(Options{Decide: byRole, Events: a.events, Cluster: a.cluster, Config: &fakeConfiguration{}, Journal: j})
	h := httptest.NewServer(a.Web(WebOptions{
		Token:   func(s string) bool { return s == "secret" },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "belfry_up 1\n") }),
		Hosts:   []string{"belfry.example"},
	}))
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
		stop(t, a.Server)
	})
	return &site{agent: a, url: h.URL}
}

// request is `METHOD PATH` and headers as `Name: value`; its body follows a blank.
func (s *site) request(t *testing.T, ctx context.Context, line string, headers ...string) *http.Response {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	target, body, _ := strings.Cut(target, " ")
	req, err := http.NewRequestWithContext(ctx, method, s.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

const bearer = "Authorization: Bearer secret"

func TestTheGuardLetsPassWhatItShould(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	const sendUp = `POST /v1/events {"class":"user.x"}`
	tests := []struct {
		name, line string
		headers    []string
		status     int
		code       string // in the JSON error
	}{
		{"token", "GET /v1/status", []string{bearer}, 200, ""},
		{"cookie", "GET /v1/status", []string{"Cookie: belfry_session=secret"}, 200, ""},
		{"no token", "GET /v1/status", nil, 401, "PERMISSION"},
		{"wrong token", "GET /v1/status", []string{"Authorization: Bearer secre"}, 401, "PERMISSION"},
		{"token without its kind", "GET /v1/status", []string{"Authorization: secret"}, 401, "PERMISSION"},
		{"no token for events", "GET /v1/events/stream?class=node.state", nil, 401, "PERMISSION"},
		{"health on loopback", "GET /healthz", nil, 200, ""},
		{"metrics on loopback", "GET /metrics", nil, 200, ""},
		{"rebound name", "GET /healthz", []string{bearer, "Host: evil.example"}, 403, "PERMISSION"},
		{"rebound name with our port", "GET /v1/status", []string{bearer, "Host: 127.0.0.1.evil.example:7433"}, 403, "PERMISSION"},
		{"localhost", "GET /v1/status", []string{bearer, "Host: localhost:7433"}, 200, ""},
		{"IPv6 address", "GET /v1/status", []string{bearer, "Host: [::1]:7433"}, 200, ""},
		{"configured name", "GET /v1/status", []string{bearer, "Host: BELFRY.example"}, 200, ""},
		{"change", sendUp, []string{bearer, "Content-Type: application/json"}, 200, ""},
		{"change by a form", sendUp, []string{bearer, "Content-Type: text/plain"}, 400, "USAGE"},
		{"change from another site", sendUp, []string{bearer, "Content-Type: application/json", "Origin: http://evil.example"}, 403, "PERMISSION"},
		{"change from our page", sendUp, []string{bearer, "Content-Type: application/json", "Origin: http://localhost:7433", "Host: localhost:7433"}, 200, ""},
		{"unknown field", `POST /v1/events {"class":"user.x","clas":1}`, []string{bearer, "Content-Type: application/json"}, 400, "USAGE"},
		{"too large", `POST /v1/events {"class":"` + strings.Repeat("x", maxRequest) + `"}`, []string{bearer, "Content-Type: application/json"}, 400, "USAGE"},
		{"not there", "GET /v2", []string{bearer}, 404, "NOT_FOUND"},
		{"not there below v1", "GET /v1/nothing", []string{bearer}, 404, "NOT_FOUND"},
		{"wrong method", "DELETE /v1/status", []string{bearer, "Content-Type: application/json"}, 501, "UNSUPPORTED"},
		{"unknown node", "GET /v1/nodes/x", []string{bearer}, 404, "NOT_FOUND"},
		{"stop", "POST /v1/nodes/b:stop {}", []string{bearer, "Content-Type: application/json"}, 200, ""},
		{"start", "POST /v1/nodes/b:start {}", []string{bearer, "Content-Type: application/json"}, 200, ""},
		{"stop of an unknown node", "POST /v1/nodes/x:stop {}", []string{bearer, "Content-Type: application/json"}, 404, "NOT_FOUND"},
		{"settings", "GET /v1/config?path=tunables", []string{bearer}, 200, ""},
		{"set", `POST /v1/config {"path":"tunables.x","value":"2"}`, []string{bearer, "Content-Type: application/json"}, 200, ""},
		{"set out of range", `POST /v1/config {"path":"tunables.x","value":"3"}`, []string{bearer, "Content-Type: application/json"}, 400, "USAGE"},
		{"set from another site", `POST /v1/config {"path":"tunables.x","value":"2"}`, []string{bearer, "Content-Type: application/json", "Origin: http://evil.example"}, 403, "PERMISSION"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp := s.request(t, t.Context(), tt.line, tt.headers...)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Errorf("status %d; want %d: %s", resp.StatusCode, tt.status, body)
			}
			if got := resp.Header.Get("Content-Security-Policy"); got != "default-src 'self'" {
				t.Errorf("Content-Security-Policy is %q", got)
			}
			var e webError
			if tt.code != "" && (json.Unmarshal(body, &e) != nil || e.Code != tt.code || e.Message == "") {
				t.Errorf("answer %s; want an error with code %s", body, tt.code)
			}
		})
	}
}

func TestTheWebListenerTakesSoManyRequestsASecond(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	w := &web{s: s, calls: newBucket(0, 2, now), opts: WebOptions{Token: func(string) bool { return true }}}
	guarded := w.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for i, want := range []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
		rw := httptest.NewRecorder()
		guarded.ServeHTTP(rw, httptest.NewRequest(http.MethodGet, "http://localhost/healthz", http.NoBody))
		if rw.Code != want {
			t.Errorf("request %d: status %d; want %d", i, rw.Code, want)
		}
	}
	if got := s.Counters().Limited; got != 1 {
		t.Errorf("%d counted; want 1", got)
	}
}

func TestMetricsNeedATokenOffLoopback(t *testing.T) {
	t.Parallel()
	s := New(Options{Decide: byRole, Events: newFakeEvents(), Cluster: &fakeCluster{}})
	h := s.Web(WebOptions{Token: func(s string) bool { return s == "secret" }})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://192.0.2.1:7433/healthz", nil) // no local address: not known to be loopback
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("status %d; want 401", w.Code)
	}
}

func TestASessionIsACookieThatScriptsCanNotRead(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	resp := s.request(t, t.Context(), "POST /v1/session", bearer, "Content-Type: application/json")
	want := "belfry_session=secret; Path=/; HttpOnly; SameSite=Strict"
	if got := resp.Header.Get("Set-Cookie"); got != want {
		t.Errorf("Set-Cookie %q; want %q", got, want)
	}
}

func TestWatchStreamsLinesOfJSON(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		c := <-s.events.opened
		c.post(exit(1, 1, 3))
		for i := range uint64(20) { // more than a window
			c.post(exit(1, i+4, i+4))
		}
	}()
	resp := s.request(t, ctx, "GET /v1/events:watch?registration.class=process.exit", bearer)
	lines := bufio.NewReader(resp.Body)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	var got struct{ Result map[string]any }
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if got.Result["class"] != "process.exit" || got.Result["count"] != "3" || got.Result["node"] != "b" {
		t.Errorf("got %s", line)
	}
	cancel()
	s.events.consumers[0].expect(t, "register 1 process.exit")
	for call := ""; call != "close"; call = <-s.events.consumers[0].calls {
	}
}

// frame is one event of a stream.
type frame struct{ id, event, data string }

func readFrame(t *testing.T, r *bufio.Reader) (f frame) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			f.id = value
		case "event":
			f.event = value
		case "data":
			f.data = value
		case "":
			return f
		}
	}
}

func TestServerSentEventsResumeBehindTheLastOne(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	resp := s.request(t, ctx, "GET /v1/events/stream?class=process.exit&class=node.state", bearer)
	c := <-s.events.opened
	c.expect(t, "register 1 process.exit", "register 2 node.state")
	state := belfry.Notification{Kind: belfry.KindState, Registration: 2, Node: nodeA, NodeName: "a", Incarnation: 2, Entry: 1, Event: belfry.EventID{Class: "node.state", Subject: "b"}, Time: now}
	c.post(exit(1, 1, 1), state, exit(1, 2, 2))
	stream := bufio.NewReader(resp.Body)
	first, second := readFrame(t, stream), readFrame(t, stream)
	if first.event != "notification" || second.event != "state" {
		t.Errorf("events %q, %q; want notification, state", first.event, second.event)
	}
	var data map[string]any
	if err := json.Unmarshal([]byte(first.data), &data); err != nil || data["type"] != "dev.belfry.process.exit.v1" || data["source"] != "/clusters/dev/nodes/b" {
		t.Errorf("data %s (%v); want a CloudEvent of process.exit at b", first.data, err)
	}
	cancel() // the third may have been written, but never arrived
	c.expect(t, "lost")
	c.post(exit(1, 3, 3))
	resp = s.request(t, t.Context(), "GET /v1/events/stream?class=process.exit&class=node.state", bearer, "Last-Event-ID: "+second.id)
	c.expect(t, "resume 0")
	stream = bufio.NewReader(resp.Body)
	for _, want := range []string{`"id":"5-9-2"`, `"id":"5-9-3"`} {
		if f := readFrame(t, stream); !strings.Contains(f.data, want) {
			t.Errorf("after resuming came %s; want %s", f.data, want)
		}
	}
}

func TestAnUnknownLastEventIDIsAGap(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	for _, id := range []string{"x", string(appendEventID(nil, token{7}, position{batch: 1, index: 1}))} {
		resp := s.request(t, t.Context(), "GET /v1/events/stream?class=node.state", bearer, "Last-Event-ID: "+id)
		f := readFrame(t, bufio.NewReader(resp.Body))
		if f.event != "gap" || !strings.Contains(f.data, `"known":false`) {
			t.Errorf("id %q: first came %+v; want a gap of unknown size", id, f)
		}
		if c := <-s.events.opened; len(c.calls) != 1 {
			t.Errorf("%d calls; want one registration", len(c.calls))
		}
	}
}

func TestARefusedStreamIsAnErrorNotAStream(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	for query, want := range map[string]int{
		"":                                                400,
		"class=process.exit&colour=red":                   400,
		"class=process.exit&limit=x":                      400,
		"class=process.exit&hi=NaN":                       400,
		"class=process.exit&scope=galaxy":                 400,
		"class=a&class=b&subject=x":                       400,
		"class=process.exit&subject=none":                 404,
		"class=process.exit&wait=1&wait=1":                400,
		strings.Repeat("class=node.state&", maxClasses+1): 400,
	} {
		resp := s.request(t, t.Context(), "GET /v1/events/stream?"+query, bearer)
		if resp.StatusCode != want {
			t.Errorf("%q: status %d; want %d", query, resp.StatusCode, want)
		}
	}
}

func TestEventIDsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	cursor := belfry.Cursor{Node: nodeA, Incarnation: 300, Position: 1 << 40}
	var full memory
	for i := range uint64(maxTold) {
		full.told = append(full.told, telling{registration: 16, entryKey: entryKey{nodeA, 300, 1<<40 + i}, first: i, last: 1 << 40})
	}
	full.told[3].node = nodeB
	full.claims = []claim{{registration: 1, count: 1 << 40}, {registration: 16, count: 1}}
	for _, want := range []position{
		{batch: 1 << 40, index: 1023},
		{batch: 1 << 40, index: 1023, cursor: cursor},
		{cursor: cursor, memory: memory{claims: full.claims}},
		{cursor: cursor, memory: full},
	} {
		id := string(appendEventID(nil, token{1, 2, 3}, want))
		tok, got, err := parseEventID(id)
		if diff := cmp.Diff(want, got, idParts); err != nil || diff != "" || tok != (token{1, 2, 3}) {
			t.Errorf("got %v %v, -want +got:\n%s", tok, err, diff)
		}
		if len(id) > 4096 {
			t.Errorf("an id has %d bytes; want a header that all take", len(id))
		}
		if _, _, err := parseEventID(id[:len(id)-2]); err == nil && want.cursor.IsZero() == got.cursor.IsZero() && len(got.memory.told) > 0 {
			t.Errorf("an id that was cut is read")
		}
	}
}

func FuzzStreamQuery(f *testing.F) {
	for _, seed := range []string{"class=node.state", "class=a&class=b&nodes=x&nodes=y", "class=filesystem.usage&subject=/&hi=90&lo=1&hysteresis=2&edge=failing&limit=3&snapshot=0", "class=%00&filter=data.to=='down'", "limit=65536"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		all, err := parseStream(values)
		if (err == nil) != (len(all) > 0) || len(all) > maxClasses {
			t.Errorf("%d registrations with error %v", len(all), err)
		}
		if err != nil && belfry.Code(err) != "USAGE" {
			t.Errorf("error %v; want wrong use", err)
		}
	})
}

var idParts = cmp.AllowUnexported(position{}, memory{}, telling{}, claim{}, entryKey{})

func FuzzEventID(f *testing.F) {
	f.Add(string(appendEventID(nil, token{1}, position{batch: 2, index: 3})))
	f.Add(string(appendEventID(nil, token{1}, position{cursor: belfry.Cursor{Node: nodeA, Incarnation: 2, Position: 3}})))
	f.Add(string(appendEventID(nil, token{1}, position{cursor: belfry.Cursor{Node: nodeA, Incarnation: 2, Position: 3}, memory: memory{
		told: []telling{{1, entryKey{nodeB, 2, 3}, 4, 5, false}}, claims: []claim{{1, 7, false}},
	}})))
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, id string) {
		tok, at, err := parseEventID(id)
		if err != nil {
			return
		}
		tok2, at2, err := parseEventID(string(appendEventID(nil, tok, at)))
		if diff := cmp.Diff(at, at2, idParts); diff != "" || tok != tok2 || err != nil {
			t.Errorf("does not come back: %v, -want +got:\n%s", err, diff)
		}
	})
}

func TestWaitingForABatchCanBeInterrupted(t *testing.T) {
	t.Parallel()
	c := newFakeEvents().Open(0, "", defaultLimits)
	if _, err := nextWithin(t.Context(), c, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("next: %v; want that time ran out", err)
	}
}

func TestASilentStreamSaysEvery15SecondsThatItLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		rw := httptest.NewRecorder()
		o := &sseWriter{rw: rw, control: http.NewResponseController(rw), server: New(Options{})}
		h := &held{Consumer: newFakeEvents().Open(0, "", defaultLimits)}
		if err := o.run(ctx, h, position{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("run: %v", err)
		}
		if got, want := rw.Body.String(), ": \n\n: \n\n"; got != want {
			t.Errorf("in 40 s came %q; want %q", got, want)
		}
	})
}
