package reference

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// The instances are random but the same in every run; -rapid.seed and -rapid.checks ask for others.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.checks": "25", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}

// instance is one node with its inputs.
type instance struct {
	op    string
	in    []*Tensor // nil: omitted
	attrs []*onnx.Attr
	outs  int
	bools []int // inputs that are bool
	opset int64 // 0: 17
}

func (c instance) String() string {
	s := c.op
	for _, t := range c.in {
		if t == nil {
			s += " -"
			continue
		}
		s += fmt.Sprint(" ", t.Shape)
		if t.I != nil && len(t.I) < 12 {
			s += fmt.Sprint("=", t.I)
		}
	}
	for _, a := range c.attrs {
		s += fmt.Sprintf(" %s=%d%g%s%v", a.Name, a.I, a.F, a.S, a.Ints)
	}
	return s
}

// gen draws instances.
type gen struct {
	*rapid.T
	r *rand.Rand
}

func (g *gen) int(name string, low, high int) int64 {
	return int64(rapid.IntRange(low, high).Draw(g.T, name))
}

func (g *gen) bool(name string) bool { return rapid.Bool().Draw(g.T, name) }

func pick[T any](g *gen, name string, from ...T) T { return rapid.SampledFrom(from).Draw(g.T, name) }

// shape draws rank low to high, with dimensions of 1 to 4.
func (g *gen) shape(low, high int) []int64 {
	return slices.Clone(rapid.SliceOfN(rapid.Int64Range(1, 4), low, high).Draw(g.T, "shape"))
}

// floats are multiples of 1/8 between -2 and 2, so that ties and zeros occur; all are exact in float32.
func (g *gen) floats(shape ...int64) *Tensor {
	t := newFloats(shape)
	for i := range t.F {
		t.F[i] = float64(g.r.IntN(33)-16) / 8
	}
	return t
}

// positive floats are between 1/8 and 2.
func (g *gen) positive(shape ...int64) *Tensor {
	t := newFloats(shape)
	for i := range t.F {
		t.F[i] = float64(g.r.IntN(16)+1) / 8
	}
	return t
}

func (g *gen) ints(low, high int64, shape ...int64) *Tensor {
	t := newInts(shape)
	for i := range t.I {
		t.I[i] = low + g.r.Int64N(high-low+1)
	}
	return t
}

// list is a 1-D integer tensor.
func list(v ...int64) *Tensor { return Ints([]int64{int64(len(v))}, v) }

// broadcastable makes a shape that broadcasts with s: some dimensions 1, some leading ones left out.
func (g *gen) broadcastable(s []int64) []int64 {
	out := slices.Clone(s[g.int("left out", 0, len(s)):])
	for i := range out {
		if g.bool("one") {
			out[i] = 1
		}
	}
	return out
}

func (g *gen) axis(rank int) int64 { return g.int("axis", -rank, rank-1) }

// perm is a permutation of 0 to n-1.
func (g *gen) perm(n int) []int64 {
	p := make([]int64, n)
	for i := range p {
		p[i] = int64(i)
	}
	return rapid.Permutation(p).Draw(g.T, "perm")
}

func TestAgainstRuntime(t *testing.T) {
	if _, err := ort.Load(); errors.Is(err, ort.ErrLibrary) {
		t.Skip(err)
	}
	seen := map[string]bool{}
	for _, family := range []map[string]func(*gen) instance{elementwiseInstances(), reduceInstances(), normalizeInstances(), windowInstances(), shapeInstances(), gatherInstances()} {
		for name, draw := range family {
			t.Run(name, func(t *testing.T) {
				rapid.Check(t, func(r *rapid.T) {
					g := &gen{T: r, r: rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "values"), 1))}
					c := draw(g)
					seen[c.op] = true
					compareOne(r, c)
				})
			})
		}
	}
	if testing.Short() || flag.Lookup("test.run").Value.String() != "" {
		return
	}
	for op := range kernels {
		if !seen[op] && !elsewhere[op] {
			t.Errorf("operator %s is not compared", op)
		}
	}
}

// elsewhere are operators with tests of their own.
var elsewhere = map[string]bool{"If": true, "Loop": true, "Scan": true}

