package policy

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkLatency measures how long a push and a release wait for the policy: the median and the 99th percentile of single decisions, in
// milliseconds. A push may wait 1 ms. On a machine that others keep busy, the processor time of the decision says more than the clock.
func BenchmarkLatency(b *testing.B) {
	e := engine(b, Options{})
	release := ReleaseInput{Admission: push(), Decision: AdmissionDecision{Method: FeatureGrinding, Transformation: "permute"}, Report: report(0.95, 0.93)}
	processor := func() (ms float64) {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			b.Fatal(err)
		}
		return float64(t.Nano()) / 1e6
	}
	for name, decide := range map[string]func() error{
		"admission": func() error { _, err := e.Admission(b.Context(), push()); return err },
		"release":   func() error { _, err := e.Release(b.Context(), release); return err },
	} {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var clock, cpu []float64
			for b.Loop() {
				begin, used := time.Now(), processor()
				if err := decide(); err != nil {
					b.Fatal(err)
				}
				clock, cpu = append(clock, float64(time.Since(begin))/1e6), append(cpu, processor()-used)
			}
			for unit, took := range map[string][]float64{"": clock, "-cpu": cpu} {
				slices.Sort(took)
				b.ReportMetric(took[len(took)/2], "p50-ms"+unit)
				b.ReportMetric(took[len(took)*99/100], "p99-ms"+unit)
			}
		})
	}
}
