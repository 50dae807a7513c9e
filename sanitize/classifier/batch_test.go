package classifier_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// attention is what PyTorch's nn.MultiheadAttention does to [B, 4, 8, 8], as exported for a batch of B: positions first, two heads beside
// the images, and the last layer on rows.
func attention(n *net, x string, b int64) string {
	rows := n.Op("Transpose", []string{n.Op("Reshape", []string{x, n.Int64s(b, 4, 64)})}, onnx.Is("perm", 2, 0, 1))
	heads := n.Op("Transpose", []string{n.Op("Reshape", []string{rows, n.Int64s(64, b*2, 2)})}, onnx.Is("perm", 1, 0, 2))
	scores := n.Op("Softmax", []string{n.Op("MatMul", []string{heads, n.Op("Transpose", []string{heads}, onnx.Is("perm", 0, 2, 1))})}, onnx.I("axis", -1))
	joined := n.Op("Reshape", []string{n.Op("Transpose", []string{n.Op("MatMul", []string{scores, heads})}, onnx.Is("perm", 1, 0, 2)), n.Int64s(64*b, 4)})
	y := n.Op("Reshape", []string{n.Op("Gemm", []string{joined, n.weight("projection", 4, 4)}), n.Int64s(64, b, 4)})
	return n.Op("ReduceMean", []string{y}, onnx.Is("axes", 0), onnx.I("keepdims", 0))
}

// windows cuts [B, 4, 8, 8] into four windows of 16 positions: [B*4, 16, 4].
func windows(n *net, x string, b int64) string {
	apart := n.Op("Transpose", []string{n.Op("Reshape", []string{x, n.Int64s(b, 4, 2, 4, 2, 4)})}, onnx.Is("perm", 0, 2, 4, 3, 5, 1))
	return n.Op("Softmax", []string{n.Op("Reshape", []string{apart, n.Int64s(b*4, 16, 4)})}, onnx.I("axis", 1))
}

// merged is what is left of the windows of each image.
func merged(n *net, x string, b int64) string {
	return n.Op("ReduceMax", []string{n.Op("Reshape", []string{x, n.Int64s(b, 4, 16, 4)})}, onnx.Is("axes", 1, 2), onnx.I("keepdims", 0))
}

