package agent

import (
	"context"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/event"
	"github.com/belfry-ha/belfry/internal/repository"
)

// metrics reads the machines' own counters when it is scraped; nothing is
// counted twice (ecosystem.md 6).
type metrics struct{ agent *Agent }

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("belfry_"+name, help, labels, nil)
}

var (
	metricBuild         = metric("build_info", "Always 1; version of the agent.", "version", "go")
	metricStart         = metric("agent_start_time_seconds", "When the agent started, in seconds since 1970.")
	metricVerdict       = metric("node_verdict", "1 for the verdict that is held of a node, else 0.", "node", "verdict")
	metricLinkState     = metric("link_state", "1 for the state of a link, else 0.", "peer", "network", "state")
	metricRTT           = metric("link_rtt_seconds", "Smoothed round trip of a link (MRT).", "peer", "network")
	metricRTTDeviation  = metric("link_rtt_deviation_seconds", "Smoothed deviation of the round trip (D).", "peer", "network")
	metricLoss          = metric("link_loss_ratio", "Loss that this node measures inbound.", "peer", "network")
	metricJitter        = metric("link_jitter_seconds", "Deviation of the one-way delay.", "peer", "network")
	metricInterval      = metric("heartbeat_interval_seconds", "Interval at which this node sends.", "peer", "network")
	metricMaxWait       = metric("heartbeat_max_wait_seconds", "After this a heartbeat counts as missed.", "peer", "network")
	metricMaxDeviation  = metric("heartbeat_max_deviation", "Receptions that may be missing before a link is down.", "peer", "network")
	metricDeviation     = metric("heartbeat_deviation", "Receptions that are missing now.", "peer", "network")
	metricHealth        = metric("health_score", "What this node thinks of itself, 0 to 8; from 4 on its own word needs another observer.")
	metricPause         = metric("own_pause_seconds", "Longest pause of this node that is remembered.")
	metricIsolated      = metric("isolated", "1 while this node misses most of its peers and reaches nobody else.")
	metricRejected      = metric("datagrams_rejected_total", "Datagrams, and claims in them, that were dropped before they could change anything.", "reason")
	metricDatagrams     = metric("datagrams_total", "Datagrams sent, and received; those that were rejected are among these.", "direction")
	metricSendErrors    = metric("datagram_send_errors_total", "Datagrams that this machine's kernel did not take.", "reason")
	metricAddressLosses = metric("address_losses_total", "How often a heartbeat address of this node vanished from its machine.")
	metricEvents        = metric("events_total", "Occurrences that entered the event machine.", "class")
	metricCoalesced     = metric("events_coalesced_total", "Occurrences merged into one that was still queued.", "class")
	metricLost          = metric("events_lost_total", "Occurrences that a consumer was told of by a gap only.", "stage", "reason")
	metricJournal       = metric("journal_records_total", "Notifications that are on the disk, gaps included.")
	metricJournalCommit = metric("journal_commits_total", "Commits, each of them one write and one sync.")
	metricJournalFailed = metric("journal_commit_failures_total", "Commits that failed; each was tried again.")
	metricJournalLost   = metric("journal_lost_total", "Occurrences of which only their number is recorded: they came faster than the disk took them.")
	metricJournalBytes  = metric("journal_bytes", "What the journal takes of the disk.")
	metricJournalState  = metric("journal_degraded", "1 while what happens is not recorded, or not for long.")
	metricStale         = metric("events_stale_total", "Occurrences refused because their identifier had gone.")
	metricUnexplained   = metric("events_unexplained_total", "Holes in what a peer sent that nothing explains; a fault if not 0.")
	metricRegistrations = metric("registrations", "Registrations held by this node.", "scope")
	metricBlocked       = metric("entries_blocked", "Entries without an identifier.")
	metricProducerUp    = metric("producer_up", "1 while a producer runs; it runs only while somebody is registered.", "producer")
	metricRestarts      = metric("producer_restarts_total", "How often a producer failed and was started again.", "producer")
	metricTableRefused  = metric("configuration_refused_total", "Configurations of peers that can not be this cluster's.")
	metricRepository    = metric("repository_up", "1 while this node reads the repository and can change it; there is no series without one.")
	metricGeneration    = metric("repository_generation", "Generation of the configuration in force on this node.")
	metricNotices       = metric("repository_notices_total", "Notices that a generation exists, by what became of them.", "result")
	metricLicense       = metric("license_state", "1 for the state of a product's license on this node, else 0.", "product", "state")
	metricLicenseClock  = metric("license_clock_behind_seconds", "By how much this node's clock is before a time that has passed, where that is more than a day; else 0.")
	metricDenied        = metric("api_refused_total", "Requests refused for want of a right, because of a limit, or as malformed.", "reason")
)

// Describe sends nothing: which series there are depends on the cluster.
func (m metrics) Describe(chan<- *prometheus.Desc) {}

// Collect asks each part once.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	a := m.agent
	gauge(metricBuild, 1, a.opts.Version, runtime.Version())
	gauge(metricStart, float64(a.started.UnixMilli())/1000)
	m.collectCluster(gauge, counter)
	m.collectEvents(gauge, counter)

	udp := a.udp.Stats()
	counter(metricDatagrams, udp.Sent, "out")
	counter(metricDatagrams, udp.Received, "in")
	for _, reason := range slices.Sorted(maps.Keys(udp.Rejected)) {
		counter(metricRejected, udp.Rejected[reason], reason.String())
	}
	counter(metricRejected, udp.KernelDropped, "overflow")
	counter(metricSendErrors, udp.Congested, "congested")
	counter(metricSendErrors, udp.Unreachable, "unreachable")
	counter(metricSendErrors, udp.SendErrors-min(udp.SendErrors, udp.Congested+udp.Unreachable), "other")
	counter(metricAddressLosses, udp.AddressLosses)
	m.collectJournal(gauge, counter)
	for _, p := range a.runner.Running() {
		gauge(metricProducerUp, oneIf(p.Up), p.Name)
		counter(metricRestarts, p.Restarts, p.Name)
	}
	api := a.server.Counters()
	counter(metricDenied, api.Denied, "right")
	counter(metricDenied, api.Limited, "limit")
	counter(metricDenied, api.Malformed, "malformed")
	counter(metricTableRefused, m.agent.config.bad.Load())
	m.collectRepository(gauge, counter)
	m.collectWitness(ch, gauge, counter)
}

