package grad_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
)

// sample is one operator on one set of shapes.
type sample struct {
	node     *onnx.Node
	inputs   map[string][]int64   // float inputs, filled with random numbers
	ints     map[string][]int64   // integer constants, one-dimensional
	floats   map[string][]float64 // float constants, scalars or one-dimensional
	wrt      []string             // inputs to differentiate
	train    bool                 // BatchNormalization: use the batch's statistics
	inner    bool                 // with the batch innermost
	direct   bool                 // convolutions in their direct form, where it exists
	kinks    bool                 // not differentiable at some inputs: keep clear of them
	positive bool                 // the operator wants positive inputs
}

func node(op string, outputs int, inputs []string, attrs ...*onnx.Attr) *onnx.Node {
	n := &onnx.Node{Op: op, Inputs: inputs, Attrs: attrs}
	for i := range outputs {
		n.Outputs = append(n.Outputs, fmt.Sprintf("y%d", i))
	}
	return n
}

// worst returns the largest error of the rule's gradient against central finite differences in float64, relative to the largest
// element of the gradient.
func worst(t testing.TB, s sample, rng *rand.Rand) (float64, error) {
	t.Helper()
	values := map[string]*reference.Tensor{}
	for _, name := range s.node.Inputs { // in a fixed order, so that a seed means one sample
		shape, ok := s.inputs[name]
		if !ok || values[name] != nil {
			continue
		}
		v := make([]float64, count(shape))
		for i := range v {
			v[i] = rng.NormFloat64()
			if s.positive {
				v[i] = 0.1 + math.Abs(v[i])
			}
			if s.kinks { // distinct values, none near zero
				v[i] = math.Copysign(0.1+math.Abs(v[i]), v[i]) * (1 + 1e-3*float64(i))
			}
		}
		values[name] = reference.Floats(shape, v)
	}
	constants := map[string]*onnx.Tensor{}
	for name, v := range s.ints {
		constants[name] = onnx.NewInt64(name, []int64{int64(len(v))}, v)
	}
	for name, v := range s.floats {
		shape := []int64{int64(len(v))}
		if len(v) == 1 {
			shape = nil
		}
		constants[name] = onnx.NewDouble(name, shape, v)
	}
	if s.train { // variances, not used but must be there
		for _, name := range s.node.Inputs[3:] {
			constants[name] = onnx.NewDouble(name, s.inputs[s.node.Inputs[1]], make([]float64, count(s.inputs[s.node.Inputs[1]])))
		}
	}

	// The function: the node by itself, by the letter of the standard.
	forward := &onnx.Graph{Nodes: []*onnx.Node{s.node}}
	if s.train {
		n := *s.node
		n.Attrs = append(slices.Clone(n.Attrs), onnx.I("training_mode", 1))
		n.Outputs = []string{n.Outputs[0], "running_mean", "running_variance"}
		forward.Nodes = []*onnx.Node{&n}
	}
	for _, c := range constants {
		forward.Initializers = append(forward.Initializers, c)
	}
	for _, out := range s.node.Outputs {
		forward.Outputs = append(forward.Outputs, &onnx.Value{Name: out})
	}
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
				sum += w * y[out].F[i]
			}
		}
		return sum
	}

	// The rule's gradient.
	shapes := map[string][]int64{}
	for name, v := range values {
		shapes[name] = v.Shape
	}
	for name, c := range constants {
		shapes[name] = c.Shape
	}
	for name, v := range y {
		shapes[name] = v.Shape
	}
	b := onnx.NewBuilder()
	for name, v := range values {
		b.Input(name, onnx.Double, v.Shape...)
	}
	for _, c := range constants {
		b.Const(c)
	}
	seeds := map[string]string{}
	for out, w := range weights {
		values["weight/"+out] = w
		seeds[out] = b.Input("weight/"+out, onnx.Double, w.Shape...)
	}
	tape := grad.NewTape(b, shapes, constants)
	if s.inner {
		if !s.direct {
			tape.Forms.MaxDirect = 0
		}
		tape.Plan([]*onnx.Node{s.node}, s.wrt)
		for name := range s.inputs {
			tape.Bind(name, tape.ToNative(name, name))
		}
	}
	tape.Training[s.node.Outputs[0]] = s.train
	tape.Forward([]*onnx.Node{s.node})
	grads, err := tape.Backward([]*onnx.Node{s.node}, seeds, s.wrt)
	if err != nil {
		return 0, err
	}
	for _, name := range s.wrt {
		if grads[name] == "" {
			return 0, fmt.Errorf("no gradient of %s", name)
		}
		grads[name] = tape.ToPlain(name, grads[name])
		b.Output(grads[name], onnx.Double)
	}
	if err := b.Err(); err != nil {
		return 0, err
	}
	got, err := reference.Run(b.Graph("gradient"), values)
	if err != nil {
		return 0, err
	}

	const h = 1e-5
	bad := 0.0
	for _, name := range s.wrt {
		x, g := values[name], got[grads[name]]
		if !slices.Equal(g.Shape, x.Shape) {
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
