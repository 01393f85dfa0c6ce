package cloudevents

import (
	"strconv"
	"time"

	"github.com/belfry-ha/belfry"
)

// Environment is a notification as a shell reads it: BELFRY_CLASS, _SUBJECT,
// _NODE, _KIND, _CODE, _EDGE, _VALUE, _SEQUENCE, _FIRST_SEQUENCE, _COUNT and
// _TIME (RFC 3339). What is not known is empty.
func Environment(n *belfry.Notification) []string {
	edge, value, at, count := "", "", "", n.Count
	if n.Edge != belfry.EdgeNone {
		edge = n.Edge.String()
	}
	if n.Value != 0 {
		value = strconv.FormatFloat(n.Value, 'g', -1, 64)
	}
	if !n.Time.IsZero() {
		at = n.Time.UTC().Format(time.RFC3339Nano)
	}
	if n.Gap != nil {
		count = n.Gap.Total
	}
	return []string{
		"BELFRY_CLASS=" + string(n.Event.Class),
		"BELFRY_SUBJECT=" + n.Event.Subject,
		"BELFRY_NODE=" + n.NodeName,
		"BELFRY_KIND=" + n.Kind.String(),
		"BELFRY_CODE=" + strconv.Itoa(int(n.Code)),
		"BELFRY_EDGE=" + edge,
		"BELFRY_VALUE=" + value,
		"BELFRY_SEQUENCE=" + strconv.FormatUint(n.Last, 10),
		"BELFRY_FIRST_SEQUENCE=" + strconv.FormatUint(n.First, 10),
		"BELFRY_COUNT=" + strconv.FormatUint(count, 10),
		"BELFRY_TIME=" + at,
	}
}