func (m metrics) collectCluster(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	var (
		nodes []cluster.NodeStatus
		links []cluster.LinkStatus
		drops cluster.Drops
		own   cluster.Health
	)
	m.agent.cluster.call(func(c *cluster.Machine) {
		now := time.Now()
		nodes, links, drops, own = c.Nodes(now), c.Links(now), c.Drops(), c.Health()
	})
	gauge(metricHealth, float64(own.Score))
	gauge(metricPause, own.Longest.Seconds())
	gauge(metricIsolated, oneIf(own.Isolated))
	counter(metricRejected, drops.Stranger, "stranger")
	counter(metricRejected, drops.OldIncarnation, "old-incarnation")
	counter(metricRejected, drops.Claim, "claim")
	counter(metricRejected, drops.Left, "left")
	counter(metricRejected, drops.Unproven, "unproven")
	for _, n := range nodes {
		for v := belfry.VerdictJoining; v <= belfry.VerdictLeft; v++ {
			gauge(metricVerdict, oneIf(n.Verdict == v), n.Name, v.String())
		}
	}
	for _, l := range links {
		for s := belfry.LinkInit; s <= belfry.LinkFlapping; s++ {
			gauge(metricLinkState, oneIf(l.State == s), l.PeerName, l.Network, s.String())
		}
		gauge(metricRTT, l.MRT.Seconds(), l.PeerName, l.Network)
		gauge(metricRTTDeviation, l.D.Seconds(), l.PeerName, l.Network)
		gauge(metricLoss, float64(l.RecentLoss)/255, l.PeerName, l.Network)
		gauge(metricJitter, l.Jitter.Seconds(), l.PeerName, l.Network)
		gauge(metricInterval, l.Interval.Seconds(), l.PeerName, l.Network)
		gauge(metricMaxWait, l.MaxWait.Seconds(), l.PeerName, l.Network)
		gauge(metricMaxDeviation, float64(l.MaxDeviation), l.PeerName, l.Network)
		gauge(metricDeviation, float64(l.Deviation), l.PeerName, l.Network)
	}
}

func (m metrics) collectRepository(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	s := m.agent.storage
	if s == nil {
		return
	}
	state := s.state.Load()
	gauge(metricRepository, oneIf(state.mode == repository.Ready))
	gauge(metricGeneration, float64(s.held().Generation))
	for i, o := range repository.Outcomes() {
		counter(metricNotices, state.outcomes[i], o.String())
	}
	standing := m.agent.licenses.Latest()
	if standing == nil || len(standing.Verdicts) == 0 {
		return
	}
	gauge(metricLicenseClock, standing.Behind.Seconds())
	for _, product := range slices.Sorted(maps.Keys(standing.Verdicts)) {
		for state := belfry.LicenseLocked; state <= belfry.LicenseRevoked; state++ {
			gauge(metricLicense, oneIf(standing.Verdicts[product].State == state), product, state.String())
		}
	}
}

func (m metrics) collectJournal(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	r := m.agent.journal
	status := r.status()
	counter(metricJournal, r.records.Load())
	counter(metricJournalCommit, r.commits.Load())
	counter(metricJournalFailed, r.failures.Load())
	counter(metricJournalLost, status.GetLost())
	gauge(metricJournalBytes, float64(status.GetBytes()))
	gauge(metricJournalState, oneIf(status.GetReason() != ""))
}

func (m metrics) collectEvents(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	var (
		c      event.Counters
		status event.Status
	)
	err := m.agent.events.call(context.Background(), func(e *event.Machine) { c, status = e.Counters(), e.Status() })
	if err != nil { // the agent is stopping
		return
	}
	for _, class := range slices.Sorted(maps.Keys(c.Posted)) {
		counter(metricEvents, c.Posted[class], string(class))
	}
	for _, class := range slices.Sorted(maps.Keys(c.Coalesced)) {
		counter(metricCoalesced, c.Coalesced[class], string(class))
	}
	for _, reason := range slices.Sorted(maps.Keys(c.Lost)) {
		counter(metricLost, c.Lost[reason], "queue", reason.String())
	}
	counter(metricStale, c.Stale)
	counter(metricUnexplained, c.Unexplained)
	type holder struct {
		kind, name string
		number     uint32
	}
	local, remote, blocked := map[holder]bool{}, map[holder]bool{}, 0
	for _, e := range status.Entries {
		if e.State == belfry.EntryBlocked {
			blocked++
		}
		for _, consumer := range e.Consumers {
			h := holder{consumer.Kind, consumer.Name, consumer.Registration} // on several entries, if it is a pattern
			if h.kind == "remote" {
				h.number = uint32(e.Entry) // a peer has one for each entry
				remote[h] = true
			} else {
				local[h] = true
			}
		}
	}
	gauge(metricRegistrations, float64(len(local)), "local")
	gauge(metricRegistrations, float64(len(remote)), "remote")
	gauge(metricBlocked, float64(blocked))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (a *Agent) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics{a})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
