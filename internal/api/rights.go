package api

import (
	"context"
	"fmt"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A Role is what a caller may do (security.md, Local rights). Each role may
// do all that the ones before it may, as far as this package's methods go.
type Role uint8

// The roles.
const (
	RoleNone     Role = iota // nothing
	RoleReader               // observe, but for what belongs to other users
	RoleOperator             // observe, send events of users, stop and start nodes, and set tunables
	RoleAdmin                // all
)

var roleNames = []string{"none", "reader", "operator", "admin"}

// String is the word that settings and messages use.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("unknown-%d", uint8(r))
}

// ParseRole reads the form that String writes; ErrUsage for any other.
func ParseRole(s string) (Role, error) {
	for i, name := range roleNames {
		if s == name {
			return Role(i), nil
		}
	}
	return RoleNone, fmt.Errorf("%w: unknown role %q; one of %q", belfry.ErrUsage, s, roleNames)
}

// A Subject is who calls. It is found out once, when the connection is
// accepted, and never taken from a request.
type Subject struct {
	UID    uint32 // of a local process; without meaning if Client is set
	PID    int32  // of a local process, for listings only: numbers are used again
	Client string // name in the client certificate or of the web token; empty: a local process
	Member string // name of the member that asks, as it has judged its own caller; empty: none
	Role   Role
}

// String names the subject in messages and listings.
func (s Subject) String() string {
	if s.Member != "" {
		return "node " + s.Member
	}
	if s.Client != "" {
		return "client " + s.Client
	}
	return fmt.Sprintf("uid %d", s.UID)
}

// same tells whether two connections belong to one owner, who may resume the
// other's consumer.
func (s Subject) same(o Subject) bool { return s.UID == o.UID && s.Client == o.Client }

// A rule is what a method takes.
type rule struct {
	right string // in the words of security.md, Local rights
	role  Role   // the first that has the right
}

// rights are the rules by method. A method that is not in it is refused: a new
// one has to be placed first.
var rights = map[string]rule{
	belfryv1.EventService_Subscribe_FullMethodName:    {"observe", RoleReader}, // and each registration by its class
	belfryv1.EventService_Watch_FullMethodName:        {"observe", RoleReader}, // likewise
	belfryv1.EventService_ListEntries_FullMethodName:  {"observe", RoleReader},
	belfryv1.EventService_ListClasses_FullMethodName:  {"observe", RoleReader},
	belfryv1.EventService_SendEvent_FullMethodName:    {"operate", RoleOperator},
	belfryv1.EventService_SendEvents_FullMethodName:   {"operate", RoleOperator},
	belfryv1.NodeService_GetStatus_FullMethodName:     {"observe", RoleReader},
	belfryv1.NodeService_ListNodes_FullMethodName:     {"observe", RoleReader},
	belfryv1.NodeService_GetNode_FullMethodName:       {"observe", RoleReader},
	belfryv1.NodeService_StopNode_FullMethodName:      {"operate", RoleOperator},
	belfryv1.NodeService_StartNode_FullMethodName:     {"operate", RoleOperator},
	belfryv1.LinkService_ListLinks_FullMethodName:     {"observe", RoleReader},
	belfryv1.LinkService_GetLinkMatrix_FullMethodName: {"observe", RoleReader},
	belfryv1.LinkService_WatchLinks_FullMethodName:    {"observe", RoleReader},
	belfryv1.ConfigService_GetConfig_FullMethodName:   {"configure", RoleOperator}, // of the section tunables
	belfryv1.ConfigService_SetConfig_FullMethodName:   {"configure", RoleOperator}, // likewise

	belfryv1.MemberService_CreateToken_FullMethodName: {"admit", RoleAdmin},
	belfryv1.MemberService_ListTokens_FullMethodName:  {"admit", RoleAdmin},
	belfryv1.MemberService_RevokeToken_FullMethodName: {"admit", RoleAdmin},
	belfryv1.MemberService_RemoveNode_FullMethodName:  {"admit", RoleAdmin},
	belfryv1.MemberService_RotateCA_FullMethodName:    {"admit", RoleAdmin},
}

// judge says whether a subject may call a method.
func judge(s Subject, method string) error {
	rule, known := rights[method]
	op, need := operation(method), rule.role
	switch {
	case !known:
		return &belfry.Error{Op: op, Err: fmt.Errorf("%w: no role may call %s", belfry.ErrPermission, method)}
	case s.Role >= need:
		return nil
	case s.Role == RoleNone:
		return &belfry.Error{Op: op, Err: fmt.Errorf("%w: %s has no role at this agent; ask its administrator for one", belfry.ErrPermission, s)}
	default:
		return &belfry.Error{Op: op, Err: fmt.Errorf("%w: %s is %s here; it takes %s", belfry.ErrPermission, s, s.Role, need)}
	}
}

// operation is the name of a method in errors: "event.send" would be prettier
// than "SendEvent", but this one can be looked up.
func operation(method string) string {
	return method[strings.LastIndexByte(method, '/')+1:]
}

// readable are the nouns of the classes that a reader may observe: what the
// cluster says of itself, and what any local user can read from the kernel.
var readable = map[string]bool{
	"node": true, "link": true, "contact": true, "cluster": true, "resource": true, "witness": true,
	"repository": true, "agent": true, "producer": true, "journal": true,
	"filesystem": true, "pressure": true, "cpu": true, "memory": true, "paging": true, "sysctl": true,
	"adapter": true, "address": true, "disk": true, "shared-disk": true, "volume": true,
	"linked-cluster": true, "timer": true,
	"config": true, "license": true,
}

// judgeClass says whether a subject may register for a class. A pattern over
// all classes needs the right to each of them.
func judgeClass(s Subject, r belfry.Registration) error {
	noun, _, _ := strings.Cut(r.Class, ".")
	if s.Role >= RoleOperator || s.Role == RoleReader && readable[noun] {
		return nil
	}
	subject := r.Class
	if r.Subject != "" {
		subject += ":" + r.Subject
	}
	err := fmt.Errorf("%w: %s is %s here; to observe %s takes %s", belfry.ErrPermission, s, s.Role, r.Class, RoleOperator)
	return &belfry.Error{Op: opRegister, Subject: subject, Err: err}
}

// subjectKey is the key of the Subject in a context.
type subjectKey struct{}

func withSubject(ctx context.Context, s Subject) context.Context {
	return context.WithValue(ctx, subjectKey{}, s)
}

// subjectFrom is the zero Subject, which may nothing, where nobody was
// identified.
func subjectFrom(ctx context.Context) Subject {
	s, _ := ctx.Value(subjectKey{}).(Subject)
	return s
}
