// Package client talks to an agent of Belfry: it registers for events of any
// node, receives their notifications exactly once each, and reads what the
// agent knows of nodes and links.
//
//	c, err := client.Dial(ctx, "/run/belfry/belfry.sock")
//	s, err := c.Register(ctx, belfry.Registration{Class: "node.state", Snapshot: true})
//	n, err := s.Next(ctx)
//
// Errors wrap the sentinels of package belfry.
package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/codec"
)

// Reconnecting begins with backoffMin and doubles to backoffMax, with jitter
// (events.md 5).
const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// maxResponse is the most that an agent sends in one message (security.md).
const maxResponse = 4 << 20

// flowWindow is what the agent may send on one stream before it has been read,
// in bytes. Fixed: to find a window that grows, the library asks the other side
// with a ping at each message that comes alone.
const flowWindow = 256 << 10

// An Option changes how Dial connects.
type Option func(*options)

type options struct{ tls *tls.Config }

// WithTLS is for agents of other machines: the client's certificate, and the
// certificate of the cluster's CA in RootCAs. It is needed for every target
// that is not a unix socket. config is not changed.
func WithTLS(config *tls.Config) Option {
	return func(o *options) { o.tls = config }
}

// A Client is one connection to one agent, which it makes again by itself
// when it breaks. It is safe for concurrent use.
type Client struct {
	target   string
	dialer   *dialer
	conn     *grpc.ClientConn
	events   belfryv1.EventServiceClient
	nodes    belfryv1.NodeServiceClient
	members  belfryv1.MemberServiceClient
	handlers belfryv1.HandlerServiceClient
	links    belfryv1.LinkServiceClient
	config   belfryv1.ConfigServiceClient
	witness  belfryv1.WitnessServiceClient
	licenses belfryv1.LicenseServiceClient
}

// Dial connects to target and makes sure that somebody answers: "/path",
// "./path" or "unix:path" is a unix socket, "host:port" an agent of another
// machine. It waits as long as ctx allows.
//
// ErrNoAgent if nobody answers, ErrPermission if this process may not open the
// socket or the agent does not take the certificate, ErrUsage for a target that
// is neither.
func Dial(ctx context.Context, target string, opts ...Option) (*Client, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	c := &Client{target: strings.TrimPrefix(target, "unix:")}
	c.dialer = &dialer{network: "tcp", address: target}
	creds := insecure.NewCredentials() // of a unix socket: the kernel says who is there
	switch {
	case strings.HasPrefix(target, "unix:"), strings.Contains(target, "/"):
		c.dialer.network, c.dialer.address = "unix", c.target
	case o.tls == nil:
		return nil, fmt.Errorf("%w: target %q is no path, and a host needs a client certificate; give one with WithTLS", belfry.ErrUsage, target)
	default:
		creds = &notedCredentials{credentials.NewTLS(o.tls), c.dialer}
	}
	if _, _, err := net.SplitHostPort(target); c.dialer.network == "tcp" && err != nil {
		return nil, fmt.Errorf("%w: target %q is neither a path nor host:port", belfry.ErrUsage, target)
	}
	authority := "belfry"
	if o.tls != nil {
		authority = o.tls.ServerName
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(c.dialer.dial),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse), grpc.ForceCodecV2(codec.New())),
		grpc.WithStaticStreamWindowSize(flowWindow),
		grpc.WithStaticConnWindowSize(2 * flowWindow),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffMin, Multiplier: 2, Jitter: 0.2, MaxDelay: backoffMax},
			MinConnectTimeout: backoffMax,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	}
	if authority != "" {
		options = append(options, grpc.WithAuthority(authority))
	}
	conn, err := grpc.NewClient("passthrough:///"+c.dialer.address, options...)
	if err != nil {
		return nil, fmt.Errorf("%w: target %q: %w", belfry.ErrUsage, target, err)
	}
	c.conn = conn
	c.events, c.nodes, c.links = belfryv1.NewEventServiceClient(conn), belfryv1.NewNodeServiceClient(conn), belfryv1.NewLinkServiceClient(conn)
	c.members = belfryv1.NewMemberServiceClient(conn)
	c.handlers = belfryv1.NewHandlerServiceClient(conn)
	c.config = belfryv1.NewConfigServiceClient(conn)
	c.witness, c.licenses = belfryv1.NewWitnessServiceClient(conn), belfryv1.NewLicenseServiceClient(conn)
	if err := c.connect(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// connect waits for the first connection, and does not wait for a second try.
func (c *Client) connect(ctx context.Context) error {
	c.conn.Connect()
	for {
		switch state := c.conn.GetState(); state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return c.noAgent(c.dialer.lastError())
		default:
			if !c.conn.WaitForStateChange(ctx, state) {
				return ctx.Err()
			}
		}
	}
}

