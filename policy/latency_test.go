package policy

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkLatency measures how long a push and a release wait for the policy: the median and the 99th percentile of single decisions, in
// milliseconds. A push may wait 1 ms.
func BenchmarkLatency(b *testing.B) {
	e := engine(b, Options{})
	release := ReleaseInput{Admission: push(), Decision: AdmissionDecision{Method: FeatureGrinding, Transformation: "permute"}, Report: report(0.95, 0.93)}
	for name, decide := range map[string]func() error{
		"admission": func() error { _, err := e.Admission(b.Context(), push()); return err },
		"release":   func() error { _, err := e.Release(b.Context(), release); return err },
	} {
		b.Run(name, func(b *testing.B) {
			var took []float64
			for b.Loop() {
				begin := time.Now()
				if err := decide(); err != nil {
					b.Fatal(err)
				}
				took = append(took, float64(time.Since(begin))/1e6)
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2], "p50-ms")
			b.ReportMetric(took[len(took)*99/100], "p99-ms")
		})
	}
}
