package api

import (
	"context"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

type configService struct {
	belfryv1.UnimplementedConfigServiceServer
	s *Server
}

// GetConfig answers from memory.
func (c *configService) GetConfig(_ context.Context, req *belfryv1.GetConfigRequest) (*belfryv1.GetConfigResponse, error) {
	resp := &belfryv1.GetConfigResponse{}
	var err error
	if c.s.opts.Documents == nil || hasSettings(req.GetPath()) {
		var settings []Setting
		settings, resp.Generation, err = c.s.opts.Config.Settings(req.GetPath())
		for _, setting := range settings {
			resp.Settings = append(resp.Settings, settingOf(setting))
		}
	}
	if err == nil && (c.s.opts.Documents != nil || req.GetAll()) {
		err = c.s.text(req, resp)
	}
	if err == nil && c.s.opts.Documents != nil && isValue(req.GetPath()) && !isSetting(req.GetPath()) {
		resp.Settings, err = c.s.value(req.GetPath())
	}
	if err != nil {
		return nil, &belfry.Error{Op: "GetConfig", Subject: req.GetPath(), Err: err}
	}
	return resp, nil
}

// SetConfig returns when every node that is up has the change.
func (c *configService) SetConfig(ctx context.Context, req *belfryv1.SetConfigRequest) (*belfryv1.SetConfigResponse, error) {
	req.Author = c.s.author(ctx)
	return led(ctx, c.s, belfryv1.ConfigService_SetConfig_FullMethodName, req, c.s.setConfig)
}

func (s *Server) setConfig(ctx context.Context, req *belfryv1.SetConfigRequest) (*belfryv1.SetConfigResponse, error) {
	if s.opts.Documents != nil && !hasSettings(req.GetPath()) {
		return s.setValue(ctx, req)
	}
	before, after, changed, err := s.opts.Config.SetSetting(ctx, req.GetPath(), req.GetValue(), req.GetDryRun())
	if err != nil {
		return nil, &belfry.Error{Op: "SetConfig", Subject: req.GetPath(), Err: err}
	}
	if changed.Changed && !req.GetDryRun() {
		s.audit(ctx, "SetConfig", req.GetPath(), changed.Generation, "before", before.Value, "value", after.Value)
	}
	return &belfryv1.SetConfigResponse{
		Setting: settingOf(after), Before: before.Value, Generation: changed.Generation, Changed: changed.Changed,
		Unconfirmed: s.unconfirmed(changed),
	}, nil
}

// unconfirmed are the members that did not confirm a change; none if nothing changed.
func (s *Server) unconfirmed(c Changed) []string {
	if !c.Changed {
		return nil
	}
	return s.opts.Leader.Unconfirmed(c.Generation)
}

func settingOf(s Setting) *belfryv1.Setting {
	return &belfryv1.Setting{Path: s.Path, Value: s.Value, Default: s.Default, Range: s.Range, Set: s.Set}
}

// StopNode returns when every node that is up has the intent.
func (n *nodeService) StopNode(ctx context.Context, req *belfryv1.StopNodeRequest) (*belfryv1.StopNodeResponse, error) {
	return led(ctx, n.s, belfryv1.NodeService_StopNode_FullMethodName, req, n.s.stopNode)
}

func (s *Server) stopNode(ctx context.Context, req *belfryv1.StopNodeRequest) (*belfryv1.StopNodeResponse, error) {
	id, name, running, changed, err := s.intend(ctx, "StopNode", req.GetNode(), true, req.GetDryRun())
	if err != nil {
		return nil, err
	}
	return &belfryv1.StopNodeResponse{
		NodeId: id.String(), NodeName: name, Changed: changed.Changed, Generation: changed.Generation, Running: uint32(running),
		Unconfirmed: s.unconfirmed(changed),
	}, nil
}

// StartNode returns when every node that is up has the intent.
func (n *nodeService) StartNode(ctx context.Context, req *belfryv1.StartNodeRequest) (*belfryv1.StartNodeResponse, error) {
	return led(ctx, n.s, belfryv1.NodeService_StartNode_FullMethodName, req, n.s.startNode)
}

func (s *Server) startNode(ctx context.Context, req *belfryv1.StartNodeRequest) (*belfryv1.StartNodeResponse, error) {
	id, name, _, changed, err := s.intend(ctx, "StartNode", req.GetNode(), false, req.GetDryRun())
	if err != nil {
		return nil, err
	}
	return &belfryv1.StartNodeResponse{
		NodeId: id.String(), NodeName: name, Changed: changed.Changed, Generation: changed.Generation, Unconfirmed: s.unconfirmed(changed),
	}, nil
}

// intend changes what the configuration wants of a node.
func (s *Server) intend(ctx context.Context, op, node string, stopped, dryRun bool) (id belfry.NodeID, name string, running int, changed Changed, err error) {
	view := s.opts.Cluster.View()
	if id, err = findNode(view, node); err == nil {
		running, changed, err = s.opts.Config.SetStopped(ctx, id, stopped, dryRun)
	}
	if err != nil {
		return id, "", 0, changed, &belfry.Error{Op: op, Subject: node, Err: err}
	}
	name = nodeName(view, id)
	if changed.Changed && !dryRun {
		s.audit(ctx, op, name, changed.Generation)
	}
	return id, name, running, changed, nil
}
