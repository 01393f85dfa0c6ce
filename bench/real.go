package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A realPlan is what the real lane does.
type realPlan struct {
	Systems     []system
	Nodes       int
	Repetitions int
	Settle      time.Duration
	Window      time.Duration
	Pause       time.Duration
}

// A realCell is one system in the real lane.
type realCell struct {
	System      string       `json:"system"`
	Nodes       int          `json:"nodes"`
	Date        string       `json:"date"`
	Commit      string       `json:"commit"`
	Repetitions []laneResult `json:"repetitions"`
}

// run lets the systems take turns, A B A B …, so that what disturbs the
// machine disturbs all.
func (p realPlan) run(ctx context.Context, log io.Writer) (_ []realCell, err error) {
	dir, err := os.MkdirTemp("", "belfry-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "belfry")
	if err := buildBelfry(ctx, program); err != nil {
		return nil, err
	}
	e := surroundings(ctx)
	cells := make([]realCell, len(p.Systems))
	for i, s := range p.Systems {
		cells[i] = realCell{System: s.Name, Nodes: p.Nodes, Date: e.Date, Commit: e.Commit}
	}
	for rep := range p.Repetitions {
		for i, s := range p.Systems {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			fmt.Fprintf(log, "real lane, %d nodes: %s, %d of %d\n", p.Nodes, s.Name, rep+1, p.Repetitions)
			r, err := p.repetition(ctx, program, s)
			if err != nil {
				return nil, fmt.Errorf("%s, repetition %d: %w", s.Name, rep+1, err)
			}
			cells[i].Repetitions = append(cells[i].Repetitions, r)
		}
	}
	return cells, nil
}

func (p realPlan) repetition(ctx context.Context, program string, s system) (r laneResult, err error) {
	lane, err := startRole(laneRole, ownNetwork)
	if err != nil {
		return r, fmt.Errorf("a network namespace: %w; run as root, or allow user namespaces", err)
	}
	defer context.AfterFunc(ctx, lane.interrupt)()
	job := laneJob{System: s.Name, Nodes: p.Nodes, Program: program, Settle: p.Settle, Window: p.Window, Pause: p.Pause}
	if err := lane.ask(job, &r); err != nil {
		return r, err
	}
	if err := lane.end(); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, fmt.Errorf("%s", r.Error)
	}
	return r, nil
}
