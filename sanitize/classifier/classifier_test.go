package classifier_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// TestHeads reads one small model for each way in which exporters write the end of a classifier.
func TestHeads(t *testing.T) {
	for _, tt := range []struct {
		name     string
		opset    int64
		build    func(n *net) (output string)
		options  classifier.Options
		logits   string
		feature  string
		width    int
		weights  string // of the head
		foldable int
	}{
		{name: "Gemm", opset: 17, build: func(n *net) string { return n.dense(n.pooled(n.stem(-1)), 4, 5) },
			logits: "logits", feature: "feature", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "Softmax at the end", opset: 13, build: func(n *net) string {
			return n.Op("Softmax", []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, onnx.I("axis", -1))
		}, logits: "logits", feature: "feature", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "LogSoftmax of an early opset, then Identity", opset: 9, build: func(n *net) string {
			return n.Op("Identity", []string{n.Op("LogSoftmax", []string{n.dense(n.pooled(n.stem(-1)), 4, 5)})})
		}, logits: "logits", feature: "feature", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "ArgMax at the end", opset: 17, build: func(n *net) string {
			n.Output(n.Op("ArgMax", []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, onnx.I("axis", 1)), onnx.Int64, -1, 1)
			return "logits"
		}, logits: "logits", feature: "feature", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "features as a first output", opset: 17, build: func(n *net) string {
			x := n.pooled(n.stem(-1))
			n.Output(x, onnx.Float, -1, 4)
			return n.Op("Softmax", []string{n.dense(x, 4, 5)}, onnx.I("axis", 1))
		}, logits: "logits", feature: "feature", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "an auxiliary head", opset: 17, build: func(n *net) string {
			x := n.stem(-1)
			aux := n.Op("Flatten", []string{n.Op("GlobalAveragePool", []string{x})})
			n.Output(n.Op("Gemm", []string{aux, n.weight("aux.w", 4, 5)}), onnx.Float, -1, 5)
			y := n.Op("Relu", []string{n.Op("Conv", []string{x, n.weight("deep", 4, 4, 1, 1)})})
			return n.dense(n.pooled(y), 4, 5)
		}, logits: "logits", feature: "feature", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "class token", opset: 17, build: func(n *net) string {
			tokens := n.Op("Transpose", []string{n.Op("Reshape", []string{n.stem(-1), n.Int64s(0, 4, 64)})}, onnx.Is("perm", 0, 2, 1))
			n.Named("token", "Gather", []string{tokens, n.Int64(0)}, onnx.I("axis", 1))
			return n.dense("token", 4, 5)
		}, logits: "logits", feature: "token", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "MatMul and Add", opset: 17, build: func(n *net) string {
			y := n.Op("MatMul", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 5)})
			return n.Named("logits", "Add", []string{n.weight("b", 5), y})
		}, logits: "logits", feature: "feature", width: 4, weights: "w b", foldable: 1},
		{name: "MatMul alone", opset: 17, build: func(n *net) string {
			return n.Named("logits", "MatMul", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 5)})
		}, logits: "logits", feature: "feature", width: 4, weights: "w", foldable: 1},
		{name: "MatMul with a weight that is turned first, and a bias", opset: 17, build: func(n *net) string {
			y := n.Op("MatMul", []string{n.pooled(n.stem(-1)), n.Op("Transpose", []string{n.weight("w", 5, 4)})})
			return n.Named("logits", "Add", []string{y, n.Op("Reshape", []string{n.weight("b", 5, 1), n.Int64s(5)})})
		}, logits: "logits", feature: "feature", width: 4, weights: "w b", foldable: 1},
		{name: "Gemm with a weight that is turned first, below another layer", opset: 17, options: classifier.Options{Feature: "feature"}, build: func(n *net) string {
			y := n.Op("Gemm", []string{n.pooled(n.stem(-1)), n.Op("Transpose", []string{n.weight("w", 6, 4)}), n.weight("b", 6)})
			return n.dense(n.Op("Relu", []string{y}), 6, 5)
		}, logits: "logits", feature: "feature", width: 4, weights: "w b fc.w fc.b", foldable: 1},
		{name: "1x1 Conv, then pooling", opset: 17, build: func(n *net) string {
			y := n.Op("Conv", []string{n.stem(-1), n.weight("w", 5, 4, 1, 1), n.weight("b", 5)})
			return n.Named("logits", "Flatten", []string{n.Op("GlobalAveragePool", []string{y})})
		}, logits: "logits", feature: "stem.relu", width: 4 * 8 * 8, weights: "w b", foldable: 1},
		{name: "1x1 Conv, ReLU, mean over the image", opset: 18, build: func(n *net) string {
			y := n.Op("Relu", []string{n.Op("Conv", []string{n.stem(-1), n.weight("w", 5, 4, 1, 1)})})
			return n.Named("logits", "ReduceMean", []string{y, n.Int64s(2, 3)}, onnx.I("keepdims", 0))
		}, logits: "logits", feature: "stem.relu", width: 4 * 8 * 8, weights: "w", foldable: 1},
		{name: "Dropout and Flatten in between", opset: 12, build: func(n *net) string {
			y := n.Op("Dropout", []string{n.pooled(n.stem(-1))})
			return n.dense(n.Named("dropped", "Flatten", []string{y}), 4, 5)
		}, logits: "logits", feature: "dropped", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "two dense layers: the last is the head", opset: 17, build: func(n *net) string {
			y := n.Op("Gemm", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 6), n.weight("b", 6)})
			return n.dense(n.Named("hidden", "Relu", []string{y}), 6, 5)
		}, logits: "logits", feature: "hidden", width: 6, weights: "fc.w fc.b", foldable: 2},
		{name: "a named feature tensor below", opset: 17, options: classifier.Options{Feature: "feature"}, build: func(n *net) string {
			y := n.Op("Gemm", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 6), n.weight("b", 6)})
			return n.dense(n.Named("hidden", "Relu", []string{y}), 6, 5)
		}, logits: "logits", feature: "feature", width: 4, weights: "w b fc.w fc.b", foldable: 1},
		{name: "BatchNormalization in the body", opset: 17, build: func(n *net) string {
			y := n.Op("BatchNormalization", []string{n.stem(-1), n.weight("scale", 4), n.weight("shift", 4), n.weight("mean", 4), n.filled("variance", 1, 4)})
			return n.dense(n.pooled(y), 4, 5)
		}, logits: "logits", feature: "feature", width: 4, weights: "fc.w fc.b", foldable: 1},
		{name: "weights in Constant nodes", opset: 17, build: func(n *net) string {
			w := onnx.NewFloat("", []int64{4, 5}, make([]float32, 20))
			n.Add(&onnx.Node{Op: "Constant", Outputs: []string{"w"}, Attrs: []*onnx.Attr{onnx.T("value", w)}})
			n.Add(&onnx.Node{Op: "Constant", Outputs: []string{"b"}, Attrs: []*onnx.Attr{onnx.Fs("value_floats", 1, 2, 3, 4, 5)}})
			return n.Named("logits", "Add", []string{n.Op("MatMul", []string{n.pooled(n.stem(-1)), "w"}), "b"})
		}, logits: "logits", feature: "feature", width: 4, weights: "w b", foldable: 1},
		{name: "scores with an image of one pixel, by pooling", opset: 17, build: func(n *net) string {
			y := n.Op("Conv", []string{n.stem(-1), n.weight("w", 5, 4, 1, 1), n.weight("b", 5)})
			return n.Named("scores", "GlobalAveragePool", []string{n.Op("Relu", []string{y})})
		}, logits: "scores/rows", feature: "stem.relu", width: 4 * 8 * 8, weights: "w b", foldable: 1},
		{name: "scores with an image of one pixel, then Softmax", opset: 17, build: func(n *net) string {
			y := n.Named("pooled", "GlobalAveragePool", []string{n.stem(-1)})
			return n.Op("Softmax", []string{n.Named("scores", "Conv", []string{y, n.weight("w", 5, 4, 1, 1), n.weight("b", 5)})}, onnx.I("axis", 1))
		}, logits: "scores/rows", feature: "pooled", width: 4, weights: "w b", foldable: 1},
		{name: "bias behind an Identity", opset: 17, build: func(n *net) string {
			y := n.Op("Conv", []string{n.stem(-1), n.weight("w", 4, 4, 1, 1), n.Op("Identity", []string{"stem.b"})})
			return n.dense(n.pooled(y), 4, 5)
		}, logits: "logits", feature: "feature", width: 4, weights: "fc.w fc.b", foldable: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNet()
			m := n.model(t, tt.opset, tt.build(n))
			c := read(t, m, tt.options)
			if c.Logits != tt.logits || c.Feature != tt.feature || c.FeatureWidth != tt.width || c.Classes != 5 {
				t.Errorf("logits %s of %d classes, features %s, %d wide", c.Logits, c.Classes, c.Feature, c.FeatureWidth)
			}
			if got := strings.Join(c.HeadWeights, " "); got != tt.weights {
				t.Errorf("head weights %q, want %q", got, tt.weights)
			}
			for _, name := range c.HeadWeights {
				if !slices.Contains(c.Trainable, name) {
					t.Errorf("head weight %s is not trainable", name)
				}
			}
			if !slices.Contains(c.Trainable, "stem.w") || !slices.Contains(c.Trainable, "stem.b") {
				t.Errorf("trainable: %q", c.Trainable)
			}
			if got := len(c.Foldable()); got != tt.foldable {
				t.Errorf("%d foldable layers, want %d", got, tt.foldable)
			}
			if err := c.CheckTrainable(); err != nil {
				t.Error(err)
			}
			if len(c.Body())+len(c.Head) != len(c.Nodes) {
				t.Errorf("%d nodes of the body and %d of the head are not the %d of all", len(c.Body()), len(c.Head), len(c.Nodes))
			}
			sameClasses(t, c, m)
		})
	}
}

