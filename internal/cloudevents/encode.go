// Package cloudevents writes notifications as CloudEvents 1.0 in JSON, the form
// in which they leave Belfry: `belfry watch -o cloudevents`, server-sent
// events, and what sinks hand to other programs. It also names the fields of a
// notification's data.
package cloudevents

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/belfry-ha/belfry"
)

// data is written by the JSON mapping of protobuf with the field names of the
// .proto files: 64-bit integers are strings in it.
var data = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}

// Append adds n as one CloudEvent, without a line break, to dst (CloudEvents
// 1.0, JSON format; events.md 5). cluster is the name of the cluster.
//
// `id` is INCARNATION-ENTRY-LAST, with the kind behind it for all that is not
// an occurrence, so that (source, id) is unique. `sequence` and
// `firstsequence` have 20 digits, because the sequence extension demands
// lexical order. `occurrences` and `skipped` are strings: the integers of
// CloudEvents have 32 bits. Data that does not decode is left out, with
// `dataunreadable` in its place.
func Append(dst []byte, cluster string, n *belfry.Notification) []byte {
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = appendID(dst, n)
	dst = append(dst, `","source":`...)
	dst = appendSource(dst, cluster, n)
	dst = append(dst, `,"type":"`...)
	dst = appendType(dst, n)
	dst = append(dst, '"')
	if n.Event.Subject != "" {
		dst = append(dst, `,"subject":`...)
		dst = appendString(dst, n.Event.Subject)
	}
	dst = appendTime(dst, "time", n.Time)
	dst = append(dst, `,"kind":"`...)
	dst = append(dst, n.Kind.String()...)
	dst = append(dst, '"')
	dst = appendCounts(dst, n)
	if n.Event.Instance != "" {
		dst = append(dst, `,"instance":`...)
		dst = appendString(dst, n.Event.Instance)
	}
	dst = appendState(dst, n)
	dst = appendData(dst, n)
	return append(dst, '}')
}

func appendID(dst []byte, n *belfry.Notification) []byte {
	if n.Entry == 0 { // about no single event: nothing but registration and time tells it from another
		dst = append(dst, n.Kind.String()...)
		dst = append(dst, '-')
		dst = strconv.AppendUint(dst, uint64(n.Registration), 10)
		dst = append(dst, '-')
		return strconv.AppendInt(dst, n.Time.UnixNano(), 10)
	}
	dst = strconv.AppendUint(dst, uint64(n.Incarnation), 10)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, n.Entry, 10)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, n.Last, 10)
	if n.Kind != belfry.KindOccurrence {
		dst = append(dst, '-')
		dst = append(dst, n.Kind.String()...)
	}
	return dst
}

func appendSource(dst []byte, cluster string, n *belfry.Notification) []byte {
	source := "/clusters/" + url.PathEscape(cluster)
	switch {
	case n.NodeName != "":
		source += "/nodes/" + url.PathEscape(n.NodeName)
	case !n.Node.IsZero():
		source += "/nodes/" + n.Node.String()
	}
	return appendString(dst, source)
}

func appendType(dst []byte, n *belfry.Notification) []byte {
	dst = append(dst, "dev.belfry."...)
	switch n.Kind {
	case belfry.KindGap:
		dst = append(dst, "stream.gap"...)
	case belfry.KindCoverage:
		dst = append(dst, "stream.coverage"...)
	default:
		dst = append(dst, n.Event.Class...)
	}
	return append(dst, ".v1"...)
}

func appendCounts(dst []byte, n *belfry.Notification) []byte {
	if n.Last != 0 {
		dst = append(dst, `,"sequence":"`...)
		dst = appendPadded(dst, n.Last)
		dst = append(dst, `","firstsequence":"`...)
		dst = appendPadded(dst, n.First)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"occurrences":"`...)
	count := n.Count
	if n.Gap != nil {
		count = n.Gap.Total
	}
	dst = strconv.AppendUint(dst, count, 10)
	dst = append(dst, '"')
	if n.Skipped != 0 {
		dst = append(dst, `,"skipped":"`...)
		dst = strconv.AppendUint(dst, n.Skipped, 10)
		dst = append(dst, '"')
	}
	if n.Count > 0 {
		dst = appendTime(dst, "firsttime", n.FirstTime)
	}
	if n.LowerBound {
		dst = append(dst, `,"lowerbound":true`...)
	}
	return dst
}

func appendState(dst []byte, n *belfry.Notification) []byte {
	if n.Code != 0 {
		dst = append(dst, `,"code":`...)
		dst = strconv.AppendInt(dst, int64(n.Code), 10)
	}
	if n.Edge != belfry.EdgeNone {
		dst = append(dst, `,"edge":"`...)
		dst = append(dst, n.Edge.String()...)
		dst = append(dst, '"')
	}
	if n.Value != 0 { // a string: CloudEvents has no fractions
		dst = append(dst, `,"value":"`...)
		dst = strconv.AppendFloat(dst, n.Value, 'g', -1, 64)
		dst = append(dst, '"')
	}
	return dst
}

func appendData(dst []byte, n *belfry.Notification) []byte {
	const head = `,"datacontenttype":"application/json","data":`
	if g := n.Gap; g != nil {
		dst = append(dst, head+`{"total":"`...)
		dst = strconv.AppendUint(dst, g.Total, 10)
		dst = append(dst, `","known":`...)
		dst = strconv.AppendBool(dst, g.Known)
		dst = append(dst, `,"resync":`...)
		dst = strconv.AppendBool(dst, g.Resync)
		dst = append(dst, `,"reason":"`...)
		dst = append(dst, g.Reason.String()...)
		dst = append(dst, '"')
		dst = appendTime(dst, "from", g.From)
		dst = appendTime(dst, "to", g.To)
		return append(dst, '}')
	}
	m, err := message(n.Event.Class, n.Data)
	if err == nil && m == nil {
		return dst
	}
	var text bytes.Buffer
	if err == nil {
		var spaced []byte
		if spaced, err = data.Marshal(m.Interface()); err == nil {
			err = json.Compact(&text, spaced) // protojson varies its blanks on purpose
		}
	}
	if err != nil {
		return append(dst, `,"dataunreadable":true`...)
	}
	dst = append(dst, head...)
	return append(dst, text.Bytes()...)
}

// appendTime leaves the zero time out.
func appendTime(dst []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	dst = append(dst, `":"`...)
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"')
}

func appendPadded(dst []byte, n uint64) []byte {
	const zeros = "00000000000000000000"
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], n, 10)
	dst = append(dst, zeros[len(text):]...)
	return append(dst, text...)
}

// appendString writes s as a JSON string (RFC 8259 7). What a String of
// CloudEvents can not hold becomes U+FFFD: control characters, and bytes of a
// file name that are not UTF-8.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case unicode.IsControl(r):
			dst = utf8.AppendRune(dst, utf8.RuneError)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
