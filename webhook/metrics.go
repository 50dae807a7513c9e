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
)

// metrics are the server's Prometheus metrics, in a registry of their own.
type metrics struct {
	registry *prometheus.Registry
	changes  *prometheus.CounterVec
	sanitize *prometheus.HistogramVec
	http     *prometheus.HistogramVec
	notify   *prometheus.CounterVec
}

func newMetrics(p *Pipeline) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grindstone_admission_changes_total", Help: "States entered by admissions since the server started, with the reason of denied and held.",
		}, []string{"state", "reason"}),
		sanitize: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grindstone_sanitize_seconds", Help: "Wall-clock seconds of sanitizer runs, by outcome: ok or the reason.",
			Buckets: []float64{1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200},
		}, []string{"outcome"}),
		http: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grindstone_http_request_seconds", Help: "Seconds from a request's head to the end of its answer.",
			Buckets: []float64{.001, .005, .025, .1, .5, 1, 5, 30, 120},
		}, []string{"method", "route", "code"}),
		notify: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grindstone_notification_attempts_total", Help: "Attempts to deliver notifications, by outcome: ok or failed.",
		}, []string{"target", "outcome"}),
	}
	m.registry.MustRegister(m.changes, m.sanitize, m.http, m.notify, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), census{p},
		gauge("grindstone_queue_depth", "Admissions that wait for a worker.", func() float64 { n, _ := p.backlog.depth(); return float64(n) }),
		gauge("grindstone_jobs", "Runs of the sanitizer in the queue, with those that workers have; -1 while it cannot be asked.", p.jobs),
		gauge("grindstone_working", "Admissions that this server or a worker works on.", func() float64 { _, n := p.backlog.depth(); return float64(n) }))
	return m
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

func (m *metrics) handler() http.Handler {
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
func (m *metrics) request(method, route string, status int, took time.Duration) {
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