// TestTail: the drawing names the feature layer, the logits and the output, with shapes.
func TestTail(t *testing.T) {
	n := newNet()
	c := read(t, n.model(t, 17, n.Named("p", "Softmax", []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, onnx.I("axis", 1))), classifier.Options{})
	want := `... 1 nodes
stem.relu = Relu(stem.y [N 4 8 8]) [N 4 8 8]
globalaveragepool_1 = GlobalAveragePool(stem.relu [N 4 8 8]) [N 4 1 1]
feature = Flatten(globalaveragepool_1 [N 4 1 1]) [N 4]   <- feature layer
logits = Gemm(feature [N 4], fc.w [5 4], fc.b [5]) [N 5]   <- logits
p = Softmax(logits [N 5])   <- output`
	if got := strings.Join(c.Tail(), "\n"); got != want {
		t.Errorf("tail:\n%s\nwant:\n%s", got, want)
	}
	if got := strings.Join(c.Choices, "; "); got != "feature layer feature: what Gemm fc, the last layer with weights, reads" {
		t.Errorf("choices: %s", got)
	}
}

// sameClasses compares the class scores with those of the model's file, up to a closing Softmax.
func sameClasses(t *testing.T, c *classifier.Classifier, m *onnx.Model) {
	t.Helper()
	raw, err := m.Rewrite(nil)
	if err != nil {
		t.Fatal(err)
	}
	x := noise(c, 3)
	got := evaluate(t, c, nil, x, c.Logits)[0].F32
	at := slices.IndexFunc(m.Graph.Outputs, func(v *onnx.Value) bool { return v.Name == c.Output })
	all := run(t, raw, x, len(m.Graph.Outputs))
	want := all[at].F32
	if all[at].I64 != nil { // ArgMax
		for i, class := range all[at].I64 {
			if row := got[i*c.Classes : (i+1)*c.Classes]; slices.Max(row) != row[class] {
				t.Errorf("image %d: class %d, scores %v", i, class, row)
			}
		}
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%d scores, want %d", len(got), len(want))
	}
	for r := 0; r < len(got); r += c.Classes {
		// A Softmax changes the scores of a row by its sum alone: compare differences of logarithms with differences of logits.
		for k := range c.Classes {
			g, w := float64(got[r+k]-got[r]), float64(want[r+k]-want[r])
			switch {
			case len(c.Closing) == 0:
				g, w = float64(got[r+k]), float64(want[r+k])
			case want[r] > 0: // probabilities
				w = math.Log(float64(want[r+k])) - math.Log(float64(want[r]))
			}
			if math.Abs(g-w) > 1e-4 {
				t.Errorf("image %d, class %d: %v, the file says %v", r/c.Classes, k, g, w)
			}
		}
	}
}