// open makes a link. A connection that is waiting for its next attempt is told
// to make it now: the stream has waited already.
func (c *Client) open(ctx context.Context) (link, error) {
	if c.conn.GetState() == connectivity.TransientFailure {
		c.conn.ResetConnectBackoff()
		attempt, cancel := context.WithTimeout(ctx, backoffMin)
		c.conn.WaitForStateChange(attempt, connectivity.TransientFailure)
		cancel()
	}
	stream, err := c.events.Subscribe(ctx)
	if err != nil {
		return nil, err
	}
	return eventLink{stream}, nil
}

// used are batches that have been worked through. A batch of a thousand
// notifications costs more to make, and to collect as garbage, than to read.
var used sync.Pool

// An eventLink reads batches over used ones.
type eventLink struct {
	grpc.BidiStreamingClient[belfryv1.SubscribeRequest, belfryv1.SubscribeResponse]
}

func (l eventLink) Recv() (*belfryv1.SubscribeResponse, error) {
	m := &belfryv1.SubscribeResponse{}
	if b, ok := used.Get().(*belfryv1.Batch); ok {
		m.Kind = &belfryv1.SubscribeResponse_Batch{Batch: b}
	}
	return m, l.RecvMsg(m)
}

// Close ends the connection and with it all streams.
func (c *Client) Close() error { return c.conn.Close() }

// Status is what the agent holds of its cluster, from its memory.
func (c *Client) Status(ctx context.Context) (*belfryv1.GetStatusResponse, error) {
	resp, err := c.nodes.GetStatus(ctx, &belfryv1.GetStatusRequest{})
	return resp, c.errorOf(err)
}

