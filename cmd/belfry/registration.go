package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// registrationListView is registration list in JSON.
type registrationListView struct {
	Node      nodeRef        `json:"node" doc:"whose entries these are"`
	Entries   []entryView    `json:"entries" doc:"by class, then subject"`
	Interests []interestView `json:"interests" doc:"what other nodes want of this node's events"`

	ClusterRegistrations []clusterRegistrationView `json:"cluster_registrations" doc:"what consumers of this node ask of other nodes, by class, then subject"`
}

// entryView is one event registration entry in JSON.
type entryView struct {
	Entry      uint64         `json:"entry" doc:"number of the entry at its node"`
	Class      string         `json:"class" doc:"class of the event"`
	Subject    string         `json:"subject" doc:"what the user named"`
	State      string         `json:"state" doc:"starting, active, blocked or ended; pattern: what may become entries"`
	Since      *instant       `json:"since" doc:"when the state began"`
	Identifier *string        `json:"identifier" doc:"what the subject is now, for example pid@starttime; null: nothing, or nothing that changes"`
	Sequence   uint64         `json:"sequence" doc:"number of the last occurrence; 0: none yet"`
	HeldBy     string         `json:"held_by" doc:"local, or listener: only other nodes consume it"`
	Consumers  []consumerView `json:"consumers" doc:"who is registered"`
}

// consumerView is one registration of one consumer in JSON.
type consumerView struct {
	Kind         string `json:"kind" doc:"stream, handler or remote"`
	Name         string `json:"name" doc:"process, handler or node"`
	Registration uint32 `json:"registration" doc:"the consumer's own number"`
	Queued       uint32 `json:"queued" doc:"notifications that wait"`
	Gaps         uint64 `json:"gaps" doc:"gap records so far"`
	Observed     bool   `json:"observed" doc:"remote, while a local consumer holds the entry"`
}

// interestView is what one peer wants in JSON.
type interestView struct {
	Node           string   `json:"node" doc:"name of the peer"`
	NodeID         string   `json:"node_id" doc:"UUID of the peer"`
	Version        uint64   `json:"version" doc:"of its set of interests"`
	Interests      uint32   `json:"interests" doc:"how many"`
	State          string   `json:"state" doc:"live or parked"`
	Since          *instant `json:"since" doc:"when the state began"`
	Unacknowledged uint32   `json:"unacknowledged" doc:"batches on their way"`
	Queued         uint32   `json:"queued" doc:"notifications that wait"`
}

func newRegistrationCommand(a *app) *cobra.Command {
	var node string
	list := &cobra.Command{
		Use:   "list",
		Short: "List what is registered, with identifiers and who holds it",
		Long: `List what is registered at this node, or at another: each event and pattern, an event with its
present identifier, its sequence number, whether local consumers hold it or
the listener that stands in for other nodes, and who is registered. Then, what
is asked of other nodes: which of them have it in force, and which refuse it,
and why.`,
		Example: "  belfry registration list\n  belfry registration list --node b",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				return a.registrationList(ctx, c, node)
			})
		},
	}
	list.Flags().StringVar(&node, "node", "", "the node whose entries to list (default this one)")
	return newGroup(a, "registration", "Show what is registered", list)
}

func (a *app) registrationList(ctx context.Context, c *client.Client, node string) error {
	answer, err := c.Registrations(ctx, node)
	if isNotFound(err) && node != "" {
		nodes, listErr := c.Nodes(ctx)
		if _, known := findNode(node, nodes); listErr == nil && !known {
			return unknownNode(node, nodes, belfry.ErrNotFound)
		}
	}
	if err != nil {
		return err
	}
	view := viewOfRegistrations(answer)
	return a.show(document{
		value: view,
		rows:  rowsOf(view.Entries),
		table: func(o *output, wide bool) { registrationTable(o, answer, time.Now(), wide) },
	})
}

