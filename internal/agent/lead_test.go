package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

const changeMethod = belfryv1.ConfigService_SetConfig_FullMethodName

// TestAChangeThatTakesTooLongSaysSo: operation, who was asked, and what is to be
// done. What its caller gave up says no more than that.
func TestAChangeThatTakesTooLongSaysSo(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	err := overdue(t.Context(), context.DeadlineExceeded, changeMethod, "b", 5*time.Second)
	if e := (*belfry.Error)(nil); !errors.As(err, &e) || e.Op != "SetConfig" || e.Subject != "b" || !errors.Is(err, belfry.ErrUnknown) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%#v; want the operation at b, whose outcome is unknown", err)
	}
	if text := err.Error(); !strings.Contains(text, "node b") || !strings.Contains(text, "within 5s") || !strings.Contains(text, "ask again if it is not") {
		t.Errorf("%q; want who was asked, for how long, and the remedy", text)
	}
	for name, same := range map[string]error{"": nil, "refused": belfry.ErrUsage} {
		if got := overdue(t.Context(), same, changeMethod, "b", time.Second); !errors.Is(got, same) || errors.Is(got, belfry.ErrUnknown) {
			t.Errorf("%s: %v; want it as it is", name, got)
		}
	}
	if err := overdue(over, context.DeadlineExceeded, changeMethod, "b", time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v after the caller gave up; want that", err)
	}
}

// TestAChangeThatWasNotAskedForSaysSo: the changes before it wait for the leader.
func TestAChangeThatWasNotAskedForSaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lead := belfry.NodeID{2}
		members := &fileMembership{}
		members.table.Store(&Table{Nodes: []Node{{ID: lead, Name: "b"}}})
		a := &Agent{forwarding: make(chan struct{}, maxForwarded), members: members}
		for range maxForwarded {
			a.forwarding <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := a.forward(ctx, lead, changeMethod, nil, nil)
		if e := (*belfry.Error)(nil); !errors.As(err, &e) || e.Op != "SetConfig" || e.Subject != "b" || !errors.Is(err, belfry.ErrLimit) {
			t.Errorf("%#v; want the limit, with operation and leader", err)
		}
		if text := err.Error(); !strings.Contains(text, "4 changes of this node wait for node b") || !strings.Contains(text, "try again") {
			t.Errorf("%q; want why, and the remedy", text)
		}
	})
}