// Nodes is all members by name.
func (c *Client) Nodes(ctx context.Context) ([]*belfryv1.Node, error) {
	var all []*belfryv1.Node
	for token := ""; ; {
		resp, err := c.nodes.ListNodes(ctx, &belfryv1.ListNodesRequest{PageToken: token})
		if err != nil {
			return nil, c.errorOf(err)
		}
		all = append(all, resp.GetNodes()...)
		if token = resp.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// Node is one member, by name or id, with the evidence of its verdict.
// ErrNotFound if it is not a member.
func (c *Client) Node(ctx context.Context, node string) (*belfryv1.GetNodeResponse, error) {
	resp, err := c.nodes.GetNode(ctx, &belfryv1.GetNodeRequest{Node: node})
	return resp, c.errorOf(err)
}

// StopNode has a node, by name or id, held left (stopped) until it is started.
// With dryRun it is only checked. ErrNotFound if it is not a member.
func (c *Client) StopNode(ctx context.Context, node string, dryRun bool) (*belfryv1.StopNodeResponse, error) {
	resp, err := c.nodes.StopNode(ctx, &belfryv1.StopNodeRequest{Node: node, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// StartNode undoes StopNode.
func (c *Client) StartNode(ctx context.Context, node string, dryRun bool) (*belfryv1.StartNodeResponse, error) {
	resp, err := c.nodes.StartNode(ctx, &belfryv1.StartNodeRequest{Node: node, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// Config is the settings at or below a path of the cluster's configuration,
// as they are in force; an empty path: all that there are.
func (c *Client) Config(ctx context.Context, path string) (*belfryv1.GetConfigResponse, error) {
	resp, err := c.config.GetConfig(ctx, &belfryv1.GetConfigRequest{Path: path})
	return resp, c.errorOf(err)
}

// SetConfig writes one setting. With dryRun it is only checked. ErrUsage if
// there is no such setting, or the value is out of its range.
func (c *Client) SetConfig(ctx context.Context, path, value string, dryRun bool) (*belfryv1.SetConfigResponse, error) {
	resp, err := c.config.SetConfig(ctx, &belfryv1.SetConfigRequest{Path: path, Value: value, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// ConfigText is the operator's sections of the cluster's configuration in YAML,
// as ApplyConfig takes them, or one of them; with all the whole, without
// secrets. ErrUnsupported: the agent keeps no document.
func (c *Client) ConfigText(ctx context.Context, section string, all bool) (*belfryv1.GetConfigResponse, error) {
	resp, err := c.config.GetConfig(ctx, &belfryv1.GetConfigRequest{Path: section, All: all})
	return resp, c.errorOf(err)
}

// A ConfigChange is a text of the operator's sections in YAML.
type ConfigChange struct {
	Text string // a section that is left out stays as it is
	Name string // of the text, for faults: FILE:LINE:COLUMN
	Base uint64 // generation that it must be made from; 0: the one that the text names, else any
	// Confirm is how long the change waits to be confirmed before it comes back; 10 s
	// to 24 h. Zero: it stays. It means nothing to PlanConfig.
	Confirm time.Duration
	Why     string // for the history: one line, 200 bytes at most
}

// PlanConfig says what ApplyConfig would do, and changes nothing.
func (c *Client) PlanConfig(ctx context.Context, change ConfigChange) (*belfryv1.PlanConfigResponse, error) {
	resp, err := c.config.PlanConfig(ctx, &belfryv1.PlanConfigRequest{Text: change.Text, Name: change.Name, Base: change.Base})
	return resp, c.errorOf(err)
}

// ApplyConfig puts the sections of a text in the place of those that are there.
// ErrConflict: they are of another generation than the base, or a change waits
// to be confirmed; ErrUsage says where the text is wrong.
func (c *Client) ApplyConfig(ctx context.Context, change ConfigChange) (*belfryv1.ApplyConfigResponse, error) {
	req := &belfryv1.ApplyConfigRequest{Text: change.Text, Name: change.Name, Base: change.Base, Why: change.Why}
	if change.Confirm != 0 {
		req.Confirm = durationpb.New(change.Confirm)
	}
	resp, err := c.config.ApplyConfig(ctx, req)
	return resp, c.errorOf(err)
}

// ConfirmConfig keeps the change that waits for it; generation may be zero:
// whichever does. ErrNotFound: none does.
func (c *Client) ConfirmConfig(ctx context.Context, generation uint64) (*belfryv1.ConfirmConfigResponse, error) {
	resp, err := c.config.ConfirmConfig(ctx, &belfryv1.ConfirmConfigRequest{Generation: generation})
	return resp, c.errorOf(err)
}

// RollbackConfig makes a new generation with the operator's sections of a past
// one; why is for the history, and may be empty. With dryRun it says what would
// change. ErrNotFound: it is not kept.
func (c *Client) RollbackConfig(ctx context.Context, generation uint64, why string, dryRun bool) (*belfryv1.RollbackConfigResponse, error) {
	resp, err := c.config.RollbackConfig(ctx, &belfryv1.RollbackConfigRequest{Generation: generation, Why: why, DryRun: dryRun})
	return resp, c.errorOf(err)
}

// DiffConfig is what changes from one generation to another one; zero: the one
// in force. ErrNotFound: one of them is not kept.
func (c *Client) DiffConfig(ctx context.Context, from, to uint64) (*belfryv1.DiffConfigResponse, error) {
	resp, err := c.config.DiffConfig(ctx, &belfryv1.DiffConfigRequest{From: from, To: to})
	return resp, c.errorOf(err)
}

// Generations is the history of the configuration, newest first; limit zero:
// all that is known.
func (c *Client) Generations(ctx context.Context, limit uint32) (*belfryv1.ListGenerationsResponse, error) {
	resp, err := c.config.ListGenerations(ctx, &belfryv1.ListGenerationsRequest{Limit: limit})
	return resp, c.errorOf(err)
}

// MoveRepository brings the configuration to other disks, or to etcd, as the request
// says; paths are those of the node that is asked. ErrUnknown: the move has begun,
// and goes on by itself. ErrExist: a disk holds something.
func (c *Client) MoveRepository(ctx context.Context, req *belfryv1.MoveRepositoryRequest) (*belfryv1.MoveRepositoryResponse, error) {
	resp, err := c.config.MoveRepository(ctx, req)
	return resp, c.errorOf(err)
}

// LinkMatrix is the link databases of all members, on one network or, if it is
// empty, on all. It takes two seconds at most; who has not answered by then is
// marked. ErrNotFound if no node has a link on the network.
func (c *Client) LinkMatrix(ctx context.Context, network string) (*belfryv1.GetLinkMatrixResponse, error) {
	resp, err := c.links.GetLinkMatrix(ctx, &belfryv1.GetLinkMatrixRequest{Network: network})
	return resp, c.errorOf(err)
}

// Classes is the catalogue of event classes by name; class narrows it to one.
// ErrNotFound if there is none of that name.
func (c *Client) Classes(ctx context.Context, class string) ([]*belfryv1.ClassInfo, error) {
	resp, err := c.events.ListClasses(ctx, &belfryv1.ListClassesRequest{Class: class})
	return resp.GetClasses(), c.errorOf(err)
}

// Registrations lists what is registered at a node, by name or id; empty is
// the agent's own: its entries, and what it asks of other nodes, with those
// that refuse and their reasons. Another node's listing takes as long as that node does.
func (c *Client) Registrations(ctx context.Context, node string) (*belfryv1.ListEntriesResponse, error) {
	var all *belfryv1.ListEntriesResponse
	for token := ""; ; {
		resp, err := c.events.ListEntries(ctx, &belfryv1.ListEntriesRequest{Node: node, PageToken: token})
		if err != nil {
			return nil, c.errorOf(err)
		}
		if all == nil {
			all = resp
		} else {
			all.Entries = append(all.Entries, resp.GetEntries()...)
			all.ClusterRegistrations = append(all.ClusterRegistrations, resp.GetClusterRegistrations()...)
		}
		if token = resp.GetNextPageToken(); token == "" {
			all.NextPageToken = ""
			return all, nil
		}
	}
}

// Send posts an event of a class below user, repeat times at once (0 counts as
// 1). data is a JSON object or nil. The answer says how many registrations it
// matched. ErrUsage, ErrPermission or ErrLimit.
func (c *Client) Send(ctx context.Context, class, subject string, data []byte, repeat uint64) (*belfryv1.SendEventResponse, error) {
	req, err := sendRequest(class, subject, data, repeat)
	if err != nil {
		return nil, err
	}
	resp, err := c.events.SendEvent(ctx, req)
	return resp, c.errorOf(err)
}

// What the agent takes of one event. It is refused here already, because a
// request that is too large ends a stream, and with it what others have posted.
const (
	maxText = 4 << 10 // bytes of a subject, or of an expression
	maxData = 4 << 10 // bytes of data, on the wire
)

// unfit says why a text can not be sent; nil: it can.
func unfit(name, text string) error {
	switch {
	case len(text) > maxText:
		return &remote{text: fmt.Sprintf("the %s has %d bytes; at most %d", name, len(text), maxText), sentinel: belfry.ErrUsage}
	case !utf8.ValidString(text):
		return &remote{text: fmt.Sprintf("the %s is not UTF-8: %q", name, text), sentinel: belfry.ErrUsage}
	}
	return nil
}

func sendRequest(class, subject string, data []byte, repeat uint64) (*belfryv1.SendEventRequest, error) {
	fields, err := postable(class, subject, data)
	if err != nil {
		return nil, err
	}
	return &belfryv1.SendEventRequest{Class: class, Subject: subject, Data: fields, Repeat: repeat}, nil
}

// postable is the data of an event that the agent takes.
func postable(class, subject string, data []byte) (*structpb.Struct, error) {
	if err := cmp.Or(unfit("class", class), unfit("subject", subject)); err != nil {
		return nil, &belfry.Error{Op: "SendEvent", Err: err}
	}
	if data == nil {
		return nil, nil
	}
	fields, err := object(data)
	if size := proto.Size(fields); err == nil && size > maxData {
		err = &remote{text: belfry.ErrLimit.Error() + fmt.Sprintf(": the data has %d bytes; at most %d", size, maxData), sentinel: belfry.ErrLimit}
	}
	if err != nil {
		return nil, &belfry.Error{Op: "SendEvent", Subject: class, Err: err}
	}
	return fields, nil
}

func object(data []byte) (*structpb.Struct, error) {
	if !utf8.Valid(data) { // encoding/json would put other characters there
		return nil, &remote{text: "data is not UTF-8", sentinel: belfry.ErrUsage}
	}
	var fields map[string]any
	err := json.Unmarshal(data, &fields)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return nil, &remote{text: fmt.Sprintf("data is not JSON: byte %d: %v", syntax.Offset, err), sentinel: belfry.ErrUsage}
	case err != nil || fields == nil:
		return nil, &remote{text: `data is not a JSON object; write {"key": value}`, sentinel: belfry.ErrUsage}
	}
	s, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, &remote{text: "data: " + err.Error(), sentinel: belfry.ErrUsage}
	}
	return s, nil
}
