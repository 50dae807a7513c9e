package classifier_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// frozenNet has two convolutions, with an operator between them that has no rule, and one beside them.
func frozenNet(t *testing.T) *onnx.Model {
	n := newNet()
	x := n.stem(-1)
	n.Add(&onnx.Node{Name: "multiply", Op: "ScatterElements", Inputs: []string{x, n.Const(onnx.NewInt64("", []int64{1, 1, 1, 1}, []int64{0})), n.Floats([]int64{1, 1, 1, 1}, []float32{2})},
		Outputs: []string{"multiplied"}, Attrs: []*onnx.Attr{onnx.S("reduction", "mul")}})
	y := n.Op("Conv", []string{"multiplied", n.weight("second.w", 4, 4, 1, 1)})
	beside := n.Op("Conv", []string{"x", n.weight("beside.w", 4, 3, 1, 1), "stem.b"}) // a bias that the stem has too
	return n.model(t, 17, n.dense(n.pooled(n.Op("Relu", []string{n.Op("Add", []string{y, beside})})), 4, 5))
}

func TestFreezeBelow(t *testing.T) {
	m := frozenNet(t)
	if err := read(t, m, classifier.Options{}).CheckTrainable(); !errors.Is(err, classifier.ErrUnsupported) || !strings.Contains(err.Error(), `"multiply": ScatterElements`) {
		t.Fatalf("not frozen: %v", err)
	}
	for _, name := range []string{"multiply", "multiplied"} {
		c := read(t, m, classifier.Options{FreezeBelow: []string{name}})
		if err := c.CheckTrainable(); err != nil {
			t.Errorf("below %s: %v", name, err)
		}
		if want := []string{"second.w", "beside.w", "fc.w", "fc.b"}; !slices.Equal(c.Trainable, want) {
			t.Errorf("below %s %q are trained, want %q", name, c.Trainable, want)
		}
		if want := []string{"stem.w", "stem.b"}; !slices.Equal(c.FrozenWeights, want) {
			t.Errorf("below %s %q are frozen, want %q", name, c.FrozenWeights, want)
		}
		for _, f := range c.Foldable() {
			if c.Frozen(f.Node) {
				t.Errorf("%s would be unfolded", f.Node.Label())
			}
		}
	}
}

func TestFreezeBelowRefuses(t *testing.T) {
	m := frozenNet(t)
	for _, name := range []string{"nowhere", "", "feature", "fc"} { // below the last two nothing of the features would be trained
		if _, err := classifier.New(m, classifier.Options{FreezeBelow: []string{name}}); !errors.Is(err, classifier.ErrFreeze) || !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("below %q: %v", name, err)
		}
	}
}
