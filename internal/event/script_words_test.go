package event

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/belfry-ha/belfry"
)

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("not a number: %v", err)
	}
	return n
}

// scriptMessage reads one command; % in it is the number of the repetition.
func scriptMessage(t *testing.T, f []string, i int) Message {
	t.Helper()
	args := map[string]string{}
	var words []string
	for _, w := range f[1:] {
		w = strings.ReplaceAll(w, "%", strconv.Itoa(i))
		if k, v, ok := strings.Cut(w, "="); ok && len(k) < 10 && !strings.ContainsAny(k, ":/@") {
			args[k] = v
		} else {
			words = append(words, w)
		}
	}
	num := func(i int) uint64 { return uint64(number(t, words[i])) }
	word := func(i int) string {
		if i < len(words) && words[i] != "-" {
			return words[i]
		}
		return ""
	}
	switch f[0] {
	case "open":
		l := Limits{Window: atoi(args["window"]), BatchNotifications: atoi(args["batch"]), Payload: atoi(args["payload"]), Registrations: atoi(args["most"]), OnePerEvent: word(1) == "single"}
		kind := ConsumerStream
		if word(1) == "journal" {
			kind = ConsumerJournal
		}
		return Open{Consumer: ConsumerID(num(0)), Kind: kind, Name: "c" + words[0], Limits: l}
	case "close":
		return Close{Consumer: ConsumerID(num(0))}
	case "register":
		return Register{Request: RequestID(num(0)*100 + num(1)), Consumer: ConsumerID(num(0)), Number: uint32(num(1)), Registration: scriptRegistration(t, words[2:], args), LookOn: words[2] == "*" && num(0) == 9}
	case "unregister":
		return Unregister{Consumer: ConsumerID(num(0)), Number: uint32(num(1))}
	case "ready":
		return Ready{Consumer: ConsumerID(num(0))}
	case "ack":
		return Ack{Consumer: ConsumerID(num(0)), Batch: num(1)}
	case "lost":
		return Lost{Consumer: ConsumerID(num(0))}
	case "resume":
		return Resume{Consumer: ConsumerID(num(0)), Batch: num(1)}
	case "found":
		return Found{Watch: WatchID(num(0)), Subject: word(1)}
	case "associate":
		return Associate{Entry: EntryID(num(0)), Instance: word(1), Exclusive: word(2) == "exclusive", State: scriptState(args)}
	case "invalidate":
		return Invalidate{Entry: EntryID(num(0)), Instance: word(1)}
	case "end":
		return End{Entry: EntryID(num(0)), Err: scriptError(word(1))}
	case "endwatch":
		return End{Watch: WatchID(num(0)), Err: scriptError(word(1))}
	case "post":
		o := belfry.Occurrence{Code: int32(atoi(args["code"])), Edge: scriptEdge(args["edge"]), Data: []byte(args["data"]), LowerBound: word(2) == "merged"}
		o.Event.Instance = word(1)
		return Post{Entry: EntryID(num(0)), Occurrence: o, Repeat: uint64(atoi(args["x"]))}
	case "sample":
		v, err := strconv.ParseFloat(words[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return Sample{Entry: EntryID(num(0)), Value: v}
	case "send":
		class, subject, _ := strings.Cut(words[0], ":")
		return Send{Request: 1, Events: []Named{{Class: belfry.Class(class), Subject: subject, Repeat: uint64(atoi(args["x"]))}}}
	}
	t.Fatalf("unknown command %q", f[0])
	return nil
}

func scriptState(args map[string]string) *belfry.Occurrence {
	if s, ok := args["state"]; ok {
		return &belfry.Occurrence{Code: int32(atoi(s)), Edge: scriptEdge(args["edge"])}
	}
	return nil
}

func scriptRegistration(t *testing.T, words []string, args map[string]string) belfry.Registration {
	t.Helper()
	class, subject, _ := strings.Cut(words[0], ":")
	if args["subject"] != "" {
		subject = args["subject"]
	}
	r := belfry.Registration{Class: class, Subject: subject, Limit: atoi(args["limit"]), Filter: args["where"]}
	if r.Filter != "" {
		r.Filter = strings.ReplaceAll(r.Filter, "is", "==")
	}
	switch args["edge"] {
	case "failing":
		r.Edge = belfry.EdgeOnlyFailing
	case "recovered":
		r.Edge = belfry.EdgeOnlyRecovered
	}
	for k, set := range map[string]func(float64){
		"over":  func(v float64) { r.Threshold.Hi, r.Threshold.HasHi = v, true },
		"under": func(v float64) { r.Threshold.Lo, r.Threshold.HasLo = v, true },
		"rearm": func(v float64) { r.Threshold.Hysteresis = v },
	} {
		if s, ok := args[k]; ok {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil {
				t.Fatal(err)
			}
			set(v)
		}
	}
	for k, set := range map[string]*time.Duration{"hold": &r.Hold, "interval": &r.MinInterval} {
		if s, ok := args[k]; ok {
			var err error
			if *set, err = time.ParseDuration(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s, ok := args["flap"]; ok {
		var err error
		if r.Flap, err = belfry.ParseFlap(s); err != nil {
			t.Fatal(err)
		}
	}
	if n := args["nodes"]; n != "" {
		for name := range strings.SplitSeq(n, ",") {
			r.Nodes = append(r.Nodes, scriptNode(name))
		}
	}
	for _, w := range words[1:] {
		switch w {
		case "wait":
			r.Wait = true
		case "cluster":
			r.Scope = belfry.ScopeCluster
		case "monitored":
			r.OnlyWhereMonitored = true
		case "snapshot":
			r.Snapshot = true
		case "nofollow":
			r.NoFollow = true
		case "back":
			r.Since.Cursor = belfry.Cursor{Incarnation: 1, Position: 1}
		case "never":
			r.Coalesce = belfry.CoalesceNever
		default:
			t.Fatalf("unknown word %q", w)
		}
	}
	return r
}

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func scriptEdge(s string) belfry.Edge {
	switch s {
	case "failing":
		return belfry.EdgeFailing
	case "recovered":
		return belfry.EdgeRecovered
	}
	return belfry.EdgeNone
}

func scriptError(code string) error {
	if code == "" {
		return nil
	}
	return refusal(belfry.Sentinel(code), "the producer says %s", code)
}

func printOutput(out *bytes.Buffer, prefix string, o *Output) {
	for _, w := range o.Watch {
		fmt.Fprintf(out, "%swatch %d %s", prefix, w.ID, label(w.Class, w.Subject))
		if w.Entry != 0 {
			fmt.Fprintf(out, " entry %d", w.Entry)
		}
		if w.Wait {
			out.WriteString(" wait")
		}
		out.WriteString(thresholdText(w.Threshold) + "\n")
	}
	for _, w := range o.Unwatch {
		fmt.Fprintf(out, "%sunwatch %d\n", prefix, w.ID)
	}
	for _, a := range o.Answers {
		fmt.Fprintf(out, "%sanswer %s\n", prefix, answerText(&a))
	}
	for _, b := range o.Batches {
		fmt.Fprintf(out, "%sbatch %d to %d\n", prefix, b.Number, b.Consumer)
		for _, n := range b.Notifications {
			fmt.Fprintf(out, "%s  r%d %s\n", prefix, n.Registration, noteText(&n))
		}
	}
	for _, r := range o.Refused {
		fmt.Fprintf(out, "%srefused %s: %v\n", prefix, belfry.Code(r.Err), r.Err)
	}
	for _, c := range o.Closed {
		fmt.Fprintf(out, "%sclosed %d\n", prefix, c)
	}
}

func answerText(a *Answer) string {
	s := fmt.Sprintf("%d/%d", a.Consumer, a.Number)
	if a.Consumer == 0 {
		s = fmt.Sprintf("matched %d", a.Sent[0].Matched)
	}
	for _, c := range a.Coverage {
		s += fmt.Sprintf(" %s:%s", string(c.Node[15:]), coverageText(c.State))
	}
	err := a.Err
	if len(a.Sent) > 0 {
		err = a.Sent[0].Err
	}
	if err != nil {
		s += fmt.Sprintf(" %s: %v", belfry.Code(err), err)
	}
	return s
}

func coverageText(s CoverageState) string {
	return [...]string{"pending", "installed", "refused", "unreachable"}[s]
}

func thresholdText(t belfry.Threshold) (s string) {
	if t.HasHi {
		s += fmt.Sprintf(" over %g", t.Hi)
	}
	if t.HasLo {
		s += fmt.Sprintf(" under %g", t.Lo)
	}
	if t.Hysteresis != 0 {
		s += fmt.Sprintf(" rearm %g", t.Hysteresis)
	}
	return s
}

func since(t time.Time) string { return t.Sub(scriptStart).String() }

// noteText is a notification in one line.
func noteText(n *belfry.Notification) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s", n.Kind, n.NodeName)
	if n.Event.Class != "" {
		fmt.Fprintf(&s, " %s", label(n.Event.Class, n.Event.Subject))
	}
	if n.Event.Instance != "" {
		fmt.Fprintf(&s, " (%s)", n.Event.Instance)
	}
	if n.Kind == belfry.KindCoverage {
		s.WriteString(" " + coverageText(CoverageState(n.Code)))
		if n.Reason != "" {
			s.WriteString(": " + n.Reason)
		}
		return s.String()
	}
	fmt.Fprintf(&s, " seq %d", n.First)
	if n.Last != n.First {
		fmt.Fprintf(&s, "-%d", n.Last)
	}
	if n.Count > 0 {
		fmt.Fprintf(&s, " x%d", n.Count)
	}
	if n.Skipped > 0 {
		fmt.Fprintf(&s, " skipped %d", n.Skipped)
	}
	if n.Code != 0 {
		fmt.Fprintf(&s, " code %d", n.Code)
	}
	if n.Edge != belfry.EdgeNone {
		fmt.Fprintf(&s, " %s", n.Edge)
	}
	if n.Value != 0 {
		fmt.Fprintf(&s, " value %g", n.Value)
	}
	if len(n.Data) > 0 {
		fmt.Fprintf(&s, " data %s", n.Data)
	}
	if n.LowerBound {
		s.WriteString(" merged")
	}
	if n.Gap != nil {
		fmt.Fprintf(&s, " x%d %s known=%v resync=%v", n.Gap.Total, n.Gap.Reason, n.Gap.Known, n.Gap.Resync)
	}
	fmt.Fprintf(&s, " at %s", since(n.FirstTime))
	if !n.Time.Equal(n.FirstTime) {
		fmt.Fprintf(&s, "..%s", since(n.Time))
	}
	return s.String()
}

func frameText(f Frame) string {
	var s strings.Builder
	switch f := f.(type) {
	case Interests:
		fmt.Fprintf(&s, "interests v%d base %d", f.Version, f.Base)
		if f.Full {
			s.WriteString(" full")
		}
		for _, i := range f.Add {
			fmt.Fprintf(&s, " +%d %s%s", i.Number, label(belfry.Class(i.Class), i.Subject), thresholdText(i.Threshold))
			if i.OnlyWhereMonitored {
				s.WriteString(" monitored")
			}
			if i.Snapshot {
				s.WriteString(" snapshot")
			}
			if i.Detailed {
				s.WriteString(" detailed")
			}
		}
		for _, n := range f.Remove {
			fmt.Fprintf(&s, " -%d", n)
		}
	case InterestsAck:
		fmt.Fprintf(&s, "interests-ack v%d", f.Version)
		if f.Full {
			s.WriteString(" full")
		}
		for _, r := range f.Refused {
			fmt.Fprintf(&s, " refused %d %s: %v", r.Number, belfry.Code(r.Err), r.Err)
		}
	case Positions:
		fmt.Fprintf(&s, "positions incarnation %d %v", f.Incarnation, f.Positions)
	case PeerBatch:
		fmt.Fprintf(&s, "batch %d", f.Batch.Number)
		for _, n := range f.Batch.Notifications {
			s.WriteString("\n    " + noteText(&n))
		}
	case PeerAck:
		fmt.Fprintf(&s, "ack %d", f.Batch)
	}
	return s.String()
}
