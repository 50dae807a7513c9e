package classifier_test

import (
	"errors"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// TestClosings: what only moves or maps probabilities behind a Softmax closes a classifier as well.
func TestClosings(t *testing.T) {
	softmax := func(n *net) string {
		return n.Op("Softmax", []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, onnx.I("axis", 1))
	}
	for name, build := range map[string]func(n *net) string{
		"Reshape":                func(n *net) string { return n.Op("Reshape", []string{softmax(n), n.Int64s(-1, 5)}) },
		"Flatten, then Identity": func(n *net) string { return n.Op("Identity", []string{n.Op("Flatten", []string{softmax(n)})}) },
		"Unsqueeze, then Squeeze": func(n *net) string {
			return n.Op("Squeeze", []string{n.Op("Unsqueeze", []string{softmax(n), n.Int64s(1)}), n.Int64s(1)})
		},
		"Transpose twice": func(n *net) string {
			return n.Op("Transpose", []string{n.Op("Transpose", []string{softmax(n)}, onnx.Is("perm", 1, 0))}, onnx.Is("perm", 1, 0))
		},
		"Clip":       func(n *net) string { return n.Op("Clip", []string{softmax(n), n.Float(1e-7), n.Float(1)}) },
		"percent":    func(n *net) string { return n.Op("Mul", []string{n.Float(100), softmax(n)}) },
		"logarithms": func(n *net) string { return n.Op("Log", []string{softmax(n)}) },
		"Exp of LogSoftmax, behind Identity": func(n *net) string {
			return n.Op("Exp", []string{n.Op("Identity", []string{n.Op("LogSoftmax", []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, onnx.I("axis", 1))})})
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			m := n.model(t, 17, build(n))
			c := read(t, m, classifier.Options{})
			if c.Logits != "logits" || c.Feature != "feature" {
				t.Errorf("logits %s, feature layer %s", c.Logits, c.Feature)
			}
			if first := c.Closing[0]; first.Input(0) != "logits" || c.Closing[len(c.Closing)-1].Output(0) != c.Output {
				t.Errorf("it closes from %s to %s", first.Input(0), c.Closing[len(c.Closing)-1].Output(0))
			}
			sameClasses(t, c, m)
		})
	}
}

// TestLikeliest: a network that gives the likeliest classes alone is read before it chooses them.
func TestLikeliest(t *testing.T) {
	n := newNet()
	p := n.Op("Softmax", []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, onnx.I("axis", 1))
	top := n.OpN("TopK", 2, []string{p, n.Int64s(3)})
	n.Output(top[1], onnx.Int64, -1, 3)
	if c := read(t, n.model(t, 17, top[0]), classifier.Options{}); c.Logits != "logits" || c.Classes != 5 || c.CheckTrainable() != nil {
		t.Errorf("logits %s of %d classes", c.Logits, c.Classes)
	}
}

// TestNoClosing: without a Softmax below, such operators are part of the head; and what reorders classes closes nothing.
func TestNoClosing(t *testing.T) {
	n := newNet()
	y := n.Named("bounded", "Clip", []string{n.dense(n.pooled(n.stem(-1)), 4, 5), n.Float(-9), n.Float(9)})
	if c := read(t, n.model(t, 17, n.Op("Identity", []string{n.Named("shaped", "Reshape", []string{y, n.Int64s(-1, 5)})})), classifier.Options{}); c.Logits != "shaped" {
		t.Errorf("logits %s", c.Logits)
	}
	for name, factor := range map[string]func(n *net) string{
		"negative":        func(n *net) string { return n.Float(-1) },
		"for every class": func(n *net) string { return n.weight("factor", 5) },
	} {
		n := newNet()
		n.Add(&onnx.Node{Name: "probabilities", Op: "Softmax", Inputs: []string{n.dense(n.pooled(n.stem(-1)), 4, 5)}, Outputs: []string{"p"}})
		_, err := classifier.New(n.model(t, 17, n.Op("Mul", []string{"p", factor(n)})), classifier.Options{})
		if !errors.Is(err, classifier.ErrNoHead) || !strings.Contains(err.Error(), `node "probabilities": Softmax`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
