package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// A Subject is who calls. It is found out once, when the connection is
// accepted, and never taken from a request.
type Subject struct {
	UID    uint32            // of a local process; without meaning if Client is set
	PID    int32             // of a local process, for listings only: numbers are used again
	Client string            // name in the client certificate or of the web token; empty: a local process
	Key    [sha256.Size]byte // of the public key in the client certificate; zero: there is none
	Member string            // name of the member that asks, as it has judged its own caller; empty: none
	Groups []uint32          // of a local process, sorted
	Web    bool              // let in by the web listener's token: it has Role and nothing else

	// Role is what the subject is whatever the configuration says; what that adds
	// is known to [Options.Decide].
	Role belfry.Role
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
	right belfry.Right

	// parts says that what the method does is judged part by part, by the class
	// of each: at the entry it is only asked whether any may be granted.
	parts bool
}

// rights are the rules by method. A method that is not in it is refused: a new
// one has to be placed first.
var rights = map[string]rule{
	belfryv1.EventService_Subscribe_FullMethodName:    {belfry.RightObserve, true},
	belfryv1.EventService_Watch_FullMethodName:        {belfry.RightObserve, true},
	belfryv1.EventService_ListEvents_FullMethodName:   {belfry.RightObserve, true},
	belfryv1.EventService_ListEntries_FullMethodName:  {belfry.RightObserve, false},
	belfryv1.EventService_ListClasses_FullMethodName:  {belfry.RightObserve, true}, // who may observe anything has to know its name
	belfryv1.EventService_SendEvent_FullMethodName:    {belfry.RightOperate, true},
	belfryv1.EventService_SendEvents_FullMethodName:   {belfry.RightOperate, true},
	belfryv1.NodeService_GetStatus_FullMethodName:     {belfry.RightObserve, false},
	belfryv1.NodeService_ListNodes_FullMethodName:     {belfry.RightObserve, false},
	belfryv1.NodeService_GetNode_FullMethodName:       {belfry.RightObserve, false},
	belfryv1.NodeService_StopNode_FullMethodName:      {belfry.RightOperate, false},
	belfryv1.NodeService_StartNode_FullMethodName:     {belfry.RightOperate, false},
	belfryv1.LinkService_ListLinks_FullMethodName:     {belfry.RightObserve, false},
	belfryv1.LinkService_GetLinkMatrix_FullMethodName: {belfry.RightObserve, false},
	belfryv1.LinkService_WatchLinks_FullMethodName:    {belfry.RightObserve, false},
	belfryv1.ConfigService_GetConfig_FullMethodName:   {belfry.RightConfigure, false}, // without secrets
	belfryv1.ConfigService_SetConfig_FullMethodName:   {belfry.RightConfigure, false}, // of the section tunables

	// What these change are the operator's sections only: a text has no others, and a
	// rollback brings no others back.
	belfryv1.ConfigService_PlanConfig_FullMethodName:      {belfry.RightConfigure, false},
	belfryv1.ConfigService_ApplyConfig_FullMethodName:     {belfry.RightConfigure, false},
	belfryv1.ConfigService_ConfirmConfig_FullMethodName:   {belfry.RightConfigure, false},
	belfryv1.ConfigService_RollbackConfig_FullMethodName:  {belfry.RightConfigure, false},
	belfryv1.ConfigService_DiffConfig_FullMethodName:      {belfry.RightConfigure, false},
	belfryv1.ConfigService_ListGenerations_FullMethodName: {belfry.RightConfigure, false},
	belfryv1.ConfigService_MoveRepository_FullMethodName:  {belfry.RightOwn, false},

	belfryv1.HandlerService_ListHandlers_FullMethodName: {belfry.RightObserve, false},
	belfryv1.HandlerService_ListRuns_FullMethodName:     {belfry.RightOperate, false}, // the output of commands may be anything
	belfryv1.HandlerService_TestHandler_FullMethodName:  {belfry.RightOperate, false},
	belfryv1.HandlerService_RetryRun_FullMethodName:     {belfry.RightOperate, false},
	belfryv1.HandlerService_ReplayEvents_FullMethodName: {belfry.RightOperate, false},

	belfryv1.MemberService_CreateToken_FullMethodName:  {belfry.RightAdmit, false},
	belfryv1.MemberService_ListTokens_FullMethodName:   {belfry.RightAdmit, false},
	belfryv1.MemberService_RevokeToken_FullMethodName:  {belfry.RightAdmit, false},
	belfryv1.MemberService_RemoveNode_FullMethodName:   {belfry.RightAdmit, false},
	belfryv1.MemberService_ListClients_FullMethodName:  {belfry.RightAdmit, false},
	belfryv1.MemberService_RemoveClient_FullMethodName: {belfry.RightAdmit, false},
	belfryv1.MemberService_ListGrants_FullMethodName:   {belfry.RightOwn, false},
	belfryv1.MemberService_SetGrant_FullMethodName:     {belfry.RightOwn, false},
	belfryv1.MemberService_RotateCA_FullMethodName:     {belfry.RightAdmit, false},

	// A program that a license protects reads its file, and may be any local user's.
	belfryv1.LicenseService_GetLicense_FullMethodName:     {belfry.RightObserve, false},
	belfryv1.LicenseService_WatchLicense_FullMethodName:   {belfry.RightObserve, false},
	belfryv1.LicenseService_ListLicenses_FullMethodName:   {belfry.RightObserve, false},
	belfryv1.LicenseService_UnlockLicense_FullMethodName:  {belfry.RightLicense, false},
	belfryv1.LicenseService_RemoveLicense_FullMethodName:  {belfry.RightLicense, false},
	belfryv1.LicenseService_RevokeLicenses_FullMethodName: {belfry.RightLicense, false},
	belfryv1.LicenseService_AddIssuer_FullMethodName:      {belfry.RightLicense, false},
	belfryv1.LicenseService_RemoveIssuer_FullMethodName:   {belfry.RightLicense, false},
	belfryv1.LicenseService_ListIssuers_FullMethodName:    {belfry.RightLicense, false},

	belfryv1.WitnessService_GetNodeInformation_FullMethodName: {belfry.RightRegisterWitness, false},
	belfryv1.WitnessService_RegisterClient_FullMethodName:     {belfry.RightRegisterWitness, false},
	belfryv1.WitnessService_UnregisterClient_FullMethodName:   {belfry.RightRegisterWitness, false},
	belfryv1.WitnessService_WaitChanges_FullMethodName:        {belfry.RightRegisterWitness, false},
	belfryv1.WitnessService_WatchChanges_FullMethodName:       {belfry.RightRegisterWitness, false},
	belfryv1.WitnessService_ListWitness_FullMethodName:        {belfry.RightObserve, false},
	belfryv1.WitnessService_MoveClients_FullMethodName:        {belfry.RightOperate, false},
	belfryv1.WitnessService_DrainNode_FullMethodName:          {belfry.RightOperate, false},
	belfryv1.WitnessService_EndRegistrations_FullMethodName:   {belfry.RightOperate, false},
	belfryv1.WitnessService_SetResource_FullMethodName:        {belfry.RightOperate, false},
	belfryv1.WitnessService_ListDeclared_FullMethodName:       {belfry.RightObserve, false},

	// They change sections of the configuration, as config apply does.
	belfryv1.WitnessService_DeclareResource_FullMethodName:  {belfry.RightConfigure, false},
	belfryv1.WitnessService_WithdrawResource_FullMethodName: {belfry.RightConfigure, false},
	belfryv1.WitnessService_SetZone_FullMethodName:          {belfry.RightConfigure, false},
}