func registrationTable(o *output, answer *belfryv1.ListEntriesResponse, now time.Time, wide bool) {
	heads := "ENTRY STATE IDENTIFIER SEQ HELDBY CONSUMERS"
	if wide {
		heads = "NUMBER " + heads
	}
	t := newTable(heads)
	for _, e := range answer.GetEntries() {
		name := selector{class: e.GetClass(), subject: e.GetSubject()}
		row := []string{name.String(), entryState(e, now), e.GetIdentifier(), "", e.GetHeldBy(), consumers(e.GetConsumers())}
		if e.GetSequence() > 0 {
			row[3] = strconv.FormatUint(e.GetSequence(), 10)
		}
		if wide {
			row = append([]string{strconv.FormatUint(e.GetEntry(), 10)}, row...)
		}
		t.add(row...)
	}
	t.write(o)
	if len(answer.GetInterests()) > 0 {
		fmt.Fprintln(o, "INTERESTS  "+interests(answer.GetInterests(), now))
	}
	if len(answer.GetClusterRegistrations()) > 0 {
		coverageTable(o, answer.GetClusterRegistrations(), now, wide)
	}
}

// entryState tells for how long an entry has been blocked: that is when
// nothing is delivered.
func entryState(e *belfryv1.RegistrationEntry, now time.Time) string {
	if e.GetState() == belfry.EntryActive.String() || e.GetSince() == nil { // a pattern has no time
		return e.GetState()
	}
	return e.GetState() + " " + sinceText(now, when(e.GetSince()))
}

func consumers(list []*belfryv1.EntryConsumer) string {
	var texts []string
	for _, c := range list {
		text := c.GetName()
		if c.GetKind() != "stream" {
			text = c.GetKind() + " " + text
		}
		var notes []string
		if c.GetObserved() {
			notes = append(notes, "observed")
		}
		if c.GetQueued() > 0 {
			notes = append(notes, fmt.Sprintf("queued %d", c.GetQueued()))
		}
		if c.GetGaps() > 0 {
			notes = append(notes, fmt.Sprintf("gaps %d", c.GetGaps()))
		}
		if len(notes) > 0 {
			text += " (" + strings.Join(notes, ", ") + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

func interests(list []*belfryv1.PeerInterests, now time.Time) string {
	var texts []string
	for _, p := range list {
		state := p.GetState()
		if since := when(p.GetSince()); state == "parked" && !since.IsZero() {
			state += " " + ago(now.Sub(since))
		}
		text := fmt.Sprintf("%s: %d (version %d, %s, unacked %d", printable(p.GetNodeName()), p.GetInterests(), p.GetVersion(), state, p.GetUnacknowledged())
		if p.GetQueued() > 0 {
			text += fmt.Sprintf(", queued %d", p.GetQueued())
		}
		texts = append(texts, text+")")
	}
	return strings.Join(texts, "   ")
}

func viewOfRegistrations(answer *belfryv1.ListEntriesResponse) registrationListView {
	view := registrationListView{
		Node:    nodeRef{ID: answer.GetNodeId(), Name: answer.GetNodeName()},
		Entries: []entryView{}, Interests: []interestView{},
	}
	for _, e := range answer.GetEntries() {
		entry := entryView{
			Entry: e.GetEntry(), Class: e.GetClass(), Subject: e.GetSubject(), State: e.GetState(), Since: jsonTime(when(e.GetSince())),
			Sequence: e.GetSequence(), HeldBy: e.GetHeldBy(), Consumers: []consumerView{},
		}
		if e.GetIdentifier() != "" {
			entry.Identifier = new(e.GetIdentifier())
		}
		for _, c := range e.GetConsumers() {
			entry.Consumers = append(entry.Consumers, consumerView{
				Kind: c.GetKind(), Name: c.GetName(), Registration: c.GetRegistration(),
				Queued: c.GetQueued(), Gaps: c.GetGaps(), Observed: c.GetObserved(),
			})
		}
		view.Entries = append(view.Entries, entry)
	}
	for _, p := range answer.GetInterests() {
		view.Interests = append(view.Interests, interestView{
			Node: p.GetNodeName(), NodeID: p.GetNodeId(), Version: p.GetVersion(), Interests: p.GetInterests(), State: p.GetState(),
			Since: jsonTime(when(p.GetSince())), Unacknowledged: p.GetUnacknowledged(), Queued: p.GetQueued(),
		})
	}
	view.ClusterRegistrations = viewOfClusterRegistrations(answer.GetClusterRegistrations())
	return view
}
