package onnx_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// TestNormalizeKeepsTheFunction runs small models of old and new operator sets as they are, and normalized at opset 17.
func TestNormalizeKeepsTheFunction(t *testing.T) {
	type build func(b *onnx.Builder, x string) string
	op := func(name string, attrs ...*onnx.Attr) build {
		return func(b *onnx.Builder, x string) string { return b.Op(name, []string{x}, attrs...) }
	}
	inner := func(name string, attrs ...*onnx.Attr) build { // not at the end, where Softmax is a classifier's last
		return func(b *onnx.Builder, x string) string {
			return b.Op("Neg", []string{b.Op(name, []string{x}, attrs...)})
		}
	}
	channels := func(b *onnx.Builder, v float32) string { return b.Floats([]int64{3}, []float32{v, v / 2, v + 1}) }
	for _, tt := range []struct {
		name  string
		opset int64
		build build
	}{
		{"Clip", 7, op("Clip", onnx.F("min", -0.5), onnx.F("max", 0.25))},
		{"Clip below", 10, op("Clip", onnx.F("max", 0.25))},
		{"Clip above", 10, op("Clip", onnx.F("min", -0.25))},
		{"Clip by inputs", 11, func(b *onnx.Builder, x string) string { return b.Op("Clip", []string{x, "", b.Float(0.1)}) }},
		{"Dropout with a ratio", 11, op("Dropout", onnx.F("ratio", 0.7))},
		{"Dropout with inputs", 13, func(b *onnx.Builder, x string) string {
			return b.OpN("Dropout", 2, []string{x, b.Float(0.7), b.Const(onnx.NewBool("", nil, []bool{false}))})[0]
		}},
		{"Pad", 10, op("Pad", onnx.Is("pads", 0, 0, 1, 0, 0, 0, 2, 1), onnx.F("value", 3))},
		{"Pad with zeros", 7, op("Pad", onnx.Is("pads", 0, 0, 1, 0, 0, 0, 2, 1))},
		{"Pad by reflection", 10, op("Pad", onnx.Is("pads", 0, 0, 1, 1, 0, 0, 1, 1), onnx.S("mode", "reflect"))},
		{"Pad at opset 18", 18, func(b *onnx.Builder, x string) string {
			return b.Op("Pad", []string{x, b.Int64s(0, 0, 1, 0, 0, 0, 2, 1)})
		}},
		{"ReduceSum", 11, op("ReduceSum", onnx.Is("axes", 1, 3), onnx.I("keepdims", 0))},
		{"ReduceSum of everything", 11, op("ReduceSum")},
		{"ReduceMean", 13, op("ReduceMean", onnx.Is("axes", 2, 3))},
		{"ReduceMean at opset 18", 18, func(b *onnx.Builder, x string) string {
			return b.Op("ReduceMean", []string{x, b.Int64s(2, 3)}, onnx.I("keepdims", 0))
		}},
		{"ReduceMax at opset 20", 20, func(b *onnx.Builder, x string) string { return b.Op("ReduceMax", []string{x, b.Int64s(-1)}) }},
		{"ReduceMin of everything at opset 18", 18, op("ReduceMin", onnx.I("noop_with_empty_axes", 0))},
		{"ReduceMean of nothing at opset 18", 18, op("ReduceMean", onnx.I("noop_with_empty_axes", 1))},
		{"ReduceMean along computed axes", 18, func(b *onnx.Builder, x string) string {
			axes := b.Op("Concat", []string{b.Op("Reshape", []string{b.Op("Unsqueeze", []string{b.Int64s(2), b.Int64s(0, 2)}), b.Int64s(-1)}), b.Op("Identity", []string{b.Int64s(3)})}, onnx.I("axis", 0))
			return b.Op("ReduceMean", []string{x, b.Op("Squeeze", []string{b.Op("Reshape", []string{axes, b.Int64s(1, -1)}), b.Int64s(0)})}, onnx.I("keepdims", 0))
		}},
		{"SequenceAt of equal parts", 18, func(b *onnx.Builder, x string) string {
			parts := b.Op("SplitToSequence", []string{x, b.Int64(2)}, onnx.I("axis", 3))
			return b.Op("Concat", []string{b.Op("SequenceAt", []string{parts, b.Int64(2)}), b.Op("SequenceAt", []string{parts, b.Int64(0)})}, onnx.I("axis", -1))
		}},
		{"SequenceAt of unequal parts", 18, func(b *onnx.Builder, x string) string {
			parts := b.Op("SplitToSequence", []string{x, b.Int64s(1, 3, 1)}, onnx.I("axis", -1))
			return b.Op("Concat", []string{b.Op("SequenceAt", []string{parts, b.Int64(-2)}), b.Op("SequenceAt", []string{parts, b.Int64(0)})}, onnx.I("axis", -1))
		}},
		{"SequenceAt of single elements", 18, func(b *onnx.Builder, x string) string {
			kept := b.Op("SplitToSequence", []string{x}, onnx.I("axis", 2))
			dropped := b.Op("SplitToSequence", []string{x}, onnx.I("axis", 2), onnx.I("keepdims", 0))
			return b.Op("Add", []string{b.Op("SequenceAt", []string{kept, b.Int64(-1)}), b.Op("Unsqueeze", []string{b.Op("SequenceAt", []string{dropped, b.Int64(1)}), b.Int64s(2)})})
		}},
		{"Squeeze and Unsqueeze", 11, func(b *onnx.Builder, x string) string {
			return b.Op("Squeeze", []string{b.Op("Unsqueeze", []string{x}, onnx.Is("axes", 0, 2))}, onnx.Is("axes", 0))
		}},
		{"Squeeze of everything", 11, func(b *onnx.Builder, x string) string {
			return b.Op("Squeeze", []string{b.Op("Unsqueeze", []string{x}, onnx.Is("axes", 0, 2))})
		}},
		{"Softmax over all but the batch", 11, inner("Softmax")},
		{"LogSoftmax from axis 2", 9, inner("LogSoftmax", onnx.I("axis", 2))},
		{"Softmax over the last axis", 12, inner("Softmax", onnx.I("axis", -1))},
		{"Softmax at opset 13", 13, inner("Softmax", onnx.I("axis", 1))},
		{"Softmax at the end", 9, func(b *onnx.Builder, x string) string { return b.Op("Softmax", []string{b.Op("Flatten", []string{x})}) }},
		{"Softmax and Identity at the end", 9, func(b *onnx.Builder, x string) string {
			return b.Op("Identity", []string{b.Op("LogSoftmax", []string{b.Op("Flatten", []string{x})}, onnx.I("axis", 1))})
		}},
		{"BatchNormalization", 7, func(b *onnx.Builder, x string) string {
			return b.Op("BatchNormalization", []string{x, channels(b, 1), channels(b, 2), channels(b, -1), channels(b, 0.5)}, onnx.F("momentum", 0.3), onnx.F("epsilon", 0.1))
		}},
		{"BatchNormalization at opset 15", 15, func(b *onnx.Builder, x string) string {
			return b.Op("BatchNormalization", []string{x, channels(b, 1), channels(b, 2), channels(b, -1), channels(b, 0.5)}, onnx.I("training_mode", 0))
		}},
		{"BatchNormalization of weights by their own statistics", 15, func(b *onnx.Builder, x string) string {
			w := b.Op("Reshape", []string{b.Floats([]int64{3, 2, 2}, []float32{1, 2, 3, 4, 9, 8, 7, 0, 1, 1, 2, 0}), b.Int64s(1, 3, -1)})
			y := b.OpN("BatchNormalization", 3, []string{w, channels(b, 1), channels(b, 2), channels(b, -1), channels(b, 0.5)}, onnx.I("training_mode", 1), onnx.F("epsilon", 0.1))[0]
			one, zero := b.Floats([]int64{3}, []float32{1, 1, 1}), b.Floats([]int64{3}, []float32{0, 0, 0})
			z := b.OpN("BatchNormalization", 3, []string{w, one, zero, channels(b, -1), channels(b, 0.5)}, onnx.I("training_mode", 1))[0]
			return b.Op("Add", []string{b.Op("Mul", []string{x, b.Op("ReduceMean", []string{b.Op("Exp", []string{y})})}), b.Op("ReduceMax", []string{z})})
		}},
		{"BatchNormalization of rows per activation", 7, func(b *onnx.Builder, x string) string {
			rows := b.Op("Flatten", []string{x}, onnx.I("axis", 3))
			v := func(v float32) string { return b.Floats([]int64{5}, []float32{v, v + 1, v + 2, v + 3, v + 4}) }
			return b.Op("BatchNormalization", []string{rows, v(1), v(2), v(-1), v(0.5)}, onnx.I("spatial", 0))
		}},
		{"Hardmax", 11, inner("Hardmax", onnx.I("axis", 2))},
		{"Split", 11, func(b *onnx.Builder, x string) string {
			return b.OpN("Split", 2, []string{x}, onnx.I("axis", 3), onnx.Is("split", 2, 3))[1]
		}},
		{"Split into equal parts", 11, func(b *onnx.Builder, x string) string { return b.OpN("Split", 3, []string{x}, onnx.I("axis", 1))[2] }},
		{"Split at opset 18", 18, func(b *onnx.Builder, x string) string {
			return b.OpN("Split", 3, []string{x}, onnx.I("axis", -1), onnx.I("num_outputs", 3))[2]
		}},
		{"Slice", 9, op("Slice", onnx.Is("starts", 1, -3), onnx.Is("ends", 4, -1), onnx.Is("axes", 2, 3))},
		{"Slice from the first axis on", 7, op("Slice", onnx.Is("starts", 0, 1), onnx.Is("ends", 1, 3))},
		{"TopK", 9, func(b *onnx.Builder, x string) string {
			return b.OpN("TopK", 2, []string{x}, onnx.I("axis", 3), onnx.I("k", 2))[0]
		}},
		{"Upsample", 7, op("Upsample", onnx.S("mode", "nearest"), onnx.Fs("scales", 1, 1, 2, 3))},
		{"Upsample by linear interpolation", 9, func(b *onnx.Builder, x string) string {
			return b.Op("Upsample", []string{x, b.Floats([]int64{4}, []float32{1, 1, 2, 1.5})}, onnx.S("mode", "linear"))
		}},
		{"Resize at opset 10", 10, func(b *onnx.Builder, x string) string {
			return b.Op("Resize", []string{x, b.Floats([]int64{4}, []float32{1, 1, 2, 1.6})})
		}},
		{"Resize at opset 10 to less", 10, func(b *onnx.Builder, x string) string {
			return b.Op("Resize", []string{x, b.Floats([]int64{4}, []float32{1, 1, 0.5, 0.6})})
		}},
		{"Resize at opset 19", 19, func(b *onnx.Builder, x string) string {
			return b.Op("Resize", []string{x, "", b.Floats([]int64{2}, []float32{2, 1.5})}, onnx.S("mode", "cubic"), onnx.Is("axes", 2, -1), onnx.I("antialias", 0))
		}},
		{"Scatter", 10, func(b *onnx.Builder, x string) string {
			return b.Op("Scatter", []string{x, b.Const(onnx.NewInt64("", []int64{1, 1, 1, 2}, []int64{3, 1})), b.Floats([]int64{1, 1, 1, 2}, []float32{7, 8})}, onnx.I("axis", 2))
		}},
		{"ScatterElements at opset 18", 18, func(b *onnx.Builder, x string) string {
			return b.Op("ScatterElements", []string{x, b.Const(onnx.NewInt64("", []int64{1, 1, 1, 2}, []int64{3, 3})), b.Floats([]int64{1, 1, 1, 2}, []float32{7, 8})}, onnx.I("axis", 2), onnx.S("reduction", "add"))
		}},
		{"Cast at opset 19", 19, op("Cast", onnx.I("to", int64(onnx.Float)), onnx.I("saturate", 1))},
		{"AveragePool in ceil mode at opset 17", 17, op("AveragePool", onnx.Is("kernel_shape", 3, 2), onnx.Is("strides", 2, 2), onnx.I("ceil_mode", 1))},
		{"AveragePool in ceil mode at opset 19", 19, op("AveragePool", onnx.Is("kernel_shape", 3, 2), onnx.Is("strides", 2, 2), onnx.I("ceil_mode", 1), onnx.I("count_include_pad", 1))},
		{"AveragePool with padding at opset 22", 22, op("AveragePool", onnx.Is("kernel_shape", 3, 2), onnx.Is("pads", 1, 1, 1, 0), onnx.I("count_include_pad", 1), onnx.Is("dilations", 1, 1))},
		{"LpPool at opset 18", 18, op("LpPool", onnx.Is("kernel_shape", 2, 2), onnx.I("p", 3), onnx.Is("dilations", 1, 1), onnx.I("ceil_mode", 0))},
		{"MaxPool with storage order", 12, op("MaxPool", onnx.Is("kernel_shape", 2, 2), onnx.I("storage_order", 1))},
		{"Pad some axes at opset 18", 18, func(b *onnx.Builder, x string) string {
			return b.Op("Pad", []string{x, b.Int64s(1, 0, 2, 1), b.Float(0.5), b.Int64s(-1, 1)})
		}},
		{"ReduceL2 at opset 18", 18, func(b *onnx.Builder, x string) string { return b.Op("ReduceL2", []string{x, b.Int64s(1, -1)}) }},
		{"ReduceLogSumExp at opset 18", 18, func(b *onnx.Builder, x string) string {
			return b.Op("ReduceLogSumExp", []string{x, b.Int64s(1)}, onnx.I("keepdims", 0))
		}},
		{"ReduceL1 of nothing", 18, op("ReduceL1", onnx.I("noop_with_empty_axes", 1))},
		{"ReduceSumSquare of nothing", 18, op("ReduceSumSquare", onnx.I("noop_with_empty_axes", 1))},
		{"ReduceLogSumExp of nothing", 18, op("ReduceLogSumExp", onnx.I("noop_with_empty_axes", 1))},
		{"Gelu", 20, op("Gelu")},
		{"Gelu by Tanh", 20, op("Gelu", onnx.S("approximate", "tanh"))},
		{"Mish", 18, op("Mish")},
		{"Swish", 24, op("Swish")},
		{"Swish with a slope", 24, op("Swish", onnx.F("alpha", 1.5))},
		{"GroupNormalization", 18, func(b *onnx.Builder, x string) string {
			return b.Op("GroupNormalization", []string{x, channels(b, 1), channels(b, 2)}, onnx.I("num_groups", 3), onnx.F("epsilon", 0.1))
		}},
		{"GroupNormalization at opset 21", 21, func(b *onnx.Builder, x string) string {
			return b.Op("GroupNormalization", []string{x, channels(b, 1), channels(b, 2)}, onnx.I("num_groups", 1))
		}},
		{"Col2Im", 18, func(b *onnx.Builder, x string) string {
			return b.Op("Col2Im", []string{b.Op("Reshape", []string{x, b.Int64s(2, 12, 5)}), b.Int64s(3, 6), b.Int64s(2, 2)}, onnx.Is("strides", 2, 1))
		}},
		{"Col2Im with overlap and padding", 18, func(b *onnx.Builder, x string) string {
			return b.Op("Col2Im", []string{b.Op("Reshape", []string{x, b.Int64s(1, 6, 20)}), b.Int64s(9, 5), b.Int64s(3, 2)}, onnx.Is("strides", 2, 1), onnx.Is("pads", 1, 0, 0, 1), onnx.Is("dilations", 1, 1))
		}},
		{"RMSNormalization", 23, func(b *onnx.Builder, x string) string {
			return b.Op("RMSNormalization", []string{x, b.Floats([]int64{5}, []float32{1, 2, 3, 4, 5})}, onnx.F("epsilon", 0.1))
		}},
		{"RMSNormalization from axis 2", 23, func(b *onnx.Builder, x string) string {
			return b.Op("RMSNormalization", []string{x, b.Floats([]int64{4, 5}, make([]float32, 20))}, onnx.I("axis", 2))
		}},
		{"Attention", 23, func(b *onnx.Builder, x string) string { return b.Op("Attention", []string{x, x, x}) }},
		{"Attention with a mask", 23, func(b *onnx.Builder, x string) string {
			mask := make([]bool, 16)
			for i := range mask {
				mask[i] = i%3 != 1
			}
			return b.Op("Attention", []string{x, x, x, b.Const(onnx.NewBool("", []int64{4, 4}, mask))}, onnx.F("scale", 0.7))
		}},
		{"Attention with a bias, capped", 23, func(b *onnx.Builder, x string) string {
			return b.Op("Attention", []string{x, x, x, b.Floats([]int64{4, 4}, []float32{0, 1, -1, 0.5, 2, 0, 1, 1, 0, 0, 0, 3, -2, 0, 1, 1})}, onnx.F("softcap", 2))
		}},
		{"Attention to what came before", 23, func(b *onnx.Builder, x string) string {
			return b.Op("Attention", []string{x, x, x}, onnx.I("is_causal", 1))
		}},
		{"Attention with joined heads", 23, func(b *onnx.Builder, x string) string {
			x = b.Op("Reshape", []string{x, b.Int64s(2, 15, 4)})
			return b.Op("Attention", []string{x, x, x}, onnx.I("q_num_heads", 2), onnx.I("kv_num_heads", 2))
		}},
		{"Pad some axes of what no file says the rank of", 18, func(b *onnx.Builder, x string) string {
			y := b.Op("Softmax", []string{b.Op("Reshape", []string{b.Op("Add", []string{x, b.Float(1)}), b.Int64s(6, 4, 5)})})
			y = b.Op("ReduceSum", []string{b.Op("Unsqueeze", []string{y, b.Int64s(1, 2)}), b.Int64s(1)}, onnx.I("keepdims", 0))
			y = b.Op("MatMul", []string{y, b.Op("Squeeze", []string{b.Op("Unsqueeze", []string{b.Floats([]int64{5, 2}, make([]float32, 10)), b.Int64s(0)}), b.Int64s(0)})})
			y = b.Op("Gather", []string{b.Op("ReduceMax", []string{y, b.Int64s(2)}), b.Const(onnx.NewInt64("", []int64{2, 1}, []int64{1, 0}))}, onnx.I("axis", 3))
			return b.Op("Pad", []string{y, b.Int64s(1, 0, 0, 2), "", b.Int64s(-1, 1)})
		}},
		{"Pad in a circle", 19, func(b *onnx.Builder, x string) string {
			return b.Op("Pad", []string{x, b.Int64s(0, 0, 2, 1, 0, 0, 3, 0)}, onnx.S("mode", "wrap"))
		}},
		{"Pad some axes in a circle", 19, func(b *onnx.Builder, x string) string {
			return b.Op("Pad", []string{x, b.Int64s(1, 2), "", b.Int64s(-1)}, onnx.S("mode", "wrap"))
		}},
		{"Split into unequal parts", 18, func(b *onnx.Builder, x string) string {
			parts := b.OpN("Split", 3, []string{b.Op("Neg", []string{x})}, onnx.I("axis", 3), onnx.I("num_outputs", 3))
			return b.Op("Concat", []string{parts[2], parts[1]}, onnx.I("axis", 3))
		}},
		{"Split into unequal parts along the last axis", 18, func(b *onnx.Builder, x string) string {
			parts := b.OpN("Split", 2, []string{b.Op("Neg", []string{x})}, onnx.I("axis", -1), onnx.I("num_outputs", 2))
			return b.Op("Concat", []string{parts[1], parts[0]}, onnx.I("axis", 3))
		}},
		{"Constant nodes", 13, func(b *onnx.Builder, x string) string {
			x = b.Op("Add", []string{x, b.Op("Constant", nil, onnx.T("value", onnx.NewFloat("", []int64{3, 1, 1}, []float32{1, 2, 3})))})
			x = b.Op("Mul", []string{x, b.Op("Constant", nil, onnx.F("value_float", 2))})
			x = b.Op("Add", []string{x, b.Op("Constant", nil, onnx.Fs("value_floats", 1, 2, 3, 4, 5))})
			x = b.Op("Unsqueeze", []string{x, b.Op("Constant", nil, onnx.Is("value_ints", 0, 2))})
			return b.Op("Gather", []string{x, b.Op("Constant", nil, onnx.I("value_int", 1))}, onnx.I("axis", 1))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := onnx.NewBuilder()
			b.Input("x", onnx.Float, 2, 3, 4, 5)
			b.Output(tt.build(b, "x"), onnx.Float)
			m := b.Model(tt.opset)
			m.Graph.Outputs[0].Shape = nil
			raw, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			before, err := onnx.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			g := checkNormalized(t, before, raw, 1e-5)
			for _, n := range g.Nodes {
				if n.Op == "Constant" || n.Op == "Dropout" {
					t.Errorf("%s is left", n.Op)
				}
			}
			again, err := onnx.Parse(raw)
			if err != nil || !onnx.Equal(before, again) {
				t.Errorf("the model was changed (%v)", err)
			}
		})
	}
}

