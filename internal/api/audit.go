package api

import (
	"context"
	"errors"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// Operations that are one of many in a call.
const (
	opRegister = "register"
	opSend     = "SendEvent"
)

// An AuditRecord is what the agent's audit log is told of an operation
// (security.md, Audit): names only.
type AuditRecord struct {
	Subject    string // who, as [Subject.String] names it; of a guest: its address
	Role       string // empty: nobody looked
	Right      string // that the operation takes; empty: it is judged otherwise
	Operation  string // name of the method
	Target     string
	Generation uint64 // that it made; zero: none
	Denied     error  // why it was refused; nil: it was done
}

// audit keeps and logs who changed what all nodes share. The arguments go into
// the log only.
func (s *Server) audit(ctx context.Context, op, target string, generation uint64, args ...any) {
	caller := subjectFrom(ctx)
	caller.Role, _ = s.opts.Decide(caller, Ask{})
	s.opts.Audit(AuditRecord{
		Subject: caller.String(), Role: caller.Role.String(), Right: rightOf(op), Operation: op, Target: target, Generation: generation,
	})
	fields := []any{"op", op, "subject", target, "by", caller.String(), "pid", caller.PID}
	s.log.Info("changed", append(append(fields, args...), "generation", generation)...)
}

// auditDenied keeps a refusal. The log of the agent has a rate of its own.
func (s *Server) auditDenied(subject Subject, op, target string, err error) {
	r := AuditRecord{Subject: subject.String(), Role: subject.Role.String(), Right: rightOf(op), Operation: op, Target: target, Denied: err}
	if of := (*belfry.Error)(nil); target == "" && errors.As(err, &of) {
		r.Target = of.Subject
	}
	s.opts.Audit(r)
}

// wanted is what a request is about, as its caller names it: of one that is
// denied nobody looks it up.
func wanted(req any) string {
	switch req := req.(type) {
	case *belfryv1.SetGrantRequest:
		return grantText(req)
	case *belfryv1.ConfirmConfigRequest:
		return generationText(req.GetGeneration())
	case *belfryv1.RollbackConfigRequest:
		return generationText(req.GetGeneration())
	case *belfryv1.DeclareResourceRequest:
		return req.GetResource().GetName()
	case interface{ GetPath() string }:
		return req.GetPath()
	case interface{ GetNode() string }:
		return req.GetNode()
	case interface{ GetName() string }:
		return req.GetName()
	case interface{ GetId() string }:
		return req.GetId()
	case interface{ GetHandler() string }:
		return req.GetHandler()
	case interface{ GetLicenseId() string }:
		return req.GetLicenseId()
	case interface{ GetProduct() string }:
		return req.GetProduct()
	}
	return ""
}

// rightOf is the right that an operation takes, empty for what is neither a
// method nor a registration within one.
func rightOf(op string) string {
	if op == opRegister {
		return belfry.RightObserve.String()
	}
	for method, rule := range rights {
		if operation(method) == op {
			return rule.right.String()
		}
	}
	return ""
}
