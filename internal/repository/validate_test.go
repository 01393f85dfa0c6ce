package repository

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// Each rule of the document, with the path, what is wrong and what would be
// right. The edits begin from a document with something in every field.
func TestValidateNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		edit func(*Document)
		want []string // without "wrong use: "
	}{
		{func(*Document) {}, nil},
		{func(d *Document) { d.Schema = 0 }, []string{"schema: 0; want 1 to 1"}},

		{func(d *Document) { d.Cluster.UUID = belfry.ClusterID{} }, []string{"cluster.uuid: missing; want that of the cluster"}},
		{func(d *Document) { d.Cluster.LastNumber = 3 }, []string{"cluster.last_number: 3; node d has number 4, want the highest that was ever granted"}},
		{func(d *Document) { d.Cluster.LastNumber = 0 }, nil},
		{func(d *Document) { d.Cluster.Name = strings.Repeat("n", 64) }, []string{"cluster.name: limit reached: 64 bytes; at most 63"}},

		{func(d *Document) { d.Nodes[2].Name = "a" }, []string{`nodes[2].name: "a" is used twice; want another one`}},
		{func(d *Document) { d.Nodes[2].Name = "D" }, []string{`nodes[2].name: "D"; want 1 to 63 of a-z, 0-9 and -, not first a -`}},
		{func(d *Document) { d.Nodes[2].Name = "-d" }, []string{`nodes[2].name: "-d"; want 1 to 63 of a-z, 0-9 and -, not first a -`}},
		{func(d *Document) { d.Nodes[2].Name = "" }, []string{`nodes[2].name: ""; want 1 to 63 of a-z, 0-9 and -, not first a -`}},
		{func(d *Document) { d.Nodes[2].Name = strings.Repeat("n", 64) }, []string{"nodes[2].name: limit reached: 64 bytes; at most 63"}},
		{func(d *Document) { d.Nodes[2].ID = belfry.NodeID{} }, []string{"nodes[2].id: missing; want the node's own"}},
		{func(d *Document) { d.Nodes[2].ID = d.Nodes[1].ID }, []string{"nodes[2].id: a0020000-0000-0000-0000-000000000000 is that of nodes[1].id; want another one"}},
		{func(d *Document) { d.Nodes[2].ID = d.Former[0].ID }, []string{"nodes[2].id: a0030000-0000-0000-0000-000000000000 is that of former[0]; want another one"}},
		{func(d *Document) { d.Nodes[2].Number = 0 }, []string{"nodes[2].number: 0; want 1 to 65535"}},
		{func(d *Document) { d.Nodes[2].Number = 2 }, []string{"nodes[2].number: 2 is that of nodes[1].number; want another one"}},
		{func(d *Document) { d.Nodes[2].Number = 3 }, []string{"nodes[2].number: 3 is that of former[0]; want another one"}},
		{func(d *Document) { d.Nodes[2].Slot = new(1) }, []string{"nodes[2].slot: 1 is that of nodes[1].slot; want another one"}},
		{func(d *Document) { d.Nodes[2].Slot = new(8) }, []string{"nodes[2].slot: 8; want 0 to 7, for 8 host slots"}},
		{func(d *Document) { d.Nodes[2].Slot = new(-1) }, []string{"nodes[2].slot: -1; want 0 to 7, for 8 host slots"}},
		{func(d *Document) { d.Nodes[2].Slot = nil }, nil},
		{func(d *Document) { d.Nodes[2].Slot = new(2) }, nil}, // again; whether it may be is a question of two generations
		{func(d *Document) { d.Nodes[2].Key = d.Nodes[2].Key[:31] }, []string{"nodes[2].key: 31 bytes; want the 32 of an Ed25519 key"}},
		{func(d *Document) { d.Nodes[2].Key = d.Nodes[1].Key }, []string{"nodes[2].key: it is that of nodes[1].key; want another one"}},
		{func(d *Document) { d.Nodes[2].Key = d.Former[0].Key }, []string{"nodes[2].key: it is that of former[0]; want another one"}},
		{func(d *Document) { d.Nodes[2].Sealing = []byte{1} }, []string{"nodes[2].sealing: 1 bytes; want the 32 of an X25519 key"}},
		{func(d *Document) { d.Nodes[2].Intent = "stoped" }, []string{`nodes[2].intent: "stoped"; want one of stopped, or nothing`}},
		{func(d *Document) { d.Nodes[2].Addresses = nil }, []string{"nodes[2].addresses: none; want one for each network of the node"}},
		{func(d *Document) { d.Nodes[2].Addresses[1].Network = "net3" }, []string{`nodes[2].addresses[1].network: "net3" is no network; want one of net1, net2`}},
		{func(d *Document) { d.Nodes[2].Addresses[0].Heartbeat = netip.AddrPort{} }, []string{
			"nodes[2].addresses[0].heartbeat: no address; want IP:PORT", "nodes[2].addresses[0].heartbeat: invalid AddrPort is not in 10.0.1.0/24, the prefix of net1",
			"nodes[2].addresses[0].bits: 24; want 0 to 0",
		}},
		{func(d *Document) { d.Nodes[2].Addresses[0].Heartbeat = d.Nodes[0].Addresses[0].Heartbeat }, []string{
			"nodes[2].addresses[0].heartbeat: 10.0.1.1:7431 is that of nodes[0].addresses[0].heartbeat; want another one",
		}},
		{func(d *Document) { d.Nodes[2].Addresses[0].Heartbeat = netip.MustParseAddrPort("10.0.2.4:1") }, []string{
			"nodes[2].addresses[0].heartbeat: 10.0.2.4:1 is not in 10.0.1.0/24, the prefix of net1",
		}},
		{func(d *Document) { d.Nodes[2].Addresses[0].Bits = 33 }, []string{"nodes[2].addresses[0].bits: 33; want 0 to 32"}},
		{func(d *Document) { d.Nodes[2].Streams = netip.MustParseAddrPort("0.0.0.0:7432") }, []string{
			"nodes[2].streams: 0.0.0.0:7432 is the address of no node; want the one that others reach it at",
		}},
		{func(d *Document) { d.Nodes[2].Streams = netip.MustParseAddrPort("10.0.1.4:0") }, []string{"nodes[2].streams: 10.0.1.4:0 has port 0; want 1 to 65535"}},
		{func(d *Document) { d.Nodes[2].Streams = netip.MustParseAddrPort("[::ffff:10.0.1.4]:1") }, []string{
			"nodes[2].streams: [::ffff:10.0.1.4]:1 is IPv4 written as IPv6; want 10.0.1.4:1",
		}},
		{func(d *Document) { d.Nodes[2].Streams = d.Nodes[0].Streams }, []string{"nodes[2].streams: 10.0.1.1:7432 is that of nodes[0].streams; want another one"}},
		{func(d *Document) { d.Nodes[2].Streams = d.Nodes[0].Addresses[0].Heartbeat }, nil}, // TCP and UDP
		{func(d *Document) { d.Nodes[2].Capacity.Cores = 1 << 53 }, []string{"nodes[2].capacity: too large; want at most 9007199254740991"}},
		{func(d *Document) { d.Nodes[2].Joined.Generation = 9 }, []string{"nodes[2].joined.generation: 9; want 1 to 8, this one"}},
		{func(d *Document) { d.Nodes[2].Joined.Time = time.Time{} }, []string{"nodes[2].joined.time: missing; want when it was"}},
		{func(d *Document) { d.Nodes[2].Joined = Moment{} }, nil},

		{func(d *Document) { d.Former = append(d.Former, d.Former[0]) }, []string{"former[1].id: a0030000-0000-0000-0000-000000000000 is that of former[0].id; want another one"}},
		{func(d *Document) { d.Former[0].Key = []byte{1} }, []string{"former[0].key: 1 bytes; want the 32 of an Ed25519 key"}},
		{func(d *Document) { d.Former[0].Number = 5 }, []string{"former[0].number: 5; cluster.last_number is 4, want the highest that was ever granted there"}},
		{func(d *Document) { d.Former[0].Slot = new(120) }, []string{"former[0].slot: 120; want 0 to 119"}},
		{func(d *Document) { d.Former[0].Removed.Generation = 9 }, []string{"former[0].removed.generation: 9; want 1 to 8, this one"}},
		{func(d *Document) { d.Former[0] = FormerNode{ID: d.Former[0].ID, Key: d.Former[0].Key} }, nil}, // from a member table

		{func(d *Document) { d.Networks[1].Name = "net1" }, []string{
			`networks[1].name: "net1" is used twice; want another one`,
			"nodes[0].addresses[0].heartbeat: 10.0.1.1:7431 is not in 10.0.2.0/24, the prefix of net1", `nodes[0].addresses[1].network: "net2" is no network; want one of net1`,
			"nodes[1].addresses[0].heartbeat: 10.0.1.2:7431 is not in 10.0.2.0/24, the prefix of net1", `nodes[1].addresses[1].network: "net2" is no network; want one of net1`,
			"nodes[2].addresses[0].heartbeat: 10.0.1.4:7431 is not in 10.0.2.0/24, the prefix of net1", `nodes[2].addresses[1].network: "net2" is no network; want one of net1`,
			`links[0].network: "net2" is no network; want one of net1`,
		}},
		{func(d *Document) { d.Networks = append(d.Networks, Network{Name: "net 3"}) }, []string{`networks[2].name: "net 3"; want 1 to 63 letters, digits, dots, colons, _ and -`}},
		{func(d *Document) { d.Networks[0].Prefix = netip.MustParsePrefix("10.0.1.7/24") }, []string{"networks[0].prefix: 10.0.1.7/24; want a prefix like 10.0.1.0/24"}},
		{func(d *Document) { d.Networks[0].Prefix = netip.Prefix{} }, nil},
		{func(d *Document) { d.Networks[0].Priority = 256 }, []string{"networks[0].priority: 256; want 0 to 255"}},
		{func(d *Document) { d.Links[0].B = "c" }, []string{`links[0].b: "c" is no node; want one of a, b, d`}},
		{func(d *Document) { d.Links[0].A, d.Links[0].B = "b", "a" }, []string{"links[0]: b, a; want two nodes in the order of the alphabet"}},
		{func(d *Document) { d.Links = append(d.Links, d.Links[0]) }, []string{`links[1]: "a - b on net2" is used twice; want another one`}},
		{func(d *Document) { d.Links[0].Network = "net3" }, []string{`links[0].network: "net3" is no network; want one of net1, net2`}},
		{func(d *Document) { d.Links[0].Priority = new(-1) }, []string{"links[0].priority: -1; want 0 to 255"}},
		{func(d *Document) { d.Links[0].AtB = netip.AddrPort{} }, []string{"links[0].at_b: no address; want IP:PORT", "links[0]: 10.9.0.1:7431 and invalid AddrPort; want addresses of one family"}},
		{func(d *Document) { d.Links[0].AtB = netip.MustParseAddrPort("[fd00::2]:1") }, []string{"links[0]: 10.9.0.1:7431 and [fd00::2]:1; want addresses of one family"}},

		{func(d *Document) { d.Repository.Kind = "nfs" }, []string{
			`repository.kind: "nfs"; want one of members, disk, file, etcd`, "repository.uuid: d0000000-0000-0000-0000-000000000000 for kind nfs; every repository has one, members have none",
			"repository.epoch: 2 for kind nfs; want 1 or more of a repository, 0 of members", "repository.spares: for kind nfs; want them for disks and files only",
			"repository.areas: for kind nfs; disks and files have them, others do not", "moving: for kind nfs; only a repository moves",
			"moving.areas: for kind nfs; disks and files have them, others do not",
		}},
		{func(d *Document) { d.Repository, d.Moving = Storage{Kind: KindMembers}, nil }, nil},
		{func(d *Document) { d.Repository, d.Moving = Storage{Kind: KindEtcd, UUID: UUID{1}, Epoch: 2}, nil }, []string{"repository.etcd: for kind etcd; etcd has it, others do not"}},
		{func(d *Document) { d.Repository, d.Moving = storageInEtcd(), nil }, nil},
		{func(d *Document) { d.Repository.Etcd = storageInEtcd().Etcd }, []string{"repository.etcd: for kind disk; etcd has it, others do not"}},
		{func(d *Document) {
			d.Repository, d.Moving = storageInEtcd(), nil
			d.Repository.Etcd.Endpoints, d.Repository.Etcd.Prefix = []string{"", "h:1", "h:1"}, "/x"
		}, []string{
			"repository.etcd.endpoints[0]: is empty; want HOST:PORT", `repository.etcd.endpoints[2]: "h:1" is used twice; want another one`, `repository.etcd.prefix: "/x"; want it without / around it`,
		}},
		{func(d *Document) { d.Repository, d.Moving = storageInEtcd(), nil; d.Repository.Etcd.Endpoints = nil }, []string{"repository.etcd.endpoints: none; want HOST:PORT of etcd"}},
		{func(d *Document) { d.Moving.Kind = "nfs" }, []string{`moving.kind: "nfs"; want one of disk, file, etcd, or nothing`, "moving.areas: for kind nfs; disks and files have them, others do not"}},
		{func(d *Document) { d.Moving.Kind, d.Moving.Areas, d.Moving.Etcd = KindEtcd, nil, storageInEtcd().Etcd }, nil},
		{func(d *Document) { d.Repository.Poll = "61s" }, []string{`repository.poll: "61s"; want a duration from 1s to 1m0s, for example 5s`}},
		{func(d *Document) { d.Repository.Poll = "5" }, []string{`repository.poll: "5"; want a duration from 1s to 1m0s, for example 5s`}},
		{func(d *Document) { d.Repository.Spares = []UUID{{1}, {1}, {}, {0xd1}, {0xd4}} }, []string{
			`repository.spares[1]: "01000000-0000-0000-0000-000000000000" is used twice; want another one`, "repository.spares[2]: missing; want the disk's UUID",
			`repository.spares[3]: "d1000000-0000-0000-0000-000000000000" is used twice; want another one`, `repository.spares[4]: "d4000000-0000-0000-0000-000000000000" is used twice; want another one`,
		}},
		{func(d *Document) { d.Repository.Spares = []UUID{{1}, {2}, {3}, {4}, {5}, {6}, {7}} }, []string{"repository.spares: limit reached: 7 entries; at most 6"}},
		{func(d *Document) { d.Repository.Areas.Hosts = 0 }, []string{
			"repository.areas: 0 host slots; 1 to 120",
		}},
		{func(d *Document) { d.Repository.Areas.SlotSize = 4097 }, []string{"repository.areas: payload slots of 4097 bytes; a multiple of 4096, at most 8388608"}},
		{func(d *Document) { d.Repository.Areas.Disks = nil }, []string{"repository.areas.disks: 0; want 1 to 3"}},
		{func(d *Document) { d.Repository.Areas.Disks[1] = UUID{0xd1} }, []string{`repository.areas.disks[1]: "d1000000-0000-0000-0000-000000000000" is used twice; want another one`}},
		{func(d *Document) { d.Repository.Areas.Disks[1] = UUID{} }, []string{"repository.areas.disks[1]: missing; want the disk's UUID"}},
		{func(d *Document) { d.Moving.Epoch = 4 }, []string{"moving.epoch: 4; want 3, one after the present one"}},
		{func(d *Document) { d.Moving.Op = OpID{} }, []string{"moving.op: missing; want that of the completion"}},
		{func(d *Document) { d.Moving.Areas.Hosts = 3 }, []string{"moving.areas.hosts: 3; nodes[2] has slot 3, want more"}},

		{func(d *Document) { d.Tunables["node_timeout"] = "soon" }, []string{"tunables.node_timeout: soon is no duration"}},
		{func(d *Document) { d.Tunables["x"] = strings.Repeat("x", 257) }, []string{"tunables.x: limit reached: 257 bytes; at most 256"}},
		{func(d *Document) { d.Tunables = map[string]string{strings.Repeat("x", 64): ""} }, []string{"tunables." + strings.Repeat("x", 64) + ": limit reached: 64 bytes; at most 63"}},

		{func(d *Document) { d.Resources[0].Name = "db" }, []string{`resources[0].name: "db/"; want one of service/, share/, name/, address/`, `resources[0].name: "db"; want KIND/SUBJECT, without a node`}},
		{func(d *Document) { d.Resources[0].Name = "service/db@a" }, []string{`resources[0].name: "service/db@a"; want KIND/SUBJECT, without a node`}},
		{func(d *Document) { d.Resources = append(d.Resources, d.Resources[0]) }, []string{`resources[1].name: "service/db" is used twice; want another one`}},
		{func(d *Document) { d.Resources[0].Holders = nil }, []string{"resources[0].holders: none; want the nodes that can hold it"}},
		{func(d *Document) { d.Resources[0].Holders = []string{"a", "c", "a"} }, []string{
			`resources[0].holders[1]: "c" is no node; want one of a, b, d`, `resources[0].holders[2]: "a" is used twice; want another one`,
		}},
		{func(d *Document) { d.Resources[0].Watch = "exec:rm" }, []string{`resources[0].watch: "exec:"; want one of unit:, process:, file:, tcp:, http:`}},
		{func(d *Document) { d.Resources[0].Watch = "unit:" }, []string{`resources[0].watch: "unit:"; want KIND:SUBJECT`}},
		{func(d *Document) { d.Resources[0].Address = "db.example" }, []string{`resources[0].address: "db.example"; want IP or IP:PORT`}},
		{func(d *Document) { d.Resources[0].Address = "::0" }, []string{`resources[0].address: "::0"; want IP or IP:PORT`}},
		{func(d *Document) { d.Resources[0].Address = "10.0.1.50" }, nil},
		{func(d *Document) { d.Resources[0].Probe = netip.MustParseAddrPort("10.0.1.50:0") }, []string{"resources[0].probe: 10.0.1.50:0 has port 0; want 1 to 65535"}},

		{func(d *Document) { d.Witness.Drained = []string{"c"} }, []string{`witness.drained[0]: "c" is no node; want one of a, b, d`}},
		{func(d *Document) { // of many, the first
			for i := range 9 {
				n := testNode(11+i, fmt.Sprintf("n%d", i))
				n.Number, n.Slot, n.Joined = belfry.NodeNumber(11+i), nil, Moment{}
				d.Nodes = append(d.Nodes, n)
			}
			d.Cluster.LastNumber, d.Witness.Drained = 0, []string{"c"}
		}, []string{`witness.drained[0]: "c" is no node; want one of a, b, d, n0, n1, n2, n3, n4 …`}},
		{func(d *Document) { d.Witness.NetNames[1].Name = "fs1" }, []string{`witness.net_names[1].name: "fs1" is used twice; want another one`}},
		{func(d *Document) { d.Witness.NetNames[1].Name = "F S" }, []string{`witness.net_names[1].name: "F S"; want a name without blanks and \/:*?"<>|`}},
		{func(d *Document) { d.Witness.NetNames[0].Aliases = []string{"FS2"} }, []string{`witness.net_names[1].name: "fs2" is used twice; want another one`}},
		{func(d *Document) { d.Witness.NetNames[0].AnyShare = true }, []string{"witness.net_names[0].shares: 1, any_share true; want either shares, or any_share"}},
		{func(d *Document) { d.Witness.NetNames[1].AnyShare = false }, []string{"witness.net_names[1].shares: 0, any_share false; want either shares, or any_share"}},
		{func(d *Document) {
			d.Witness.NetNames[0].Shares = append(d.Witness.NetNames[0].Shares, Share{Name: "DATA"})
		}, []string{
			`witness.net_names[0].shares[1].name: "data" is used twice; want another one`,
		}},
		{func(d *Document) { d.Witness.NetNames[0].Addresses[0] = netip.MustParseAddr("224.0.0.1") }, []string{
			"witness.net_names[0].addresses[0]: 224.0.0.1:1 is the address of no node; want the one that others reach it at",
		}},
		{func(d *Document) {
			d.Nodes[0].Name, d.Nodes[2].Name = "fileserver-berlin-1", "fileserver-berlin-2"
			d.Links, d.Resources, d.Handlers = nil, nil, nil
		}, []string{
			`nodes[2].name: "fileserver-berlin-1" and "fileserver-berlin-2" are both FILESERVER-BERL to SMB clients; want names that differ in their first 15 characters`,
		}},
		{func(d *Document) { d.Linked[0].Addresses = nil }, []string{"linked[0].addresses: none; want those of its agents"}},
		{func(d *Document) { d.Linked[0].CA = Digest{} }, []string{"linked[0].ca: missing; want the SHA-256 of its authority's certificate"}},
		{func(d *Document) { d.Linked = append(d.Linked, d.Linked[0]) }, []string{`linked[1].name: "bonn" is used twice; want another one`}},

		{func(d *Document) { d.Handlers = append(d.Handlers, d.Handlers[0]) }, []string{`handlers[1].name: "page" is used twice; want another one`}},
		{func(d *Document) { d.Handlers[0].On = []string{""} }, []string{"handlers[0].on[0]: is empty; want a selector like node.state"}},
		{func(d *Document) { d.Handlers[0].On = nil }, []string{"handlers[0].on: names no event; for example node.state"}},
		{func(d *Document) { d.Handlers[0].Scope = "" }, []string{"handlers[0].run_on: one shares the events of the cluster; want scope cluster", "handlers[0].nodes: are given; want scope cluster"}},
		{func(d *Document) { d.Handlers[0].Edge = "up" }, []string{`handlers[0].edge: "up"; want one of both, failing, recovered, or nothing`}},
		{func(d *Document) { d.Handlers[0].RunOn = "two" }, []string{`handlers[0].run_on: "two"; want one of every, origin, one, or nothing`}},
		{func(d *Document) { d.Handlers[0].Nodes = []string{"c"} }, []string{`handlers[0].nodes[0]: "c" is no node; want one of a, b, d`}},
		{func(d *Document) { d.Handlers[0].Timeout = "2h" }, []string{`handlers[0].timeout: "2h"; want a duration from 1s to 1h0m0s, for example 5s`}},
		{func(d *Document) { d.Handlers[0].Hold = "-1s" }, []string{`handlers[0].hold: "-1s"; want a duration from 0s to 8760h0m0s, for example 5s`}},
		{func(d *Document) { d.Handlers[0].Attempts = 101 }, []string{"handlers[0].attempts: 101; want 1 to 100, or 0 for 5"}},
		{func(d *Document) { d.Handlers[0].Limit = -1 }, []string{"handlers[0].limit: -1; want 0 to 1048576"}},

		{func(d *Document) { d.Licenses.Files = append(d.Licenses.Files, d.Licenses.Files[0]) }, []string{"licenses.files[1]: is empty or there twice; want each file once"}},
		{func(d *Document) { d.Licenses.Activations[0].Node = belfry.NodeID{} }, []string{"licenses.activations[0].node: missing; want where it was unlocked"}},
		{func(d *Document) { d.Licenses.Activations[0].License = "" }, []string{"licenses.activations[0].license: missing; want its id"}},
		{func(d *Document) { d.Licenses.Issuers[0].Key = []byte{1} }, []string{"licenses.issuers[0].key: 1 bytes; want the 32 of an Ed25519 key"}},

		{func(d *Document) { d.Roles[0].Role = "root" }, []string{`roles[0].role: "root"; want reader, witness, operator or admin`}},
		{func(d *Document) { d.Roles[0].Role = "none" }, []string{`roles[0].role: "none"; want reader, witness, operator or admin`}},
		{func(d *Document) { d.Roles[0] = Grant{Subjects: []string{"uid:7"}} }, []string{"roles[0]: grants nothing; want role or allow"}},
		{func(d *Document) { d.Roles[0].Subjects = nil }, []string{"roles[0].subjects: none; want uid:NUMBER, group:NAME or client:NAME"}},
		{func(d *Document) { d.Roles[0].Subjects = []string{"uid:007", "user:x", "group:"} }, []string{
			`roles[0].subjects[0]: "uid:007"; want uid:NUMBER, group:NAME or client:NAME`, `roles[0].subjects[1]: "user:x"; want uid:NUMBER, group:NAME or client:NAME`,
			`roles[0].subjects[2]: "group:"; want uid:NUMBER, group:NAME or client:NAME`,
		}},
		{func(d *Document) { d.Roles[0].Allow = []string{"emit:node.state"} }, []string{`roles[0].allow[0]: "emit:node.state"; want observe:CLASS, observe:CLASS@own or emit:user.NAME`}},

		{func(d *Document) { d.Security.CA = d.Security.CA[:1] }, []string{"security.ca_next: with 1 authorities; want it with the two of a rotation"}},
		{func(d *Document) { d.Security.CAKeys[0].CA = Digest{1} }, []string{"security.ca_keys[0].ca: no authority has that certificate; want one of security.ca"}},
		{func(d *Document) { d.Security.CAKeys[0].Holder = d.Former[0].ID }, []string{"security.ca_keys[0].holder: a0030000-0000-0000-0000-000000000000 is no member; want one of nodes"}},
		{func(d *Document) { d.Security.Tokens[0].ID = "0123456789ABCDEF" }, []string{`security.tokens[0].id: "0123456789ABCDEF"; want 16 hexadecimal digits`}},
		{func(d *Document) { d.Security.Tokens[0].Role = "admin" }, []string{`security.tokens[0].role: "admin"; want one of node, reader, witness, operator`}},
		{func(d *Document) { d.Security.Tokens[0].Name = "E" }, []string{`security.tokens[0].name: "E"; want 1 to 63 of a-z, 0-9 and -, not first a -`}},
		{func(d *Document) { d.Security.Tokens[0].Expires = time.Time{} }, []string{"security.tokens[0].expires: missing; want the time it ends"}},
		{func(d *Document) { d.Security.Tokens = append(d.Security.Tokens, d.Security.Tokens[0]) }, []string{`security.tokens[1].id: "0123456789abcdef" is used twice; want another one`}},
		{func(d *Document) { d.Security.Tokens = manyTokens(65) }, []string{"security.tokens: limit reached: 65 entries; at most 64"}},
		{func(d *Document) { d.Security.Clients[0].Role = "node" }, []string{`security.clients[0].role: "node"; want reader, witness, operator or admin`}},
		{func(d *Document) { d.Security.Clients = append(d.Security.Clients, d.Security.Clients[0]) }, []string{`security.clients[1].name: "web" is used twice; want another one`}},
		{func(d *Document) { d.Security.Clients[0].Keys[0].Serial = "5E" }, []string{`security.clients[0].keys[0].serial: "5E"; want hexadecimal digits`}},
		{func(d *Document) { d.Security.Revoked = []string{"2e", "2e", "x"} }, []string{
			`security.revoked[1]: "2e" is used twice; want another one`, `security.revoked[2]: "x"; want the serial in hexadecimal digits`,
		}},

		{func(d *Document) { d.Ops = append(d.Ops, d.Ops[0]) }, []string{"ops[1].node: a0010000-0000-0000-0000-000000000000 has another one; want the last operation of each node"}},
		{func(d *Document) { d.Ops[0].Node = d.Former[0].ID }, []string{"ops[0].node: a0030000-0000-0000-0000-000000000000 is no member; want one of nodes"}},
		{func(d *Document) { d.Ops[0].Generation = 9 }, []string{"ops[0].generation: 9; want 1 to 8"}},
		{func(d *Document) { d.Ops[0].ID = OpID{} }, []string{"ops[0].id: missing; want that of the operation"}},
		{func(d *Document) { d.History[0].Generation = 6 }, []string{"history[1].generation: 8 follows 6; want one more"}},
		{func(d *Document) { d.History[1].Time = time.Time{} }, []string{"history[1].time: missing; want when it was made"}},
		{func(d *Document) { d.History = manyEntries(65, 1000) }, []string{"history: limit reached: 65 entries; at most 64"}},
		{func(d *Document) { d.History = manyEntries(64, 1000) }, nil},
		{func(d *Document) { d.Confirm.Base = 8 }, []string{"confirm.base: 8; want a generation before 8"}},
	} {
		d := copyOf(t, testDocument())
		c.edit(&d)
		err := d.Validate(tunablesForTest)
		var got []string
		for _, p := range problemsOf(err) {
			got = append(got, strings.Replace(p, "wrong use: ", "", 1))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err != nil && !errors.Is(err, belfry.ErrUsage) && !errors.Is(err, belfry.ErrLimit) {
			t.Errorf("%v wraps neither ErrUsage nor ErrLimit", err)
		}
	}
}