// TestOpenedBatch: wherever a file that was exported for one batch has it, the scores of five images are those that the file gives each of them.
func TestOpenedBatch(t *testing.T) {
	for name, build := range map[string]func(n *net, x string, b int64) string{
		"attention, positions first": attention,
		"windows":                    func(n *net, x string, b int64) string { return merged(n, windows(n, x, b), b) },
		"windows of a computed size": func(n *net, x string, b int64) string { // the image's, not the batch's
			half := n.Op("Div", []string{n.Op("Gather", []string{n.Op("Shape", []string{x}), n.Int64s(2)}), n.Int64s(4)})
			shape := n.Op("Concat", []string{n.Int64s(b, 4), half, n.Int64s(4), half, n.Int64s(4)}, onnx.I("axis", 0))
			apart := n.Op("Transpose", []string{n.Op("Reshape", []string{x, shape})}, onnx.Is("perm", 0, 2, 4, 3, 5, 1))
			return merged(n, n.Op("Softmax", []string{apart}, onnx.I("axis", 3)), b)
		},
		"shape of the data": func(n *net, x string, b int64) string {
			shape := n.Op("Shape", []string{x})
			y := n.Op("Reshape", []string{x, n.Op("Concat", []string{n.Op("Slice", []string{shape, n.Int64s(0), n.Int64s(2)}), n.Int64s(-1)}, onnx.I("axis", 0))})
			return n.Op("Squeeze", []string{n.Op("ReduceMax", []string{y}, onnx.Is("axes", 2)), n.Int64s(-1)})
		},
		"something for each window": func(n *net, x string, b int64) string {
			bias := n.Op("Tile", []string{n.weight("bias", 4, 16, 4), n.Int64s(b, 1, 1)})
			return merged(n, n.Op("Add", []string{windows(n, x, b), bias}), b)
		},
		"positions repeated": func(n *net, x string, b int64) string {
			return n.pooled(n.Op("Relu", []string{n.Op("Add", []string{n.Op("Tile", []string{n.weight("position", 1, 4, 8, 8), n.Int64s(b, 1, 1, 1)}), x})}))
		},
		"token behind the positions": func(n *net, x string, b int64) string {
			rows := n.Op("Transpose", []string{n.Op("Flatten", []string{x}, onnx.I("axis", 1))})
			token := n.Op("Expand", []string{n.weight("token", 1, 1), n.Int64s(1, b)})
			all := n.Op("Reshape", []string{n.Op("Concat", []string{rows, token}, onnx.I("axis", 0)), n.Int64s(257, b)})
			return n.Op("Gemm", []string{n.Op("Transpose", []string{all}), n.weight("mix", 257, 4)})
		},
		"resized": func(n *net, x string, b int64) string {
			return n.pooled(n.Op("Relu", []string{n.Op("Resize", []string{x, "", "", n.Int64s(b, 4, 11, 5)}, onnx.S("mode", "linear"))}))
		},
		"expanded": func(n *net, x string, b int64) string {
			y := n.Op("Expand", []string{n.Op("ReduceMax", []string{x}, onnx.Is("axes", 3)), n.Int64s(b, 4, 8, 3)})
			return n.Op("Einsum", []string{y}, onnx.S("equation", "nchw -> nc"))
		},
	} {
		for _, b := range []int64{1, 2, 3} {
			t.Run(fmt.Sprint(name, b), func(t *testing.T) {
				n := newNet()
				m := n.model(t, 17, n.dense(build(n, n.stem(b), b), 4, 5))
				c := read(t, m, classifier.Options{})
				if err := c.CheckTrainable(); err != nil {
					t.Error(err)
				}
				raw, err := m.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				x := noise(c, 5)
				got := evaluate(t, c, nil, x, c.Logits)[0]
				size := len(x.F32) / 5
				for i := range 5 {
					var images []float32 // this one and those behind it
					for k := range int(b) {
						at := (i + k) % 5 * size
						images = append(images, x.F32[at:at+size]...)
					}
					want := run(t, raw, &ort.Array{Shape: c.ImageShape(b), F32: images}, 1)[0].F32[:5]
					if d := difference(got.F32[i*5:][:5], want); d > 1e-4 {
						t.Errorf("image %d has other scores: %.2g", i, d)
					}
				}
			})
		}
	}
}

// TestBatchThatCannotBeOpened is refused when the model is read, not when it is trained, and the message says what to do.
func TestBatchThatCannotBeOpened(t *testing.T) {
	for name, test := range map[string]struct {
		build func(n *net, x string) string
		says  string
	}{
		"images mixed": {func(n *net, x string) string {
			return n.Op("Sub", []string{x, n.Op("ReduceMean", []string{x}, onnx.Is("axes", 0))})
		}, "scores depend on the others'"},
		"unknown to whom the rows belong": {func(n *net, x string) string {
			order := n.Op("Gather", []string{x, n.Int64s(1, 0)})
			n.Add(&onnx.Node{Name: "culprit", Op: "Reshape", Inputs: []string{order, n.Int64s(2, 4, 8, 8)}, Outputs: []string{"rows"}})
			return "rows"
		}, "culprit"},
	} {
		n := newNet()
		_, err := classifier.New(n.model(t, 17, n.dense(n.pooled(test.build(n, n.stem(2))), 4, 5)), classifier.Options{})
		if !errors.Is(err, onnx.ErrUnsupported) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "dynamic batch") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestMeasuredWithoutOptimization: optimized, the runtime answers from what it infers what shape this Reshape gives, and never runs it.
func TestMeasuredWithoutOptimization(t *testing.T) {
	n := newNet()
	n.Add(&onnx.Node{Name: "culprit", Op: "Reshape", Inputs: []string{n.stem(-1), n.Int64s(1, 256)}, Outputs: []string{"row"}})
	m := n.model(t, 17, n.dense("row", 256, 5))
	if _, err := classifier.New(m, classifier.Options{}); !errors.Is(err, onnx.ErrUnsupported) || !strings.Contains(err.Error(), `'culprit'`) {
		t.Errorf("error %v", err)
	}
}