// TestFixedBatch: a file that was exported for a batch of 2 works with any.
func TestFixedBatch(t *testing.T) {
	for name, shape := range map[string][]int64{
		"size inferred": {2, -1}, "size given": {2, 256}, "batch inferred": {-1, 256}, "batch copied": {0, -1}, "three axes": {2, 4, -1},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			y := n.Op("Reshape", []string{n.stem(2), n.Int64s(shape...)})
			if len(shape) == 3 {
				y = n.Op("Flatten", []string{y})
			}
			c := read(t, n.model(t, 17, n.dense(y, 256, 5)), classifier.Options{})
			if c.FixedBatch != 2 {
				t.Errorf("fixed batch %d", c.FixedBatch)
			}
			x := noise(c, 2)
			want := evaluate(t, c, nil, x, c.Logits)[0].F32
			for _, k := range []int64{1, 2, 5} {
				shapes, err := c.Shapes(k)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(shapes["logits"], []int64{k, 5}) {
					t.Errorf("batch %d: logits %v", k, shapes["logits"])
				}
			}
			first := evaluate(t, c, nil, &ort.Array{Shape: c.ImageShape(1), F32: x.F32[:3*8*8]}, c.Logits)[0].F32
			if d := difference(first, want[:5]); d > 1e-5 {
				t.Errorf("the first image alone gives other logits: %.2g", d)
			}
		})
	}
}

// TestReshapeAtBatchOne: a Reshape of a constant, or one that does not begin with the batch, stays as it is.
func TestReshapeAtBatchOne(t *testing.T) {
	n := newNet()
	x := n.stem(1)
	shift := n.Op("Reshape", []string{n.weight("shift", 4), n.Int64s(1, 4, 1, 1)})
	y := n.pooled(n.Op("Add", []string{x, shift}))
	c := read(t, n.model(t, 17, n.dense(y, 4, 5)), classifier.Options{})
	shapes, err := c.Shapes(3)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(shapes[shift], []int64{1, 4, 1, 1}) {
		t.Errorf("the reshaped constant has shape %v", shapes[shift])
	}
}

// TestIdleInput: Keras leaves inputs behind whose readers it has folded.
func TestIdleInput(t *testing.T) {
	n := newNet()
	y := n.dense(n.pooled(n.stem(-1)), 4, 5)
	n.Input("normalization/Sub/y:0", onnx.Float, 1, 1, 1, 3)
	if c := read(t, n.model(t, 17, y), classifier.Options{}); c.Input != "x" {
		t.Errorf("%q is taken for the images", c.Input)
	}
}

