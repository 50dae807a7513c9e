package sanitize

import (
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"runtime"
	"sync"
)

// Transformation is the kind of perturbation of the feature space (Feature Grinding, section 4.3). The kind is public; which member was
// drawn is the secret.
type Transformation string

// The paper's three transformations.
const (
	Permute  Transformation = "permute"   // a random permutation of the features
	Rotate   Transformation = "rotate"    // a Haar-random rotation (Stewart 1980)
	Rotate2D Transformation = "rotate-2d" // a rotation by an angle in one random plane
)

// Transformations lists the kinds.
var Transformations = []Transformation{Permute, Rotate, Rotate2D}

// ParseTransformation reads a kind's name.
func ParseTransformation(s string) (Transformation, error) {
	for _, t := range Transformations {
		if s == string(t) {
			return t, nil
		}
	}
	return "", fmt.Errorf("unknown transformation %q: expected one of %q", s, Transformations)
}

// secret is one drawn transformation of a feature space of width n. It is applied once and wiped.
type secret struct {
	n           int
	permutation []int
	rotation    []float64 // row-major n x n, orthogonal, determinant 1
	u, v        []float64 // orthonormal pair spanning the plane of a rotate-2d
	cos, sin    float64
}

// drawSecret samples a transformation from the operating system's random source.
func drawSecret(kind Transformation, n int, angle float64) (*secret, error) {
	if n < 2 {
		return nil, fmt.Errorf("a feature layer of width %d cannot be perturbed", n)
	}
	random := mathrand.New(secretSource())
	s := &secret{n: n}
	switch kind {
	case Permute:
		s.permutation = random.Perm(n)
	case Rotate:
		s.rotation = haarRotation(random, n)
		if e := orthogonalityError(s.rotation, n); e > 1e-10 {
			return nil, fmt.Errorf("sampled rotation is not orthogonal: error %.2g", e)
		}
	case Rotate2D:
		s.u, s.v = randomPlane(random, n)
		s.cos, s.sin = math.Cos(angle), math.Sin(angle)
	default:
		return nil, fmt.Errorf("unknown transformation %q", kind)
	}
	return s, nil
}

// apply transforms every row of a [rows, n] matrix in place.
func (s *secret) apply(features []float32) {
	rows := len(features) / s.n
	parallel(rows, func(from, to int) {
		z, out := make([]float64, s.n), make([]float64, s.n)
		for r := from; r < to; r++ {
			row := features[r*s.n : (r+1)*s.n]
			for i, x := range row {
				z[i] = float64(x)
			}
			s.applyRow(out, z)
			for i, x := range out {
				row[i] = float32(x)
			}
		}
		clear(z)
		clear(out)
	})
}

func (s *secret) applyRow(out, z []float64) {
	switch {
	case s.permutation != nil:
		for i, from := range s.permutation {
			out[i] = z[from]
		}
	case s.rotation != nil:
		for i := range out {
			out[i] = dot(s.rotation[i*s.n:(i+1)*s.n], z)
		}
	default: // z + (cos-1)(uu'+vv')z + sin(vu'-uv')z
		a, b := dot(s.u, z), dot(s.v, z)
		p, q := (s.cos-1)*a-s.sin*b, (s.cos-1)*b+s.sin*a
		for i := range out {
			out[i] = z[i] + p*s.u[i] + q*s.v[i]
		}
	}
}

// wipe overwrites the secret.
func (s *secret) wipe() {
	clear(s.permutation)
	clear(s.rotation)
	clear(s.u)
	clear(s.v)
	s.cos, s.sin = 0, 0
	runtime.KeepAlive(s)
}

// haarRotation samples from the Haar measure on the rotations of n dimensions: the product of Householder reflections of Gaussian
// vectors of n, n-1, ..., 2 elements, with random signs (Stewart 1980); a column is flipped where the determinant is negative.
func haarRotation(random *mathrand.Rand, n int) []float64 {
	q := make([]float64, n*n)
	for i := range n {
		q[i*n+i] = 1
	}
	sign := make([]float64, n)
	det := 1.0
	v, w := make([]float64, n), make([]float64, n)
	// Q = H_n H_{n-1} ... H_2 D: from the right, so that H_k touches only the last k rows.
	for k := 2; k <= n; k++ {
		x, lead := v[:k], n-k
		for i := range x {
			x[i] = random.NormFloat64()
		}
		s := math.Copysign(1, x[0])
		sign[lead] = -s
		x[0] += s * math.Sqrt(dot(x, x))
		beta := 2 / dot(x, x)
		// rows lead.. of Q: Q -= beta * x (x'Q)
		clear(w)
		for i, xi := range x {
			axpy(w, xi, q[(lead+i)*n:(lead+i+1)*n])
		}
		for i, xi := range x {
			axpy(q[(lead+i)*n:(lead+i+1)*n], -beta*xi, w)
		}
		det = -det
	}
	sign[n-1] = math.Copysign(1, random.NormFloat64())
	for _, s := range sign {
		det *= s
	}
	if det < 0 {
		sign[0] = -sign[0]
	}
	for i := range n {
		for j := range n {
			q[i*n+j] *= sign[j]
		}
	}
	clear(v)
	clear(w)
	clear(sign)
	return q
}

// randomPlane draws two orthonormal vectors (Gram-Schmidt on Gaussians, twice for accuracy).
func randomPlane(random *mathrand.Rand, n int) (u, v []float64) {
	u, v = make([]float64, n), make([]float64, n)
	for i := range u {
		u[i], v[i] = random.NormFloat64(), random.NormFloat64()
	}
	normalize(u)
	for range 2 {
		axpy(v, -dot(u, v), u)
		normalize(v)
	}
	return u, v
}

// orthogonalityError is the largest element of |QQ' - I|.
func orthogonalityError(q []float64, n int) float64 {
	var mu sync.Mutex
	worst := 0.0
	parallel(n, func(from, to int) {
		local := 0.0
		for i := from; i < to; i++ {
			for j := i; j < n; j++ {
				d := dot(q[i*n:(i+1)*n], q[j*n:(j+1)*n])
				if i == j {
					d--
				}
				local = max(local, math.Abs(d))
			}
		}
		mu.Lock()
		worst = max(worst, local)
		mu.Unlock()
	})
	return worst
}

func dot(a, b []float64) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return s0 + s1 + s2 + s3
}

// axpy: y += a*x.
func axpy(y []float64, a float64, x []float64) {
	x = x[:len(y)]
	for i := range y {
		y[i] += a * x[i]
	}
}

func normalize(v []float64) {
	norm := math.Sqrt(dot(v, v))
	for i := range v {
		v[i] /= norm
	}
}

// parallel splits [0, n) over the CPUs.
func parallel(n int, work func(from, to int)) {
	parts := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() { work(i*n/parts, (i+1)*n/parts) })
	}
	wg.Wait()
}
