package onnx_test

import (
	"math"
	"slices"
	"testing"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// poolNormalized is what an AveragePool of an opset gives, normalized, with ceil_mode and with padding that counts.
func poolNormalized(t *testing.T, opset int64, attrs ...*onnx.Attr) *ort.Array {
	t.Helper()
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, 2, 3, 4, 5)
	b.Output(b.Op("AveragePool", []string{"x"}, append(attrs, onnx.I("ceil_mode", 1), onnx.I("count_include_pad", 1))...), onnx.Float)
	m := b.Model(opset)
	m.Graph.Outputs[0].Shape = nil
	_, got := runNormalized(t, m)
	return got
}

// TestAveragePoolBeginsInPadding: where the padding behind the input is as long as a window could begin in, PyTorch's AvgPool2d(2, 3, 1, ceil_mode=True)
// and the standard leave such a window out.
func TestAveragePoolBeginsInPadding(t *testing.T) {
	for _, opset := range []int64{11, 17, 19, 22} {
		got := poolNormalized(t, opset, onnx.Is("kernel_shape", 2, 2), onnx.Is("strides", 3, 3), onnx.Is("pads", 1, 1, 1, 1))
		if !slices.Equal(got.Shape, []int64{2, 3, 2, 2}) { // along the columns a third would begin at 6, of 7
			t.Fatalf("opset %d: shape %v", opset, got.Shape)
		}
		for i, v := range got.F32 {
			plane, row, column := i/4, i/2%2*3-1, i%2*3-1
			sum := 0.0
			for y := row; y < row+2; y++ {
				for x := column; x < column+2; x++ {
					if y >= 0 && y < 4 && x >= 0 && x < 5 {
						at := float64(plane*20 + y*5 + x)
						sum += math.Sin(at * at)
					}
				}
			}
			if want := sum / 4; math.Abs(float64(v)-want) > 1e-5 {
				t.Errorf("opset %d: element %d is %v, want %v", opset, i, v, want)
			}
		}
	}
}

// TestAveragePoolBeyondPadding: PyTorch's AvgPool2d(3, 2, 1, ceil_mode=True), whose last windows end beyond the padding. Each output is the mean of
// what its window covers of the padded image; the runtime that the tests have computes something else at opset 19, so that this is counted out here.
func TestAveragePoolBeyondPadding(t *testing.T) {
	for _, opset := range []int64{11, 17, 19, 22} {
		got := poolNormalized(t, opset, onnx.Is("kernel_shape", 3, 4), onnx.Is("strides", 2, 3), onnx.Is("pads", 1, 2, 1, 1))
		if !slices.Equal(got.Shape, []int64{2, 3, 3, 3}) {
			t.Fatalf("opset %d: shape %v", opset, got.Shape)
		}
		for i, v := range got.F32 {
			plane, row, column := i/9, i/3%3*2-1, i%3*3-2
			sum, covered := 0.0, 0.0
			for y := row; y < min(row+3, 4+1); y++ {
				for x := column; x < min(column+4, 5+1); x++ {
					if covered++; y >= 0 && y < 4 && x >= 0 && x < 5 {
						at := float64(plane*20 + y*5 + x)
						sum += math.Sin(at * at) // as runOne feeds it
					}
				}
			}
			if want := sum / covered; math.Abs(float64(v)-want) > 1e-5 {
				t.Errorf("opset %d: element %d is %v, want %v", opset, i, v, want)
			}
		}
	}
}
