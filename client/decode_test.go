package client

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

func TestWhatWasNeverIntroducedIsRefused(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]*belfryv1.Batch{
		"unknown entry":   {Notifications: []*belfryv1.Notification{{Kind: 1, Entry: 3}}},
		"entry 0":         {Entries: []*belfryv1.Entry{{Id: 0, NodeId: make([]byte, 16)}}},
		"number too high": {Entries: []*belfryv1.Entry{{Id: maxIntroduced + 1, NodeId: make([]byte, 16)}}},
		"short node id":   {Entries: []*belfryv1.Entry{{Id: 1, NodeId: make([]byte, 15)}}},
		"empty gap":       {Notifications: []*belfryv1.Notification{{Kind: belfryv1.Kind_KIND_GAP}}},
	} {
		if _, err := decode(&table{}, b); !errors.Is(err, belfry.ErrUnsupported) {
			t.Errorf("%s: %v; want ErrUnsupported", name, err)
		}
	}
}

func decode(t *table, b *belfryv1.Batch) (all []belfry.Notification, err error) {
	if err := t.introduce(b.GetEntries()); err != nil {
		return nil, err
	}
	for _, p := range b.GetNotifications() {
		n, err := t.notification(p)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// FuzzBatch feeds Next what a faulty agent could send.
func FuzzBatch(f *testing.F) {
	for _, b := range []*belfryv1.Batch{
		{},
		{Number: 1, Entries: []*belfryv1.Entry{{Id: 1, NodeId: make([]byte, 16), NodeName: "a", Class: "user.x"}}, Notifications: []*belfryv1.Notification{{Kind: 1, Entry: 1, Sequence: 5, FirstSequence: 2}}},
		{Notifications: []*belfryv1.Notification{{Kind: belfryv1.Kind_KIND_GAP, Gap: &belfryv1.Gap{Total: 3}}}},
		{Notifications: []*belfryv1.Notification{{Kind: 99, Entry: 7}}},
	} {
		data, err := proto.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b belfryv1.Batch
		if proto.Unmarshal(data, &b) != nil {
			return
		}
		all, err := decode(&table{}, &b)
		if err != nil && !errors.Is(err, belfry.ErrUnsupported) {
			t.Errorf("error %v; want ErrUnsupported", err)
		}
		s := newSeen()
		for i := range all {
			s.admit(&all[i])
			_ = all[i].Kind.String()
		}
	})
}
