package ort

import "testing"

// What a run costs beyond its arithmetic: one node on 4 bytes, and on 4 MB with and without a place for the result.
func BenchmarkRun(b *testing.B) {
	run := func(n int64, out *Array) func(*testing.B) {
		return func(b *testing.B) {
			s := open(b, unary(b, "Neg", 1, []int64{-1}, []int64{-1}), Options{})
			in := []*Array{{Shape: []int64{n}, F32: make([]float32, n)}}
			b.SetBytes(4 * n)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Run(b.Context(), in, []*Array{out}); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("one element", run(1, nil))
	b.Run("4 MB, allocated", run(1<<20, nil))
	b.Run("4 MB, in place", run(1<<20, &Array{Shape: []int64{1 << 20}, F32: make([]float32, 1<<20)}))
}
