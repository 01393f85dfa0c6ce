package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/event"
)

// R3: who asks other nodes reads which of them refuse, and why.
func TestTheListingNamesTheNodeThatRefuses(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	since := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	why := &belfry.Error{Op: "watch", Node: nodeB, Subject: "some", Err: fmt.Errorf("%w: no PSI here; boot with psi=1", belfry.ErrUnsupported)}
	a.events.status.Wants = []event.WantStatus{{
		Number: 3, Class: "pressure.cpu", Subject: "some",
		Consumers: []event.ConsumerStatus{{Kind: "stream", Name: "pid 1 watch", Registration: 2}},
		Coverage: []event.Coverage{
			{Node: nodeA, State: event.CoverageInstalled, Since: since},
			{Node: nodeB, State: event.CoverageRefused, Since: since, Err: why},
			{Node: belfry.NodeID{15: 9}, State: event.CoverageUnreachable},
		},
	}}
	list, err := a.dial(t).Registrations(t.Context(), "")
	if err != nil || len(list.GetClusterRegistrations()) != 1 {
		t.Fatalf("%v (%v); want one cluster registration", list, err)
	}
	got := list.GetClusterRegistrations()[0]
	if c := got.GetConsumers(); got.GetNumber() != 3 || got.GetClass() != "pressure.cpu" || got.GetSubject() != "some" ||
		got.GetConsumersTotal() != 1 || len(c) != 1 || c[0].GetName() != "pid 1 watch" || c[0].GetRegistration() != 2 {
		t.Errorf("%v; want what was asked, and by whom", got)
	}
	var nodes []string
	for _, c := range got.GetCoverage() {
		text := fmt.Sprintf("%s %s", c.GetNodeName(), strings.ToLower(strings.TrimPrefix(c.GetState().String(), "COVERAGE_STATE_")))
		if c.GetSince() != nil {
			text += c.GetSince().AsTime().Format(" 15:04")
		}
		if r := c.GetRefusal(); r != nil {
			text += fmt.Sprintf(" %s %s %s: %s", r.GetCode(), r.GetOp(), r.GetSubject(), r.GetMessage())
		}
		nodes = append(nodes, text)
	}
	want := []string{
		"a installed 12:00",
		"b refused 12:00 UNSUPPORTED watch some: unsupported here: no PSI here; boot with psi=1",
		belfry.NodeID{15: 9}.String() + " unreachable",
	}
	want[1] = strings.Replace(want[1], "unsupported here", belfry.ErrUnsupported.Error(), 1)
	if diff := cmp.Diff(want, nodes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What is asked of others follows the entries, over as many pages as it takes.
func TestClusterRegistrationsFollowTheEntries(t *testing.T) {
	t.Parallel()
	a := startAgent(t, reader)
	const entries, wants = 5, 6
	reason := fmt.Errorf("%w: %s", belfry.ErrUnsupported, strings.Repeat("r", maxReasonsListed/2))
	for i := range entries {
		a.events.status.Entries = append(a.events.status.Entries, event.EntryStatus{Entry: event.EntryID(i + 1), Class: "user.x", Subject: fmt.Sprint(i)})
	}
	for i := range wants {
		w := event.WantStatus{Number: uint32(i + 1), Class: "*", Subject: fmt.Sprint(i), Coverage: []event.Coverage{{Node: nodeB, State: event.CoverageRefused, Err: reason}}}
		a.events.status.Wants = append(a.events.status.Wants, w)
	}
	var pages []string
	for token := ""; ; {
		resp, err := a.raw(t).ListEntries(t.Context(), &belfryv1.ListEntriesRequest{PageSize: 4, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(resp); size > maxResponse {
			t.Errorf("a page has %d bytes; want %d at most", size, maxResponse)
		}
		var page []string
		for _, e := range resp.GetEntries() {
			page = append(page, "entry "+e.GetSubject())
		}
		for _, r := range resp.GetClusterRegistrations() {
			page = append(page, "asked "+r.GetSubject())
		}
		pages = append(pages, strings.Join(page, ", "))
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	want := []string{"entry 0, entry 1, entry 2, entry 3", "entry 4, asked 0", "asked 1", "asked 2", "asked 3", "asked 4", "asked 5"}
	if diff := cmp.Diff(want, pages); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	list, err := a.dial(t).Registrations(t.Context(), "")
	if err != nil || len(list.GetEntries()) != entries || len(list.GetClusterRegistrations()) != wants {
		t.Errorf("the client has %d entries and %d that are asked (%v); want all", len(list.GetEntries()), len(list.GetClusterRegistrations()), err)
	}
}
