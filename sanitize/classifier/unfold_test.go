package classifier_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// statistics are mean and biased variance of every channel of the layers' outputs over a batch of noise, in float64.
func statistics(t testing.TB, c *classifier.Classifier, layers []classifier.Foldable, batch int64) (mean, variance [][]float32) {
	t.Helper()
	var names []string
	for _, l := range layers {
		names = append(names, l.Node.Outputs[0])
	}
	for i, y := range evaluate(t, c, nil, noise(c, batch), names...) {
		channels := layers[i].Channels
		per := int(y.Shape[1]) / channels // NCHW: a channel's numbers lie together
		sum, square := make([]float64, channels), make([]float64, channels)
		for k, v := range y.F32 {
			at := k / per % channels
			sum[at] += float64(v)
			square[at] += float64(v) * float64(v)
		}
		count := float64(len(y.F32) / channels)
		m, v := make([]float32, channels), make([]float32, channels)
		for k := range m {
			e := sum[k] / count
			m[k], v[k] = float32(e), float32(max(0, square[k]/count-e*e))
		}
		mean, variance = append(mean, m), append(variance, v)
	}
	return mean, variance
}

var unfolded = []string{"nad-wrn16-badnet.onnx", "vnncomp-resnet_2b.onnx", "vnncomp-cifar10_medium_nhwc.onnx", "cntk-mnist.onnx"}

// TestUnfoldKeepsTheFunction: the inserted BatchNormalizations change nothing at inference, and folding them right back changes no weight.
func TestUnfoldKeepsTheFunction(t *testing.T) {
	for _, file := range unfolded {
		t.Run(file, func(t *testing.T) {
			c, m, _ := openShared(t, file)
			x := noise(c, 4)
			want := evaluate(t, c, nil, x, c.Logits)[0].F32
			layers := c.Foldable()
			before := len(c.Trainable)
			mean, variance := statistics(t, c, layers, 16)
			c.Unfold(layers, mean, variance)
			if got := evaluate(t, c, nil, x, c.Logits)[0].F32; difference(got, want) > 1e-4 {
				t.Errorf("logits differ by %.2g of the largest", difference(got, want))
			}
			if len(c.Unfolded) != len(layers) || len(c.Trainable) != before+2*len(layers) {
				t.Errorf("%d layers unfolded, %d trainable tensors", len(c.Unfolded), len(c.Trainable))
			}
			if left := c.Foldable(); len(left) != 0 {
				t.Errorf("%d layers still lack a BatchNormalization", len(left))
			}
			if err := c.CheckTrainable(); err != nil {
				t.Errorf("unfolded: %v", err)
			}

			original := read(t, m, classifier.Options{})
			values := floats(c)
			c.Fold(values)
			for name, v := range values {
				if w := original.Constants[name]; w == nil {
					t.Errorf("%s is left of the unfolded graph", name)
				} else if d := difference(v, w.Floats()); d > 1e-5 {
					t.Errorf("%s differs by %.2g of the largest", name, d)
				}
			}
		})
	}
}

// TestFold: whatever training made of weights, scales, shifts and running statistics, the original graph with the folded weights computes
// what the unfolded one does.
func TestFold(t *testing.T) {
	for _, file := range unfolded {
		t.Run(file, func(t *testing.T) {
			c, m, _ := openShared(t, file)
			layers := c.Foldable()
			mean, variance := statistics(t, c, layers, 16)
			c.Unfold(layers, mean, variance)
			random := rand.New(rand.NewPCG(5, 5))
			values := floats(c)
			for _, name := range c.Trainable {
				for i := range values[name] {
					values[name][i] *= 1 + 0.3*float32(random.NormFloat64())
				}
			}
			for _, u := range c.Unfolded {
				for i := range u.Channels {
					values[u.Norm.Inputs[3]][i] += 0.1 * float32(random.NormFloat64())
					values[u.Norm.Inputs[4]][i] *= 0.5 + random.Float32()
				}
			}
			x := noise(c, 4)
			want := evaluate(t, c, values, x, c.Logits)[0].F32
			original := read(t, m, classifier.Options{})
			if d := difference(evaluate(t, original, nil, x, c.Logits)[0].F32, want); d < 1e-2 {
				t.Fatalf("the changes were too small to tell anything: %.2g", d)
			}
			c.Fold(values)
			if got := evaluate(t, original, values, x, c.Logits)[0].F32; difference(got, want) > 1e-4 {
				t.Errorf("logits differ by %.2g of the largest", difference(got, want))
			}
		})
	}
}

func floats(c *classifier.Classifier) map[string][]float32 {
	values := map[string][]float32{}
	for name, k := range c.Constants {
		if k.Type == onnx.Float {
			values[name] = slices.Clone(k.Floats())
		}
	}
	return values
}

