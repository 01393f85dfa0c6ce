package security

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
)

func TestRightsOfRoles(t *testing.T) {
	t.Parallel()
	const want = `
right             none reader witness operator admin
observe           -    yes    yes     yes      yes
operate           -    -      -       yes      yes
register-witness  -    -      yes     yes      yes
configure         -    -      -       yes      yes
license           -    -      -       -        yes
admit             -    -      -       -        yes
own               -    -      -       -        yes
unknown-7         -    -      -       -        -
`
	roles := []belfry.Role{belfry.RoleNone, belfry.RoleReader, belfry.RoleWitness, belfry.RoleOperator, belfry.RoleAdmin}
	got := "\nright             none reader witness operator admin\n"
	for right := belfry.RightObserve; right <= belfry.RightOwn+1; right++ {
		line := fmt.Sprintf("%-17s", right)
		for _, role := range roles {
			cell := "-"
			if allows(role, right) {
				cell = "yes"
			}
			line += fmt.Sprintf(" %-*s", len(role.String()), cell)
		}
		got += strings.TrimRight(line, " ") + "\n"
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
}

func TestLocalRole(t *testing.T) {
	t.Parallel()
	groups := Groups{Operator: 900, Reader: 901}
	for _, test := range []struct {
		name string
		uid  uint32
		gids []uint32
		in   Groups
		want belfry.Role
	}{
		{"root", 0, nil, groups, belfry.RoleAdmin},
		{"the agent's user", 500, nil, groups, belfry.RoleAdmin},
		{"operator", 1000, []uint32{100, 900}, groups, belfry.RoleOperator},
		{"reader", 1000, []uint32{100, 901}, groups, belfry.RoleReader},
		{"both", 1000, []uint32{901, 900}, groups, belfry.RoleOperator},
		{"others", 1000, []uint32{100}, groups, belfry.RoleNone},
		{"no groups", 1000, nil, groups, belfry.RoleNone},
		{"group 0 where the groups do not exist", 1000, []uint32{0}, Groups{}, belfry.RoleNone},
	} {
		if got := LocalRole(test.uid, test.gids, 500, test.in); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestPeerCredentialsAreTheKernels(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	gids, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	want := Credentials{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
	for _, gid := range append(gids, os.Getegid()) {
		want.Groups = append(want.Groups, uint32(gid))
	}
	slices.Sort(want.Groups)
	want.Groups = slices.Compact(want.Groups)
	got, err := PeerCredentials(server.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	server.Close()
	if _, err := PeerCredentials(server.(*net.UnixConn)); err == nil {
		t.Error("a closed socket has credentials")
	}
}

// TestDefaultRolesAreWhatSubjectsHaveWithoutARow compares with Decide, which
// judges them.
func TestDefaultRolesAreWhatSubjectsHaveWithoutARow(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]belfry.Role{
		"uid:0": belfry.RoleAdmin, "uid:500": belfry.RoleAdmin, "uid:1000": belfry.RoleNone, "uid:x": belfry.RoleNone,
		"group:belfry-operator": belfry.RoleOperator, "group:belfry": belfry.RoleReader, "group:dba": belfry.RoleNone,
		"client:belfry": belfry.RoleNone, "": belfry.RoleNone,
	} {
		if got := DefaultRole(subject, 500); got != want {
			t.Errorf("%q is %s by default; want %s", subject, got, want)
		}
	}
	policy, err := NewPolicy([]Grant{{Subjects: []string{"uid:0"}, Role: "reader"}}, nil, noGroup)
	if err != nil {
		t.Fatal(err)
	}
	if role, ok := policy.Decide(Caller{Role: DefaultRole("uid:0", 500)}, Ask{Right: belfry.RightOwn}); role != belfry.RoleAdmin || !ok {
		t.Errorf("root that was made a reader is %s, may own: %t; want admin, true", role, ok)
	}
}
