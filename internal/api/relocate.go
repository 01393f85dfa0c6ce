package api

import (
	"context"
	"fmt"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// Relocator brings the repository elsewhere.
type Relocator interface {
	// Relocate returns when the configuration is at its new place, and in force from
	// there here. ErrUnknown: the move has begun and goes on. It is audited by whoever
	// calls.
	Relocate(ctx context.Context, how Relocation, author string) (Relocated, error)
}

// A RelocationMode says which disks stay.
type RelocationMode string

// The modes.
const (
	RelocateAll     RelocationMode = "move"    // none
	RelocateReplace RelocationMode = "replace" // all but one
	RelocateMirror  RelocationMode = "mirror"  // all
	RelocateSpare   RelocationMode = "spare"   // all; the others are spares
)

// A Relocation is what is wanted. Paths are those of the node that is asked.
type Relocation struct {
	Mode   RelocationMode
	To     []string // block devices or files; or one place in etcd
	From   string   // with RelocateReplace: path or UUID of the disk that goes
	DryRun bool     // look at everything, and write nothing
	Force  bool     // destroy what the new disks hold
}

// Relocated is what came of it.
type Relocated struct {
	Kind       string
	Epoch      uint64
	Generation uint64
	Place      string // in etcd
	Disks      []RelocatedDisk
}

// A RelocatedDisk is one of the next epoch.
type RelocatedDisk struct {
	Path  string
	Disk  string // UUID
	Stays bool   // it was one before
}

// MoveRepository is done by the node that is asked: it is the one that has the paths.
func (c *configService) MoveRepository(ctx context.Context, req *belfryv1.MoveRepositoryRequest) (*belfryv1.MoveRepositoryResponse, error) {
	how := Relocation{Mode: RelocationMode(req.GetMode()), To: req.GetTo(), From: req.GetFrom(), DryRun: req.GetDryRun(), Force: req.GetForce()}
	fail := func(err error) error { return &belfry.Error{Op: "MoveRepository", Err: err} }
	switch how.Mode {
	case RelocateAll, RelocateMirror, RelocateReplace, RelocateSpare:
	default:
		return nil, fail(fmt.Errorf("%w: mode %q; want move, replace, mirror or spare", belfry.ErrUsage, how.Mode))
	}
	if how.Mode != RelocateSpare && (len(how.To) == 0 || (how.From != "") != (how.Mode == RelocateReplace)) {
		return nil, fail(fmt.Errorf("%w: %d new places, from %q; want one new place at least, and the old disk just for replace", belfry.ErrUsage, len(how.To), how.From))
	}
	if c.s.opts.Relocator == nil {
		return nil, fail(fmt.Errorf("%w: this agent has no repository", belfry.ErrUnsupported))
	}
	done, err := c.s.opts.Relocator.Relocate(ctx, how, c.s.author(ctx))
	if !how.DryRun && (err == nil || done.Epoch != 0) {
		c.s.audit(ctx, "MoveRepository", string(how.Mode), done.Generation, "kind", done.Kind, "epoch", fmt.Sprint(done.Epoch))
	}
	if err != nil {
		return nil, fail(err)
	}
	resp := &belfryv1.MoveRepositoryResponse{
		Kind: done.Kind, Epoch: done.Epoch, Generation: done.Generation, Place: done.Place, Unconfirmed: c.s.opts.Leader.Unconfirmed(done.Generation),
	}
	for _, d := range done.Disks {
		resp.Disks = append(resp.Disks, &belfryv1.MovedDisk{Path: d.Path, Disk: d.Disk, Stays: d.Stays})
	}
	return resp, nil
}
