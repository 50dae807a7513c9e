package grad_test

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
	"grindstone/sanitize/ort"
)

// drawBlocked makes samples of the operators that have a form in NCHWc operators.
var drawBlocked = map[string]func(t *rapid.T) sample{
	"Conv": func(t *rapid.T) sample {
		in, kernel, strides, dilations, pads := windows(t, 2)
		for i := range in {
			in[i] = max(in[i], (kernel[i]-1)*dilations[i]+1)
		}
		n := rapid.Int64Range(1, 3).Draw(t, "batch")
		c := reference.Block // or a part of it for each image
		if n == 2 {
			c /= 2
		}
		s := sample{blocked: true, inputs: map[string][]int64{"x": append([]int64{n, c}, in...), "w": append([]int64{c, 1}, kernel...)}, wrt: []string{"x", "w"},
			node: node("Conv", 1, []string{"x", "w"}, onnx.I("group", c), onnx.Is("kernel_shape", kernel...), onnx.Is("strides", strides...),
				onnx.Is("dilations", dilations...), onnx.Is("pads", pads...))}
		if rapid.Bool().Draw(t, "bias") {
			s.node.Inputs = append(s.node.Inputs, "b")
			s.inputs["b"], s.wrt = []int64{c}, append(s.wrt, "b")
		}
		return s
	},
	"Conv of all channels": func(t *rapid.T) sample { // the direct form
		c, f := rapid.Int64Range(1, 2).Draw(t, "channels"), rapid.Int64Range(1, 2).Draw(t, "filters")
		in := []int64{rapid.Int64Range(1, 3).Draw(t, "height"), rapid.Int64Range(1, 3).Draw(t, "width")}
		return sample{
			node:   node("Conv", 1, []string{"x", "w"}, onnx.Is("kernel_shape", 3, 3), onnx.Is("pads", 1, 1, 1, 1)),
			inputs: map[string][]int64{"x": {3, c * reference.Block, in[0], in[1]}, "w": {f * reference.Block, c * reference.Block, 3, 3}},
			wrt:    []string{"x", "w"}, inner: true, direct: true, blocked: true,
		}
	},
	"BatchNormalization": func(t *rapid.T) sample { // with rows that are long enough for blockedDot, or not
		s := drawBatchNorm(t)
		side := rapid.SampledFrom([]int64{reference.Block, 3}).Draw(t, "side")
		s.inputs["x"] = []int64{2, s.inputs["scale"][0], 8, side}
		s.blocked, s.train = true, true
		return s
	},
}

func TestBlockedRules(t *testing.T) {
	for op, d := range drawBlocked {
		t.Run(op, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				if op == "Conv of all channels" && rapid.IntRange(0, 9).Draw(rt, "skip") > 0 { // its many weights make it slow
					return
				}
				s := d(rt)
				s.open = rapid.Bool().Draw(rt, "open batch")
				e, err := checkRule(t, s, rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "numbers"), 0)))
				if err != nil {
					rt.Fatalf("%v: %v", describe(s), err)
				}
				if e > tolerance {
					rt.Fatalf("relative error %.2g; %v", e, describe(s))
				}
			})
		})
	}
}

// TestBlockedRuntime: ONNX Runtime, with the blocks of this processor, computes the same as the interpreter.
func TestBlockedRuntime(t *testing.T) {
	if _, err := ort.Resolve(ort.CPU); err != nil {
		t.Skip(err)
	}
	if ort.Block() == 0 {
		t.Skip("ONNX Runtime has no NCHWc operators for this processor")
	}
	defer func(b int64) { reference.Block = b }(reference.Block)
	reference.Block = ort.Block()
	for op, d := range drawBlocked {
		t.Run(op, func(t *testing.T) {
			for seed := range 12 {
				s := rapid.Custom(d).Example(seed)
				s.open = seed%2 == 1
				e, err := checkRuntime(t, s, rand.New(rand.NewPCG(2, uint64(seed))))
				if err != nil {
					t.Fatalf("%v: %v", describe(s), err)
				}
				if e > 1e-4 {
					t.Errorf("relative difference %.2g; %v", e, describe(s))
				}
			}
		})
	}
}

// TestBlockedFormsAreUsed: the samples above do reach the forms in question.
func TestBlockedFormsAreUsed(t *testing.T) {
	for op, want := range map[string]string{"Conv": "ReorderInput", "BatchNormalization": "FusedConv"} {
		s := drawBlocked[op]
		found := false
		for seed := range 20 {
			sm := rapid.Custom(s).Example(seed)
			g := emitted(t, sm)
			for _, n := range g.Nodes {
				found = found || n.Domain != "" && n.Op == want
			}
		}
		if !found {
			t.Errorf("no %s in the gradient of %s", want, op)
		}
	}
}

func emitted(t *testing.T, s sample) *onnx.Graph {
	values := s.draw(rand.New(rand.NewPCG(1, 1)))
	y, err := reference.Run(s.forward(), values)
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string][]int64{}
	for name, v := range values {
		shapes[name] = v.Shape
	}
	for _, c := range s.constants {
		shapes[c.Name] = c.Shape
	}
	for name, v := range y {
		shapes[name] = v.Shape
		values["weight/"+name] = v
	}
	g, _, err := s.gradient(shapes, values, onnx.Float)
	if err != nil {
		t.Fatal(err)
	}
	return g
}
