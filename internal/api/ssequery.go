package api

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/belfry-ha/belfry"
	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// parseStream reads the query of a stream into one registration for each
// class. ErrUsage for a field there is not, or a value it can not have.
func parseStream(query url.Values) ([]*belfryv1.Registration, error) {
	fail := func(format string, args ...any) ([]*belfryv1.Registration, error) {
		return nil, &belfry.Error{Op: "stream", Err: fmt.Errorf("%w: "+format, append([]any{belfry.ErrUsage}, args...)...)}
	}
	r := &belfryv1.Registration{Snapshot: true}
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values := query[name]
		if len(values) != 1 && name != "class" && name != "nodes" {
			return fail("%s stands %d times; give it once", name, len(values))
		}
		if err := streamField(r, name, values); err != nil {
			return fail("%s=%s: %w", name, values[0], err)
		}
	}
	classes := query["class"]
	switch {
	case len(classes) == 0:
		return fail("no class; give at least one as class=NAME")
	case len(classes) > maxClasses:
		return fail("%d classes; at most %d on one stream", len(classes), maxClasses)
	case len(classes) > 1 && r.GetSubject() != "":
		return fail("a subject for %d classes; open a stream for each", len(classes))
	}
	all := make([]*belfryv1.Registration, len(classes))
	for i, class := range classes {
		one := &belfryv1.Registration{}
		if err := transfer(one, r); err != nil {
			return nil, err
		}
		one.Class = class
		all[i] = one
	}
	return all, nil
}

func durationField(value string) (*durationpb.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return nil, errNotDuration
	}
	return durationpb.New(d), nil
}

var (
	errNotDuration = errors.New("not a duration; write for example 5s")
	errNotBool     = errors.New("not true or false")
	errNotNumber   = errors.New("not a number")
	errNoField     = errors.New("no such field; event.proto lists those of Registration")
)

// streamField sets one field.
func streamField(r *belfryv1.Registration, name string, values []string) error {
	value := values[0]
	var err error
	flag := func(to *bool) {
		if *to, err = strconv.ParseBool(value); err != nil {
			err = errNotBool
		}
	}
	number := func() *float64 {
		f, parseErr := strconv.ParseFloat(value, 64)
		if parseErr != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			err = errNotNumber
		}
		return &f
	}
	switch name {
	case "class":
	case "subject":
		r.Subject = value
	case "nodes":
		r.Nodes = values
	case "filter":
		r.Filter = value
	case "since":
		var cursor belfry.Cursor
		if t, timeErr := time.Parse(time.RFC3339Nano, value); timeErr == nil {
			r.Since = &belfryv1.Since{Kind: &belfryv1.Since_Time{Time: timestamp(t)}}
		} else if cursor, err = belfry.ParseCursor(value); err == nil {
			r.Since = &belfryv1.Since{Kind: &belfryv1.Since_Cursor{Cursor: cursor.String()}}
		}
	case "scope":
		var scope belfry.Scope
		if scope, err = belfry.ParseScope(value); scope == belfry.ScopeCluster {
			r.Scope = belfryv1.Scope_SCOPE_CLUSTER
		}
	case "edge":
		var edge belfry.EdgeFilter
		edge, err = belfry.ParseEdgeFilter(value)
		r.Edge = belfryv1.EdgeFilter(edge)
	case "only_where_monitored":
		flag(&r.OnlyWhereMonitored)
	case "wait":
		flag(&r.Wait)
	case "no_follow":
		flag(&r.NoFollow)
	case "snapshot":
		flag(&r.Snapshot)
	case "coalesce_never":
		flag(&r.CoalesceNever)
	case "hi":
		r.Hi = number()
	case "lo":
		r.Lo = number()
	case "hysteresis":
		r.Hysteresis = *number()
	case "hold":
		r.Hold, err = durationField(value)
	case "min_interval":
		r.MinInterval, err = durationField(value)
	case "flap":
		var f belfry.Flap
		if f, err = belfry.ParseFlap(value); err == nil {
			r.Flap = &belfryv1.Flap{Window: durationpb.New(f.Window), High: uint32(max(0, f.High)), Low: uint32(max(0, f.Low))}
		}
	case "limit":
		limit, parseErr := strconv.ParseUint(value, 10, 16)
		if r.Limit = uint32(limit); parseErr != nil {
			err = errNotNumber
		}
	default:
		return errNoField
	}
	return err
}