func TestOpenImageSize(t *testing.T) {
	sized := func(height, width int64) *onnx.Model {
		n := newNet()
		n.Input("x", onnx.Float, -1, 3, height, width)
		y := n.Op("Conv", []string{"x", n.weight("w", 4, 3, 3, 3), n.weight("b", 4)})
		return n.model(t, 17, n.dense(n.pooled(y), 4, 5))
	}
	build := func() *onnx.Model { return sized(-1, -1) }
	if _, err := classifier.New(build(), classifier.Options{}); !errors.Is(err, classifier.ErrInput) || !strings.Contains(err.Error(), "--size") {
		t.Errorf("open size: %v", err)
	}
	c := read(t, build(), classifier.Options{Height: 12, Width: 20})
	if !slices.Equal(c.ImageShape(7), []int64{7, 3, 12, 20}) {
		t.Errorf("image shape %v", c.ImageShape(7))
	}
	// What the file fixes cannot be another size.
	for _, fixed := range [][2]int64{{16, 16}, {16, -1}, {-1, 16}, {12, 16}} {
		_, err := classifier.New(sized(fixed[0], fixed[1]), classifier.Options{Height: 12, Width: 24})
		if !errors.Is(err, classifier.ErrSize) || !strings.Contains(err.Error(), "16") || !strings.Contains(err.Error(), "12x24") {
			t.Errorf("a file of %v: %v", fixed, err)
		}
	}
	if c := read(t, sized(16, -1), classifier.Options{Height: 16, Width: 24}); c.Height != 16 || c.Width != 24 {
		t.Errorf("%dx%d", c.Height, c.Width)
	}
}

func TestNHWC(t *testing.T) {
	n := newNet()
	n.Input("x", onnx.Float, -1, 8, 6, 3)
	y := n.Op("Transpose", []string{"x"}, onnx.Is("perm", 0, 3, 1, 2))
	y = n.Op("Conv", []string{y, n.weight("w", 4, 3, 3, 3), n.weight("b", 4)})
	c := read(t, n.model(t, 17, n.dense(n.pooled(y), 4, 5)), classifier.Options{})
	if c.Layout != classifier.NHWC || c.Height != 8 || c.Width != 6 || c.Channels != 3 || !slices.Equal(c.ImageShape(2), []int64{2, 8, 6, 3}) {
		t.Errorf("%s %dx%dx%d", c.Layout, c.Height, c.Width, c.Channels)
	}
}

// TestAutoPad: padding that the runtime chooses becomes explicit, and the function stays the same.
func TestAutoPad(t *testing.T) {
	for _, tt := range []struct {
		mode string
		op   string
		pads []int64 // of a 4x3 window on 8x8 at strides 3 and 2
	}{
		{"SAME_UPPER", "Conv", []int64{1, 0, 1, 1}},
		{"SAME_LOWER", "Conv", []int64{1, 1, 1, 0}},
		{"VALID", "Conv", []int64{0, 0, 0, 0}},
		{"SAME_UPPER", "MaxPool", []int64{1, 0, 1, 1}},
		{"SAME_LOWER", "AveragePool", []int64{1, 1, 1, 0}},
		{"SAME_UPPER", "the head", []int64{1, 0, 1, 1}},
	} {
		t.Run(tt.mode+" "+tt.op, func(t *testing.T) {
			n := newNet()
			attrs := []*onnx.Attr{onnx.Is("kernel_shape", 4, 3), onnx.Is("strides", 3, 2), onnx.S("auto_pad", tt.mode)}
			x := n.stem(-1)
			var out string
			switch tt.op {
			case "Conv":
				out = n.dense(n.pooled(n.Named("y", tt.op, []string{x, n.weight("w", 4, 4, 4, 3)}, attrs...)), 4, 5)
			case "the head":
				out = n.Op("Flatten", []string{n.Op("GlobalAveragePool", []string{n.Named("y", "Conv", []string{x, n.weight("w", 5, 4, 4, 3)}, attrs...)})})
			default:
				out = n.dense(n.pooled(n.Named("y", tt.op, []string{x}, attrs...)), 4, 5)
			}
			m := n.model(t, 17, out)
			c := read(t, m, classifier.Options{})
			for _, node := range c.Nodes {
				if node.Outputs[0] == "y" && (node.Attr("auto_pad") != nil || !slices.Equal(node.Ints("pads"), tt.pads)) {
					t.Errorf("pads %v, want %v", node.Ints("pads"), tt.pads)
				}
			}
			for _, h := range c.Head {
				if !slices.Contains(c.Nodes, h) {
					t.Errorf("node %s of the head is not in the graph", h.Label())
				}
			}
			sameClasses(t, c, m)
		})
	}
}