// tunablesForTest stands for the agent's table.
func tunablesForTest(written map[string]string) error {
	if written["node_timeout"] == "soon" {
		return fmt.Errorf("%w: tunables.node_timeout: soon is no duration", belfry.ErrUsage)
	}
	return nil
}

func manyTokens(n int) (all []Token) {
	for i := range n {
		all = append(all, Token{ID: fmt.Sprintf("%016x", i), Hash: Digest{1}, Expires: at(8), Role: "node"})
	}
	return all
}

func manyEntries(n int, last uint64) (all []Entry) {
	for i := range n {
		all = append(all, Entry{Generation: last - uint64(n-1-i), Time: at(i), Author: "uid 0 on a"})
	}
	return all
}

// A document that is not there yet can be filled in piece by piece: all that is
// missing is named.
func TestValidateOfNothing(t *testing.T) {
	t.Parallel()
	want := []string{
		"schema: wrong use: 0; want 1 to 1", "cluster.uuid: wrong use: missing; want that of the cluster", "nodes: wrong use: none; a cluster has at least one",
		`repository.kind: wrong use: ""; want one of members, disk, file, etcd`, "history: wrong use: is empty; want an entry for this generation",
	}
	if diff := cmp.Diff(want, problemsOf(new(Document).Validate(nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Nobody reads hundreds of problems.
func TestValidateNamesAtMost20(t *testing.T) {
	t.Parallel()
	d := testDocument()
	for range 30 {
		d.Linked = append(d.Linked, LinkedCluster{Name: "X"})
	}
	all := problemsOf(d.Validate(nil))
	if len(all) != 20 || all[19] != "wrong use: and 100 more problems; correct these first" { // 30 times four, but for the first X, which is not there twice
		t.Errorf("%d problems, the last is %q", len(all), all[len(all)-1])
	}
	d.Schema = 2
	if err := d.Validate(nil); !errors.Is(err, belfry.ErrUnsupported) {
		t.Errorf("a newer schema: %v, want %v", err, belfry.ErrUnsupported)
	}
}

// The limits of Encode, Decode and Validate are the same ones: the tags.
func TestLimitsAreThoseOfTheDesign(t *testing.T) {
	t.Parallel()
	want := map[string]int{
		"Document.nodes": 10000, "Document.former": 10000, "Document.history": maxHistory, "Document.roles": 256, "Document.handlers": 100, "Document.tunables": 64,
		"Storage.spares": 6, "Areas.disks": MaxDisks, "Security.tokens": 64, "Security.clients": 1024, "Licenses.files": 256, "Node.name": 63, "Node.key": 32,
	}
	got := map[string]int{}
	for typ, rules := range fieldRules {
		for _, r := range rules {
			if name := typ.Name() + "." + r.name; want[name] > 0 {
				got[name] = r.limits.length
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !slices.Equal(problemsOf(nil), nil) {
		t.Error("nothing is a problem")
	}
}
