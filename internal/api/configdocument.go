package api

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/api/configview"
	"github.com/belfry-ha/belfry/internal/repository"
)

// ConfigDocuments is the configuration of the cluster as one document, of which
// each change is a generation. It is safe for concurrent use; the errors wrap
// sentinels. What it returns is the caller's to read, and nobody's to write.
type ConfigDocuments interface {
	// Document is the newest one that is in force at this node. It does not wait.
	Document() (repository.Document, error)
	// Past is a generation that is kept here, the one in force among them.
	// ErrNotFound: it is not, and the error names the oldest one that is. It reads
	// a file at most.
	Past(generation uint64) (repository.Document, error)
	// Kept tells whether Past has a generation. It does not wait.
	Kept(generation uint64) bool
	// Tunables is what is known of the section tunables.
	Tunables() configview.Tunables
	// CommitConfig makes a change of the newest document there is (linearizable),
	// by [configview.Change.Next], and commits what it makes. It is called on the
	// node that makes changes. The change may be made several times, since another
	// one may come first; each error of its own ends it. It returns when all members
	// that are up have the change in force; after 2 s when it is replicated; else
	// stored, after 5 s, or in time before ctx ends.
	//
	// ErrConflict, ErrRestricted: nothing was changed; ErrUnknown: it may have been.
	CommitConfig(ctx context.Context, change configview.Change, author string) (ConfigCommitted, error)
}

// ConfigCommitted says what a change came to.
type ConfigCommitted struct {
	Changed    bool                // false: it was so already, and Before is After
	Before     repository.Document // that the change was made of
	After      repository.Document // in force
	Replicated bool                // a majority of the members has it on disk too
	InForce    []string            // names of the members that have it in force, sorted
}

// documents are those of the options, or ErrUnsupported.
func (s *Server) documents() (ConfigDocuments, error) {
	if s.opts.Documents == nil {
		return nil, fmt.Errorf("%w: this cluster has no repository, only the settings of belfry config get and set", belfry.ErrUnsupported)
	}
	return s.opts.Documents, nil
}

// text is the YAML of a path, and the generation that it is of.
func (s *Server) text(req *belfryv1.GetConfigRequest, resp *belfryv1.GetConfigResponse) error {
	documents, err := s.documents()
	if err != nil {
		return err
	}
	d, err := documents.Document()
	if err != nil {
		return err
	}
	resp.Generation, resp.Confirmation = d.Generation(), confirmationOf(d)
	text := []byte(nil)
	switch {
	case req.GetAll() && req.GetPath() != "":
		return fmt.Errorf("%w: all is of the whole configuration; leave the path %s out", belfry.ErrUsage, req.GetPath())
	case req.GetAll():
		text = configview.RenderAll(d)
	case req.GetPath() == "":
		text = configview.Render(d, documents.Tunables())
	case !isValue(req.GetPath()):
		text, err = configview.RenderSection(d, documents.Tunables(), req.GetPath())
	}
	if err == nil && len(text) > maxConfigText {
		err = fmt.Errorf("%w: %d bytes of text, of which an answer has %d at most; ask for one section", belfry.ErrLimit, len(text), maxConfigText)
	}
	if err == nil {
		resp.Text = string(text)
	}
	return err
}

// maxConfigText leaves room for the rest of the answer, in bytes.
const maxConfigText = maxResponse - 64<<10

// isSetting tells whether a path is of a tunable, of which more is known.
func isSetting(path string) bool { return strings.HasPrefix(path, "tunables.") }

// isValue tells whether a path leads into a section.
func isValue(path string) bool { return strings.ContainsAny(path, ".[") }

// value is one value of the document in force.
func (s *Server) value(path string) ([]*belfryv1.Setting, error) {
	documents, err := s.documents()
	if err != nil {
		return nil, err
	}
	d, err := documents.Document()
	if err != nil {
		return nil, err
	}
	v, err := configview.Get(d, documents.Tunables(), path)
	return []*belfryv1.Setting{settingOfValue(v)}, err
}

func settingOfValue(v configview.Value) *belfryv1.Setting {
	return &belfryv1.Setting{Path: v.Path, Value: v.Text, Default: v.Default, Range: v.Wants, Set: v.Written}
}