// TestRefusals: what is no image classifier is refused with a message that says where.
func TestRefusals(t *testing.T) {
	flat := func(n *net, x string, in int64) string { return n.dense(n.Op("Flatten", []string{x}), in, 5) }
	for _, tt := range []struct {
		name    string
		build   func(n *net) string
		options classifier.Options
		err     error
		says    string
	}{
		{name: "two inputs", build: func(n *net) string {
			n.Input("mask", onnx.Float, -1, 4)
			return n.dense(n.Op("Mul", []string{n.pooled(n.stem(-1)), "mask"}), 4, 5)
		}, err: classifier.ErrInput, says: `"mask"`},
		{name: "no input", build: func(n *net) string { return n.dense(n.weight("x", 2, 4), 4, 5) }, err: classifier.ErrInput, says: "has 0"},
		{name: "rank 3", build: func(n *net) string { n.Input("x", onnx.Float, -1, 3, 64); return flat(n, "x", 192) }, err: classifier.ErrInput, says: "rank 3"},
		{name: "channels that no convolution tells", build: func(n *net) string {
			n.Input("x", onnx.Float, -1, -1, 8, 8)
			return flat(n, "x", 192)
		}, err: classifier.ErrInput, says: "neither NCHW nor NHWC"},
		{name: "computing with bytes", build: func(n *net) string {
			n.Input("x", onnx.Uint8, -1, 3, 8, 8)
			half := n.Named("half", "Div", []string{"x", n.Const(onnx.NewUint8("two", nil, []uint8{2}))})
			return flat(n, n.Op("Cast", []string{half}, onnx.I("to", 1)), 192)
		}, err: classifier.ErrInput, says: `node "Div -> half": Div`},
		{name: "other integers", build: func(n *net) string {
			n.Input("x", onnx.Int32, -1, 3, 8, 8)
			return flat(n, n.Op("Cast", []string{"x"}, onnx.I("to", 1)), 192)
		}, err: classifier.ErrInput, says: "int32"},
		{name: "7 channels", build: func(n *net) string { n.Input("x", onnx.Float, -1, 7, 8, 8); return flat(n, "x", 7*64) }, err: classifier.ErrInput, says: "channels"},
		{name: "the head reads the image", build: func(n *net) string {
			n.Input("x", onnx.Float, -1, 3, 8, 8)
			w := n.weight("w", 5, 3, 8, 8)
			return n.Op("Flatten", []string{n.Op("Conv", []string{"x", w})})
		}, err: classifier.ErrNoHead, says: "feature layer x: no head found: no weight stands between the input and it"},
		{name: "the head reads the image as a row", build: func(n *net) string { n.Input("x", onnx.Float, -1, 3, 8, 8); return flat(n, "x", 192) },
			err: classifier.ErrNoHead, says: "no weight stands between the input and it"},
		{name: "the head reads a row", build: func(n *net) string { n.Input("x", onnx.Float, -1, 64); return n.dense("x", 64, 5) },
			err: classifier.ErrNoHead, says: "feature layer x: no head found: no weight stands between the input and it"},
		{name: "a named feature tensor that is a scaled image", build: func(n *net) string {
			n.Input("x", onnx.Float, -1, 3, 8, 8)
			n.Named("scaled", "Mul", []string{"x", n.Float(2)})
			y := n.Op("Relu", []string{n.Op("Conv", []string{"scaled", n.weight("w", 4, 3, 3, 3)})})
			return n.dense(n.pooled(y), 4, 5)
		}, options: classifier.Options{Feature: "scaled"}, err: classifier.ErrNoHead, says: "feature layer scaled: no head found: no weight"},
		{name: "features of weights that are computed", build: func(n *net) string {
			n.Input("x", onnx.Float, -1, 3, 8, 8)
			n.Add(&onnx.Node{Name: "only", Op: "Conv", Inputs: []string{"x", n.Named("computed", "Abs", []string{n.weight("w", 4, 3, 3, 3)})}, Outputs: []string{"y"}})
			return n.dense(n.pooled("y"), 4, 5)
		}, err: classifier.ErrFrozen, says: `node "only": Conv: weight "computed"`},
		{name: "no linear layer at the end", build: func(n *net) string {
			n.Add(&onnx.Node{Name: "top", Op: "Sigmoid", Inputs: []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, Outputs: []string{"y"}})
			return "y"
		}, err: classifier.ErrNoHead, says: `node "top": Sigmoid: no head found: it stands between the output and the last layer with weights; --feature-tensor`},
		{name: "nothing that is learned", build: func(n *net) string {
			n.Input("x", onnx.Float, -1, 5, 1, 1)
			return n.Op("Flatten", []string{"x"})
		}, err: classifier.ErrNoHead, says: "no layer with weights"},
		{name: "weights that are computed", build: func(n *net) string {
			w := n.Op("Transpose", []string{n.weight("w", 5, 4)})
			n.Add(&onnx.Node{Name: "fc", Op: "MatMul", Inputs: []string{n.pooled(n.stem(-1)), n.Named("computed", "Abs", []string{w})}, Outputs: []string{"y"}})
			return "y"
		}, err: classifier.ErrFrozen, says: `node "fc": MatMul: weight "computed"`},
		{name: "output of rank 4", build: func(n *net) string {
			return n.Op("Conv", []string{n.stem(-1), n.weight("w", 5, 4, 1, 1)})
		}, err: classifier.ErrOutput, says: "[3 5 8 8]"},
		{name: "one class", build: func(n *net) string { return n.dense(n.pooled(n.stem(-1)), 4, 1) }, err: classifier.ErrOutput, says: "[3 1]"},
		{name: "output is the input", build: func(n *net) string { return n.Input("x", onnx.Float, -1, 3, 8, 8) }, err: classifier.ErrOutput, says: `"x"`},
		{name: "unknown feature tensor", build: func(n *net) string { return n.dense(n.pooled(n.stem(-1)), 4, 5) },
			options: classifier.Options{Feature: "nothing"}, err: classifier.ErrNoHead, says: `"nothing"`},
		{name: "feature tensor that is a weight", build: func(n *net) string { return n.dense(n.pooled(n.stem(-1)), 4, 5) },
			options: classifier.Options{Feature: "fc.w"}, err: classifier.ErrNoHead, says: `"fc.w"`},
		{name: "the logits as feature tensor", build: func(n *net) string { return n.dense(n.pooled(n.stem(-1)), 4, 5) },
			options: classifier.Options{Feature: "logits"}, err: classifier.ErrNoHead, says: "feature tensor logits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNet()
			_, err := classifier.New(n.model(t, 17, tt.build(n)), tt.options)
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %v with %s", err, tt.err, tt.says)
			}
		})
	}
	n := newNet()
	m := n.model(t, 17, n.dense(n.pooled(n.stem(-1)), 4, 5))
	m.Graph.Inputs[0].Shape = nil
	if _, err := classifier.New(m, classifier.Options{}); !errors.Is(err, classifier.ErrInput) || !strings.Contains(err.Error(), "does not say its shape") {
		t.Errorf("an input without a shape: %v", err)
	}
	if _, err := classifier.New(newNet().Model(17), classifier.Options{}); !errors.Is(err, classifier.ErrInput) {
		t.Errorf("empty graph: %v", err)
	}
}

