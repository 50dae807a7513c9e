package classifier_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// TestComposedWeights: of a weight that the file computes everything is trained that the framework trains, in the body and in the head.
func TestComposedWeights(t *testing.T) {
	normalized := func(n *net, v, g string, axes ...int64) string { // by the length of each row
		return n.Op("Mul", []string{v, n.Op("Div", []string{g, n.Op("ReduceL2", []string{v}, onnx.Is("axes", axes...))})})
	}
	pruned := make([]float32, 16)
	pruned[3], pruned[8] = 1, 1
	for _, tt := range []struct {
		name    string
		conv    func(n *net) string // a weight [4, 4, 1, 1]
		head    func(n *net) string // a weight [4, 5]
		trained string              // beside the stem's
		reset   string
	}{
		{name: "weight normalization", conv: func(n *net) string {
			return normalized(n, n.weight("v", 4, 4, 1, 1), n.weight("g", 4, 1, 1, 1), 1, 2, 3)
		},
			head: func(n *net) string {
				return n.Op("Transpose", []string{normalized(n, n.weight("hv", 5, 4), n.weight("hg", 5, 1), 1)})
			}, trained: "v g hv hg", reset: "hv hg"},
		{name: "low-rank update", conv: func(n *net) string {
			low := n.Op("MatMul", []string{n.weight("a", 4, 2), n.weight("b", 2, 4)})
			return n.Op("Add", []string{n.weight("w", 4, 4, 1, 1), n.Op("Mul", []string{n.Op("Reshape", []string{low, n.Int64s(4, 4, 1, 1)}), n.Float(2)})})
		}, head: func(n *net) string {
			return n.Op("Sum", []string{n.weight("hw", 4, 5), n.Op("Gemm", []string{n.weight("ha", 4, 2), n.weight("hb", 2, 5)})})
		}, trained: "w a b hw ha hb", reset: "hw ha hb"},
		{name: "standardized", conv: func(n *net) string {
			w := n.weight("w", 4, 4, 1, 1)
			centered := n.Op("Sub", []string{w, n.Op("ReduceMean", []string{w}, onnx.Is("axes", 1, 2, 3))})
			return n.Op("Div", []string{centered, n.Op("Sqrt", []string{n.Op("ReduceMean", []string{n.Op("Mul", []string{centered, centered})}, onnx.Is("axes", 1, 2, 3))})})
		}, head: func(n *net) string {
			return n.Op("Cast", []string{n.weight("hw", 4, 5)}, onnx.I("to", int64(onnx.Float)))
		}, trained: "w hw", reset: "hw"},
		{name: "divided by a singular value, found by vectors that nobody trains", conv: func(n *net) string {
			w := n.weight("w", 4, 4, 1, 1)
			sigma := n.Op("MatMul", []string{n.weight("u", 1, 4), n.Op("MatMul", []string{n.Op("Reshape", []string{w, n.Int64s(4, 4)}), n.weight("z", 4, 1)})})
			return n.Op("Div", []string{w, n.Op("Reshape", []string{sigma, n.Int64s(1, 1, 1, 1)})})
		}, head: func(n *net) string { return n.Op("Mul", []string{n.weight("hw", 4, 5), n.Float(0.5)}) }, trained: "w hw", reset: "hw"},
		{name: "pruned", conv: func(n *net) string {
			return n.Op("Mul", []string{n.weight("w", 4, 4, 1, 1), n.Const(onnx.NewFloat("mask", []int64{4, 4, 1, 1}, pruned))})
		}, head: func(n *net) string {
			return n.Op("Where", []string{n.Const(onnx.NewBool("kept", []int64{1, 5}, []bool{true, true, true, false, true})), n.weight("hw", 4, 5), n.Float(0)})
		}, trained: "w hw", reset: "hw"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNet()
			x := n.Op("Relu", []string{n.Op("Conv", []string{n.stem(-1), tt.conv(n)})})
			m := n.model(t, 17, n.Named("logits", "MatMul", []string{n.pooled(x), tt.head(n)}))
			c := read(t, m, classifier.Options{})
			if err := c.CheckTrainable(); err != nil {
				t.Error(err)
			}
			trained, reset := slices.Clone(c.Trainable), slices.Clone(c.HeadWeights)
			want := append([]string{"stem.w", "stem.b"}, strings.Fields(tt.trained)...)
			for _, list := range [][]string{trained, reset, want} {
				slices.Sort(list)
			}
			head := strings.Fields(tt.reset)
			slices.Sort(head)
			if !slices.Equal(trained, want) || !slices.Equal(reset, head) || c.Feature != "feature" {
				t.Errorf("trains %q, re-initialises %q, features %s", trained, reset, c.Feature)
			}
			sameClasses(t, c, m)
		})
	}

	n := newNet() // one that is trained, as the weight of another layer, and one that is not
	shared := n.weight("shared", 4, 4, 1, 1)
	x := n.Op("Conv", []string{n.stem(-1), shared})
	n.Named("computed", "Abs", []string{n.Op("Mul", []string{shared, n.weight("hidden", 4, 4, 1, 1)})})
	x = n.Op("Conv", []string{x, "computed"})
	err := read(t, n.model(t, 17, n.dense(n.pooled(x), 4, 5)), classifier.Options{}).CheckTrainable()
	if !errors.Is(err, classifier.ErrFrozen) || !strings.Contains(err.Error(), `"computed"`) {
		t.Errorf("computed of a trained weight and another: %v", err)
	}
}
