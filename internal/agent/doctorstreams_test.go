package agent

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func TestDoctorTellsOfStreamsAndOfIdentitiesThatAreUsedTwice(t *testing.T) {
	t.Parallel()
	now := time.Now()
	late, soon := timestamppb.New(now.Add(-time.Minute)), timestamppb.New(now.Add(-time.Second))
	for _, tt := range []struct {
		name  string
		node  *belfryv1.Node
		level Level
		text  string
	}{
		{"fine", &belfryv1.Node{Stream: &belfryv1.PeerStream{Up: true}}, LevelOK, "to 1 other nodes that are up"},
		{"about to be opened", &belfryv1.Node{Stream: &belfryv1.PeerStream{Since: soon}}, LevelOK, "to 0 other nodes"},
		{"down", &belfryv1.Node{Verdict: "down", Stream: &belfryv1.PeerStream{Since: late}}, LevelOK, "to 0 other nodes"},
		{"they open it", &belfryv1.Node{Stream: &belfryv1.PeerStream{Since: late, PeerDials: true}}, LevelFailure, "no stream to b for 1m0s, though it is heard; that node opens it: run belfry doctor streams there"},
		{"blocked", &belfryv1.Node{Stream: &belfryv1.PeerStream{Since: late, Error: "dial tcp 10.0.0.2:7432: i/o timeout"}}, LevelFailure, "i/o timeout; its TCP port is blocked on the way, or the way carries only small packets: compare the MTU"},
		{"small packets", &belfryv1.Node{Stream: &belfryv1.PeerStream{Since: late, Error: "read: connection timed out"}}, LevelFailure, "compare the MTU"},
		{"silent", &belfryv1.Node{Stream: &belfryv1.PeerStream{Since: late, Error: "no answer from 10.0.0.2:7432 within 2s"}}, LevelFailure, "compare the MTU"},
		{"clock", &belfryv1.Node{Stream: &belfryv1.PeerStream{Since: late, Error: "x509: certificate has expired or is not yet valid: current time is after"}}, LevelFailure, "the clock of one of the two machines is wrong"},
		{"another clock", &belfryv1.Node{Stream: &belfryv1.PeerStream{Since: late, Error: `connection error: desc = "transport: authentication handshake failed: handshake: permission denied: certificate valid from A to B, it is C; renew it, or set the clock right"`}}, LevelFailure, "though it is heard: certificate valid from A to B, it is C; renew it, or set the clock right; the clock of one of the two machines is wrong"},
		{"restored", &belfryv1.Node{Stream: &belfryv1.PeerStream{Since: late, Error: "its state was copied or restored; it takes a newer one"}}, LevelFailure, "it takes a newer one"},
		{"this one's copy", &belfryv1.Node{Self: true, Duplicate: soon}, LevelFailure, "another agent runs with the identity of this node, and the others heed that one"},
		{"copied", &belfryv1.Node{Stream: &belfryv1.PeerStream{Up: true}, Duplicate: soon}, LevelFailure, "a second agent runs with the identity of b: its state was copied, or restored from a backup; stop the copy"},
	} {
		tt.node.Name = "b"
		if tt.node.Verdict == "" {
			tt.node.Verdict = belfry.VerdictUp.String()
		}
		status := &belfryv1.GetStatusResponse{Nodes: []*belfryv1.Node{{Name: "a", Self: true, Verdict: "up"}, tt.node}}
		d := doctor{now: now, ask: Ask{Status: func() (*belfryv1.GetStatusResponse, error) { return status, nil }}}
		sole(t, tt.name, d.streams(), tt.level, tt.text)
	}
}