// TestUnsupported: an operator without a gradient rule is in the way only between a trainable weight and the logits.
func TestUnsupported(t *testing.T) {
	first := func(n *net, x string) string { // multiplies one element
		n.Add(&onnx.Node{Name: "multiply", Op: "ScatterElements", Inputs: []string{x, n.Const(onnx.NewInt64("", []int64{1, 1, 1, 1}, []int64{0})), n.Floats([]int64{1, 1, 1, 1}, []float32{2})},
			Outputs: []string{"multiplied"}, Attrs: []*onnx.Attr{onnx.S("reduction", "mul")}})
		return "multiplied"
	}
	n := newNet()
	y := n.Op("Det", []string{first(n, n.stem(-1))})
	c := read(t, n.model(t, 17, n.dense(y, 4, 5)), classifier.Options{})
	err := c.CheckTrainable()
	if !errors.Is(err, classifier.ErrUnsupported) || !strings.Contains(err.Error(), `node "multiply": ScatterElements`) || !strings.Contains(err.Error(), "reduction=mul") || !strings.Contains(err.Error(), "Det") {
		t.Errorf("error %v", err)
	}
	if got := c.Unsupported(); len(got) != 2 || got[0].Op != "ScatterElements" || got[1].Op != "Det" {
		t.Errorf("%d nodes in the way", len(got))
	}

	n = newNet()
	n.Input("x", onnx.Float, -1, 3, 8, 8)
	before := first(n, "x") // before every weight
	y = n.Op("Conv", []string{before, n.weight("w", 4, 3, 3, 3), n.weight("b", 4)})
	n.Output(n.Op("Det", []string{y}), onnx.Float, -1, 4) // beside the way
	out := n.Op("HardSwish", []string{n.dense(n.pooled(y), 4, 5)})
	n.Output("logits", onnx.Float, -1, 5)
	m := n.model(t, 17, out)
	m.Graph.Outputs = m.Graph.Outputs[1:2]
	if err := read(t, m, classifier.Options{}).CheckTrainable(); err != nil {
		t.Errorf("operators off the way: %v", err)
	}
}

// TestOpenChannels: the number of channels that the file leaves open is the first convolution's.
func TestOpenChannels(t *testing.T) {
	for name, tt := range map[string]struct {
		shape  []int64
		before func(n *net) string
		layout classifier.Layout
		size   int
	}{
		"NCHW":     {[]int64{-1, -1, 8, 8}, func(*net) string { return "x" }, classifier.NCHW, 0},
		"NHWC":     {[]int64{-1, 8, 8, -1}, func(n *net) string { return n.Op("Transpose", []string{"x"}, onnx.Is("perm", 0, 3, 1, 2)) }, classifier.NHWC, 0},
		"all open": {[]int64{-1, -1, -1, -1}, func(n *net) string { return n.Op("Mul", []string{"x", n.Float(2)}) }, classifier.NCHW, 8},
	} {
		n := newNet()
		n.Input("x", onnx.Float, tt.shape...)
		y := n.Op("Conv", []string{tt.before(n), n.weight("w", 4, 3, 3, 3), n.weight("b", 4)})
		c := read(t, n.model(t, 17, n.dense(n.pooled(n.Op("Relu", []string{y})), 4, 5)), classifier.Options{Height: tt.size, Width: tt.size})
		if c.Layout != tt.layout || c.Channels != 3 || c.Height != 8 || c.Width != 8 {
			t.Errorf("%s: %s %dx%dx%d", name, c.Layout, c.Height, c.Width, c.Channels)
		}
	}
}

