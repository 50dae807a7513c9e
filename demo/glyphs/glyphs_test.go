package glyphs

import "testing"

func BenchmarkGenerate(b *testing.B) {
	const n = 1000
	for b.Loop() {
		if _, err := Generate(n, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "images/s")
}
