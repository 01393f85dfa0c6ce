package event

import (
	"errors"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func TestAJudgeWantsWhatItsRegistrationIsFor(t *testing.T) {
	t.Parallel()
	self, other := belfry.NodeID{1}, belfry.NodeID{2}
	cfg := Config{
		Node: self,
		Classes: []belfry.ClassInfo{
			{Class: "user.*", Custom: true, Globs: true, Remote: true, Subject: "NAME"},
			{Class: "filesystem.usage", Kind: belfry.Value, Unit: "%", Remote: true, Subject: "PATH"},
		},
		Compile: func(_, text string) (Filter, error) {
			return func(n *belfry.Notification) (bool, error) {
				if text == "fails" {
					return true, errors.New("it does")
				}
				return n.Code == 7, nil
			}, nil
		},
	}
	for name, test := range map[string]struct {
		wish    belfry.Registration
		class   belfry.Class
		subject string
		node    belfry.NodeID
		n       belfry.Notification
		event   bool
		wants   bool
	}{
		"its event":         {belfry.Registration{Class: "user.job", Subject: "x"}, "user.job", "x", self, belfry.Notification{}, true, true},
		"another":           {belfry.Registration{Class: "user.job", Subject: "x"}, "user.job", "y", self, belfry.Notification{}, false, true},
		"a pattern":         {belfry.Registration{Class: "user.*", Subject: "a/*"}, "user.job", "a/y", self, belfry.Notification{}, true, true},
		"another node":      {belfry.Registration{Class: "user.job", Subject: "x"}, "user.job", "x", other, belfry.Notification{}, false, true},
		"of the cluster":    {belfry.Registration{Class: "user.job", Subject: "x", Scope: belfry.ScopeCluster}, "user.job", "x", other, belfry.Notification{}, true, true},
		"of one node":       {belfry.Registration{Class: "user.job", Subject: "x", Scope: belfry.ScopeCluster, Nodes: []belfry.NodeID{other}}, "user.job", "x", self, belfry.Notification{}, false, true},
		"an edge":           {belfry.Registration{Class: "user.job", Subject: "x", Edge: belfry.EdgeOnlyFailing}, "user.job", "x", self, belfry.Notification{Edge: belfry.EdgeRecovered}, true, false},
		"a filter":          {belfry.Registration{Class: "user.job", Subject: "x", Filter: "7"}, "user.job", "x", self, belfry.Notification{Code: 7}, true, true},
		"a filter, not":     {belfry.Registration{Class: "user.job", Subject: "x", Filter: "7"}, "user.job", "x", self, belfry.Notification{}, true, false},
		"a filter, failing": {belfry.Registration{Class: "user.job", Subject: "x", Filter: "fails"}, "user.job", "x", self, belfry.Notification{}, true, false},
		"above":             {belfry.Registration{Class: "filesystem.usage", Subject: "/", Threshold: belfry.Threshold{Hi: 90, HasHi: true}}, "filesystem.usage", "/", self, belfry.Notification{Value: 90}, true, true},
		"not above":         {belfry.Registration{Class: "filesystem.usage", Subject: "/", Threshold: belfry.Threshold{Hi: 90, HasHi: true}}, "filesystem.usage", "/", self, belfry.Notification{Value: 89}, true, false},
		"below":             {belfry.Registration{Class: "filesystem.usage", Subject: "/", Threshold: belfry.Threshold{Lo: 10, HasLo: true}}, "filesystem.usage", "/", self, belfry.Notification{Value: 9}, true, true},
	} {
		j, err := NewJudge(cfg, test.wish)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if event, wants := j.Event(test.class, test.subject, test.node), j.Wants(&test.n); event != test.event || wants != test.wants {
			t.Errorf("%s: event %v, wants %v; want %v, %v", name, event, wants, test.event, test.wants)
		}
	}
	for name, wish := range map[string]belfry.Registration{
		"a class there is not":    {Class: "no.class"},
		"an interval":             {Class: "user.job", Subject: "x", MinInterval: time.Second},
		"a number of a pattern":   {Class: "user.job", Subject: "*", Since: belfry.Since{HasSequence: true}},
		"a number of the cluster": {Class: "user.job", Subject: "x", Scope: belfry.ScopeCluster, Since: belfry.Since{HasSequence: true}},
	} {
		if _, err := NewJudge(cfg, wish); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%s: %v, want ErrUsage", name, err)
		}
	}
}
