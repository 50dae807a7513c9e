package grad_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
)

// drawInner makes samples of the operators that have a rule for the inner layout, with batches that are large enough for it.
var drawInner = map[string]func(t *rapid.T) sample{
	"Conv": func(t *rapid.T) sample {
		// Forms that the channels choose in practice are all drawn at the same small sizes.
		direct, unfold := rapid.Bool().Draw(t, "direct"), rapid.Bool().Draw(t, "unfold")
		n := rapid.SampledFrom([]int64{16, 3}).Draw(t, "batch") // the small one has Outer alone
		k := rapid.SampledFrom([]int64{1, 3}).Draw(t, "kernel")
		s := rapid.Int64Range(1, 2).Draw(t, "stride")
		in := []int64{rapid.Int64Range(3, 7).Draw(t, "height"), rapid.Int64Range(3, 7).Draw(t, "width")}
		pads := make([]int64, 4)
		switch {
		case k == 3 && rapid.Bool().Draw(t, "same"):
			pads = []int64{1, 1, 1, 1}
		case k == 3:
			for i := range pads {
				pads[i] = rapid.Int64Range(0, 2).Draw(t, "pad")
			}
		}
		c, f := rapid.Int64Range(1, 6).Draw(t, "channels"), rapid.SampledFrom([]int64{1, 2}).Draw(t, "filters")
		sm := sample{
			node:   node("Conv", 1, []string{"x", "w"}, onnx.Is("kernel_shape", k, k), onnx.Is("strides", s, s), onnx.Is("pads", pads...)),
			inputs: map[string][]int64{"x": {n, c, in[0], in[1]}, "w": {f, c, k, k}}, wrt: []string{"x", "w"}, inner: true, direct: direct, unfold: unfold,
		}
		if rapid.Bool().Draw(t, "stem") { // no gradient of the input is asked for: the windows are laid out
			sm.wrt = []string{"w"}
		}
		if rapid.Bool().Draw(t, "bias") {
			sm.node.Inputs = append(sm.node.Inputs, "b")
			sm.inputs["b"] = []int64{f}
			sm.wrt = append(sm.wrt, "b")
		}
		return sm
	},
}

func TestInnerRules(t *testing.T) {
	for op, d := range drawInner {
		t.Run(op, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				if rapid.IntRange(0, 2).Draw(rt, "skip") > 0 { // a third of the usual number: batches make it slow
					return
				}
				s := d(rt)
				e, err := checkRule(t, s, rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "numbers"), 0)))
				if err != nil {
					rt.Fatalf("%v: %v", s.inputs, err)
				}
				if e > tolerance {
					rt.Fatalf("relative error %.2g; %v", e, describe(s))
				}
			})
		})
	}
}

