package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/belfry-ha/belfry"
)

func at(hours int) time.Time {
	return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(hours) * time.Hour)
}

func testNode(i int, name string) Node {
	return Node{
		Name: name, ID: belfry.NodeID{0xa0, byte(i)}, Number: belfry.NodeNumber(i), Slot: new(i - 1), Zone: "hall-" + name,
		Key: bytes.Repeat([]byte{byte(i)}, 32), Sealing: bytes.Repeat([]byte{byte(i), 1}, 16), Certificate: []byte{0x30, byte(i)},
		Addresses: []Address{
			{Network: "net1", Heartbeat: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 7431), Bits: 24},
			{Network: "net2", Heartbeat: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, byte(i)}), 7431), Bits: 24},
		},
		Streams: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 7432),
		Web:     netip.MustParseAddrPort("127.0.0.1:7433"), Capacity: Capacity{Cores: 8, MemoryBytes: 64 << 30},
		Joined: Moment{Generation: uint64(i), Time: at(i)},
	}
}

// testDocument has something in every field.
func testDocument() Document {
	ca, next := []byte("certificate one"), []byte("certificate two")
	nodes := []Node{testNode(1, "a"), testNode(2, "b"), testNode(4, "d")}
	nodes[2].Intent = IntentStopped
	return Document{
		Schema:  1,
		Cluster: Cluster{Name: "köln", UUID: belfry.ClusterID{0xc0}, Created: at(0), LastNumber: 4},
		Nodes:   nodes,
		Former:  []FormerNode{{ID: belfry.NodeID{0xa0, 3}, Number: 3, Slot: new(2), Key: bytes.Repeat([]byte{3}, 32), Removed: Moment{Generation: 5, Time: at(5)}}},
		Networks: []Network{
			{Name: "net1", Prefix: netip.MustParsePrefix("10.0.1.0/24"), Port: 7431, Priority: 10}, {Name: "net2", Prefix: netip.MustParsePrefix("10.0.2.0/24"), Port: 7441, Priority: 5},
		},
		Links: []Link{{
			A: "a", B: "b", Network: "net2", Disabled: true, Priority: new(3),
			AtA: netip.MustParseAddrPort("10.9.0.1:7431"), AtB: netip.MustParseAddrPort("10.9.0.2:7431"),
		}},
		Repository: Storage{
			Kind: KindDisk, UUID: UUID{0xd0}, Epoch: 2, Spares: []UUID{{0xd8}}, Poll: "5s",
			Areas: &Areas{Hosts: 8, SlotSize: 256 << 10, RecordOffset: BlockSize, PayloadOffset: 1 << 20, Disks: []UUID{{0xd1}, {0xd2}, {0xd3}}},
		},
		Tunables: map[string]string{"node_timeout": "3s", "allowance": "2.5s"},
		Resources: []Resource{{
			Name: "service/db", Holders: []string{"a", "b"}, Watch: "unit:postgresql.service", Address: "10.0.1.50:5432", Probe: netip.MustParseAddrPort("10.0.1.50:5432"),
		}},
		Witness: Witness{
			NetNames: []NetName{
				{Name: "FS1", Aliases: []string{"fs1.example.org"}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.60")}, Shares: []Share{{Name: "data", ScaleOut: true}}},
				{Name: "FS2", AnyShare: true},
			},
			Drained: []string{"b"},
		},
		Linked: []LinkedCluster{{Name: "bonn", Addresses: []netip.AddrPort{netip.MustParseAddrPort("[fd00::1]:7432")}, CA: Digest{0xe0}}},
		Handlers: []Handler{{
			Name: "page", On: []string{"node.state", "filesystem.usage:/var"}, Where: "value > 90 &&\n\tnode != \"d\"", Scope: "cluster", Nodes: []string{"a"},
			Edge: "failing", Over: "90%", Under: "5%", Rearm: "1%", Hold: "10s", MinInterval: "1m", Flap: "5/1m", Limit: 100, Snapshot: true, NoGaps: true,
			RunOn: "one", Timeout: "20s", Attempts: 3,
		}},
		Licenses: Licenses{
			Files: []string{"-----BEGIN BELFRY LICENSE-----\nc2VjcmV0\n-----END BELFRY LICENSE-----\n"}, Revocations: []string{"-----BEGIN BELFRY REVOCATIONS-----\n"},
			Activations: []Activation{{License: "L-1", Node: belfry.NodeID{0xa0, 1}, Time: at(6), Operator: "uid 0 on a"}},
			Mark:        at(7), Issuers: []Issuer{{Product: "other", Key: bytes.Repeat([]byte{0xf0}, 32)}},
		},
		Roles: []Grant{{Subjects: []string{"uid:1000", "group:dba", "client:web"}, Role: "operator", Allow: []string{"observe:process.*@own", "emit:user.backup"}}},
		Security: Security{
			CA: [][]byte{ca, next}, CANext: true, CAExposed: true,
			CAKeys: []SealedKey{{CA: sha256.Sum256(ca), Holder: belfry.NodeID{0xa0, 1}, Sealed: []byte("a sealed key")}},
			Tokens: []Token{{
				ID: "0123456789abcdef", Hash: Digest{0xb0, 0xb1}, Expires: at(8), Role: "node", Name: "e", Creator: "uid 0 on a", Wrong: 2,
				Announce: []netip.AddrPort{netip.MustParseAddrPort("10.0.1.9:7431")},
			}},
			Clients: []Client{{
				Name: "web", Role: "operator", TokenRole: "reader",
				Keys: []ClientKey{{Key: Digest{0xb2, 0xb3}, Serial: "5e", Expires: at(700), Joined: at(7), Token: "00000000000000ff"}},
			}},
			Revoked: []string{"1f", "2e"}, Datagram: Datagram{Epoch: 9, Secret: Digest{0xb4, 0xb5}, Since: at(7)},
		},
		Ops: []Operation{{Node: belfry.NodeID{0xa0, 1}, ID: OpID{0x0a, 0x0b}, Generation: 8}},
		History: []Entry{
			{Generation: 7, Time: at(7), Author: "uid 0 on a", Text: "leave c", Hash: Digest{0x77}, Audit: Digest{0x78}},
			{Generation: 8, Time: at(8), Author: "client <web> & co", Node: belfry.NodeID{0xa0, 1}, Text: "set node_timeout", Hash: Digest{0x88}},
		},
		Moving: &Moving{
			Epoch: 3, Op: OpID{0x0c},
			Areas: &Areas{Hosts: 16, SlotSize: 1 << 20, RecordOffset: BlockSize, PayloadOffset: 1 << 20, Disks: []UUID{{0xd4}}},
		},
		Confirm: &Confirmation{Base: 7, Deadline: at(9)},
	}
}

// testDocumentNext follows it in time, with changes a person would make; not in
// one generation.
func testDocumentNext() Document {
	d := testDocument()
	d.Moving, d.Confirm = nil, nil
	d.Cluster.Name, d.Cluster.LastNumber = "bonn", 5
	d.Nodes = append([]Node{d.Nodes[1], d.Nodes[2]}, testNode(5, "e"))
	d.Nodes[1].Intent = ""
	d.Nodes[1].Addresses = d.Nodes[1].Addresses[:1]
	d.Nodes[2].Joined = Moment{Generation: 9, Time: at(30)}
	d.Nodes[2].Addresses = d.Nodes[2].Addresses[:1]
	d.Former = append(d.Former, FormerNode{ID: belfry.NodeID{0xa0, 1}, Number: 1, Slot: new(0), Key: bytes.Repeat([]byte{1}, 32), Removed: Moment{Generation: 9, Time: at(30)}})
	d.Links = nil
	d.Tunables = map[string]string{"node_timeout": "5s", "watchers": "6"}
	d.Resources = nil
	d.Witness.Drained, d.Witness.NetNames = nil, d.Witness.NetNames[1:]
	d.Handlers[0].Nodes, d.Handlers[0].Over = nil, "95%"
	d.Licenses.Files = append(d.Licenses.Files, "another")
	d.Roles = []Grant{{Subjects: []string{"uid:1000"}, Role: "reader"}}
	d.Security.CA, d.Security.CANext, d.Security.CAKeys = d.Security.CA[1:], false, nil
	d.Security.Tokens, d.Security.Clients = nil, nil
	d.Security.Datagram = Datagram{Epoch: 10, Secret: Digest{0xb6}, Since: at(30)}
	d.Ops = nil
	d.History = append(d.History, Entry{Generation: 9, Time: at(30), Author: "uid 0 on b", Text: "many things"})
	return d
}

// everything is a document in which no field is empty, though it is none that
// could be.
func everything() Document {
	d := testDocument()
	d.Repository.Etcd, d.Moving.Kind, d.Moving.Etcd = storageInEtcd().Etcd, KindDisk, storageInEtcd().Etcd
	return d
}

// settled is a document that neither moves nor waits.
func settled() Document {
	d := testDocument()
	d.Moving, d.Confirm = nil, nil
	return d
}

// storageInEtcd is the section of a repository that has moved there.
func storageInEtcd() Storage {
	return Storage{Kind: KindEtcd, UUID: UUID{0xd0}, Epoch: 2, Etcd: &Etcd{Endpoints: []string{"10.0.1.90:2379"}, Prefix: "belfry"}}
}

func encodeDocument(t testing.TB, d Document) []byte {
	t.Helper()
	data, err := Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decodeDocument(t testing.TB, data []byte) Document {
	t.Helper()
	d, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// copyOf shares nothing with the document.
func copyOf(t testing.TB, d Document) Document {
	t.Helper()
	return decodeDocument(t, encodeDocument(t, d))
}

// documents are compared by what is in them: an empty list is none.
func sameDocument(want, got Document) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

// goldenFile compares a text with the one in testdata.
func goldenFile(t *testing.T, name string, got []byte) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s (-want +got):\n%s", name, cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")))
	}
}

// problemsOf are the single errors that are joined in one, and their sentinels.
func problemsOf(err error) (all []string) {
	if err == nil {
		return nil
	}
	var e *belfry.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || !strings.Contains(fmt.Sprintf("%T", err), "join") {
		return []string{err.Error()}
	}
	for _, one := range joined.Unwrap() {
		all = append(all, one.Error())
	}
	return all
}

func digestOf(data []byte) Digest { return sha256.Sum256(data) }
