package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/repository"
	"github.com/belfry-ha/belfry/internal/repository/disk"
)

// repositoryView is repository show in JSON.
type repositoryView struct {
	Device     string               `json:"device" doc:"path of the block device or file"`
	Repository string               `json:"repository" doc:"UUID"`
	Cluster    string               `json:"cluster" doc:"UUID"`
	Label      string               `json:"label" doc:"that it was given; may be empty"`
	Epoch      uint64               `json:"epoch" doc:"of the set of disks"`
	Disk       string               `json:"disk" doc:"UUID of this disk"`
	Disks      []string             `json:"disks" doc:"UUIDs of the disks of this epoch, in their order"`
	Created    *instant             `json:"created" doc:"when it was formatted"`
	Hosts      int                  `json:"hosts" doc:"host slots"`
	SlotBytes  int64                `json:"slot_bytes" doc:"greatest size of the configuration"`
	UsedBytes  int64                `json:"used_bytes" doc:"of the device"`
	Sequence   uint64               `json:"header_sequence" doc:"of the boot record that counts"`
	HeaderA    string               `json:"header_a" doc:"ok, or what is wrong with the copy at the begin of the device"`
	HeaderB    string               `json:"header_b" doc:"ok, or what is wrong with the copy at its end"`
	Newest     *recordView          `json:"newest" doc:"the record of the newest configuration; null: there is none"`
	Document   *documentSummaryView `json:"document" doc:"what the newest configuration holds; null: it can not be read"`
	Records    []recordView         `json:"records" doc:"by host slot; empty ones are left out"`
	History    []historyView        `json:"history" doc:"who made the last generations, oldest first"`
	Problems   []problemView        `json:"problems" doc:"what is not as it must be; belfry repository fsck checks the same"`
}

// recordView is what one host has to say on this disk.
type recordView struct {
	Host        int    `json:"host" doc:"host slot"`
	Copy        int    `json:"copy" doc:"0 or 1"`
	Node        string `json:"node" doc:"name of the node that wrote it, by the newest configuration; empty: not known"`
	NodeID      string `json:"node_id" doc:"UUID of that node"`
	Incarnation uint64 `json:"incarnation" doc:"of its agent"`
	Sequence    uint64 `json:"sequence" doc:"of the records of this host"`
	Promised    uint64 `json:"promised" doc:"ballot that it has claimed in"`
	Accepted    uint64 `json:"accepted" doc:"ballot that it has written the generation in"`
	Generation  uint64 `json:"generation" doc:"0: none yet"`
	Chosen      bool   `json:"chosen" doc:"it is known to be committed"`
	Bytes       uint32 `json:"bytes" doc:"of the configuration"`
	Hash        string `json:"hash" doc:"SHA-256 of the configuration"`
	Signature   string `json:"signature" doc:"by the newest configuration: member, former, unknown or wrong"`
	State       string `json:"state" doc:"ok, or what is wrong with it"`
}

// documentSummaryView says how much is in a configuration, and nothing secret.
type documentSummaryView struct {
	Schema    uint32   `json:"schema" doc:"level of the configuration"`
	Cluster   string   `json:"cluster" doc:"name"`
	Nodes     []string `json:"nodes" doc:"names"`
	Former    int      `json:"former" doc:"removed nodes"`
	Networks  []string `json:"networks" doc:"names"`
	Tunables  int      `json:"tunables" doc:"written ones"`
	Resources int      `json:"resources" doc:"that are watched"`
	Handlers  int      `json:"handlers" doc:"of the cluster"`
	Licenses  int      `json:"licenses" doc:"files"`
	Roles     int      `json:"roles" doc:"rows"`
	Clients   int      `json:"clients" doc:"with certificates"`
	Tokens    int      `json:"tokens" doc:"to join with"`
	Moving    bool     `json:"moving" doc:"a change of disks has begun and is not completed"`
	Confirm   *instant `json:"confirm" doc:"without belfry config confirm it is rolled back then; null: it stays"`
}

// historyView is one generation of the past.
type historyView struct {
	Generation uint64   `json:"generation" doc:"number"`
	Time       *instant `json:"time" doc:"when it was made"`
	Author     string   `json:"author" doc:"who asked for it"`
	Node       string   `json:"node" doc:"name of the node that committed it; empty: not known"`
	Text       string   `json:"text" doc:"what was done"`
}

