package classifier_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// quantizedNet is the stem, whatever build makes of it, and a head: QuantizeLinear and DequantizeLinear are called quantize and dequantize.
func quantizedNet(t *testing.T, build func(n *net, x string) string) *onnx.Model {
	n := newNet()
	return n.model(t, 21, n.dense(n.pooled(build(n, n.stem(-1))), 4, 5))
}

func (n *net) quantize(x, scale, zero string) string {
	n.Add(&onnx.Node{Name: n.Fresh("quantize"), Op: "QuantizeLinear", Inputs: []string{x, scale, zero}, Outputs: []string{n.Fresh("q")}})
	return n.last()
}

func (n *net) dequantize(x, scale, zero string, attrs ...*onnx.Attr) string {
	n.Add(&onnx.Node{Name: n.Fresh("dequantize"), Op: "DequantizeLinear", Inputs: []string{x, scale, zero}, Outputs: []string{n.Fresh("f")}, Attrs: attrs})
	return n.last()
}

func (n *net) last() string {
	nodes := n.Graph("").Nodes
	return nodes[len(nodes)-1].Outputs[0]
}

func (n *net) zero(v uint8) string { return n.Const(onnx.NewUint8("", nil, []uint8{v})) }

// TestQuantizedActivations: each way to round an activation trains without rounding, and evaluates with it.
func TestQuantizedActivations(t *testing.T) {
	for name, test := range map[string]struct {
		build    func(n *net, x string) string
		training string // the operator that takes the place of the first QuantizeLinear
	}{
		"zero point at the end": {func(n *net, x string) string {
			s, z := n.Float(.1), n.zero(0)
			return n.dequantize(n.quantize(x, s, z), s, z)
		}, "Relu"},
		"zero point in between": {func(n *net, x string) string {
			s, z := n.Float(.1), n.zero(100)
			return n.dequantize(n.quantize(x, s, z), s, z)
		}, "Identity"},
		"no zero point": {func(n *net, x string) string {
			s := n.Float(.1)
			return n.dequantize(n.quantize(x, s, ""), s, "")
		}, "Relu"},
		"constants of their own": {func(n *net, x string) string {
			return n.dequantize(n.quantize(x, n.Float(.1), n.zero(3)), n.Float(.1), n.zero(3))
		}, "Identity"},
		"told the type": {func(n *net, x string) string {
			s := n.Float(.1)
			n.Add(&onnx.Node{Name: n.Fresh("quantize"), Op: "QuantizeLinear", Inputs: []string{x, s}, Outputs: []string{"q"}, Attrs: []*onnx.Attr{onnx.I("output_dtype", int64(onnx.Int8))}})
			return n.dequantize("q", s, "")
		}, "Identity"},
		"16 bits": {func(n *net, x string) string {
			s, z := n.Float(.001), n.Const(onnx.NewInts("z", onnx.Uint16, nil, []int64{30000}))
			return n.dequantize(n.quantize(x, s, z), s, z)
		}, "Identity"},
		"16 bits with a sign": {func(n *net, x string) string {
			s := n.Float(.001)
			n.Add(&onnx.Node{Name: n.Fresh("quantize"), Op: "QuantizeLinear", Inputs: []string{x, s}, Outputs: []string{"q"}, Attrs: []*onnx.Attr{onnx.I("output_dtype", int64(onnx.Int16))}})
			return n.dequantize("q", s, "")
		}, "Identity"},
		"moved as integers": {func(n *net, x string) string {
			s, z := n.Float(.1), n.zero(3)
			q := n.Op("MaxPool", []string{n.quantize(x, s, z)}, onnx.Is("kernel_shape", 2, 2), onnx.Is("strides", 2, 2))
			return n.dequantize(q, s, z)
		}, "Identity"},
		"two values of one scale": {func(n *net, x string) string {
			s, z := n.Float(.1), n.zero(3)
			y := n.dequantize(n.quantize(x, s, z), s, z)
			y = n.Op("MaxPool", []string{y}, onnx.Is("kernel_shape", 2, 2))
			return n.dequantize(n.quantize(y, s, z), s, z)
		}, "Identity"},
	} {
		t.Run(name, func(t *testing.T) {
			m := quantizedNet(t, test.build)
			c := read(t, m, classifier.Options{})
			if err := c.CheckTrainable(); err != nil {
				t.Error(err)
			}
			i := slices.IndexFunc(c.Nodes, func(n *onnx.Node) bool { return strings.HasPrefix(n.Name, "quantize") })
			if !c.Quantized() || i < 0 || c.Nodes[i].Op != test.training {
				t.Errorf("quantized %v, %s is trained", c.Quantized(), c.Nodes[i].Op)
			}
			x := noise(c, 4)
			trained := evaluate(t, c, nil, x, c.Logits)[0].F32
			rounded := read(t, m, classifier.Options{Rounded: true})
			if d := difference(evaluate(t, rounded, nil, x, rounded.Logits)[0].F32, trained); d == 0 || d > .1 {
				t.Errorf("rounding makes a difference of %.2g", d)
			}
		})
	}
}