// checkNormalized runs a model as it is, and normalized, and returns its normalized graph.
func checkNormalized(t *testing.T, m *onnx.Model, raw []byte, tolerance float64) *onnx.Graph {
	t.Helper()
	g, got := runNormalized(t, m)
	want := runOne(t, raw)
	if !slices.Equal(got.Shape, want.Shape) {
		t.Fatalf("shape %v, want %v", got.Shape, want.Shape)
	}
	for i := range want.F32 {
		if math.Abs(float64(got.F32[i]-want.F32[i])) > tolerance {
			t.Fatalf("element %d is %v, want %v", i, got.F32[i], want.F32[i])
		}
	}
	return g
}

// runNormalized normalizes a model and runs it.
func runNormalized(t *testing.T, m *onnx.Model) (*onnx.Graph, *ort.Array) {
	t.Helper()
	g, err := onnx.Normalize(m)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := (&onnx.Model{IRVersion: 8, Opsets: map[string]int64{"": onnx.Opset}, Graph: g}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return g, runOne(t, raw)
}

func runOne(t *testing.T, model []byte) *ort.Array {
	t.Helper()
	s, err := ort.NewSession(model, ort.Options{Provider: ort.CPU})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x := &ort.Array{Shape: []int64{2, 3, 4, 5}, F32: make([]float32, 120)}
	for i := range x.F32 {
		x.F32[i] = float32(math.Sin(float64(i * i)))
	}
	out := make([]*ort.Array, 1)
	if err := s.Run(t.Context(), []*ort.Array{x}, out); err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// TestNormalizeRefuses: what has no equal at opset 17 is an error that names the node.
func TestNormalizeRefuses(t *testing.T) {
	for _, tt := range []struct {
		opset int64
		node  *onnx.Node
		says  string
	}{
		{7, &onnx.Node{Op: "BatchNormalization", Inputs: []string{"x", "x", "x", "x", "x"}, Attrs: []*onnx.Attr{onnx.I("spatial", 0)}}, "spatial=0"},
		{18, &onnx.Node{Op: "ReduceMean", Inputs: []string{"x", "axes"}}, "not constant"},
		{18, &onnx.Node{Op: "Pad", Inputs: []string{"x", "x", "", "axes"}}, "axes"},
		{9, &onnx.Node{Op: "Softmax", Inputs: []string{"x"}, Attrs: []*onnx.Attr{onnx.I("axis", 2)}}, "axis 2"},
		{19, &onnx.Node{Op: "Pad", Inputs: []string{"x", "x"}, Attrs: []*onnx.Attr{onnx.S("mode", "wrap")}}, "wrap"},
		{19, &onnx.Node{Op: "AveragePool", Inputs: []string{"x"}, Attrs: []*onnx.Attr{onnx.Is("dilations", 2, 1)}}, "dilations"},
		{19, &onnx.Node{Op: "AveragePool", Inputs: []string{"x"}, Attrs: []*onnx.Attr{onnx.Is("kernel_shape", 2, 2), onnx.Is("strides", 2, 2), onnx.S("auto_pad", "SAME_UPPER"), onnx.I("ceil_mode", 1), onnx.I("count_include_pad", 1)}}, "count_include_pad"},
		{18, &onnx.Node{Op: "Split", Inputs: []string{"x"}, Attrs: []*onnx.Attr{onnx.I("num_outputs", 1), onnx.I("axis", 7)}}, "axis 7"},
		{18, &onnx.Node{Op: "LpPool", Inputs: []string{"x"}, Attrs: []*onnx.Attr{onnx.I("ceil_mode", 1)}}, "ceil_mode"},
		{18, &onnx.Node{Op: "Resize", Inputs: []string{"x"}, Attrs: []*onnx.Attr{onnx.I("antialias", 1)}}, "antialias"},
		{18, &onnx.Node{Op: "Resize", Inputs: []string{"x"}, Attrs: []*onnx.Attr{onnx.S("keep_aspect_ratio_policy", "not_larger")}}, "keep_aspect_ratio_policy"},
		{19, &onnx.Node{Op: "Resize", Inputs: []string{"x"}, Attrs: []*onnx.Attr{onnx.S("coordinate_transformation_mode", "half_pixel_symmetric")}}, "half_pixel_symmetric"},
		{18, &onnx.Node{Op: "ScatterND", Inputs: []string{"x", "axes", "x"}, Attrs: []*onnx.Attr{onnx.S("reduction", "max")}}, "reduction max"},
		{23, &onnx.Node{Op: "Attention", Inputs: []string{"x", "x", "x", "", "x", "x"}}, "cache"},
		{23, &onnx.Node{Op: "Attention", Inputs: []string{"x", "x", "x"}, Attrs: []*onnx.Attr{onnx.I("q_num_heads", 4), onnx.I("kv_num_heads", 2)}}, "heads"},
	} {
		b := onnx.NewBuilder()
		b.Input("x", onnx.Float, 2, 3, 4, 5)
		b.Input("axes", onnx.Int64, 1)
		tt.node.Name, tt.node.Outputs = "culprit", []string{"y"}
		b.Add(tt.node)
		b.Output("y", onnx.Float)
		_, err := onnx.Normalize(b.Model(tt.opset))
		var where *onnx.Error
		if !errors.Is(err, onnx.ErrUnsupported) || !errors.As(err, &where) || where.Node != "culprit" || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: error %v, want one about %s", tt.node.Op, err, tt.says)
		}
	}
}

// TestContributed: what ONNX Runtime's optimizer leaves in a file computes the same in operators of the standard.
func TestContributed(t *testing.T) {
	own := func(b *onnx.Builder, op string, in []string, attrs ...*onnx.Attr) string {
		return b.Own(onnx.Contrib, op, in, attrs...)
	}
	numbers := func(b *onnx.Builder, shape ...int64) string {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(math.Cos(float64(i * i)))
		}
		return b.Floats(shape, v)
	}
	fusedConv := func(sum bool, activation string, parameters ...float32) func(b *onnx.Builder, x string) string {
		return func(b *onnx.Builder, x string) string {
			in := []string{x, numbers(b, 2, 3, 3, 3), numbers(b, 2)}
			if sum {
				in = append(in, numbers(b, 2, 2, 2, 5))
			}
			attrs := []*onnx.Attr{onnx.Is("kernel_shape", 3, 3), onnx.Is("pads", 0, 1, 0, 1)}
			if activation != "" {
				attrs = append(attrs, onnx.S("activation", activation))
			}
			if parameters != nil {
				attrs = append(attrs, onnx.Fs("activation_params", parameters...))
			}
			return own(b, "FusedConv", in, attrs...)
		}
	}
	skip := func(b *onnx.Builder, x string) (rows string, in []string) {
		rows = b.Op("Reshape", []string{x, b.Int64s(2, 12, 5)})
		return rows, []string{rows, b.Op("Neg", []string{b.Op("Sin", []string{rows})}), numbers(b, 5), numbers(b, 5)}
	}
	for name, build := range map[string]func(b *onnx.Builder, x string) string{
		"BiasGelu":              func(b *onnx.Builder, x string) string { return own(b, "BiasGelu", []string{x, numbers(b, 5)}) },
		"Gelu":                  func(b *onnx.Builder, x string) string { return own(b, "Gelu", []string{x}) },
		"FastGelu":              func(b *onnx.Builder, x string) string { return own(b, "FastGelu", []string{x}) },
		"FastGelu with a bias":  func(b *onnx.Builder, x string) string { return own(b, "FastGelu", []string{x, numbers(b, 5)}) },
		"QuickGelu":             func(b *onnx.Builder, x string) string { return own(b, "QuickGelu", []string{x}) },
		"QuickGelu with alpha":  func(b *onnx.Builder, x string) string { return own(b, "QuickGelu", []string{x}, onnx.F("alpha", 0.5)) },
		"FusedConv":             fusedConv(false, "Relu"),
		"FusedConv alone":       fusedConv(false, ""),
		"FusedConv with a sum":  fusedConv(true, "Relu"),
		"FusedConv Sigmoid":     fusedConv(false, "Sigmoid"),
		"FusedConv Tanh":        fusedConv(false, "Tanh"),
		"FusedConv LeakyRelu":   fusedConv(false, "LeakyRelu", 0.3),
		"FusedConv Clip":        fusedConv(false, "Clip", -0.5, 0.75),
		"FusedConv HardSigmoid": fusedConv(false, "HardSigmoid", 0.3, 0.4),
		"FusedGemm": func(b *onnx.Builder, x string) string {
			rows := b.Op("Flatten", []string{x}, onnx.I("axis", 3))
			return own(b, "FusedGemm", []string{rows, numbers(b, 4, 5), numbers(b, 4)}, onnx.I("transB", 1), onnx.F("alpha", 0.5), onnx.S("activation", "LeakyRelu"), onnx.F("activation_alpha", 0.2))
		},
		"FusedMatMul": func(b *onnx.Builder, x string) string {
			y := b.Op("Neg", []string{x})
			return own(b, "FusedMatMul", []string{y, y}, onnx.I("transB", 1), onnx.F("alpha", 0.25))
		},
		"FusedMatMul, the first one turned": func(b *onnx.Builder, x string) string {
			return own(b, "FusedMatMul", []string{x, numbers(b, 4, 2)}, onnx.I("transA", 1))
		},
		"SkipLayerNormalization": func(b *onnx.Builder, x string) string {
			_, in := skip(b, x)
			return own(b, "SkipLayerNormalization", in[:3], onnx.F("epsilon", 0.1))
		},
		"SkipLayerNormalization with bias and sum": func(b *onnx.Builder, x string) string {
			_, in := skip(b, x)
			b.Add(&onnx.Node{Domain: onnx.Contrib, Op: "SkipLayerNormalization", Inputs: append(in, numbers(b, 5)), Outputs: []string{"normal", "", "", "sum"}})
			return b.Op("Sub", []string{"normal", "sum"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := onnx.NewBuilder()
			b.Input("x", onnx.Float, 2, 3, 4, 5)
			b.Output(build(b, "x"), onnx.Float)
			m := b.Model(17)
			m.Graph.Outputs[0].Shape = nil
			m.Opsets[onnx.Contrib] = 1
			raw, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range checkNormalized(t, m, raw, 1e-5).Nodes {
				if n.Domain != "" {
					t.Errorf("%s is left", n.Op)
				}
			}
		})
	}
}

// TestNormalizeChecksArity: a node that lacks what every node of its kind has is an error, for all operators.
func TestNormalizeChecksArity(t *testing.T) {
	for domain, ops := range map[string][]string{"": onnx.Operators(), onnx.Contrib: onnx.Contributed()} {
		for _, op := range ops {
			for _, opset := range []int64{7, 9, 11, 17, 18, onnx.Newest} {
				for _, n := range []*onnx.Node{{Op: op, Domain: domain, Outputs: []string{"y"}}, {Op: op, Domain: domain, Inputs: []string{"x", "x", "x", "x", "x", "x", "x", "x"}}} {
					b := onnx.NewBuilder()
					b.Input("x", onnx.Float, 2, 3, 4, 5)
					b.Add(n)
					_, err := onnx.Normalize(b.Model(opset))
					none := slices.Contains([]string{"Constant", "Optional", "OptionalHasElement", "RandomNormal", "RandomUniform", "SequenceEmpty"}, op)
					if !errors.Is(err, onnx.ErrMalformed) && (len(n.Outputs) == 0 || !none) {
						t.Errorf("%s at opset %d, %d inputs, %d outputs: %v", op, opset, len(n.Inputs), len(n.Outputs), err)
					}
				}
			}
		}
	}
}

func TestNormalizeOperatorSet(t *testing.T) {
	for opsets, ok := range map[string]bool{"6": false, "7": true, "28": true, "29": false, "none": false, "ai.onnx 13": true, "others only": false} {
		m := onnx.NewBuilder().Model(17)
		switch opsets {
		case "none":
			m.Opsets = nil
		case "ai.onnx 13":
			m.Opsets = map[string]int64{"ai.onnx": 13}
		case "others only":
			m.Opsets = map[string]int64{"com.microsoft": 1}
		default:
			var v int64
			if _, err := fmt.Sscan(opsets, &v); err != nil {
				t.Fatal(err)
			}
			m.Opsets = map[string]int64{"": v}
		}
		if _, err := onnx.Normalize(m); errors.Is(err, onnx.ErrOperatorSet) == ok {
			t.Errorf("operator set %s: error %v", opsets, err)
		}
	}
}

// TestNormalizeDomains: the standard's domain has two spellings; nodes of another domain are left alone.
func TestNormalizeDomains(t *testing.T) {
	b := onnx.NewBuilder()
	b.Add(&onnx.Node{Op: "Clip", Domain: "ai.onnx", Inputs: []string{"x"}, Outputs: []string{"y"}, Attrs: []*onnx.Attr{onnx.F("min", 0)}})
	b.Add(&onnx.Node{Op: "Clip", Domain: "example.org", Inputs: []string{"y"}, Outputs: []string{"z"}, Attrs: []*onnx.Attr{onnx.F("min", 0)}})
	b.Add(&onnx.Node{Op: "Constant", Domain: "ai.onnx", Outputs: []string{"c"}, Attrs: []*onnx.Attr{onnx.F("value_float", 3)}})
	b.Add(&onnx.Node{Op: "Constant", Domain: "example.org", Outputs: []string{"d"}, Attrs: []*onnx.Attr{onnx.F("value_float", 3)}})
	g, err := onnx.Normalize(b.Model(10))
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Nodes) != 3 || g.Nodes[0].Domain != "" || len(g.Nodes[0].Inputs) != 3 || len(g.Nodes[1].Inputs) != 1 || g.Nodes[2].Output(0) != "d" {
		t.Errorf("%d nodes: %+v", len(g.Nodes), g.Nodes)
	}
	if c := g.Initializer("c"); c == nil || c.Floats()[0] != 3 {
		t.Errorf("the constant became %+v", c)
	}
}

// TestNormalizeConstantsOfOtherKinds: strings and sparse tensors are no numbers; their nodes stay.
func TestNormalizeConstantsOfOtherKinds(t *testing.T) {
	b := onnx.NewBuilder()
	b.Add(&onnx.Node{Op: "Constant", Outputs: []string{"c"}, Attrs: []*onnx.Attr{onnx.S("value_string", "a")}})
	g, err := onnx.Normalize(b.Model(13))
	if err != nil || len(g.Nodes) != 1 || len(g.Initializers) != 0 {
		t.Errorf("%d nodes, %d initializers, %v", len(g.Nodes), len(g.Initializers), err)
	}
}