func newRepositoryShow(a *app) *cobra.Command {
	var folders []string
	show := &cobra.Command{
		Use:   "show [DEVICE]",
		Short: "Show what lies on a disk of a repository",
		Long: `Show what lies on a disk of a repository: boot record, the records of the hosts,
the newest configuration and who wrote it. DEVICE is a block device or file; without
it the disk is searched for, as belfry repository scan does. Nothing is written and no
agent is asked. Keys, tokens and licenses are never shown.

A record is chosen when its host knows that the generation is committed. Signatures
are judged by the newest configuration itself: this finds damage, not forgery.`,
		Example: "  belfry repository show\n  belfry repository show /dev/disk/by-id/wwn-0x5000c500a1b2c3d4\n  belfry repository show dev/repository.belfry -o json | jq .newest",
		Args:    atMostOne,
		RunE: func(_ *cobra.Command, args []string) error {
			path := strings.Join(args, "")
			if path == "" {
				var err error
				if path, err = a.onlyDisk(folders); err != nil {
					return err
				}
			}
			s, err := disk.Examine(path)
			if err != nil {
				return err
			}
			v := viewOfRepository(path, s)
			return a.show(document{value: v, table: func(o *output, wide bool) { repositoryText(o, v, wide) }})
		},
	}
	searchFlag(show, &folders)
	return show
}

func atMostOne(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("%q is one argument too many", args[1])
	}
	return nil
}

// onlyDisk is the first disk of the one repository that is there.
func (a *app) onlyDisk(folders []string) (string, error) {
	v, err := a.scan(folders)
	if err != nil {
		return "", err
	}
	if err := cloneError(v.Disks); err != nil {
		return "", err
	}
	found := ""
	for _, d := range v.Disks {
		switch {
		case d.State == "old":
		case found != "" && d.Repository != v.Disks[0].Repository:
			return "", usagef("several repositories are on this machine; name a device: belfry repository scan lists them")
		case found == "":
			found = d.Device
		}
	}
	if found == "" {
		return "", failf(belfry.ErrNotFound, "no repository is on this machine's devices or in the folders; name a device, or a folder with --search")
	}
	return found, nil
}

func viewOfRepository(path string, s repository.Survey) repositoryView {
	h, names := s.Header, map[belfry.NodeID]string{}
	if s.Document != nil {
		for _, n := range s.Document.Nodes {
			names[n.ID] = n.Name
		}
	}
	v := repositoryView{
		Device: path, Repository: h.Repository.String(), Cluster: h.Cluster.String(), Label: h.Label, Epoch: h.Epoch, Disk: h.Disk().String(), Disks: []string{},
		Created: jsonTime(h.Created), Hosts: h.Layout.Hosts, SlotBytes: h.Layout.SlotSize, UsedBytes: h.Layout.Size(), Sequence: h.Sequence,
		HeaderA: okOr(s.Copies[0]), HeaderB: okOr(s.Copies[1]), Records: []recordView{}, History: []historyView{}, Problems: viewsOfProblems(s.Problems, nil),
	}
	for _, d := range h.Disks {
		v.Disks = append(v.Disks, d.String())
	}
	for i, of := range s.Records {
		v.Records = append(v.Records, viewOfRecord(of, names))
		if i == s.Newest {
			v.Newest = &v.Records[i]
		}
	}
	if v.Newest != nil {
		newest := *v.Newest
		v.Newest = &newest // the list may be elsewhere by now
	}
	if s.Document != nil {
		v.Document = summaryOf(s.Document)
		for _, e := range s.Document.History {
			v.History = append(v.History, historyView{e.Generation, jsonTime(e.Time), e.Author, names[e.Node], e.Text})
		}
	}
	return v
}