func TestQuantizedRefuses(t *testing.T) {
	weight := func(n *net) (integers, scale string) {
		return n.Const(onnx.NewInts("w", onnx.Int8, []int64{4, 4, 1, 1}, make([]int64, 16))), n.Const(onnx.NewFloat("scale", nil, []float32{.1}))
	}
	conv := func(n *net, x, w string) string { return n.Op("Conv", []string{x, w}) }
	for says, build := range map[string]func(n *net, x string) string{
		"computed": func(n *net, x string) string {
			s := n.Op("Add", []string{n.Float(.1), n.Float(.1)})
			return n.dequantize(n.quantize(x, s, n.zero(0)), s, n.zero(0))
		},
		"blocks": func(n *net, x string) string {
			w, s := weight(n)
			return conv(n, x, n.dequantize(w, s, "", onnx.I("block_size", 2)))
		},
		"several scales": func(n *net, x string) string {
			s, z := n.Floats([]int64{4}, []float32{.1, .2, .3, .4}), n.Const(onnx.NewUint8("", []int64{4}, []uint8{0, 0, 0, 0}))
			return n.dequantize(n.quantize(x, s, z), s, z)
		},
		"shares its scale": func(n *net, x string) string {
			w, s := weight(n)
			return conv(n, n.dequantize(n.quantize(x, s, n.zero(0)), s, n.zero(0)), n.dequantize(w, s, ""))
		},
		"3 scales for axis 0": func(n *net, x string) string {
			w, _ := weight(n)
			return conv(n, x, n.dequantize(w, n.Floats([]int64{3}, []float32{1, 2, 3}), n.Const(onnx.NewInts("", onnx.Int8, []int64{3}, make([]int64, 3))), onnx.I("axis", 0)))
		},
		"only those in the QDQ form": func(n *net, x string) string {
			y := "sum"
			n.Add(&onnx.Node{Op: "QLinearAdd", Domain: "com.microsoft", Inputs: []string{x, n.Float(.1), n.zero(0), x, n.Float(.1), n.zero(0), n.Float(.2), n.zero(0)}, Outputs: []string{y}})
			return n.dequantize(y, n.Float(.2), n.zero(0))
		},
		"quant_format=QuantFormat.QDQ": func(n *net, x string) string {
			out := n.OpN("DynamicQuantizeLinear", 3, []string{x})
			return n.dequantize(out[0], out[1], out[2])
		},
		"no QuantizeLinear": func(n *net, x string) string {
			return n.dequantize(n.Op("Cast", []string{x}, onnx.I("to", int64(onnx.Uint8))), n.Float(.1), n.zero(0))
		},
	} {
		_, err := classifier.New(quantizedNet(t, build), classifier.Options{})
		var where *onnx.Error
		if !errors.As(err, &where) || where.Node == "" || !errors.Is(err, onnx.ErrUnsupported) || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one about %q", err, says)
		}
	}
}

// TestRoundedScores: scores that the file rounds, to integers of any size, are read in both forms.
func TestRoundedScores(t *testing.T) {
	for _, kind := range []onnx.DataType{onnx.Uint8, onnx.Uint16} {
		for _, rounded := range []bool{false, true} {
			n := newNet()
			in := []string{n.dense(n.pooled(n.stem(-1)), 4, 5), n.Float(.01), n.Const(onnx.NewInts("zero", kind, nil, []int64{100}))}
			in[0] = n.Op("QuantizeLinear", in)
			c := read(t, n.model(t, 21, n.Op("DequantizeLinear", in)), classifier.Options{Rounded: rounded})
			if c.Logits != "logits" || c.Feature != "feature" {
				t.Errorf("%v, rounded %v: logits %s, feature layer %s", kind, rounded, c.Logits, c.Feature)
			}
		}
	}
}