// setValue writes one value of the document that is no tunable.
func (s *Server) setValue(ctx context.Context, req *belfryv1.SetConfigRequest) (*belfryv1.SetConfigResponse, error) {
	const op = "SetConfig"
	known := s.opts.Documents.Tunables()
	change := configview.Set(req.GetPath(), req.GetValue(), known)
	var done ConfigCommitted
	var err error
	if req.GetDryRun() {
		done.Before, done.After, done.Changed, err = s.preview(ctx, s.opts.Documents, change)
	} else {
		done, err = s.opts.Documents.CommitConfig(ctx, change, req.GetAuthor())
	}
	var before, after configview.Value
	if err == nil {
		before, err = configview.Get(done.Before, known, req.GetPath())
	}
	if err == nil {
		after, err = configview.Get(done.After, known, req.GetPath())
	}
	if err != nil {
		return nil, &belfry.Error{Op: op, Subject: req.GetPath(), Err: err}
	}
	resp := &belfryv1.SetConfigResponse{Setting: settingOfValue(after), Before: before.Text, Generation: done.Before.Generation(), Changed: done.Changed}
	if done.Changed && !req.GetDryRun() {
		resp.Generation, resp.Unconfirmed = done.After.Generation(), s.missing(done)
		s.audit(ctx, op, req.GetPath(), resp.Generation, "before", before.Text, "value", after.Text)
	}
	return resp, nil
}

// hasSettings tells whether values are at or below a path.
func hasSettings(path string) bool { return path == "" || path == "tunables" || isSetting(path) }

// PlanConfig answers from memory.
func (c *configService) PlanConfig(ctx context.Context, req *belfryv1.PlanConfigRequest) (*belfryv1.PlanConfigResponse, error) {
	resp, err := c.s.planConfig(ctx, req)
	if err != nil {
		return nil, &belfry.Error{Op: "PlanConfig", Err: err}
	}
	return resp, nil
}

func (s *Server) planConfig(ctx context.Context, req *belfryv1.PlanConfigRequest) (*belfryv1.PlanConfigResponse, error) {
	documents, err := s.documents()
	if err != nil {
		return nil, err
	}
	change, err := s.apply(documents, req.GetName(), req.GetText(), req.GetBase(), 0)
	if err != nil {
		return nil, err
	}
	base, next, changed, err := s.preview(ctx, documents, change)
	if err != nil {
		return nil, err
	}
	resp := &belfryv1.PlanConfigResponse{Generation: base.Generation(), Effects: effectsOf(configview.Plan(base, next, documents.Tunables())), Nodes: uint32(len(next.Nodes))}
	if changed {
		resp.Next = next.Generation()
	}
	return resp, nil
}

// apply reads a text, and makes the change of it.
func (s *Server) apply(documents ConfigDocuments, name, text string, base uint64, confirm time.Duration) (configview.Change, error) {
	if name == "" {
		name = "text"
	}
	read, err := configview.Read(name, []byte(text))
	if err != nil {
		return configview.Change{}, err
	}
	return configview.Apply(read, base, confirm, documents.Tunables())
}

// preview is the document that a change would make of the one in force here,
// without what only tells of the change itself.
func (s *Server) preview(ctx context.Context, documents ConfigDocuments, change configview.Change) (base, next repository.Document, changed bool, err error) {
	if base, err = documents.Document(); err != nil {
		return base, next, false, err
	}
	e := repository.Entry{Time: time.Now().UTC(), Author: s.author(ctx)}
	next, changed, err = change.Next(base, e, documents.Tunables())
	return base, next, changed, err
}

// maxAuthor is the limit of an author in the history, in bytes.
const maxAuthor = 256

// author is who asks for a change, and where. It takes the place of whatever a
// request says before it is passed on to the node that makes changes; there it
// is taken from the request, which only a member can send.
func (s *Server) author(ctx context.Context) string {
	view := s.opts.Cluster.View()
	author := subjectFrom(ctx).String() + " on " + nodeName(view, view.Self)
	return strings.ToValidUTF8(author[:min(len(author), maxAuthor)], "")
}

// ApplyConfig returns when the change is replicated, or after 5 s.
func (c *configService) ApplyConfig(ctx context.Context, req *belfryv1.ApplyConfigRequest) (*belfryv1.ApplyConfigResponse, error) {
	req.Author = c.s.author(ctx)
	return led(ctx, c.s, belfryv1.ConfigService_ApplyConfig_FullMethodName, req, c.s.applyConfig)
}

