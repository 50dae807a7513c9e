//go:build !fixedsecret

package sanitize

import (
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// draw is drawSecret where it must succeed.
func draw(t testing.TB, kind Transformation, n int, angle float64) *secret {
	t.Helper()
	s, err := drawSecret(kind, n, angle)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// features are random rows of width n, none of them negative, as they come from a ReLU.
func features(rows, n int) []float32 {
	random := mathrand.New(mathrand.NewPCG(1, 1))
	v := make([]float32, rows*n)
	for i := range v {
		v[i] = float32(math.Abs(random.NormFloat64()))
	}
	return v
}

// TestPermutation: every element goes somewhere, the same way in every row.
func TestPermutation(t *testing.T) {
	const n, rows = 65, 40
	s := draw(t, Permute, n, 0)
	in := features(rows, n)
	out := slices.Clone(in)
	s.apply(out)
	for r := range rows {
		for i, from := range s.permutation {
			if out[r*n+i] != in[r*n+from] {
				t.Fatalf("row %d: element %d does not come from %d", r, i, from)
			}
		}
	}
	sorted := slices.Sorted(slices.Values(s.permutation))
	for i, v := range sorted {
		if v != i {
			t.Fatalf("no permutation: %v", s.permutation)
		}
	}
}

// TestPermutationIsUniform: Pearson's chi-square over all 24 permutations of 4. With 23 degrees of freedom a fair draw exceeds 90 once in
// some 10^9 times.
func TestPermutationIsUniform(t *testing.T) {
	const draws = 24 * 400
	seen := map[string]int{}
	for range draws {
		seen[fmt.Sprint(draw(t, Permute, 4, 0).permutation)]++
	}
	square := float64(24-len(seen)) * 400
	for _, count := range seen {
		d := float64(count) - 400
		square += d * d / 400
	}
	if square > 90 {
		t.Errorf("chi-square %.1f: %v", square, seen)
	}
}

// determinant is that of a row-major n x n matrix, by Gaussian elimination.
func determinant(m []float64, n int) float64 {
	m = slices.Clone(m)
	det := 1.0
	for k := range n {
		pivot := k
		for i := k; i < n; i++ {
			if math.Abs(m[i*n+k]) > math.Abs(m[pivot*n+k]) {
				pivot = i
			}
		}
		if pivot != k {
			det = -det
			for j := range n {
				m[k*n+j], m[pivot*n+j] = m[pivot*n+j], m[k*n+j]
			}
		}
		det *= m[k*n+k]
		for i := k + 1; i < n; i++ {
			f := m[i*n+k] / m[k*n+k]
			for j := k; j < n; j++ {
				m[i*n+j] -= f * m[k*n+j]
			}
		}
	}
	return det
}

func TestRotation(t *testing.T) {
	for _, n := range []int{2, 3, 7, 64, 129} {
		q := draw(t, Rotate, n, 0).rotation
		worst := 0.0
		for i := range n {
			for j := range n {
				sum := 0.0
				for k := range n {
					sum += q[k*n+i] * q[k*n+j] // columns: Q'Q
				}
				if i == j {
					sum--
				}
				worst = max(worst, math.Abs(sum))
			}
		}
		if worst > 1e-12*float64(n) {
			t.Errorf("width %d: Q'Q differs from the identity by %.2g", n, worst)
		}
		if det := determinant(q, n); math.Abs(det-1) > 1e-9 {
			t.Errorf("width %d: determinant %v", n, det)
		}
	}
}

// TestRotationIsHaar holds moments of many draws against those of the Haar measure on SO(5): each entry has mean 0, variance 1/5 and
// fourth moment 3/35; the trace has mean 0 and mean square 1. The bounds are seven standard errors. (A QR factorization without the
// signs of R's diagonal, the usual mistake, fails at the trace.)
func TestRotationIsHaar(t *testing.T) {
	const n, draws = 5, 6000
	var mean, square [n * n]float64
	var trace, trace2 float64
	for range draws {
		q := draw(t, Rotate, n, 0).rotation
		sum := 0.0
		for i, x := range q {
			mean[i] += x / draws
			square[i] += x * x / draws
			if i%(n+1) == 0 {
				sum += x
			}
		}
		trace += sum / draws
		trace2 += sum * sum / draws
	}
	root := math.Sqrt(draws)
	for i := range mean {
		if math.Abs(mean[i]) > 7*math.Sqrt(1./n)/root {
			t.Errorf("entry %d has mean %.4f", i, mean[i])
		}
		if math.Abs(square[i]-1./n) > 7*math.Sqrt(3./35-1./25)/root {
			t.Errorf("entry %d has variance %.4f", i, square[i])
		}
	}
	if math.Abs(trace) > 7/root || math.Abs(trace2-1) > 7*math.Sqrt2/root {
		t.Errorf("the trace has mean %.4f and mean square %.4f", trace, trace2)
	}
}

// TestRotate2D: the plane turns by the angle, everything at right angles to it stays.
func TestRotate2D(t *testing.T) {
	const n = 33
	for _, angle := range []float64{math.Pi / 2, math.Pi / 3, -1, 3} {
		s := draw(t, Rotate2D, n, angle)
		if math.Abs(dot(s.u, s.u)-1) > 1e-12 || math.Abs(dot(s.v, s.v)-1) > 1e-12 || math.Abs(dot(s.u, s.v)) > 1e-12 {
			t.Errorf("u'u %v, v'v %v, u'v %v", dot(s.u, s.u), dot(s.v, s.v), dot(s.u, s.v))
		}
		near := func(what string, got []float64, a, b float64, rest []float64) {
			t.Helper()
			for i := range got {
				want := a*s.u[i] + b*s.v[i]
				if rest != nil {
					want += rest[i]
				}
				if math.Abs(got[i]-want) > 1e-12 {
					t.Fatalf("angle %v: %s goes elsewhere: element %d is %v, want %v", angle, what, i, got[i], want)
				}
			}
		}
		out := make([]float64, n)
		s.applyRow(out, s.u)
		near("u", out, math.Cos(angle), math.Sin(angle), nil)
		s.applyRow(out, s.v)
		near("v", out, -math.Sin(angle), math.Cos(angle), nil)
		rest := make([]float64, n)
		for i := range rest {
			rest[i] = float64(i % 5)
		}
		axpy(rest, -dot(s.u, rest), s.u)
		axpy(rest, -dot(s.v, rest), s.v)
		s.applyRow(out, rest)
		near("what is at right angles to the plane", out, 0, 0, rest)
	}
}

// TestPlaneIsUniform: the first axis of the plane is uniform on the sphere, so its elements have mean 0 and variance 1/n.
func TestPlaneIsUniform(t *testing.T) {
	const n, draws = 3, 6000
	var mean, square [2][n]float64
	for range draws {
		s := draw(t, Rotate2D, n, 1)
		for k, v := range [][]float64{s.u, s.v} {
			for i, x := range v {
				mean[k][i] += x / draws
				square[k][i] += x * x / draws
			}
		}
	}
	root := math.Sqrt(draws)
	for k := range mean {
		for i := range n {
			if math.Abs(mean[k][i]) > 7*math.Sqrt(1./3)/root || math.Abs(square[k][i]-1./3) > 7*math.Sqrt(1./5-1./9)/root {
				t.Errorf("axis %d, element %d: mean %.4f, variance %.4f", k, i, mean[k][i], square[k][i])
			}
		}
	}
}

// TestNormsStay: all three are isometries, on every row, and they do change the rows.
func TestNormsStay(t *testing.T) {
	const n, rows = 64, 50
	for _, kind := range Transformations {
		in := features(rows, n)
		out := slices.Clone(in)
		draw(t, kind, n, math.Pi/2).apply(out)
		zero := make([]float32, n)
		for r := range rows {
			a, b := in[r*n:(r+1)*n], out[r*n:(r+1)*n]
			before, after := math.Sqrt(squared(a, zero)), math.Sqrt(squared(b, zero))
			if math.Abs(after-before) > 1e-5*before {
				t.Errorf("%s: the norm of row %d went from %v to %v", kind, r, before, after)
			}
			if math.Sqrt(squared(a, b)) < 1e-3*before {
				t.Errorf("%s: row %d stayed where it was", kind, r)
			}
		}
	}
}

// TestApplyIsLinear: the rows are transformed by the one matrix that was drawn.
func TestApplyIsLinear(t *testing.T) {
	const n, rows = 16, 9
	s := draw(t, Rotate, n, 0)
	in := features(rows, n)
	out := slices.Clone(in)
	s.apply(out)
	for r := range rows {
		for i := range n {
			want := 0.0
			for k := range n {
				want += s.rotation[i*n+k] * float64(in[r*n+k])
			}
			if math.Abs(float64(out[r*n+i])-want) > 1e-5 {
				t.Fatalf("row %d, element %d: %v, want %v", r, i, out[r*n+i], want)
			}
		}
	}
}

// TestDrawsDiffer: no seed gives a secret away.
func TestDrawsDiffer(t *testing.T) {
	const n = 64
	for _, kind := range Transformations {
		a, b := features(1, n), features(1, n)
		draw(t, kind, n, 1).apply(a)
		draw(t, kind, n, 1).apply(b)
		if slices.Equal(a, b) {
			t.Errorf("%s: two draws are the same", kind)
		}
	}
}

func TestWipe(t *testing.T) {
	for _, kind := range Transformations {
		s := draw(t, kind, 16, 1)
		permutation, rotation, u, v := s.permutation, s.rotation, s.u, s.v
		s.wipe()
		for i, x := range permutation {
			if x != 0 {
				t.Errorf("%s: element %d of the permutation is left", kind, i)
			}
		}
		for _, part := range [][]float64{rotation, u, v, {s.cos, s.sin}} {
			for i, x := range part {
				if x != 0 {
					t.Errorf("%s: element %d is left: %v", kind, i, x)
				}
			}
		}
	}
}

func TestSecretRefusals(t *testing.T) {
	for _, kind := range Transformations {
		if _, err := drawSecret(kind, 1, 1); err == nil || !strings.Contains(err.Error(), "width 1") {
			t.Errorf("%s of one feature: %v", kind, err)
		}
	}
	if _, err := drawSecret("reflect", 8, 1); err == nil || !strings.Contains(err.Error(), `"reflect"`) {
		t.Errorf("unknown kind: %v", err)
	}
	if _, err := ParseTransformation("Permute"); err == nil || !strings.Contains(err.Error(), "permute") {
		t.Errorf("unknown name: %v", err)
	}
	for _, kind := range Transformations {
		if got, err := ParseTransformation(string(kind)); got != kind || err != nil {
			t.Errorf("%s: %v, %v", kind, got, err)
		}
	}
}

func BenchmarkHaarRotation(b *testing.B) {
	for _, n := range []int{64, 512} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				draw(b, Rotate, n, 0)
			}
		})
	}
}