// TestFoldGemm: a Gemm with its weight in either order and an alpha.
func TestFoldGemm(t *testing.T) {
	for _, transB := range []int64{0, 1} {
		n := newNet()
		shape := []int64{4, 6}
		if transB == 1 {
			shape = []int64{6, 4}
		}
		y := n.Op("Gemm", []string{n.pooled(n.stem(-1)), n.weight("w", shape...), n.weight("b", 6)}, onnx.I("transB", transB), onnx.F("alpha", 0.5))
		m := n.model(t, 17, n.dense(n.Op("Relu", []string{y}), 6, 5))
		c := read(t, m, classifier.Options{})
		layers := c.Foldable()
		if len(layers) != 2 || layers[1].Channels != 6 || layers[1].Axis != int(1-transB) {
			t.Fatalf("transB %d: %+v", transB, layers)
		}
		mean, variance := statistics(t, c, layers, 8)
		for i := range variance {
			for k := range variance[i] {
				variance[i][k] += 0.1 // as if training had moved them
				mean[i][k] -= 0.1
			}
		}
		c.Unfold(layers, mean, variance)
		values := floats(c)
		for _, u := range c.Unfolded {
			for k := range values[u.Norm.Inputs[1]] {
				values[u.Norm.Inputs[1]][k] *= float32(k)
			}
		}
		x := noise(c, 4)
		want := evaluate(t, c, values, x, c.Logits)[0].F32
		c.Fold(values)
		if d := difference(evaluate(t, read(t, m, classifier.Options{}), values, x, "logits")[0].F32, want); d > 1e-5 {
			t.Errorf("transB %d: logits differ by %.2g", transB, d)
		}
	}
}

// TestNotFoldable: layers whose weights cannot take a factor in without changing something else.
func TestNotFoldable(t *testing.T) {
	hidden := func(n *net, y string) string { return n.dense(n.Op("Relu", []string{y}), 6, 5) }
	for name, build := range map[string]func(n *net) string{
		"shared weight": func(n *net) string {
			x := n.pooled(n.stem(-1))
			w := n.weight("w", 4, 6)
			return hidden(n, n.Op("Add", []string{n.Op("Gemm", []string{x, w, n.weight("b1", 6)}), n.Op("Gemm", []string{x, w, n.weight("b2", 6)})}))
		},
		"shared bias": func(n *net) string {
			x, b := n.pooled(n.stem(-1)), n.weight("b", 6)
			return hidden(n, n.Op("Add", []string{n.Op("Gemm", []string{x, n.weight("w1", 4, 6), b}), n.Op("Gemm", []string{x, n.weight("w2", 4, 6), b})}))
		},
		"scaled bias": func(n *net) string {
			return hidden(n, n.Op("Gemm", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 6), n.weight("b", 6)}, onnx.F("beta", 0.5)))
		},
		"one bias for all": func(n *net) string {
			return hidden(n, n.Op("Gemm", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 6), n.weight("b", 1)}))
		},
		"product read before the bias": func(n *net) string {
			y := n.Op("MatMul", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 6)})
			return hidden(n, n.Op("Add", []string{n.Op("Add", []string{y, n.weight("b", 6)}), y}))
		},
		"product of more than two axes": func(n *net) string {
			x := n.Op("Reshape", []string{n.stem(-1), n.Int64s(0, 4, 64)})
			y := n.Op("Add", []string{n.Op("MatMul", []string{x, n.weight("w", 64, 6)}), n.weight("b", 6)})
			return hidden(n, n.Op("ReduceMean", []string{y}, onnx.Is("axes", 1), onnx.I("keepdims", 0)))
		},
		"no bias": func(n *net) string {
			return hidden(n, n.Op("Gemm", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 6)}))
		},
		"BatchNormalization is there": func(n *net) string {
			y := n.Op("Gemm", []string{n.pooled(n.stem(-1)), n.weight("w", 4, 6), n.weight("b", 6)})
			return hidden(n, n.Op("BatchNormalization", []string{y, n.weight("s", 6), n.weight("t", 6), n.weight("m", 6), n.filled("v", 1, 6)}))
		},
	} {
		n := newNet()
		layers := read(t, n.model(t, 17, build(n)), classifier.Options{}).Foldable()
		if len(layers) != 1 || layers[0].Weight != "stem.w" {
			t.Errorf("%s: %d foldable layers, want the stem alone", name, len(layers))
		}
	}
}

// TestUnfoldSeveralReaders: a residual branch reads a layer beside its BatchNormalization, so the layer gets one of its own.
func TestUnfoldSeveralReaders(t *testing.T) {
	n := newNet()
	x := n.stem(-1)
	norm := n.Op("BatchNormalization", []string{"stem.y", n.weight("s", 4), n.weight("t", 4), n.weight("m", 4), n.filled("v", 1, 4)})
	m := n.model(t, 17, n.dense(n.pooled(n.Op("Add", []string{x, norm})), 4, 5))
	c := read(t, m, classifier.Options{})
	layers := c.Foldable()
	if len(layers) != 1 || layers[0].Node.Name != "stem" {
		t.Fatalf("%d foldable layers", len(layers))
	}
	in := noise(c, 4)
	want := evaluate(t, c, nil, in, c.Logits)[0].F32
	mean, variance := statistics(t, c, layers, 4)
	c.Unfold(layers, mean, variance)
	if d := difference(evaluate(t, c, nil, in, c.Logits)[0].F32, want); d > 1e-5 {
		t.Errorf("logits differ by %.2g", d)
	}
}