// TestInnerNetwork compares all gradients of a residual network in both layouts, and with what the forward pass left computed again.
func TestInnerNetwork(t *testing.T) {
	const n = 16
	conv := func(out, x, w string, stride, pad int64) *onnx.Node {
		return &onnx.Node{Op: "Conv", Inputs: []string{x, w}, Outputs: []string{out}, Attrs: []*onnx.Attr{onnx.Is("strides", stride, stride), onnx.Is("pads", pad, pad, pad, pad)}}
	}
	norm := func(out, x, prefix string) *onnx.Node {
		return &onnx.Node{Op: "BatchNormalization", Inputs: []string{x, prefix + "s", prefix + "b", prefix + "m", prefix + "v"}, Outputs: []string{out}}
	}
	one := func(op, out string, in ...string) *onnx.Node {
		return &onnx.Node{Op: op, Inputs: in, Outputs: []string{out}}
	}
	nodes := []*onnx.Node{
		conv("c0", "image", "w0", 1, 1), norm("n0", "c0", "n0"), one("Relu", "r0", "n0"),
		conv("c1", "r0", "w1", 2, 1), norm("n1", "c1", "n1"), one("Relu", "r1", "n1"),
		one("Mul", "w2", "v2", "g2"), conv("c2", "r1", "w2", 1, 1), conv("c3", "r0", "w3", 2, 0), one("Add", "sum", "c2", "c3"), one("Relu", "r2", "sum"),
		one("GlobalAveragePool", "pool", "r2"),
		{Op: "Flatten", Inputs: []string{"pool"}, Outputs: []string{"flat"}},
		{Op: "Gemm", Inputs: []string{"flat", "wh"}, Outputs: []string{"y"}},
	}
	shapes := map[string][]int64{"image": {n, 3, 8, 8}, "w0": {4, 3, 3, 3}, "w1": {5, 4, 3, 3}, "v2": {5, 5, 3, 3}, "g2": {5, 1, 1, 1}, "w2": {5, 5, 3, 3}, "w3": {5, 4, 1, 1}, "wh": {5, 2}}
	for _, p := range []string{"n0", "n1"} {
		for _, k := range []string{"s", "b", "m", "v"} {
			shapes[p+k] = []int64{map[string]int64{"n0": 4, "n1": 5}[p]}
		}
	}
	values, wanted := map[string]*reference.Tensor{}, []string{"w0", "w1", "v2", "g2", "w3", "wh", "n0s", "n0b", "n1s", "n1b"}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		v := make([]float64, count(shapes[name]))
		for i := range v {
			v[i] = rng.NormFloat64()
			if strings.HasSuffix(name, "v") {
				v[i] = 1
			}
		}
		values[name] = reference.Floats(shapes[name], v)
	}
	all := &onnx.Graph{Nodes: nodes, Outputs: []*onnx.Value{{Name: "y"}}}
	inner, err := reference.RunAll(all, values)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range inner {
		shapes[name] = v.Shape
	}
	seed := make([]float64, 2*n)
	for i := range seed {
		seed[i] = rng.NormFloat64()
	}
	values["dy"] = reference.Floats([]int64{n, 2}, seed)

	ops := map[string]int{} // of the last graph
	gradients := func(plan, direct bool, recompute int64) map[string]*reference.Tensor {
		b := onnx.NewBuilder()
		for name, v := range values {
			b.Input(name, onnx.Double, v.Shape...)
		}
		tape := grad.NewTape(b, shapes, map[string]*onnx.Tensor{})
		tape.Training["n0"], tape.Training["n1"] = true, true
		tape.Forms.Recompute = recompute
		layouts := map[string]grad.Layout{"c0": grad.Outer, "r0": grad.Outer, "c1": grad.Inner, "w1": grad.Taps, "c2": grad.Outer, "c3": grad.Inner, "pool": grad.Plain}
		if !direct {
			tape.Forms.MaxDirect, tape.Forms.MaxUnfold, tape.Forms.UnfoldPositions = 0, 0, 0
			layouts = map[string]grad.Layout{"c0": grad.Inner, "r0": grad.Inner, "c1": grad.Inner, "c2": grad.Inner, "c3": grad.Inner, "pool": grad.Plain}
		}
		if plan {
			tape.Plan(nodes, wanted)
			for value, want := range layouts {
				if got := tape.Native(value); got != want {
					t.Fatalf("%s has layout %d, want %d", value, got, want)
				}
			}
		}
		for _, w := range wanted {
			tape.Bind(w, tape.ToNative(w, w))
		}
		tape.Forward(nodes)
		g, err := tape.Backward(nodes, map[string]string{"y": "dy"}, wanted)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range wanted {
			b.Named("d/"+w, "Identity", []string{tape.ToPlain(w, g[w])})
			b.Output("d/"+w, onnx.Double)
		}
		b.Named("out", "Identity", []string{tape.Ref("y")})
		b.Output("out", onnx.Double)
		out, err := reference.Run(b.Graph("g"), values)
		if err != nil {
			t.Fatal(err)
		}
		clear(ops)
		for _, n := range b.Graph("g").Nodes {
			ops[n.Op]++
		}
		return out
	}
	plain := gradients(false, true, 0)
	compare := func(how string, fast map[string]*reference.Tensor) {
		for name, want := range plain {
			scale, diff := 1e-9, 0.0
			for i, w := range want.F {
				scale, diff = max(scale, math.Abs(w)), max(diff, math.Abs(w-fast[name].F[i]))
			}
			if diff/scale > tolerance {
				t.Errorf("%s: %s: relative difference %.2g", how, name, diff/scale)
			}
		}
	}
	compare("direct", gradients(true, true, 0))
	compare("bilinear", gradients(true, false, 0))
	kept := maps.Clone(ops)
	compare("computed again", gradients(true, false, 1))
	// r0 is kept for c3, so c1's transformed input is computed again from it; r1 is not, and so its mask is.
	if ops["MatMul"] != kept["MatMul"]+2 || ops["Conv"] != kept["Conv"]+1 {
		t.Errorf("%d more MatMul and %d more Conv nodes, want 2 and 1", ops["MatMul"]-kept["MatMul"], ops["Conv"]-kept["Conv"])
	}
}
