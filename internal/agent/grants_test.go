package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/security"
)

// rolesText is what a table gives, a line for each row and each client.
func rolesText(t *Table) string {
	var b strings.Builder
	for _, g := range t.grants() {
		fmt.Fprintf(&b, "%s: %s\n", strings.Join(g.Subjects, " "), strings.TrimSpace(g.Role+" "+strings.Join(g.Allow, " ")))
	}
	for _, c := range t.Clients {
		fmt.Fprintf(&b, "%s is %s\n", c.Name, t.clientInfo(c).GetRole())
	}
	return b.String()
}

// TestASubjectHasExactlyWhatItWasGivenLast, and the others what they had.
func TestASubjectHasExactlyWhatItWasGivenLast(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	table.Clients = []ClientRole{{Name: "ci", Role: "operator"}}
	table.Roles = []security.Grant{{Subjects: []string{"uid:1", "uid:2"}, Role: "reader"}}
	for _, step := range []struct {
		subject, role, allow string
		want                 string
	}{
		{"uid:1", "operator", "", "uid:2: reader\nuid:1: operator\nci is operator\n"},
		{"group:dba", "", "emit:user.x observe:process.*@own", "uid:2: reader\nuid:1: operator\ngroup:dba: emit:user.x observe:process.*@own\nci is operator\n"},
		{"uid:1", "operator", "", "uid:2: reader\nuid:1: operator\ngroup:dba: emit:user.x observe:process.*@own\nci is operator\n"},
		{"group:dba", "", "", "uid:2: reader\nuid:1: operator\nci is operator\n"},
		{"uid:1", "", "", "uid:2: reader\nci is operator\n"},
		// A client's role is lowered too; it is what its token said when nothing is given.
		{"client:ci", "reader", "", "uid:2: reader\nclient:ci: reader\nci is reader\n"},
		{"client:ci", "reader", "emit:user.x", "uid:2: reader\nclient:ci: reader emit:user.x\nci is reader\n"},
		{"client:ci", "admin", "", "uid:2: reader\nclient:ci: admin\nci is admin\n"},
		{"client:ci", "", "emit:user.x", "uid:2: reader\nclient:ci: emit:user.x\nci is operator\n"},
		{"client:ci", "operator", "", "uid:2: reader\nci is operator\n"},
		{"client:ci", "reader", "", "uid:2: reader\nclient:ci: reader\nci is reader\n"},
		{"client:ci", "", "", "uid:2: reader\nci is operator\n"},
	} {
		if err := table.setGrant(step.subject, step.role, strings.Fields(step.allow)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, rolesText(table)); diff != "" {
			t.Errorf("%s gets %q %q (-want +got):\n%s", step.subject, step.role, step.allow, diff)
		}
		policy, err := policyOf(table)
		if err != nil {
			t.Fatal(err)
		}
		role, _ := policy.Decide(security.Caller{Client: "ci"}, security.Ask{})
		if !strings.HasSuffix(step.want, "ci is "+role.String()+"\n") {
			t.Errorf("%s gets %q %q: the policy says %s", step.subject, step.role, step.allow, role)
		}
	}
	if err := table.setGrant("client:cli", "reader", nil); !errors.Is(err, belfry.ErrNotFound) || !strings.Contains(err.Error(), `no client "cli"; did you mean ci?`) {
		t.Errorf("a client that there is not: %v", err)
	}
}

// TestARowThatWasLeftBehindCanBeTakenBack though its client is gone.
func TestARowThatWasLeftBehindCanBeTakenBack(t *testing.T) {
	t.Parallel()
	table := testTable(t)
	table.Roles = []security.Grant{{Subjects: []string{"client:gone"}, Role: "admin"}}
	if err := table.setGrant("client:gone", "", nil); err != nil || len(table.Roles) > 0 {
		t.Errorf("%v, roles %v", err, table.Roles)
	}
}