// TestLayersWithoutARule: a layer that training cannot change is in the way even if no trained weight lies before it, since it would keep its backdoor.
func TestLayersWithoutARule(t *testing.T) {
	for name, build := range map[string]func(n *net, x string) string{
		"weights as they are": func(n *net, x string) string {
			return n.OpN("LSTM", 2, []string{x, n.weight("W", 1, 16, 24), n.weight("R", 1, 16, 4)}, onnx.I("hidden_size", 4))[1]
		},
		"moved weights": func(n *net, x string) string {
			in := []string{x, n.Op("Unsqueeze", []string{n.weight("W", 12, 24), n.Int64s(0)}), n.Op("Unsqueeze", []string{n.weight("R", 12, 4), n.Int64s(0)})}
			return n.OpN("GRU", 2, in, onnx.I("hidden_size", 4))[1]
		},
	} {
		for _, layers := range []int{1, 2} {
			n := newNet()
			n.Input("x", onnx.Float, -1, 3, 8, 8)
			rows := n.Op("Reshape", []string{n.Op("Transpose", []string{"x"}, onnx.Is("perm", 2, 0, 1, 3)), n.Int64s(8, -1, 24)})
			y := n.Named("recurrent", "Squeeze", []string{build(n, rows), n.Int64s(0)})
			if layers > 1 {
				y = n.Op("Relu", []string{n.Op("Gemm", []string{y, n.weight("w", 4, 4), n.weight("b", 4)})})
			}
			m := n.model(t, 17, n.dense(y, 4, 5))
			c, err := classifier.New(m, classifier.Options{})
			if err == nil {
				err = c.CheckTrainable()
			}
			if !errors.Is(err, classifier.ErrUnsupported) || !strings.Contains(err.Error(), "operator has no gradient rule") {
				t.Errorf("%s before %d layers: %v", name, layers, err)
			}
			if layers > 1 {
				if err := read(t, m, classifier.Options{FreezeBelow: []string{"recurrent"}}).CheckTrainable(); err != nil {
					t.Errorf("%s, frozen by choice: %v", name, err)
				}
			}
		}
	}
}

// TestFrozen: weights that training cannot reach would keep their backdoor, so such a model is refused.
func TestFrozen(t *testing.T) {
	for name, build := range map[string]func(n *net, x string) string{
		`node "layer": Conv: weight "computed"`: func(n *net, x string) string {
			w := n.Named("computed", "Abs", []string{n.weight("w", 4, 4, 1, 1)})
			n.Add(&onnx.Node{Name: "layer", Op: "Conv", Inputs: []string{x, w}, Outputs: []string{"y"}})
			return "y"
		},
		`node "layer": MatMul: weight "computed"`: func(n *net, x string) string {
			w := n.Named("computed", "Abs", []string{n.weight("w", 8, 8)})
			n.Add(&onnx.Node{Name: "layer", Op: "MatMul", Inputs: []string{x, w}, Outputs: []string{"y"}})
			return "y"
		},
		`node "layer": BatchNormalization: weight "computed"`: func(n *net, x string) string {
			v := n.Named("computed", "Abs", []string{n.weight("variance", 4)})
			n.Add(&onnx.Node{Name: "layer", Op: "BatchNormalization", Inputs: []string{x, n.weight("a", 4), n.weight("b", 4), n.weight("c", 4), v}, Outputs: []string{"y"}})
			return "y"
		},
	} {
		n := newNet()
		m := n.model(t, 17, n.dense(n.pooled(build(n, n.stem(-1))), 4, 5))
		c, err := classifier.New(m, classifier.Options{})
		if err == nil {
			err = c.CheckTrainable()
		}
		if !errors.Is(err, classifier.ErrFrozen) || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %v", err, name)
		}
	}

	// Two layers cannot follow their own statistics in one tensor.
	n := newNet()
	x := n.stem(-1)
	for _, v := range []string{n.filled("variance", 1, 4), n.Op("Identity", []string{"variance"})} {
		x = n.Op("BatchNormalization", []string{x, n.weight(v+".scale", 4), n.weight(v+".shift", 4), n.weight(v+".mean", 4), v})
	}
	err := read(t, n.model(t, 17, n.dense(n.pooled(x), 4, 5)), classifier.Options{}).CheckTrainable()
	if !errors.Is(err, classifier.ErrShared) || !strings.Contains(err.Error(), `"variance"`) {
		t.Errorf("shared statistics: %v", err)
	}

	// Of what is wrong with each of many layers the first few are told.
	n = newNet()
	x = n.stem(-1)
	for i := range 12 {
		x = n.Op("BatchNormalization", []string{x, n.weight(fmt.Sprint("scale", i), 4), n.weight(fmt.Sprint("shift", i), 4), n.weight(fmt.Sprint("mean", i), 4), "variance"})
	}
	n.filled("variance", 1, 4)
	err = read(t, n.model(t, 17, n.dense(n.pooled(x), 4, 5)), classifier.Options{}).CheckTrainable()
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 9 || lines[8] != "and 4 more" {
		t.Errorf("twelve layers share their statistics: %v", err)
	}

	// Products of two activations have no weights.
	n = newNet()
	x = n.stem(-1)
	y := n.Op("MatMul", []string{x, x})
	if err := read(t, n.model(t, 17, n.dense(n.pooled(y), 4, 5)), classifier.Options{}).CheckTrainable(); err != nil {
		t.Error(err)
	}
}