func (s *Server) applyConfig(ctx context.Context, req *belfryv1.ApplyConfigRequest) (*belfryv1.ApplyConfigResponse, error) {
	done, err := s.commitConfig(ctx, "ApplyConfig", req.GetName(), req.GetAuthor(), func(documents ConfigDocuments) (configview.Change, error) {
		change, err := s.apply(documents, req.GetName(), req.GetText(), req.GetBase(), req.GetConfirm().AsDuration())
		if err != nil {
			return change, err
		}
		return change.Because(req.GetWhy())
	})
	if err != nil {
		return nil, err
	}
	return &belfryv1.ApplyConfigResponse{
		Generation: done.After.Generation(), Changed: done.Changed, Replicated: done.Replicated, Nodes: done.InForce, Confirmation: confirmationOf(done.After),
		Effects: effectsOf(s.changes(done)), Members: uint32(len(done.After.Nodes)), Unconfirmed: s.missing(done),
	}, nil
}

// ConfirmConfig likewise.
func (c *configService) ConfirmConfig(ctx context.Context, req *belfryv1.ConfirmConfigRequest) (*belfryv1.ConfirmConfigResponse, error) {
	req.Author = c.s.author(ctx)
	return led(ctx, c.s, belfryv1.ConfigService_ConfirmConfig_FullMethodName, req, c.s.confirmConfig)
}

func (s *Server) confirmConfig(ctx context.Context, req *belfryv1.ConfirmConfigRequest) (*belfryv1.ConfirmConfigResponse, error) {
	done, err := s.commitConfig(ctx, "ConfirmConfig", generationText(req.GetGeneration()), req.GetAuthor(), func(ConfigDocuments) (configview.Change, error) {
		return configview.Confirm(req.GetGeneration()), nil
	})
	if err != nil {
		return nil, err
	}
	return &belfryv1.ConfirmConfigResponse{
		Generation: done.After.Generation(), Changed: done.Changed, Replicated: done.Replicated, Nodes: done.InForce,
		Confirmed: confirmationOf(done.Before).GetGeneration(), Members: uint32(len(done.After.Nodes)), Unconfirmed: s.missing(done),
	}, nil
}

// RollbackConfig likewise; with dry_run it answers from memory.
func (c *configService) RollbackConfig(ctx context.Context, req *belfryv1.RollbackConfigRequest) (*belfryv1.RollbackConfigResponse, error) {
	if req.GetDryRun() {
		resp, err := c.s.planRollback(ctx, req)
		if err != nil {
			return nil, &belfry.Error{Op: "RollbackConfig", Err: err}
		}
		return resp, nil
	}
	req.Author = c.s.author(ctx)
	return led(ctx, c.s, belfryv1.ConfigService_RollbackConfig_FullMethodName, req, c.s.rollbackConfig)
}

func (s *Server) planRollback(ctx context.Context, req *belfryv1.RollbackConfigRequest) (*belfryv1.RollbackConfigResponse, error) {
	documents, err := s.documents()
	if err != nil {
		return nil, err
	}
	past, err := documents.Past(req.GetGeneration())
	if err != nil {
		return nil, err
	}
	base, next, changed, err := s.preview(ctx, documents, configview.Rollback(past))
	if err != nil {
		return nil, err
	}
	return &belfryv1.RollbackConfigResponse{
		Generation: base.Generation(), Changed: changed, Effects: effectsOf(configview.Plan(base, next, documents.Tunables())), Members: uint32(len(next.Nodes)),
	}, nil
}

func (s *Server) rollbackConfig(ctx context.Context, req *belfryv1.RollbackConfigRequest) (*belfryv1.RollbackConfigResponse, error) {
	done, err := s.commitConfig(ctx, "RollbackConfig", generationText(req.GetGeneration()), req.GetAuthor(), func(documents ConfigDocuments) (configview.Change, error) {
		past, err := documents.Past(req.GetGeneration())
		if err != nil {
			return configview.Change{}, err
		}
		return configview.Rollback(past).Because(req.GetWhy())
	})
	if err != nil {
		return nil, err
	}
	return &belfryv1.RollbackConfigResponse{
		Generation: done.After.Generation(), Changed: done.Changed, Replicated: done.Replicated, Nodes: done.InForce,
		Effects: effectsOf(s.changes(done)), Members: uint32(len(done.After.Nodes)), Unconfirmed: s.missing(done),
	}, nil
}