// An Ask is one part of a request, as [Options.Decide] judges it.
type Ask struct {
	Right  belfry.Right
	Class  string // of an event to observe or emit, or a pattern over classes; empty: no event is concerned
	Own    bool   // the event's subject is known to be the caller's own
	Remote bool   // it is observed on other nodes, where uids mean nothing
	Entry  bool   // whether any part of this right may be granted at all; the parts are asked for later
}

// judge says whether a subject may call a method; target is for the audit log.
func (s *Server) judge(subject Subject, method, target string) error {
	rule, known := rights[method]
	op := operation(method)
	if !known {
		return s.deny(subject, op, target, &belfry.Error{Op: op, Err: fmt.Errorf("%w: no role may call %s", belfry.ErrPermission, method)})
	}
	ask := Ask{Right: rule.right, Entry: rule.parts}
	role, ok := s.opts.Decide(subject, ask)
	if ok {
		return nil
	}
	subject.Role = role
	return s.deny(subject, op, target, &belfry.Error{Op: op, Err: refusal(subject, "it takes "+s.least(ask).String())})
}

// least is the least powerful role that would do.
func (s *Server) least(ask Ask) belfry.Role {
	role := belfry.RoleReader
	for role < belfry.RoleAdmin {
		if _, ok := s.opts.Decide(Subject{Web: true, Role: role}, ask); ok {
			break
		}
		role++
	}
	return role
}

