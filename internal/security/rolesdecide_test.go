package security

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

// testPolicy is a small machine: group dba is 70, and there is no group ghosts.
func testPolicy(t testing.TB, grants ...Grant) *Policy {
	t.Helper()
	clients := map[string]belfry.Role{"ci": belfry.RoleReader, "samba": belfry.RoleWitness, "boss": belfry.RoleAdmin}
	p, err := NewPolicy(grants, clients, localGroup)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func localGroup(name string) (uint32, bool) {
	gid, ok := map[string]uint32{"dba": 70, "root": 0}[name]
	return gid, ok
}

func TestDecideByClass(t *testing.T) {
	t.Parallel()
	const want = `
class              none reader reader/own reader/own/remote witness operator admin
(no event)         -    yes    yes        yes               -       yes      yes
node.state         -    yes    yes        yes               -       yes      yes
node.*             -    yes    yes        yes               -       yes      yes
resource.moved     -    yes    yes        yes               yes     yes      yes
filesystem.usage   -    yes    yes        yes               -       yes      yes
config.changed     -    yes    yes        yes               -       yes      yes
process.exit       -    -      yes        -                 -       yes      yes
file.*             -    -      yes        -                 -       yes      yes
user.backup        -    -      -          -                 -       yes      yes
security.denied    -    -      -          -                 -       yes      yes
nodes.state        -    -      -          -                 -       yes      yes
*                  -    -      -          -                 -       yes      yes
`
	columns := []struct {
		name        string
		role        belfry.Role
		own, remote bool
	}{
		{"none", belfry.RoleNone, true, false},
		{"reader", belfry.RoleReader, false, false},
		{"reader/own", belfry.RoleReader, true, false},
		{"reader/own/remote", belfry.RoleReader, true, true},
		{"witness", belfry.RoleWitness, true, false},
		{"operator", belfry.RoleOperator, false, true},
		{"admin", belfry.RoleAdmin, false, true},
	}
	got := "\n"
	for i, line := range strings.Split(strings.Trim(want, "\n"), "\n") {
		class := strings.TrimSpace(line[:19])
		row := fmt.Sprintf("%-18s", class)
		for _, c := range columns {
			cell := c.name
			if i > 0 {
				ask := Ask{Right: belfry.RightObserve, Class: strings.TrimPrefix(class, "(no event)"), Own: c.own, Remote: c.remote}
				cell = "-"
				if _, ok := testPolicy(t).Decide(Caller{UID: 1000, Role: c.role}, ask); ok {
					cell = "yes"
				}
			}
			row += fmt.Sprintf(" %-*s", len(c.name), cell)
		}
		got += strings.TrimRight(row, " ") + "\n"
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
}

func TestGrantsAddAndNothingElseDoes(t *testing.T) {
	t.Parallel()
	p := testPolicy(t,
		Grant{Subjects: []string{"uid:1000", "group:dba"}, Allow: []string{"observe:process.*@own", "emit:user.backup"}},
		Grant{Subjects: []string{"client:ci"}, Allow: []string{"observe:unit.state", "emit:user.deploy.*"}},
		Grant{Subjects: []string{"uid:1001", "client:web"}, Role: "operator"},
		Grant{Subjects: []string{"group:ghosts", "group:root"}, Role: "admin"},
	)
	observe := func(class string) Ask { return Ask{Right: belfry.RightObserve, Class: class} }
	own := func(class string) Ask { return Ask{Right: belfry.RightObserve, Class: class, Own: true} }
	emit := func(class string) Ask { return Ask{Right: belfry.RightOperate, Class: class} }
	user := func(uid uint32, gids ...uint32) Caller { return Caller{UID: uid, Groups: gids} }
	client := func(name string) Caller { return Caller{Client: name} }
	for _, tt := range []struct {
		caller Caller
		ask    Ask
		role   belfry.Role
		want   bool
	}{
		{user(1000), own("process.exit"), belfry.RoleNone, true},
		{user(1000), own("process.*"), belfry.RoleNone, true},
		{user(1000), observe("process.exit"), belfry.RoleNone, false},
		{user(1000), Ask{Class: "process.exit", Own: true, Remote: true}, belfry.RoleNone, false},
		{user(1000), own("processes.exit"), belfry.RoleNone, false},
		{user(1000), own("*"), belfry.RoleNone, false},
		{user(1000), own(""), belfry.RoleNone, false},
		{user(1000), emit("user.backup"), belfry.RoleNone, true},
		{user(1000), emit("user.backups"), belfry.RoleNone, false},
		{user(1000), observe("user.backup"), belfry.RoleNone, false},
		{user(1000), Ask{Right: belfry.RightOperate}, belfry.RoleNone, false},
		{user(1000), Ask{Right: belfry.RightOperate, Entry: true}, belfry.RoleNone, true},
		{user(1000), Ask{Right: belfry.RightConfigure, Entry: true}, belfry.RoleNone, false},
		{user(2000, 5, 70), emit("user.backup"), belfry.RoleNone, true},
		{user(70), emit("user.backup"), belfry.RoleNone, false},
		{user(1001), observe("*"), belfry.RoleOperator, true},
		{user(1001), Ask{Right: belfry.RightAdmit}, belfry.RoleOperator, false},
		{user(3000, 0), Ask{Right: belfry.RightOwn}, belfry.RoleNone, false},
		{client("ci"), observe("unit.state"), belfry.RoleReader, true},
		{client("ci"), observe("unit.*"), belfry.RoleReader, false},
		{client("ci"), emit("user.deploy.done"), belfry.RoleReader, true},
		{client("ci"), emit("user.deploy"), belfry.RoleReader, false},
		{client("samba"), Ask{Right: belfry.RightRegisterWitness}, belfry.RoleWitness, true},
		{client("boss"), Ask{Right: belfry.RightOwn}, belfry.RoleAdmin, true},
		{client("unlisted"), observe(""), belfry.RoleNone, false},
		{Caller{Client: "boss", Fixed: true, Role: belfry.RoleOperator}, Ask{Right: belfry.RightOwn}, belfry.RoleOperator, false},
		{Caller{Client: "ci", UID: 1001}, observe("*"), belfry.RoleReader, false},
	} {
		role, got := p.Decide(tt.caller, tt.ask)
		if got != tt.want || role != tt.role {
			t.Errorf("%+v, %+v: %s, %t; want %s, %t", tt.caller, tt.ask, role, got, tt.role, tt.want)
		}
	}
}

func TestGrantsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for _, g := range []Grant{
		{},
		{Subjects: []string{"uid:1"}},
		{Role: "reader"},
		{Subjects: []string{"uid:1"}, Role: "king"},
		{Subjects: []string{"uid:-1"}, Role: "reader"},
		{Subjects: []string{"uid:01"}, Role: "reader"},
		{Subjects: []string{"uid:4294967296"}, Role: "reader"},
		{Subjects: []string{"dba"}, Role: "reader"},
		{Subjects: []string{"group:"}, Role: "reader"},
		{Subjects: []string{"client:*"}, Role: "reader"},
		{Subjects: []string{"uid:1"}, Allow: []string{"configure:tunables"}},
		{Subjects: []string{"uid:1"}, Allow: []string{"observe:*"}},
		{Subjects: []string{"uid:1"}, Allow: []string{"observe:proc*"}},
		{Subjects: []string{"uid:1"}, Allow: []string{"observe:process.ex*"}},
		{Subjects: []string{"uid:1"}, Allow: []string{"observe:*.exit"}},
		{Subjects: []string{"uid:1"}, Allow: []string{"observe:process."}},
		{Subjects: []string{"uid:1"}, Allow: []string{"emit:process.exit"}},
		{Subjects: []string{"uid:1"}, Allow: []string{"emit:user.x@own"}},
	} {
		if err := CheckGrants([]Grant{g}); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("%+v: %v; want ErrUsage", g, err)
		}
	}
	if err := CheckGrants(make([]Grant, maxGrants+1)); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("too many rows: %v; want ErrLimit", err)
	}
	many := Grant{Subjects: []string{"uid:1"}, Allow: make([]string, maxAllows)}
	for i := range many.Allow {
		many.Allow[i] = fmt.Sprintf("emit:user.n%d", i)
	}
	if err := CheckGrants([]Grant{many}); err != nil {
		t.Error(err)
	}
	if err := CheckGrants([]Grant{many, {Subjects: []string{"uid:1"}, Allow: many.Allow[:1]}}); !errors.Is(err, belfry.ErrLimit) {
		t.Errorf("too many allows of one subject: %v; want ErrLimit", err)
	}
}

// worstAsk is refused after all that can be looked at was.
func worstAsk(t testing.TB) (*Policy, Caller, Ask) {
	t.Helper()
	var allows []string
	for i := range maxAllows {
		allows = append(allows, fmt.Sprintf("observe:user.name%d.*", i))
	}
	p := testPolicy(t, Grant{Subjects: []string{"uid:1000"}, Allow: allows}, Grant{Subjects: []string{"group:dba"}, Allow: allows})
	c := Caller{UID: 1000, Role: belfry.RoleReader}
	for gid := range uint32(32) {
		c.Groups = append(c.Groups, 60+gid)
	}
	return p, c, Ask{Right: belfry.RightObserve, Class: "user.name"}
}

func TestDecideAllocatesNothing(t *testing.T) {
	p, c, ask := worstAsk(t)
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := p.Decide(c, ask); ok {
			t.Error("it was let through")
		}
	}); n != 0 {
		t.Errorf("%v allocations; want none", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	p, c, ask := worstAsk(b)
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(c, ask)
	}
}
