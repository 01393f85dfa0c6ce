package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/belfry-ha/belfry/client"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// matrixChangeView is one line of a watch of the matrix in JSON.
type matrixChangeView struct {
	Kind    string          `json:"kind" doc:"state: as it is when it is first shown; change: what --metric shows is another; ended: the two do not watch each other any longer; unanswered: what a node hears is not known; answered: it is again"`
	Time    *instant        `json:"time" doc:"when it was told"`
	Node    string          `json:"node" doc:"who hears"`
	Peer    string          `json:"peer" doc:"who is heard; empty: of kind unanswered and answered"`
	Network string          `json:"network" doc:"name of the network; empty: of kind unanswered and answered"`
	Error   string          `json:"error" doc:"of kind unanswered: its verdict, or why it did not answer; else empty"`
	Before  *matrixCellView `json:"before" doc:"what was told last, every figure; null: nothing"`
	Link    *matrixCellView `json:"link" doc:"what is now, every figure, whatever --metric shows; null: there is nothing"`
}

// A matrixWatcher writes what changes of the matrix, line by line.
type matrixWatcher struct {
	*app
	metric string
	cells  map[matrixKey]*belfryv1.LinkMatrixCell // as they were told last
	silent map[string]string                      // nodes that did not answer, and why
	order  []matrixKey                            // of cells, as they are told
}

type matrixKey struct{ node, peer, network string }

// take writes what an answer changes of what was shown.
func (w *matrixWatcher) take(answer *belfryv1.GetLinkMatrixResponse) error {
	now := time.Now()
	before, silent, order := w.cells, w.silent, w.order
	w.cells, w.silent, w.order = map[matrixKey]*belfryv1.LinkMatrixCell{}, map[string]string{}, nil
	for _, r := range answer.GetRows() {
		why, was := silent[r.GetNode()]
		switch {
		case !r.GetAnswered():
			w.silent[r.GetNode()] = r.GetError()
			if !was || why != r.GetError() {
				w.line(now, matrixChangeView{Kind: "unanswered", Node: r.GetNode(), Error: r.GetError()}, "", "")
			}
		case was:
			w.line(now, matrixChangeView{Kind: "answered", Node: r.GetNode()}, "", "")
		}
		for _, c := range r.GetCells() {
			w.cell(now, matrixKey{r.GetNode(), c.GetPeer(), c.GetNetwork()}, before, c)
		}
	}
	for _, key := range order {
		_, there := w.cells[key]
		if _, unknown := w.silent[key.node]; unknown && !there {
			w.keep(key, before[key]) // as it was, until its node tells
		} else if !there {
			w.line(now, matrixChangeView{Kind: "ended", Node: key.node, Peer: key.peer, Network: key.network, Before: viewOfCell(key.node, before[key])}, w.text(before[key]), "")
		}
	}
	return w.out.flush()
}

func (w *matrixWatcher) keep(key matrixKey, c *belfryv1.LinkMatrixCell) {
	w.cells[key] = c
	w.order = append(w.order, key)
}

// text is what --metric shows of a cell.
func (w *matrixWatcher) text(c *belfryv1.LinkMatrixCell) string {
	if c == nil {
		return ""
	}
	return metrics[w.metric](c).text
}

func (w *matrixWatcher) cell(now time.Time, key matrixKey, before map[matrixKey]*belfryv1.LinkMatrixCell, c *belfryv1.LinkMatrixCell) {
	was, known := before[key]
	if known && w.text(was) == w.text(c) {
		w.keep(key, was)
		return
	}
	w.keep(key, c)
	v := matrixChangeView{Kind: "state", Node: key.node, Peer: key.peer, Network: key.network, Link: viewOfCell(key.node, c)}
	if known {
		v.Kind, v.Before = "change", viewOfCell(key.node, was)
	}
	w.line(now, v, w.text(was), w.text(c))
}

// line writes one change in the form that -o chose, in one line but for yaml; from
// and to are what --metric shows.
func (w *matrixWatcher) line(now time.Time, v matrixChangeView, from, to string) {
	v.Time = jsonTime(now)
	if w.object(v) {
		return
	}
	parts := []string{clock(now)}
	switch v.Kind {
	case "unanswered":
		parts = append(parts, printable(v.Node), v.Kind, printable(v.Error))
	case "answered":
		parts = append(parts, printable(v.Node), v.Kind)
	default:
		parts = append(parts, printable(v.Node+" hears "+v.Peer+"/"+v.Network))
		switch v.Kind {
		case "ended":
			parts = append(parts, v.Kind)
		case "state":
			parts = append(parts, orDash(to))
		default:
			parts = append(parts, orDash(from)+" -> "+orDash(to))
		}
	}
	fmt.Fprintln(w.out, strings.Join(parts, "  "))
}

// orDash is what tables write for nothing.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text)
}

// watchMatrix is link matrix with --watch.
func (a *app) watchMatrix(ctx context.Context, network, metric string) error {
	ctx, cancel := a.stream(ctx)
	defer cancel()
	opening, opened := context.WithTimeout(ctx, defaultTimeout)
	defer opened()
	c, err := a.dial(opening)
	if err != nil {
		return err
	}
	defer c.Close()
	if a.draws() {
		return a.redraw(ctx, nil, func(ctx context.Context) error { return a.linkMatrix(ctx, c, network, metric) })
	}
	return a.pollMatrix(ctx, metric, func(ctx context.Context) (*belfryv1.GetLinkMatrixResponse, error) {
		return a.askMatrix(ctx, c, network)
	})
}

// pollMatrix writes what changes from one answer to the next, until ctx ends.
func (a *app) pollMatrix(ctx context.Context, metric string, ask func(context.Context) (*belfryv1.GetLinkMatrixResponse, error)) error {
	w := &matrixWatcher{app: a, metric: metric}
	for waits := false; ; {
		request, cancel := context.WithTimeout(ctx, lookTime(w.cells == nil))
		answer, err := ask(request)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			waits = false
			if err := w.take(answer); err != nil {
				return err
			}
		case w.cells == nil || !passes(err):
			return err
		case !waits:
			waits = true
			a.sayf("%s; asking again until it answers", a.plain(err))
		}
		if !pause(ctx, watchInterval, nil) {
			return ctx.Err()
		}
	}
}

// askMatrix asks for the matrix, and names the networks there are where there is
// none of that name.
func (a *app) askMatrix(ctx context.Context, c *client.Client, network string) (*belfryv1.GetLinkMatrixResponse, error) {
	answer, err := c.LinkMatrix(ctx, network)
	if err != nil && isNotFound(err) {
		return nil, unknownNetwork(ctx, c, network, err)
	}
	return answer, err
}
