package grad_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
	"grindstone/sanitize/ort"
)

// sample is one operator on one set of shapes.
type sample struct {
	node      *onnx.Node
	inputs    map[string][]int64 // float inputs, filled with random numbers
	constants []*onnx.Tensor     // what the graph holds
	fed       map[string]*reference.Tensor
	wrt       []string              // inputs to differentiate
	train     bool                  // BatchNormalization: use the batch's statistics
	inner     bool                  // with the batch innermost
	direct    bool                  // convolutions in their direct form, where it exists
	unfold    bool                  // and at stride 2 in their unfolded form
	blocked   bool                  // in the runtime's NCHWc operators, where there is a form in them
	open      bool                  // leave a batch of two out of the shapes, wherever that may seem to be one
	kinks     bool                  // not differentiable at some inputs: keep clear of them
	domain    func(float64) float64 // maps random numbers to where the operator is defined; nil: anywhere
}

func node(op string, outputs int, inputs []string, attrs ...*onnx.Attr) *onnx.Node {
	n := &onnx.Node{Op: op, Inputs: inputs, Attrs: attrs}
	for i := range outputs {
		n.Outputs = append(n.Outputs, fmt.Sprintf("y%d", i))
	}
	return n
}

// ints is an integer constant, one-dimensional unless a shape is given.
func ints(name string, v []int64, shape ...int64) *onnx.Tensor {
	if shape == nil {
		shape = []int64{int64(len(v))}
	}
	return onnx.NewInt64(name, shape, v)
}

func scalar(name string, v float64) *onnx.Tensor { return onnx.NewDouble(name, nil, []float64{v}) }

// draws fills the sample's float inputs.
func (s sample) draw(rng *rand.Rand) map[string]*reference.Tensor {
	values := maps.Clone(s.fed)
	if values == nil {
		values = map[string]*reference.Tensor{}
	}
	for _, name := range s.node.Inputs { // in a fixed order, so that a seed means one sample
		shape, ok := s.inputs[name]
		if !ok || values[name] != nil {
			continue
		}
		v := make([]float64, count(shape))
		for i := range v {
			v[i] = rng.NormFloat64()
			if s.kinks { // distinct values, also from those of other inputs, and none near zero or a round number
				own := 0.07*float64(i)/float64(len(v)) + 0.08*float64(len(values)%3)
				v[i] = math.Copysign(0.1037+math.Round(math.Abs(v[i])*4)/4+own, v[i])
			}
			if s.domain != nil {
				v[i] = s.domain(v[i])
			}
		}
		values[name] = reference.Floats(shape, v)
	}
	return values
}

// forward is the node by itself, by the letter of the standard.
func (s sample) forward() *onnx.Graph {
	n := s.node
	if s.train {
		trained := *n
		trained.Attrs = append(slices.Clone(n.Attrs), onnx.I("training_mode", 1))
		trained.Outputs = []string{n.Outputs[0], "running_mean", "running_variance"}
		n = &trained
	}
	g := &onnx.Graph{Nodes: []*onnx.Node{n}, Initializers: s.constants}
	for _, out := range s.node.Outputs {
		g.Outputs = append(g.Outputs, &onnx.Value{Name: out})
	}
	return g
}

// gradient is the graph that computes the gradients of wrt, given the values and, as weight/y0 and so on, the gradients of the outputs;
// floats have the given type. It returns the names of the gradients, "" where none comes back.
func (s sample) gradient(shapes map[string][]int64, values map[string]*reference.Tensor, float onnx.DataType) (*onnx.Graph, map[string]string, error) {
	constants := map[string]*onnx.Tensor{}
	b := onnx.NewBuilder()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		typ := float
		if values[name].F == nil {
			typ = onnx.Int64
		}
		b.Input(name, typ, values[name].Shape...)
	}
	for _, c := range s.constants {
		if c.Type == onnx.Double && float == onnx.Float {
			f := make([]float32, 0, len(c.Doubles()))
			for _, v := range c.Doubles() {
				f = append(f, float32(v))
			}
			c = onnx.NewFloat(c.Name, c.Shape, f)
		}
		constants[c.Name] = c
		b.Const(c)
	}
	n := grad.ResolvePadding(s.node, shapes)
	nodes := []*onnx.Node{n}
	tape := grad.NewTape(b, maps.Clone(shapes), constants)
	if s.blocked {
		tape.Forms.Block = reference.Block
	}
	if s.inner {
		if !s.direct {
			tape.Forms.MaxDirect = 0
		}
		tape.Forms.UnfoldPositions = 1 << 20
		if !s.unfold {
			tape.Forms.MaxUnfold, tape.Forms.UnfoldPositions = 0, 0
		}
		tape.Plan(nodes, s.wrt)
		for name := range s.inputs {
			tape.Bind(name, tape.ToNative(name, name))
		}
	}
	if s.open {
		tape.OpenBatch(2, b.Int64s(2))
	}
	tape.Training[n.Outputs[0]] = s.train
	tape.Forward(nodes)
	seeds := map[string]string{}
	for _, out := range n.Outputs {
		if _, ok := values["weight/"+out]; ok {
			seeds[out] = "weight/" + out
		}
	}
	grads, err := tape.Backward(nodes, seeds, s.wrt)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range s.wrt {
		if grads[name] != "" {
			grads[name] = b.Op("Identity", []string{tape.ToPlain(name, grads[name])})
			b.Output(grads[name], float)
		}
	}
	return b.Graph("gradient"), grads, b.Err()
}

