package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// remote is what the agent said, word for word; errors.Is sees the sentinel.
type remote struct {
	text     string
	sentinel error
}

func (e *remote) Error() string { return e.text }
func (e *remote) Unwrap() error { return e.sentinel }

// errorOf turns a status back into what the agent meant: the sentinel of its
// code in a [belfry.Error]. Contexts keep their own errors, and an agent that
// is not there becomes ErrNoAgent.
func (c *Client) errorOf(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "belfry" {
			m := info.GetMetadata()
			return refusal(&belfryv1.Refusal{
				Code: info.GetReason(), Message: s.Message(), Op: m["op"], Node: m["node"], Subject: m["subject"],
			})
		}
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	case codes.Unavailable:
		return c.noAgent(c.dialer.lastError())
	case codes.ResourceExhausted: // made by the library below the agent: a message is too large
		return &remote{text: s.Message(), sentinel: belfry.ErrLimit}
	case codes.Unimplemented:
		return &remote{text: s.Message() + "; client and agent differ in version", sentinel: belfry.ErrUnsupported}
	}
	return &remote{text: s.Message(), sentinel: belfry.ErrUnknown}
}

// refusal is the error in an answer or inside a stream.
func refusal(r *belfryv1.Refusal) error {
	e := &belfry.Error{
		Op: r.GetOp(), Subject: r.GetSubject(),
		Err: &remote{text: r.GetMessage(), sentinel: belfry.Sentinel(r.GetCode())},
	}
	if id, err := belfry.ParseNodeID(r.GetNode()); err == nil {
		e.Node = id
	}
	return e
}

// noAgent says why nobody answers and what to do about it. cause may be nil:
// somebody answered and went away.
func (c *Client) noAgent(cause error) error {
	const remedy = "start it with systemctl start belfry, or try one with belfry up"
	switch {
	case errors.As(cause, new(refusedCertificate)):
		return fmt.Errorf("%w: the agent at %s does not take this certificate (%w); a client that was removed, or whose certificate has ended, joins again with a token (belfry token create --role ROLE)", belfry.ErrPermission, c.target, cause)
	case errors.As(cause, new(unknownAuthority)):
		return fmt.Errorf("%w: the agent at %s is under an authority that this client does not know (%w); where it was replaced (belfry ca rotate), the client joins again with a token (belfry token create --role ROLE)", belfry.ErrPermission, c.target, cause)
	case cause == nil:
		return fmt.Errorf("%w at %s: the connection broke; %s", belfry.ErrNoAgent, c.target, remedy)
	case errors.Is(cause, fs.ErrPermission):
		return fmt.Errorf("%w: this user may not open %s; join its group, or run as its owner", belfry.ErrPermission, c.target)
	}
	return fmt.Errorf("%w at %s: %w; %s", belfry.ErrNoAgent, c.target, plainest(cause), remedy)
}

// plainest is the operating system's own word where there is one: "no such
// file or directory" without what was dialled, which the message names anyway.
func plainest(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
