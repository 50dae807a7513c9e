package grad_test

import (
	"errors"
	"strings"
	"testing"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// TestRefuses: what a rule cannot do is an error that names node, operator and reason, on the way only.
func TestRefuses(t *testing.T) {
	shapes := map[string][]int64{"x": {1, 2, 9}, "w": {2, 2, 1}, "y0": {1, 2, 4}}
	for _, tt := range []struct {
		op     string
		attrs  []*onnx.Attr
		says   string
		inputs int
	}{
		{"MaxPool", []*onnx.Attr{onnx.Is("kernel_shape", 2), onnx.I("storage_order", 1)}, "storage_order=1", 1},
		{"MaxPool", []*onnx.Attr{onnx.Is("kernel_shape", 1), onnx.Is("strides", 3), onnx.S("auto_pad", "SAME_UPPER")}, "auto_pad=SAME_UPPER", 1},
		{"AveragePool", []*onnx.Attr{onnx.Is("kernel_shape", 4), onnx.Is("strides", 3), onnx.Is("pads", 1, 0), onnx.I("ceil_mode", 1), onnx.I("count_include_pad", 1)}, "count_include_pad", 1},
		{"ScatterElements", []*onnx.Attr{onnx.S("reduction", "mul")}, "reduction=mul", 3},
		{"ScatterND", []*onnx.Attr{onnx.S("reduction", "mul")}, "reduction=mul", 3},
		{"Det", nil, "no gradient rule", 1},
	} {
		n := node(tt.op, 1, []string{"x", "w", "u"}[:tt.inputs], tt.attrs...)
		n.Name = "culprit"
		n = grad.ResolvePadding(n, shapes)
		after := &onnx.Node{Op: "Relu", Inputs: []string{"y0"}, Outputs: []string{"z"}}
		beside := &onnx.Node{Op: "Relu", Inputs: []string{"x"}, Outputs: []string{"z"}}

		err := grad.Check(n)
		if !errors.Is(err, grad.ErrNoRule) || !strings.Contains(err.Error(), `node "culprit": `+tt.op) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: error %v", tt.op, err)
		}
		if bad := grad.Unsupported([]*onnx.Node{n, after}, []string{"x"}, "z"); len(bad) != 1 || bad[0] != n {
			t.Errorf("%s on the way: %v", tt.op, bad)
		}
		if bad := grad.Unsupported([]*onnx.Node{n, beside}, []string{"x"}, "z"); len(bad) != 0 {
			t.Errorf("%s beside the way: %v", tt.op, bad)
		}
		if bad := grad.Unsupported([]*onnx.Node{n, after}, []string{"other"}, "z"); len(bad) != 0 {
			t.Errorf("%s below nothing that is trained: %v", tt.op, bad)
		}
		b := onnx.NewBuilder()
		tape := grad.NewTape(b, shapes, nil)
		if _, err := tape.Backward([]*onnx.Node{n}, map[string]string{"y0": "dy"}, []string{"x"}); !errors.Is(err, grad.ErrNoRule) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: Backward: %v", tt.op, err)
		}
	}
}

// TestWindowsThatFit: ceil_mode without effect is no obstacle.
func TestWindowsThatFit(t *testing.T) {
	n := node("AveragePool", 1, []string{"x"}, onnx.Is("kernel_shape", 3), onnx.Is("strides", 3), onnx.Is("pads", 1, 1), onnx.I("ceil_mode", 1), onnx.I("count_include_pad", 1))
	n = grad.ResolvePadding(n, map[string][]int64{"x": {1, 2, 7}, "y0": {1, 2, 3}})
	if err := grad.Check(n); err != nil || n.Attr("ceil_mode") != nil {
		t.Errorf("%v, %v", n.Attr("ceil_mode"), err)
	}
}

// TestFlatOperatorsStopGradients: behind an operator that is piecewise constant nothing is in the way, and nothing is wanted.
func TestFlatOperatorsStopGradients(t *testing.T) {
	nodes := []*onnx.Node{
		{Op: "Det", Inputs: []string{"x"}, Outputs: []string{"a"}}, // without a rule
		{Op: "Greater", Inputs: []string{"a", "zero"}, Outputs: []string{"mask"}},
		{Op: "Where", Inputs: []string{"mask", "x", "zero"}, Outputs: []string{"y"}},
	}
	if bad := grad.Unsupported(nodes, []string{"x"}, "y"); len(bad) != 0 {
		t.Errorf("%v are in the way", bad)
	}
	b := onnx.NewBuilder()
	tape := grad.NewTape(b, map[string][]int64{"x": {2}, "y": {2}, "mask": {2}, "zero": {}}, nil)
	g, err := tape.Backward(nodes, map[string]string{"y": "dy"}, []string{"x"})
	if err != nil || g["x"] == "" {
		t.Errorf("gradients %v, error %v", g, err)
	}
}

// TestFlatOperatorsInTheWay: a weight whose only way to the output leads through jumps would stay as it is.
func TestFlatOperatorsInTheWay(t *testing.T) {
	nodes := []*onnx.Node{
		{Op: "MatMul", Inputs: []string{"x", "w"}, Outputs: []string{"a"}},
		{Op: "Sign", Name: "binary", Inputs: []string{"a"}, Outputs: []string{"b"}},
		{Op: "MatMul", Inputs: []string{"b", "v"}, Outputs: []string{"y"}},
	}
	if bad := grad.Unsupported(nodes, []string{"w", "v"}, "y"); len(bad) != 1 || bad[0].Name != "binary" {
		t.Errorf("%v are in the way", bad)
	}
	if err := grad.Check(nodes[1]); !errors.Is(err, grad.ErrNoRule) || !strings.Contains(err.Error(), `node "binary": Sign`) || !strings.Contains(err.Error(), "piecewise constant") {
		t.Errorf("error %v", err)
	}
	if bad := grad.Unsupported(nodes, []string{"v"}, "y"); len(bad) != 0 {
		t.Errorf("%v are in the way of the upper weight", bad)
	}
	around := append(nodes, &onnx.Node{Op: "Add", Inputs: []string{"a", "y"}, Outputs: []string{"z"}})
	if bad := grad.Unsupported(around, []string{"w", "v"}, "z"); len(bad) != 0 {
		t.Errorf("%v are in the way, with a way around", bad)
	}
}
