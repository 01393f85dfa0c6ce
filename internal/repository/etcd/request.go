package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/belfry-ha/belfry"
)

// pause is between two attempts, so that a refused connection is not asked in a
// loop.
const pause = 20 * time.Millisecond

// get reads the key, linearizably, until the deadline of ctx.
func (b *Backend) get(ctx context.Context) (stored, error) {
	var why error
	for {
		var answer *clientv3.GetResponse
		err := b.attempt(ctx, func(ctx context.Context) (err error) { answer, err = b.client.Get(ctx, b.key); return err })
		if err == nil {
			at := stored{cluster: answer.Header.ClusterId, now: answer.Header.Revision}
			if len(answer.Kvs) > 0 {
				at.revision, at.value = answer.Kvs[0].ModRevision, answer.Kvs[0].Value
			}
			return at, nil
		}
		if known := refusal(err); known != nil {
			return stored{}, known
		}
		why = telling(why, err)
		if !wait(ctx, pause) {
			return stored{}, unanswered(why)
		}
	}
}

// put writes the key if its revision is the given one; zero: if there is none.
// It makes one attempt. The revision that it returns is the new one; zero: the
// key has another value.
func (b *Backend) put(ctx context.Context, revision int64, value []byte) (int64, error) {
	still := clientv3.Compare(clientv3.ModRevision(b.key), "=", revision) // of a key that is not there it is 0
	var answer *clientv3.TxnResponse
	err := b.attempt(ctx, func(ctx context.Context) (err error) {
		answer, err = b.client.Txn(ctx).If(still).Then(clientv3.OpPut(b.key, string(value))).Commit()
		return err
	})
	switch {
	case err != nil:
		_ = wait(ctx, pause) // the next attempt begins with a read
		return 0, err
	case !answer.Succeeded:
		return 0, nil
	}
	return answer.Header.Revision, nil
}

// attempt makes a call in a part of the operation's time. Of one that got no
// connection the error says why: etcd's client would only say that time ran out.
func (b *Backend) attempt(ctx context.Context, call func(context.Context) error) error {
	var cause error
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, causeKey{}, &cause), b.cfg.Deadline/attempts)
	defer cancel()
	err := call(ctx)
	if errors.Is(err, context.DeadlineExceeded) && cause != nil {
		return cause
	}
	return err
}

// causeKey finds where an attempt wants to have what grpc said.
type causeKey struct{}

// observe is called for each request that etcd's client makes.
func observe(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := next(ctx, method, req, reply, conn, opts...)
	if to, ok := ctx.Value(causeKey{}).(*error); ok && err != nil {
		*to = errors.New(strings.TrimPrefix(status.Convert(err).Message(), "latest balancer error: "))
	}
	return err
}

// wait tells whether the time has passed, and not the deadline.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// refusals are answers of etcd that say that nothing has happened, and that
// asking again does not help.
var refusals = []struct {
	err      error
	sentinel error
	remedy   string
}{
	{rpctypes.ErrPermissionDenied, belfry.ErrPermission, "grant this user of etcd to read and write the key"},
	{rpctypes.ErrUserEmpty, belfry.ErrPermission, "give the name and password of a user of etcd, or a certificate with its name"},
	{rpctypes.ErrUserNotFound, belfry.ErrPermission, "give the name and password of a user of etcd"},
	{rpctypes.ErrAuthFailed, belfry.ErrPermission, "give the name and password of a user of etcd"},
	{rpctypes.ErrInvalidAuthToken, belfry.ErrPermission, "give the name and password of a user of etcd"},
	{rpctypes.ErrAuthNotEnabled, belfry.ErrUsage, "give no name and password, or enable authentication in etcd"},
	{rpctypes.ErrRequestTooLarge, belfry.ErrLimit, "start etcd with a greater --max-request-bytes"},
	{rpctypes.ErrNoSpace, belfry.ErrRestricted, "compact and defragment etcd, or raise its quota, then disarm its alarm"},
	{rpctypes.ErrCorrupt, belfry.ErrRestricted, "repair etcd first: its members differ"},
}

// refusal is what to tell of such an answer; nil: err is none.
func refusal(err error) error {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return fmt.Errorf("%w: %v; %s", r.sentinel, err, r.remedy) //nolint:errorlint // what etcd's client returns stays here
		}
	}
	return nil
}

// telling prefers an error that says more than that time ran out.
func telling(before, err error) error {
	if before != nil && strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		return before
	}
	return err
}

// unanswered is an operation without any answer.
func unanswered(why error) error {
	return fmt.Errorf("%w: etcd does not answer in time; see that most of its members run and can be reached: %v", belfry.ErrRestricted, why) //nolint:errorlint // as above
}