func okOr(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

func viewOfRecord(of repository.Surveyed, names map[belfry.NodeID]string) recordView {
	r := of.Record
	v := recordView{Host: of.Host, Copy: of.Copy, State: okOr(of.Err), Signature: of.Signed.String()}
	if of.Err != nil {
		return v
	}
	if of.Payload != nil {
		v.State = of.Payload.Error()
	}
	v.Node, v.NodeID, v.Incarnation, v.Sequence = names[r.Writer], r.Writer.String(), r.Incarnation, r.Sequence
	v.Promised, v.Accepted, v.Generation, v.Chosen, v.Bytes = uint64(r.Promised), uint64(r.Accepted), r.Generation, r.Chosen, r.Length
	if r.Generation > 0 {
		v.Hash = r.Payload.String()
	}
	return v
}

func summaryOf(d *repository.Document) *documentSummaryView {
	v := &documentSummaryView{
		Schema: d.Schema, Cluster: d.Cluster.Name, Nodes: []string{}, Former: len(d.Former), Networks: []string{}, Tunables: len(d.Tunables),
		Resources: len(d.Resources), Handlers: len(d.Handlers), Licenses: len(d.Licenses.Files), Roles: len(d.Roles),
		Clients: len(d.Security.Clients), Tokens: len(d.Security.Tokens), Moving: d.Moving != nil,
	}
	for _, n := range d.Nodes {
		v.Nodes = append(v.Nodes, n.Name)
	}
	for _, n := range d.Networks {
		v.Networks = append(v.Networks, n.Name)
	}
	if d.Confirm != nil {
		v.Confirm = jsonTime(d.Confirm.Deadline)
	}
	return v
}

// repositoryText is for people: what counts first.
func repositoryText(o *output, v repositoryView, wide bool) {
	t := &table{}
	name := ""
	if v.Document != nil {
		name = "  " + v.Document.Cluster
	}
	t.add("repository", v.Repository+"  "+v.Label)
	t.add("cluster", v.Cluster+name)
	t.add("disk", fmt.Sprintf("%s  one of %d, epoch %d, %d host slots of %d bytes", v.Disk, len(v.Disks), v.Epoch, v.Hosts, v.SlotBytes))
	t.add("header A", v.HeaderA)
	t.add("header B", v.HeaderB)
	t.add("newest", newestText(v))
	if d := v.Document; d != nil {
		t.add("nodes", strings.Join(d.Nodes, " "))
		t.add("networks", strings.Join(d.Networks, " "))
	}
	for _, p := range v.Problems {
		t.add("problem", p.Place+": "+p.Text)
	}
	t.write(o)
	if len(v.Records) > 0 {
		fmt.Fprintln(o)
		recordTable(v.Records, wide).write(o)
	}
	if len(v.History) > 0 {
		fmt.Fprintln(o)
		history := newTable("GENERATION TIME AUTHOR NODE TEXT")
		for _, e := range v.History {
			history.add(fmt.Sprint(e.Generation), tableTime(e.Time), e.Author, e.Node, e.Text)
		}
		history.write(o)
	}
}

func newestText(v repositoryView) string {
	if v.Newest == nil {
		return "none"
	}
	n, chosen := v.Newest, "chosen"
	if !n.Chosen {
		chosen = "not chosen"
	}
	writer := n.Node
	if writer == "" {
		writer = n.NodeID
	}
	return fmt.Sprintf("generation %d, %s, by %s in host slot %d, %d bytes, SHA-256 %s", n.Generation, chosen, writer, n.Host, n.Bytes, n.Hash)
}

func recordTable(records []recordView, wide bool) *table {
	head := "HOST COPY NODE SEQUENCE GENERATION CHOSEN SIGNATURE STATE"
	if wide {
		head = "HOST COPY NODE INCARNATION SEQUENCE PROMISED ACCEPTED GENERATION CHOSEN SIGNATURE HASH STATE"
	}
	t := newTable(head)
	for _, r := range records {
		node, chosen := r.Node, "no"
		if node == "" {
			node = r.NodeID
		}
		if r.Chosen {
			chosen = "yes"
		}
		row := []string{fmt.Sprint(r.Host), fmt.Sprint(r.Copy), node, fmt.Sprint(r.Sequence), fmt.Sprint(r.Generation), chosen, r.Signature, r.State}
		if wide {
			row = []string{
				fmt.Sprint(r.Host), fmt.Sprint(r.Copy), node, fmt.Sprint(r.Incarnation), fmt.Sprint(r.Sequence), fmt.Sprintf("%#x", r.Promised),
				fmt.Sprintf("%#x", r.Accepted), fmt.Sprint(r.Generation), chosen, r.Signature, r.Hash, r.State,
			}
		}
		t.add(row...)
	}
	return t
}

// tableTime is a time of JSON for tables; empty for none.
func tableTime(s *instant) string {
	if s == nil {
		return ""
	}
	t, _ := time.Parse(time.RFC3339Nano, string(*s)) // we wrote it
	return t.Local().Format(time.DateTime)
}