// compareOne runs the instance on both and expects float32 precision.
func compareOne(t interface {
	Helper()
	Fatalf(string, ...any)
	Skipf(string, ...any)
}, c instance) {
	t.Helper()
	b := onnx.NewBuilder()
	feeds := map[string]*Tensor{}
	var names []string
	var in []*ort.Array
	for i, x := range c.in {
		if x == nil {
			names = append(names, "")
			continue
		}
		typ, a := array(x, slices.Contains(c.bools, i))
		names = append(names, b.Input(fmt.Sprintf("x%d", i), typ, x.Shape...))
		feeds[names[i]] = x
		in = append(in, a)
	}
	outs := b.OpN(c.op, max(c.outs, 1), names, c.attrs...)
	for _, o := range outs {
		b.Output(o, onnx.Float)
	}
	m := b.Model(max(c.opset, 17))
	want, err := Run(m.Graph, feeds)
	if err != nil {
		t.Fatalf("%v: %v", c, err)
	}
	got := runNative(t, c.String(), m, in, want)
	for i, o := range outs {
		if diff := difference(got[i], want[o]); diff > 2e-5 {
			t.Fatalf("%v: output %d differs by %g:\nruntime   %v %v %v %v\nreference %v %v %v", c, i, diff, got[i].Shape, got[i].F32, got[i].I64, got[i].Bool, want[o].Shape, want[o].F, want[o].I)
		}
	}
}

// runNative runs a model in ONNX Runtime; the types of its outputs are left to the runtime's inference. The binding cannot allocate
// scalars, so outputs that should be scalar are made 1-D, and back afterwards.
func runNative(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, m *onnx.Model, in []*ort.Array, want map[string]*Tensor) []*ort.Array {
	t.Helper()
	scalar := make([]bool, len(m.Graph.Outputs))
	for i, v := range m.Graph.Outputs {
		v.Type = onnx.Undefined
		v.Shape = nil
		if len(want[v.Name].Shape) == 0 {
			scalar[i] = true
			m.Graph.Nodes = append(m.Graph.Nodes, &onnx.Node{Op: "Unsqueeze", Inputs: []string{v.Name, "axis0"}, Outputs: []string{v.Name + " 1-D"}})
			v.Name += " 1-D"
		}
	}
	if slices.Contains(scalar, true) {
		m.Graph.Initializers = append(m.Graph.Initializers, onnx.NewInt64("axis0", []int64{1}, []int64{0}))
	}
	data, err := m.Marshal()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	s, err := ort.NewSession(data, ort.Options{Provider: ort.CPU, Threads: 1, Optimize: ort.OptimizeBasic})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	out := make([]*ort.Array, len(m.Graph.Outputs))
	if err := s.Run(context.Background(), in, out); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for i, is := range scalar {
		if is && len(out[i].Shape) == 1 {
			out[i].Shape = []int64{}
		}
	}
	return out
}

func array(x *Tensor, boolean bool) (onnx.DataType, *ort.Array) {
	switch {
	case x.F != nil:
		a := &ort.Array{Shape: x.Shape, F32: make([]float32, len(x.F))}
		for i, v := range x.F {
			a.F32[i] = float32(v)
		}
		return onnx.Float, a
	case boolean:
		a := &ort.Array{Shape: x.Shape, Bool: make([]bool, len(x.I))}
		for i, v := range x.I {
			a.Bool[i] = v != 0
		}
		return onnx.Bool, a
	}
	return onnx.Int64, &ort.Array{Shape: x.Shape, I64: x.I}
}

// difference is the largest distance between elements, relative where they exceed 1; infinite for other shapes or kinds.
func difference(got *ort.Array, want *Tensor) float64 {
	if !slices.Equal(got.Shape, want.Shape) {
		return math.Inf(1)
	}
	worst := 0.0
	n := want.Len()
	switch {
	case want.F != nil && got.F32 != nil && len(got.F32) == n:
		for i, w := range want.F {
			v := float64(got.F32[i])
			if v == w || math.IsNaN(v) && math.IsNaN(w) {
				continue
			}
			worst = max(worst, math.Abs(v-w)/max(1, math.Abs(w)))
			if math.IsNaN(v) || math.IsNaN(w) {
				return math.Inf(1)
			}
		}
	case want.I != nil && got.I64 != nil && len(got.I64) == n:
		if !slices.Equal(got.I64, want.I) {
			return math.Inf(1)
		}
	case want.I != nil && got.Bool != nil && len(got.Bool) == n:
		for i, w := range want.I {
			if truth(got.Bool[i]) != w {
				return math.Inf(1)
			}
		}
	case n != 0:
		return math.Inf(1)
	}
	return worst
}