// checkRule returns the largest error of the rule's gradient against central finite differences in float64, relative to the largest
// element of the gradient.
func checkRule(t testing.TB, s sample, rng *rand.Rand) (float64, error) {
	t.Helper()
	values, forward := s.draw(rng), s.forward()
	y, err := reference.Run(forward, values)
	if err != nil {
		return 0, err
	}
	weights := map[string]*reference.Tensor{} // the loss is the sum of weight * output
	for _, out := range s.node.Outputs {
		w := make([]float64, y[out].Len())
		for i := range w {
			w[i] = rng.NormFloat64()
		}
		weights[out] = reference.Floats(y[out].Shape, w)
	}
	loss := func() float64 {
		y, err := reference.Run(forward, values)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, out := range s.node.Outputs {
			for i, w := range weights[out].F {
				if y[out].F != nil {
					sum += w * y[out].F[i]
				} else {
					sum += w * float64(y[out].I[i])
				}
			}
		}
		return sum
	}

	shapes := map[string][]int64{}
	all := maps.Clone(values)
	for name, v := range values {
		shapes[name] = v.Shape
	}
	for _, c := range s.constants {
		shapes[c.Name] = c.Shape
	}
	for name, v := range y {
		shapes[name] = v.Shape
		if v.F != nil {
			all["weight/"+name] = weights[name]
		}
	}
	g, grads, err := s.gradient(shapes, all, onnx.Double)
	if err != nil {
		return 0, err
	}
	got, err := reference.Run(g, all)
	if err != nil {
		return 0, err
	}

	flat := grad.Rules[s.node.Op].Flat
	const h = 1e-5
	bad := 0.0
	for _, name := range s.wrt {
		x, g := values[name], got[grads[name]]
		switch {
		case g == nil && (flat == nil || !flat(s.node)):
			return 0, fmt.Errorf("no gradient of %s", name)
		case g == nil:
			g = reference.Floats(x.Shape, make([]float64, x.Len()))
		case !slices.Equal(g.Shape, x.Shape):
			return 0, fmt.Errorf("the gradient of %s has shape %v, want %v", name, g.Shape, x.Shape)
		}
		scale, diff := 1e-3, 0.0
		for i := range x.F {
			keep := x.F[i]
			x.F[i] = keep + h
			up := loss()
			x.F[i] = keep - h
			down := loss()
			x.F[i] = keep
			want := (up - down) / (2 * h)
			scale, diff = max(scale, math.Abs(want)), max(diff, math.Abs(want-g.F[i]))
			if math.IsNaN(g.F[i]) {
				return 0, fmt.Errorf("the gradient of %s is not a number", name)
			}
		}
		bad = max(bad, diff/scale)
	}
	return bad, nil
}

// checkRuntime runs the gradient's graph in float32 in ONNX Runtime and returns the largest difference from the interpreter, relative to
// the largest element: the graph is valid, its types fit, and the runtime has kernels for it.
func checkRuntime(t testing.TB, s sample, rng *rand.Rand) (float64, error) {
	t.Helper()
	values := s.draw(rng)
	for _, v := range values {
		for i := range v.F {
			v.F[i] = float64(float32(v.F[i]))
		}
	}
	y, err := reference.Run(s.forward(), values)
	if err != nil {
		return 0, err
	}
	shapes := map[string][]int64{}
	for _, c := range s.constants {
		shapes[c.Name] = c.Shape
	}
	for name, v := range y {
		if v.F == nil {
			continue
		}
		w := make([]float64, v.Len())
		for i := range w {
			w[i] = float64(float32(rng.NormFloat64()))
		}
		values["weight/"+name] = reference.Floats(v.Shape, w)
	}
	for name, v := range values {
		shapes[name] = v.Shape
	}
	for name, v := range y {
		shapes[name] = v.Shape
	}
	g, grads, err := s.gradient(shapes, values, onnx.Float)
	if err != nil || len(grads) == 0 {
		return 0, err
	}
	want, err := reference.Run(g, values)
	if err != nil {
		return 0, err
	}
	g.Initializers = append(g.Initializers, onnx.NewInt64("1-D", []int64{1}, []int64{1}))
	for _, out := range g.Outputs { // the binding cannot allocate scalars
		if len(want[out.Name].Shape) == 0 {
			n := &onnx.Node{Op: "Reshape", Inputs: []string{out.Name, "1-D"}, Outputs: []string{out.Name + " 1-D"}}
			g.Nodes = append(g.Nodes, n)
			out.Name += " 1-D"
		}
		out.Shape = nil
	}
	raw, err := (&onnx.Model{IRVersion: 8, Opsets: map[string]int64{"": onnx.Opset, onnx.Contrib: 1, onnx.NCHWc: 1}, Graph: g}).Marshal()
	if err != nil {
		return 0, err
	}
	session, err := ort.NewSession(raw, ort.Options{Provider: ort.CPU, Threads: 1})
	if err != nil {
		return 0, err
	}
	defer session.Close()
	in := make([]*ort.Array, len(session.Inputs()))
	for i, port := range session.Inputs() {
		v := values[port.Name]
		in[i] = &ort.Array{Shape: v.Shape, I64: v.I}
		if v.F != nil {
			in[i].F32 = make([]float32, len(v.F))
			for k, x := range v.F {
				in[i].F32[k] = float32(x)
			}
		}
	}
	out := make([]*ort.Array, len(g.Outputs))
	if err := session.Run(context.Background(), in, out); err != nil {
		return 0, err
	}
	bad, i := 0.0, 0
	for _, name := range s.wrt {
		if grads[name] == "" {
			continue
		}
		scale, diff := 1e-3, 0.0
		for k, w := range want[grads[name]].F {
			scale, diff = max(scale, math.Abs(w)), max(diff, math.Abs(w-float64(out[i].F32[k])))
		}
		if i++; math.IsNaN(diff) {
			diff = math.Inf(1)
		}
		bad = max(bad, diff/scale)
	}
	return bad, nil
}

func count(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}
