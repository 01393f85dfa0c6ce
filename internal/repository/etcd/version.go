package etcd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// LargeDocument is from where on a document takes etcd several milliseconds to
// write, in bytes.
const LargeDocument = 64 << 10

// A Member is one endpoint of etcd and what it says of itself.
type Member struct {
	Endpoint string
	Version  string // 3.5.30
	Err      error  // it does not answer
}

// Members asks each endpoint, at the same time, within the deadline of one
// operation.
func (b *Backend) Members() []Member {
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Deadline)
	defer cancel()
	members := make([]Member, len(b.cfg.Endpoints))
	urls, _ := b.cfg.urls() // were good when we connected
	var asking sync.WaitGroup
	for i, e := range b.cfg.Endpoints {
		asking.Go(func() {
			members[i].Endpoint = e
			answer, err := b.client.Status(ctx, urls[i])
			if err != nil {
				members[i].Err = b.fail("status", unanswered(err))
				return
			}
			members[i].Version = answer.Version
		})
	}
	asking.Wait()
	return members
}

// The kinds of a [Warning].
const (
	WarnVersion = "version" // a release with a known hole
	WarnSize    = "size"    // of the document
	WarnMember  = "member"  // an endpoint does not answer
)

// A Warning is what an operator should know of though everything works.
type Warning struct {
	Kind    string
	Subject string // an endpoint, or empty
	Text    string // what is wrong; what would be right
}

// Warnings asks the endpoints. The agent does so at start and from time to time.
func (b *Backend) Warnings() (all []Warning) {
	for _, m := range b.Members() {
		switch {
		case m.Err != nil:
			all = append(all, Warning{WarnMember, m.Endpoint, m.Err.Error()})
		case Outdated(m.Version):
			all = append(all, Warning{WarnVersion, m.Endpoint, fmt.Sprintf(
				"etcd %s has a known hole (CVE-2026-44283); use %s, %s or newer", m.Version, fixed[0], fixed[1])})
		}
	}
	b.mu.Lock()
	size := len(b.last.Document)
	b.mu.Unlock()
	if size >= LargeDocument {
		all = append(all, Warning{WarnSize, "", fmt.Sprintf(
			"a document of %d bytes takes etcd long to write; from %d on a disk serves better", size, LargeDocument)})
	}
	return all
}

// A release is major, minor and patch.
type release string

// oldest is the first release with all that is asked for here.
const oldest release = "3.4.0"

// fixed are the first releases, one for each minor, without CVE-2026-44283.
var fixed = []release{"3.5.30", "3.6.11"}

// Outdated tells whether a version of etcd has a hole that a later release of
// the same minor has not.
func Outdated(version string) bool {
	v := release(version)
	for _, f := range fixed {
		if v.numbers()[0] == f.numbers()[0] && v.numbers()[1] == f.numbers()[1] {
			return v.before(f)
		}
	}
	return v.before(fixed[0])
}

func (r release) before(s release) bool {
	a, b := r.numbers(), s.numbers()
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return strings.Contains(string(r), "-") && !strings.Contains(string(s), "-") // 3.5.30-rc.0
}

// numbers are zero where there is none.
func (r release) numbers() (n [3]int) {
	text, _, _ := strings.Cut(string(r), "-")
	for i, part := range strings.SplitN(text, ".", len(n)) {
		n[i], _ = strconv.Atoi(part)
	}
	return n
}
