package webhook

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"grindstone/attest"
	"grindstone/webhook/queue"
)

// processMetrics are what a server and a worker tell of themselves as processes, in a registry that has all of their Prometheus metrics.
type processMetrics struct {
	registry *prometheus.Registry
	http     *prometheus.HistogramVec
}

func newProcessMetrics(version attest.Version, q func() *queue.Queue) *processMetrics {
	m := &processMetrics{
		registry: prometheus.NewRegistry(),
		http: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grindstone_http_request_seconds", Help: "Seconds from a request's head to the end of its answer.",
			Buckets: []float64{.001, .005, .025, .1, .5, 1, 5, 30, 120},
		}, []string{"method", "route", "code"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "grindstone_build_info", Help: "1, with the program's version and commit.",
		ConstLabels: prometheus.Labels{"version": version.Grindstone, "commit": version.Commit},
	})
	build.Set(1)
	m.registry.MustRegister(m.http, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("grindstone_queue_connected", "1 while there is a connection to the queue, else 0.", func() float64 {
			if q := q(); q != nil && q.Connected() {
				return 1
			}
			return 0
		}))
	return m
}

// connections adds the metrics of a table of connections.
func (m *processMetrics) connections(t *connectionTable) {
	m.registry.MustRegister(
		gauge("grindstone_connections", "Open connections of clients.", func() float64 { return float64(len(t.places)) }),
		gauge("grindstone_connections_limit", "Connections of clients that may be open (limits.connections).", func() float64 { return float64(cap(t.places)) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "grindstone_connections_full_total", Help: "Times that all connections that may be open were, so that further clients had to wait.",
		}, func() float64 { return float64(t.filled.Load()) }))
}

// metrics are those of a server.
type metrics struct {
	*processMetrics
	changes  *prometheus.CounterVec
	sanitize *prometheus.HistogramVec
	notify   *prometheus.CounterVec
}

func newMetrics(p *Pipeline) *metrics {
	m := &metrics{
		processMetrics: newProcessMetrics(p.Version, func() *queue.Queue { return p.Queue }),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grindstone_admission_changes_total", Help: "States entered by admissions since the server started, with the reason of denied and held.",
		}, []string{"state", "reason"}),
		sanitize: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grindstone_sanitize_seconds", Help: "Wall-clock seconds of sanitizer runs, by outcome: ok or the reason.", Buckets: runBuckets,
		}, []string{"outcome"}),
		notify: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grindstone_notification_attempts_total", Help: "Attempts to deliver notifications, by outcome: ok or failed.",
		}, []string{"target", "outcome"}),
	}
	m.registry.MustRegister(m.changes, m.sanitize, m.notify, census{p},
		gauge("grindstone_queue_depth", "Admissions that wait for a worker.", func() float64 { n, _ := p.backlog.depth(); return float64(n) }),
		gauge("grindstone_jobs", "Runs of the sanitizer in the queue, with those that workers have; -1 while it cannot be asked.", p.jobs),
		gauge("grindstone_working", "Admissions that this server or a worker works on.", func() float64 { _, n := p.backlog.depth(); return float64(n) }))
	return m
}

var runBuckets = []float64{1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200}

// workerMetrics are those of a worker, in whatever process it is.
type workerMetrics struct {
	jobs    *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	working prometheus.Gauge
}

func newWorkerMetrics() *workerMetrics {
	return &workerMetrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grindstone_worker_jobs_total", Help: "Jobs that this process took from the queue and is through with, by result: ok, the reason, failed (given back for trouble of this machine), " +
				"returned (given back to stop) or lost (withdrawn, or another worker's).",
		}, []string{"result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grindstone_worker_sanitize_seconds", Help: "Wall-clock seconds of this process's sanitizer runs that came to an end, by outcome: ok or the reason.", Buckets: runBuckets,
		}, []string{"outcome"}),
		working: prometheus.NewGauge(prometheus.GaugeOpts{Name: "grindstone_worker_working", Help: "Jobs that this process works on."}),
	}
}

// The results of a worker's jobs besides the reasons.
const (
	resultOK       = "ok"
	resultFailed   = "failed"
	resultReturned = "returned"
	resultLost     = "lost"
)

func (m *workerMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.jobs, m.seconds, m.working}
}

// jobs asks the queue for its length.
func (p *Pipeline) jobs() float64 {
	if p.Queue == nil {
		return -1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	n, err := p.Queue.Depth(ctx)
	if err != nil {
		return -1
	}
	return float64(n)
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func (m *processMetrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

func (m *metrics) entered(a *Admission) {
	m.changes.WithLabelValues(string(a.State), string(a.Reason)).Inc()
}

func (m *metrics) sanitized(err error, took time.Duration) {
	outcome := "ok"
	if v := (*verdict)(nil); errors.As(err, &v) {
		outcome = string(v.Reason)
	} else if err != nil {
		outcome = string(ReasonInternal)
	}
	m.sanitize.WithLabelValues(outcome).Observe(took.Seconds())
}

func (m *metrics) notified(target, outcome string) { m.notify.WithLabelValues(target, outcome).Inc() }

// request measures one request. The route is the pattern and the method one of the known, so that clients cannot make labels.
func (m *processMetrics) request(method, route string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		method = "other"
	}
	if route == "" {
		route = "none"
	}
	m.http.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())
}

// census counts the admissions on disk by state and reason when the metrics are asked for.
type census struct{ p *Pipeline }

var admissionsDesc = prometheus.NewDesc("grindstone_admissions", "Admissions by present state and reason.", []string{"state", "reason"}, nil)

func (census) Describe(c chan<- *prometheus.Desc) { c <- admissionsDesc }

func (s census) Collect(c chan<- prometheus.Metric) {
	type key struct {
		state  State
		reason Reason
	}
	counts := map[key]int{}
	for _, state := range States {
		if state != Denied && state != Held {
			counts[key{state, ""}] = 0
		}
	}
	for _, a := range s.p.store.List(func(*Admission) bool { return true }) {
		counts[key{a.State, a.Reason}]++
	}
	for k, n := range counts {
		c <- prometheus.MustNewConstMetric(admissionsDesc, prometheus.GaugeValue, float64(n), string(k.state), string(k.reason))
	}
}
