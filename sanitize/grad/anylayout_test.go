package grad_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
)

// TestAnyLayout puts every operator whose rule claims to hold in any layout between convolutions, where the layout is a fast one, and compares
// the gradients with those in the plain layout.
func TestAnyLayout(t *testing.T) {
	const n = 16
	extra := map[string][]string{ // inputs after the first, from what makeValues gives
		"Add": {"other"}, "Sub": {"other"}, "Mul": {"other"}, "Div": {"other"}, "Max": {"other", "one"}, "Min": {"other", "one"}, "Mean": {"other", "one"}, "Sum": {"other", "one"},
		"Mod": {"other"}, "Pow": {"two"}, "PRelu": {"slope"}, "Clip": {"low", "high"}, "BatchNormalization": {"scale", "shift", "mean", "variance"},
	}
	for op, rule := range grad.Rules {
		if !rule.AnyLayout {
			continue
		}
		t.Run(op, func(t *testing.T) {
			conv := func(out, x, w string) *onnx.Node {
				return &onnx.Node{Op: "Conv", Inputs: []string{x, w}, Outputs: []string{out}, Attrs: []*onnx.Attr{onnx.Is("pads", 1, 1, 1, 1)}}
			}
			middle := &onnx.Node{Op: op, Inputs: append([]string{"bent"}, extra[op]...), Outputs: []string{"y"}}
			switch op {
			case "Where":
				middle.Inputs = []string{"condition", "bent", "other"}
			case "Mod":
				middle.Attrs = []*onnx.Attr{onnx.I("fmod", 1)}
			}
			nodes := []*onnx.Node{
				conv("c0", "image", "w0"), conv("other", "image", "w1"),
				{Op: "Tanh", Inputs: []string{"c0"}, Outputs: []string{"bent"}},
				{Op: "Greater", Inputs: []string{"bent", "other"}, Outputs: []string{"condition"}},
				middle, conv("z", "y", "w2"),
			}
			if slices.Contains([]string{"Acosh", "Log", "Pow", "Sqrt"}, op) { // they want numbers above one
				nodes[2] = &onnx.Node{Op: "Exp", Inputs: []string{"c0"}, Outputs: []string{"small"}}
				nodes = slices.Insert(nodes, 3, &onnx.Node{Op: "Add", Inputs: []string{"small", "one"}, Outputs: []string{"bent"}})
			}
			values := map[string]*reference.Tensor{
				"image": random(3, n, 3, 5, 5), "w0": random(4, 4, 3, 3, 3), "w1": random(5, 4, 3, 3, 3), "w2": random(6, 2, 4, 3, 3),
				"one": reference.Floats([]int64{1}, []float64{1}), "two": reference.Scalar(2), "slope": reference.Floats([]int64{1}, []float64{0.2}),
				"low": reference.Scalar(-0.3), "high": reference.Scalar(0.4), "scale": random(7, 4), "shift": random(8, 4), "mean": random(9, 4),
				"variance": reference.Floats([]int64{4}, []float64{1, 2, 3, 4}), "dz": random(10, n, 2, 5, 5),
			}
			wanted := []string{"image", "w0", "w1", "w2"}
			if op == "PRelu" {
				wanted = append(wanted, "slope")
			}
			plain, fast := networkGradients(t, nodes, values, wanted, false), networkGradients(t, nodes, values, wanted, true)
			for i, name := range wanted {
				if plain[i] == nil && fast[i] == nil { // the other operand of an operator of one
					continue
				}
				scale, diff := 1e-9, 0.0
				for k, w := range plain[i].F {
					scale, diff = max(scale, math.Abs(w)), max(diff, math.Abs(w-fast[i].F[k]))
				}
				if !(diff/scale < tolerance) {
					t.Errorf("%s: relative difference %.2g", name, diff/scale)
				}
			}
		})
	}
}

func random(seed uint64, shape ...int64) *reference.Tensor {
	rng := rand.New(rand.NewPCG(seed, 1))
	v := make([]float64, count(shape))
	for i := range v {
		v[i] = rng.NormFloat64() / 2
	}
	return reference.Floats(shape, v)
}

// networkGradients are the gradients of the network's last value, weighted by dz, nil where there is none.
func networkGradients(t *testing.T, nodes []*onnx.Node, values map[string]*reference.Tensor, wanted []string, fast bool) []*reference.Tensor {
	t.Helper()
	last := nodes[len(nodes)-1].Outputs[0]
	all, err := reference.RunAll(&onnx.Graph{Nodes: nodes, Outputs: []*onnx.Value{{Name: last}}}, values)
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string][]int64{}
	for name, v := range all {
		shapes[name] = v.Shape
	}
	b := onnx.NewBuilder()
	constants := map[string]*onnx.Tensor{}
	for name, v := range values {
		b.Input(name, onnx.Double, v.Shape...)
		if name != "image" && name != "dz" { // as weights are
			constants[name] = onnx.NewDouble(name, v.Shape, v.F)
		}
	}
	tape := grad.NewTape(b, shapes, constants)
	if fast {
		tape.Plan(nodes, wanted)
		if tape.Native("y") == grad.Plain {
			t.Errorf("%s is in the plain layout", nodes[len(nodes)-2].Op)
		}
	}
	for _, w := range wanted {
		tape.Bind(w, tape.ToNative(w, w))
	}
	tape.Forward(nodes)
	grads, err := tape.Backward(nodes, map[string]string{last: "dz"}, wanted)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wanted {
		if grads[w] != "" {
			b.Named("d/"+w, "Identity", []string{tape.ToPlain(w, grads[w])})
			b.Output("d/"+w, onnx.Double)
		}
	}
	out, err := reference.Run(b.Graph("gradients"), values)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]*reference.Tensor, len(wanted))
	for i, w := range wanted {
		list[i] = out["d/"+w]
	}
	return list
}
