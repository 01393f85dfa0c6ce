package security

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Record is one fact of the audit log: who did what, or was not let do it
// (security.md, Audit). It holds names only, never a key, token, license or
// document. Texts that are longer than 256 bytes are cut.
type Record struct {
	Time       time.Time // zero: when it is handed over
	Subject    string    // who: "uid 1000", "client ci", "node b"
	Role       string    // of the subject, as judged; empty: none was
	Right      string    // that the operation takes
	Operation  string    // "SetConfig"
	Target     string    // what it was done to: a path, a name, class:subject
	Generation uint64    // that it made; zero: none
	Result     string    // ResultDone, ResultDenied, or why it failed
}

// Results of operations.
const (
	ResultDone   = "done"
	ResultDenied = "denied" // may be followed by the reason
)

// An Auditor takes records. Audit never waits, so that whoever drives a
// heartbeat may call it; it is safe for concurrent use. What it can not keep
// it counts, and the count becomes a record.
type Auditor interface{ Audit(Record) }

// Operations of the log itself.
const (
	opCheckpoint = "audit.checkpoint" // signs all before it
	opLost       = "audit.lost"       // records for which there was no room
	opSuppressed = "audit.suppressed" // denials of one subject beyond the limit
	opReplaced   = "audit.replaced"   // another file was in the log's place, or it had been cut
	opTorn       = "audit.torn"       // a line that a crash had left unfinished was cut off
)

const (
	maxAuditText   = 256  // bytes of one text
	maxAuditQueue  = 8192 // records that wait for the disk
	maxDenials     = 10   // a second and subject
	maxDeniers     = 1024 // subjects that are told apart in one second
	otherDeniers   = "others"
	tokenBeginning = "belfry1."
)

// clean makes a record fit for the log: bounded, valid, without tokens.
func (r Record) clean() Record {
	for _, text := range []*string{&r.Subject, &r.Role, &r.Right, &r.Operation, &r.Target, &r.Result} {
		*text = cleanText(*text)
	}
	return r
}

// cleanText takes out what looks like a token wherever it stands: a token that
// somebody gives as a name must not be kept.
func cleanText(text string) string {
	if len(text) > maxAuditText {
		text = text[:maxAuditText]
	}
	text = strings.ToValidUTF8(text, "?")
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, tokenBeginning)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString("[token]")
		text = strings.TrimLeftFunc(after, isTokenRune)
	}
}

// isTokenRune tells whether a rune can stand in a token, or in one that follows
// without a gap.
func isTokenRune(r rune) bool {
	return r < utf8.RuneSelf && (r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z')
}

// A denials counter lets maxDenials of each subject through in a second and
// counts the rest.
type denials struct {
	second int64          // that the counts are of
	counts map[string]int // by subject
}

// pass tells whether this denial is to be written. When a second has gone by,
// ended holds a record for each subject that had more.
func (d *denials) pass(r Record) (ok bool, ended []Record) {
	if second := r.Time.Unix(); second != d.second || d.counts == nil {
		ended = d.end(r.Time)
		d.second, d.counts = second, map[string]int{}
	}
	subject := r.Subject
	if _, known := d.counts[subject]; !known && len(d.counts) >= maxDeniers {
		subject = otherDeniers
	}
	d.counts[subject]++
	return d.counts[subject] <= maxDenials, ended
}

// end gives the counts of what was not written since the last call, sorted by
// subject.
func (d *denials) end(now time.Time) (records []Record) {
	for _, subject := range slices.Sorted(maps.Keys(d.counts)) {
		if more := d.counts[subject] - maxDenials; more > 0 {
			records = append(records, Record{
				Time: now, Subject: subject, Operation: opSuppressed, Result: fmt.Sprintf("%d more denials in one second", more),
			})
		}
	}
	d.counts = nil
	return records
}
