package api

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// domain is that of google.rpc.ErrorInfo: reasons are unique within it.
const domain = "belfry"

// grpcCodes is the table of ecosystem.md 2, and what is said while the agent
// stops: a client may come back.
var grpcCodes = []struct {
	sentinel error
	code     codes.Code
}{
	{belfry.ErrUsage, codes.InvalidArgument},
	{belfry.ErrNoThreshold, codes.InvalidArgument},
	{belfry.ErrNoEvent, codes.NotFound},
	{belfry.ErrUnsupported, codes.Unimplemented},
	{belfry.ErrNotFound, codes.NotFound},
	{belfry.ErrPermission, codes.PermissionDenied},
	{belfry.ErrExist, codes.AlreadyExists},
	{belfry.ErrLimit, codes.ResourceExhausted},
	{belfry.ErrStale, codes.FailedPrecondition},
	{belfry.ErrNotBlocked, codes.FailedPrecondition},
	{belfry.ErrConflict, codes.Aborted},
	{belfry.ErrRestricted, codes.Unavailable},
	{belfry.ErrNotMember, codes.FailedPrecondition},
	{belfry.ErrUnknown, codes.Unknown},
	{belfry.ErrNoAgent, codes.Unavailable},
}

// statusOf makes the status that a client turns back into the sentinel and
// into the fields of [belfry.Error]. A status passes as it is.
func statusOf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "time ran out")
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "canceled")
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := codes.Unknown
	for _, row := range grpcCodes {
		if errors.Is(err, row.sentinel) {
			code = row.code
			break
		}
	}
	r := refusalOf(err)
	s, detailErr := status.New(code, r.Message).WithDetails(&errdetails.ErrorInfo{
		Reason: r.Code, Domain: domain,
		Metadata: map[string]string{"op": r.Op, "node": r.Node, "subject": r.Subject},
	})
	if detailErr != nil { // can not be: the code is not OK
		return status.Error(code, r.Message)
	}
	return s.Err()
}

// refusalOf is the same inside a stream. Operation, node and subject stand
// beside the message, so it does not repeat them; nor does it say "wrong use",
// which its code says.
func refusalOf(err error) *belfryv1.Refusal {
	r := &belfryv1.Refusal{Code: belfry.Code(err), Message: err.Error()}
	var e *belfry.Error
	if errors.As(err, &e) {
		r.Op, r.Subject = e.Op, e.Subject
		if !e.Node.IsZero() {
			r.Node = e.Node.String()
		}
		if error(e) == err { //nolint:errorlint // only the outermost one's text is known to hold nothing else
			r.Message = e.Err.Error()
		}
	}
	r.Message = strings.Replace(r.Message, belfry.ErrUsage.Error()+": ", "", 1)
	return r
}
