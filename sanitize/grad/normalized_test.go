package grad_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
)

// TestJoinedBatchNormalization: a block with 1x1 convolutions to many channels, each joined with the BatchNormalization behind it, gives what the
// operators give one by one: output, statistics and all gradients, in the plain layout and in Outer.
func TestJoinedBatchNormalization(t *testing.T) {
	const n, c, k = 3, 3, 7
	norm := func(out, x string) *onnx.Node {
		return &onnx.Node{Op: "BatchNormalization", Inputs: []string{x, out + "s", out + "b", out + "m", out + "v"}, Outputs: []string{out}}
	}
	one := func(op, out string, in ...string) *onnx.Node {
		return &onnx.Node{Op: op, Inputs: in, Outputs: []string{out}}
	}
	nodes := []*onnx.Node{
		one("Conv", "c0", "image", "w0", "b0"), norm("n0", "c0"), one("Relu", "r0", "n0"), // joined, as the next
		one("Conv", "c1", "image", "w1"), norm("n1", "c1"), one("Add", "sum", "r0", "n1"),
		one("Conv", "c2", "sum", "w2", "b2"), norm("n2", "c2"), one("Relu", "r2", "n2"), // to fewer channels; the bias has no gradient
		one("Conv", "c3", "r2", "w0"), norm("n3", "c3"), one("Mul", "both", "c3", "n3"), // read by another as well; its weights are another's too
		one("GlobalAveragePool", "pool", "both"), one("Flatten", "y", "pool"),
	}
	shapes := map[string][]int64{"image": {n, c, 4, 5}, "w0": {k, c, 1, 1}, "b0": {k}, "w1": {k, c, 1, 1}, "w2": {c, k, 1, 1}, "b2": {c}}
	wanted := []string{"image", "w0", "b0", "w1", "w2", "b2"}
	for i, channels := range []int64{k, k, c, k} {
		for _, p := range []string{"s", "b", "m", "v"} {
			name := "n" + string(rune('0'+i)) + p
			shapes[name] = []int64{channels}
			if p == "s" || p == "b" {
				wanted = append(wanted, name)
			}
		}
	}
	rng := rand.New(rand.NewPCG(5, 6))
	values := map[string]*reference.Tensor{}
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		v := make([]float64, count(shapes[name]))
		for i := range v {
			v[i] = rng.NormFloat64()
			if name[len(name)-1] == 'v' {
				v[i] = 1
			}
		}
		values[name] = reference.Floats(shapes[name], v)
	}
	all, err := reference.RunAll(&onnx.Graph{Nodes: nodes, Outputs: []*onnx.Value{{Name: "y"}}}, values)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range all {
		shapes[name] = v.Shape
	}
	seed := make([]float64, n*k)
	for i := range seed {
		seed[i] = rng.NormFloat64()
	}
	values["dy"] = reference.Floats([]int64{n, k}, seed)

	run := func(plan, join bool) (map[string]*reference.Tensor, int) {
		b := onnx.NewBuilder()
		for name, v := range values {
			b.Input(name, onnx.Double, v.Shape...)
		}
		tape := grad.NewTape(b, maps.Clone(shapes), map[string]*onnx.Tensor{})
		tape.Forms.Join = join
		for i := range 4 {
			tape.Training["n"+string(rune('0'+i))] = true
		}
		if plan {
			tape.Plan(nodes, wanted)
			if got := tape.Native("n0"); got != grad.Outer {
				t.Fatalf("n0 has layout %d", got)
			}
			tape.Bind("image", tape.ToNative("image", "image"))
		}
		tape.Forward(nodes)
		g, err := tape.Backward(nodes, map[string]string{"y": "dy"}, wanted)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{"y": tape.Ref("y")}
		for _, w := range wanted {
			out["d/"+w] = tape.ToPlain(w, g[w])
		}
		for _, s := range tape.Statistics {
			out["mean/"+s.Node.Outputs[0]], out["variance/"+s.Node.Outputs[0]] = s.Mean, s.Variance
		}
		for name, emitted := range out {
			b.Output(b.Named(name, "Identity", []string{emitted}), onnx.Double)
		}
		graph := b.Graph("g")
		got, err := reference.Run(graph, values)
		if err != nil {
			t.Fatal(err)
		}
		squares := 0 // sums of squares, one for each BatchNormalization that is done by itself
		for _, n := range graph.Nodes {
			if n.Op == "ReduceSumSquare" {
				squares++
			}
		}
		return got, squares
	}
	for _, plan := range []bool{false, true} {
		apart, each := run(plan, false)
		joined, left := run(plan, true)
		if each != 4 || left != 2 {
			t.Errorf("plan %v: %d BatchNormalizations by themselves, and %d with joining; want 4 and 2", plan, each, left)
		}
		for name, want := range apart {
			scale, diff := 1e-3, 0.0
			for i, w := range want.F {
				scale, diff = max(scale, math.Abs(w)), max(diff, math.Abs(w-joined[name].F[i]))
			}
			if diff/scale > tolerance || len(want.F) != len(joined[name].F) {
				t.Errorf("plan %v: %s: relative difference %.2g", plan, name, diff/scale)
			}
		}
	}
}
