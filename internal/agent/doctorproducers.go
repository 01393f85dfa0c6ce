package agent

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
	"github.com/belfry-ha/belfry/internal/producer"
)

// producersStatus is what the API tells of the producers.
func producersStatus(all []producer.Status) *belfryv1.ProducersStatus {
	s := &belfryv1.ProducersStatus{}
	for _, p := range all {
		t := p.Trouble
		if t == nil {
			if p.Up {
				s.Running++
			}
			continue
		}
		f := &belfryv1.FailingProducer{
			Name: p.Name, Reason: strings.ToValidUTF8(t.Reason, "\uFFFD"), Since: timestamppb.New(t.Since),
			Failures: t.Failures, WatchedTotal: uint32(p.Watches),
		}
		if !t.Next.IsZero() {
			f.Next = timestamppb.New(t.Next)
		}
		for _, w := range t.Watched {
			text := string(w.Class)
			if w.Subject != "" {
				text += ":" + w.Subject
			}
			f.Watched = append(f.Watched, strings.ToValidUTF8(text, "\uFFFD"))
		}
		s.Failing = append(s.Failing, f)
	}
	return s
}

// producers names what watches the operating system and fails.
func (d doctor) producers() findings {
	status, none := d.agentStatus()
	if none != nil {
		return none
	}
	p := status.GetProducers()
	if p == nil {
		return findings{{Level: LevelUnknown, Text: "the agent does not tell; restart it, it is of an older version"}}
	}
	var found findings
	for _, f := range p.GetFailing() {
		found.add(LevelFailure, "%s", d.failing(f))
	}
	return found.orElse("%d run, none fails", p.GetRunning())
}

// failing says of one producer what it does not watch, since when, why, and
// what to do.
func (d doctor) failing(f *belfryv1.FailingProducer) string {
	watched := strings.Join(f.GetWatched(), ", ")
	if more := int(f.GetWatchedTotal()) - len(f.GetWatched()); more > 0 {
		watched += fmt.Sprintf(" and %d more", more)
	}
	since, times := f.GetSince().AsTime(), "once"
	if n := f.GetFailures(); n > 1 {
		times = fmt.Sprintf("%d times", n)
	}
	text := fmt.Sprintf("%s has failed %s since %s, %s ago, and tells nothing of %s: %s",
		f.GetName(), times, since.Format(time.RFC3339), d.now.Sub(since).Round(time.Second), watched, f.GetReason())
	switch {
	case strings.HasPrefix(f.GetReason(), "panic: "):
		text += "; the log of the agent has the place: report it"
	case !strings.Contains(f.GetReason(), "; "): // what would be right follows a semicolon
		text += "; see the log of the agent"
	}
	if f.GetNext() == nil {
		return text + ". It has just been started again"
	}
	return text + fmt.Sprintf(". It is started again by itself, next in %s at most", max(time.Second, f.GetNext().AsTime().Sub(d.now).Round(time.Second)))
}