// commitConfig makes a change, and keeps who did.
func (s *Server) commitConfig(ctx context.Context, op, target, author string, of func(ConfigDocuments) (configview.Change, error)) (done ConfigCommitted, err error) {
	documents, err := s.documents()
	var change configview.Change
	if err == nil {
		change, err = of(documents)
	}
	if err == nil {
		done, err = documents.CommitConfig(ctx, change, author)
	}
	if err != nil {
		return done, &belfry.Error{Op: op, Err: err}
	}
	if done.Changed {
		s.audit(ctx, op, target, done.After.Generation())
	}
	return done, nil
}

// changes are what a commit changed.
func (s *Server) changes(done ConfigCommitted) []configview.Effect {
	return configview.Plan(done.Before, done.After, s.opts.Documents.Tunables())
}

// missing are the members that are up and did not confirm.
func (s *Server) missing(done ConfigCommitted) []string {
	return s.unconfirmed(Changed{Changed: done.Changed, Generation: done.After.Generation()})
}

// generationText names a generation in the audit log; empty: none was named.
func generationText(generation uint64) string {
	if generation == 0 {
		return ""
	}
	return fmt.Sprint(generation)
}

// DiffConfig answers from this node's own copies.
func (c *configService) DiffConfig(_ context.Context, req *belfryv1.DiffConfigRequest) (*belfryv1.DiffConfigResponse, error) {
	resp, err := c.s.diffConfig(req)
	if err != nil {
		return nil, &belfry.Error{Op: "DiffConfig", Err: err}
	}
	return resp, nil
}

func (s *Server) diffConfig(req *belfryv1.DiffConfigRequest) (*belfryv1.DiffConfigResponse, error) {
	documents, err := s.documents()
	if err != nil {
		return nil, err
	}
	from, err := documents.Past(req.GetFrom())
	if err != nil {
		return nil, err
	}
	to, err := documents.Document()
	if req.GetTo() != 0 {
		to, err = documents.Past(req.GetTo())
	}
	if err != nil {
		return nil, err
	}
	return &belfryv1.DiffConfigResponse{
		From: from.Generation(), To: to.Generation(), Effects: effectsOf(configview.Plan(from, to, documents.Tunables())), Nodes: uint32(max(len(from.Nodes), len(to.Nodes))),
	}, nil
}

// ListGenerations answers from the history of the document in force.
func (c *configService) ListGenerations(_ context.Context, req *belfryv1.ListGenerationsRequest) (*belfryv1.ListGenerationsResponse, error) {
	documents, err := c.s.documents()
	var d repository.Document
	if err == nil {
		d, err = documents.Document()
	}
	if err != nil {
		return nil, &belfry.Error{Op: "ListGenerations", Err: err}
	}
	resp := &belfryv1.ListGenerationsResponse{Confirmation: confirmationOf(d)}
	for _, e := range slices.Backward(d.History) {
		if n := req.GetLimit(); n > 0 && len(resp.Generations) == int(n) {
			break
		}
		resp.Generations = append(resp.Generations, &belfryv1.Generation{
			Generation: e.Generation, Time: timestamppb.New(e.Time), Author: e.Author, Node: committer(d, e.Node), Text: e.Text, Kept: documents.Kept(e.Generation),
		})
	}
	return resp, nil
}

// committer is the name of a node, or the start of the id of one that is gone.
func committer(d repository.Document, id belfry.NodeID) string {
	if id.IsZero() {
		return ""
	}
	for _, n := range d.Nodes {
		if n.ID == id {
			return n.Name
		}
	}
	return hex.EncodeToString(id[:4])
}

func confirmationOf(d repository.Document) *belfryv1.ConfigConfirmation {
	if d.Confirm == nil {
		return nil
	}
	return &belfryv1.ConfigConfirmation{Generation: d.Confirm.Base + 1, Base: d.Confirm.Base, Deadline: timestamppb.New(d.Confirm.Deadline)}
}

func effectsOf(effects []configview.Effect) (messages []*belfryv1.ConfigEffect) {
	for _, e := range effects {
		messages = append(messages, &belfryv1.ConfigEffect{Section: e.Section, Text: e.Text, Consequence: e.Consequence, Nodes: e.Nodes})
	}
	return messages
}