// refusal says what the subject is, and what it would take.
func refusal(s Subject, takes string) error {
	if s.Role == belfry.RoleNone {
		return fmt.Errorf("%w: %s has no role at this agent; ask its administrator for one", belfry.ErrPermission, s)
	}
	return fmt.Errorf("%w: %s is %s here; %s", belfry.ErrPermission, s, s.Role, takes)
}

// operation is the name of a method in errors: "event.send" would be prettier
// than "SendEvent", but this one can be looked up.
func operation(method string) string {
	return method[strings.LastIndexByte(method, '/')+1:]
}

// judgeClass says whether a subject may make a registration. Whose the event's
// subject is, is asked only of those who may observe no other.
func (s *Server) judgeClass(subject Subject, r belfry.Registration) error {
	ask := Ask{Right: belfry.RightObserve, Class: r.Class, Remote: r.Scope == belfry.ScopeCluster}
	role, ok := s.opts.Decide(subject, ask)
	if ok || s.ownOnly(subject, r) && s.opts.Owns(subject, r.Class, r.Subject) {
		return nil
	}
	subject.Role = role
	takes := fmt.Sprintf("to observe %s takes %s, or a grant", r.Class, belfry.RoleOperator)
	ask.Own = true
	if _, own := s.opts.Decide(subject, ask); own {
		takes += ", unless it is its own, and that can not be told"
	}
	err := refusal(subject, takes)
	return s.deny(subject, opRegister, "", &belfry.Error{Op: opRegister, Subject: selector(r), Err: err})
}

// judgeSend says whether a subject may send an event of a class.
func (s *Server) judgeSend(subject Subject, req *belfryv1.SendEventRequest) error {
	class := req.GetClass()
	role, ok := s.opts.Decide(subject, Ask{Right: belfry.RightOperate, Class: class})
	if ok {
		return nil
	}
	subject.Role = role
	err := refusal(subject, fmt.Sprintf("to send %s takes %s, or a grant", class, belfry.RoleOperator))
	return s.deny(subject, opSend, "", sendError(req, err))
}

// subjectKey is the key of the Subject in a context.
type subjectKey struct{}

func withSubject(ctx context.Context, s Subject) context.Context {
	return context.WithValue(ctx, subjectKey{}, s)
}

// Asker names who asked for what a context is about; empty: nobody did, as for
// what an agent does by itself.
func Asker(ctx context.Context) string {
	s, ok := ctx.Value(subjectKey{}).(Subject)
	if !ok {
		return ""
	}
	return s.String()
}

// subjectFrom is the zero Subject, which may nothing, where nobody was
// identified.
func subjectFrom(ctx context.Context) Subject {
	s, _ := ctx.Value(subjectKey{}).(Subject)
	return s
}
