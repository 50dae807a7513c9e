package train

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestUpdate: the update on several threads is SGD's for every parameter.
func TestUpdate(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 100, 1<<14 + 3, 1<<16 + 5} {
		h := &host{o: StepOptions{Momentum: 0.9, WeightDecay: 5e-4}, parts: 2, threads: 3}
		vectors := make([][]float32, 3)
		for i := range vectors {
			vectors[i] = make([]float32, n)
			for k := range vectors[i] {
				vectors[i][k] = float32(random.NormFloat64())
			}
		}
		p, v, g := vectors[0], vectors[1], vectors[2]
		h.state, h.gradient = &state{parameters: append([]float32{}, p...), momentum: append([]float32{}, v...)}, g
		h.update(0.1)
		for i := range p {
			d := float64(g[i])/2 + 5e-4*float64(p[i])
			m := 0.9*float64(v[i]) + d
			if w := float64(p[i]) - 0.1*(d+0.9*m); math.Abs(float64(h.state.parameters[i])-w) > 1e-6 || math.Abs(float64(h.state.momentum[i])-m) > 1e-6 {
				t.Fatalf("parameter %d of %d: %v and %v, want %v and %v", i, n, h.state.parameters[i], h.state.momentum[i], w, m)
			}
		}
	}
}

// BenchmarkUpdate is the update of a ResNet-50.
func BenchmarkUpdate(b *testing.B) {
	const n = 25_557_032
	h := &host{o: StepOptions{Momentum: 0.9, WeightDecay: 5e-4}, parts: 1, threads: 2, gradient: make([]float32, n)}
	h.state = &state{parameters: make([]float32, n), momentum: make([]float32, n)}
	for b.Loop() {
		h.update(0.1)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/parameter")
}