func TestWhatMeansNothingIsNotGranted(t *testing.T) {
	t.Parallel()
	a := startAgent(t, localNodes(t, 1)[0])
	before := a.members.Table().Generation
	for _, tt := range []struct {
		subject, role, allow string
		is                   error
		want                 string
	}{
		{"uid:1000", "operater", "", belfry.ErrUsage, `unknown role "operater"; did you mean operator?`},
		{"uid:1000", "king", "", belfry.ErrUsage, `unknown role "king"; one of reader, witness, operator, admin`},
		{"uid:1000", "none", "", belfry.ErrUsage, `unknown role "none"; one of reader, witness, operator, admin`},
		{"uid:1000", "", "observe:proces.exit", belfry.ErrUsage, `allow "observe:proces.exit": unknown class "proces.exit"; did you mean process.exit?`},
		{"uid:1000", "", "observe:proces.*@own", belfry.ErrUsage, `allow "observe:proces.*@own": no class begins with proces.; belfry event types lists all`},
		{"uid:1000", "", "emit:node.state", belfry.ErrUsage, `allow "emit:node.state": only events below user are for users to send; observe:CLASS, observe:CLASS@own or emit:user.NAME, where CLASS may be like process.*`},
		{"uid:root", "reader", "", belfry.ErrUsage, `"uid:root" is no user; write uid:NUMBER`},
		{"gid:100", "reader", "", belfry.ErrUsage, `subject "gid:100"; uid:NUMBER, group:NAME or client:NAME`},
		{"", "", "", belfry.ErrUsage, `subject ""; uid:NUMBER, group:NAME or client:NAME`},
		{"client:locl", "reader", "", belfry.ErrNotFound, `no client "locl"; did you mean local?`},
		{"uid:1000", "", "", belfry.ErrNotFound, "uid:1000 has nothing beyond the defaults; belfry role list shows who has"},
	} {
		var allow []string
		if tt.allow != "" {
			allow = []string{tt.allow}
		}
		for _, dry := range []bool{true, false} {
			if _, err := a.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: tt.subject, Role: tt.role, Allow: allow, DryRun: dry}); !errors.Is(err, tt.is) || !strings.HasSuffix(err.Error(), ": "+tt.want) {
				t.Errorf("%s gets %q %q: %v\nwant %s", tt.subject, tt.role, tt.allow, err, tt.want)
			}
		}
	}
	if got := a.members.Table().Generation; got != before {
		t.Errorf("generation %d; want %d still", got, before)
	}
	for _, allow := range []string{"observe:process.exit", "observe:process.*@own", "observe:user.*", "observe:user.backup.*", "observe:user.backup", "emit:user.*"} {
		if got, err := a.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: "uid:1000", Allow: []string{allow, allow}}); err != nil || !got.GetChanged() {
			t.Errorf("%s: %v, %v; want it granted", allow, got, err)
		}
		if got, err := a.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: "uid:1000", Allow: []string{allow}}); err != nil || got.GetChanged() || len(got.GetBefore()) != 1 {
			t.Errorf("%s again: %v, %v; want no change", allow, got, err)
		}
	}
}

// TestRootStaysAdministrator whatever is given and taken: nobody can lock out
// the last one.
func TestRootStaysAdministrator(t *testing.T) {
	t.Parallel()
	a := startAgent(t, localNodes(t, 1)[0])
	root := api.Subject{UID: 0, Role: security.LocalRole(0, nil, 4711, security.Groups{})}
	own := api.Subject{UID: 4711, Role: security.LocalRole(4711, nil, 4711, security.Groups{})}
	check := func(after string) {
		t.Helper()
		for _, s := range []api.Subject{root, own} {
			if role, ok := a.decide(s, api.Ask{Right: belfry.RightOwn}); !ok || role != belfry.RoleAdmin {
				t.Errorf("%s after %s: %s, %t", s, after, role, ok)
			}
		}
	}
	for _, subject := range []string{"uid:0", "uid:4711", "group:root", "client:" + LocalClient} {
		for _, role := range []string{"reader", ""} {
			if _, err := a.SetGrant(t.Context(), &belfryv1.SetGrantRequest{Subject: subject, Role: role}); err != nil {
				t.Fatal(err)
			}
			check(subject + " got " + role)
		}
	}
	if _, err := a.RemoveClient(t.Context(), LocalClient, false, false); err != nil {
		t.Fatal(err)
	}
	check("the last client was removed")
}