// TestWeightsInOtherPlaces: weights that are moved before they are used, layers of constants alone, and normalizations written in single
// operators are trained like all others; preprocessing is not.
func TestWeightsInOtherPlaces(t *testing.T) {
	for _, tt := range []struct {
		name      string
		build     func(n *net, x string) string
		trainable string
	}{
		{"Transpose of a weight", func(n *net, x string) string {
			return n.Op("MatMul", []string{x, n.Op("Transpose", []string{n.weight("w", 8, 8)})})
		}, "stem.w stem.b w fc.w fc.b"},
		{"position bias made by a small network of its own", func(n *net, x string) string {
			h := n.Op("MatMul", []string{n.weight("positions", 8, 2), n.weight("w1", 2, 3)})
			h = n.Op("Relu", []string{n.Op("Add", []string{h, n.weight("b1", 3)})})
			return n.Op("Add", []string{x, n.Op("MatMul", []string{h, n.weight("w2", 3, 8)})})
		}, "stem.w stem.b w1 b1 w2 fc.w fc.b"},
		{"scalars and what normalizing the opset made", func(n *net, x string) string {
			x = n.Op("Conv", []string{x, n.weight("w", 4, 4, 1, 1)})
			return n.Op("Gelu", []string{n.Op("Mul", []string{x, n.Floats([]int64{1}, []float32{2})})})
		}, "stem.w stem.b w fc.w fc.b"},
		{"normalization in single operators", func(n *net, x string) string {
			mean := n.Op("ReduceMean", []string{x, n.Int64s(1)})
			d := n.Op("Sub", []string{x, mean})
			deviation := n.Op("Sqrt", []string{n.Op("ReduceMean", []string{n.Op("Mul", []string{d, d}), n.Int64s(1)})})
			y := n.Op("Mul", []string{n.Op("Div", []string{d, n.Op("Add", []string{deviation, n.Float(1e-3)})}), n.weight("scale", 4, 1, 1)})
			return n.Op("Add", []string{n.weight("shift", 4, 1, 1), y})
		}, "stem.w stem.b scale shift fc.w fc.b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNet()
			n.Input("image", onnx.Float, -1, 3, 8, 8)
			x := n.Op("Mul", []string{n.Op("Sub", []string{"image", n.weight("mean", 1, 3, 1, 1)}), n.weight("deviation", 1, 3, 1, 1)})
			x = n.Op("Relu", []string{n.Op("Conv", []string{x, n.weight("stem.w", 4, 3, 3, 3), n.weight("stem.b", 4)}, onnx.Is("pads", 1, 1, 1, 1))})
			c := read(t, n.model(t, 20, n.dense(n.pooled(tt.build(n, x)), 4, 5)), classifier.Options{})
			if got := strings.Join(c.Trainable, " "); got != tt.trainable {
				t.Errorf("trainable: %s, want %s", got, tt.trainable)
			}
			if err := c.CheckTrainable(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestShapeArithmetic: PyTorch writes x.view(x.size(0), -1) with a dynamic batch as arithmetic on the shape, which has no gradient and
// needs none.
func TestShapeArithmetic(t *testing.T) {
	n := newNet()
	x := n.stem(-1)
	batch := n.Op("Gather", []string{n.Op("Shape", []string{x}), n.Int64(0)})
	shape := n.Op("Concat", []string{n.Op("Unsqueeze", []string{batch, n.Int64s(0)}), n.Int64s(-1)}, onnx.I("axis", 0))
	c := read(t, n.model(t, 17, n.dense(n.Op("Reshape", []string{x, shape}), 256, 5)), classifier.Options{})
	if err := c.CheckTrainable(); err != nil {
		t.Error(err)
	}
	if c.FeatureWidth != 256 {
		t.Errorf("features are %d wide", c.FeatureWidth)
	}
}

// TestTiedWeights: a tensor that two layers share is one trainable tensor.
func TestTiedWeights(t *testing.T) {
	n := newNet()
	x := n.stem(-1)
	w, b := n.weight("w", 4, 4, 1, 1), n.weight("b", 4)
	for range 2 {
		x = n.Op("Relu", []string{n.Op("Conv", []string{x, w, b})})
	}
	c := read(t, n.model(t, 17, n.dense(n.pooled(x), 4, 5)), classifier.Options{})
	if got := strings.Join(c.Trainable, " "); got != "stem.w stem.b w b fc.w fc.b" {
		t.Errorf("trainable: %s", got)
	}
}

// TestOldInputs: before IR version 4 every initializer was listed among the inputs.
func TestOldInputs(t *testing.T) {
	n := newNet()
	m := n.model(t, 9, n.dense(n.pooled(n.stem(-1)), 4, 5))
	for _, w := range m.Graph.Initializers {
		m.Graph.Inputs = append(m.Graph.Inputs, onnx.NewValue(w.Name, w.Type, w.Shape...))
	}
	if c := read(t, m, classifier.Options{}); c.Input != "x" || len(c.Trainable) != 4 {
		t.Errorf("input %s, %d trainable tensors", c.Input, len(c.Trainable))
	}
}

// TestFreshNames: names of the model that look like the builder's own do not collide.
func TestFreshNames(t *testing.T) {
	n := newNet()
	x := n.stem(-1)
	x = n.Named("shape_1", "Relu", []string{x})
	x = n.Named("shape_2", "Relu", []string{x})
	c := read(t, n.model(t, 17, n.dense(n.pooled(x), 4, 5)), classifier.Options{})
	shapes, err := c.Shapes(2)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(shapes["shape_1"], []int64{2, 4, 8, 8}) {
		t.Errorf("shape_1 has shape %v", shapes["shape_1"])
	}
}
