package train_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// byHand trains a classifier in float64 without anything of the step's graph: losses in plain Go over the reference interpreter's forward
// pass, gradients by central differences, and the update rule as its definition has it.
type byHand struct {
	c            *classifier.Classifier
	o            train.StepOptions
	p, v, s      []float64 // parameters, momentum, running statistics
	params, stat []train.Slot
}

// forward returns all values of a batch, with BatchNormalization in training mode.
func (h *byHand) forward(t testing.TB, p []float64, images []byte) map[string]*reference.Tensor {
	t.Helper()
	g := &onnx.Graph{}
	values := map[string]*reference.Tensor{}
	for _, n := range h.c.Nodes {
		for _, in := range n.Inputs {
			if k := h.c.Constants[in]; k != nil {
				values[in] = reference.From(k)
			}
		}
		if n.Op == "BatchNormalization" {
			training := *n
			training.Attrs = append(slices.Clone(n.Attrs), onnx.I("training_mode", 1))
			training.Outputs = []string{n.Outputs[0], n.Outputs[0] + "/mean", n.Outputs[0] + "/variance"}
			n = &training
		}
		g.Nodes = append(g.Nodes, n)
	}
	for _, slot := range h.params {
		values[slot.Name] = reference.Floats(slot.Shape, p[slot.Offset:slot.Offset+slot.Size])
	}
	x := make([]float64, len(images))
	plane := h.c.Height * h.c.Width
	for i, v := range images { // NCHW
		k := i / plane % h.c.Channels
		x[i] = float64(v)*float64(h.o.Scale[k]) + float64(h.o.Shift[k])
	}
	values[h.c.Input] = reference.Floats(h.c.ImageShape(int64(h.o.Batch)), x)
	all, err := reference.RunAll(g, values)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// loss is L = alpha*L_f + (1-alpha)*L_t with its parts and the accuracy (Feature Grinding, section 4.2).
func (h *byHand) loss(values map[string]*reference.Tensor, labels []int64, targets []float32, alpha float64) (l, feature, task, accuracy float64) {
	n, width, classes := float64(h.o.Batch), h.c.FeatureWidth, h.c.Classes
	logits, z := values[h.c.Logits].F, values[h.c.Feature].F
	for i, label := range labels {
		row := logits[i*classes : (i+1)*classes]
		sum, best := 0.0, 0
		for k, v := range row {
			sum += math.Exp(v)
			if v > row[best] {
				best = k
			}
		}
		task += (math.Log(sum) - row[label]) / n
		if best == int(label) {
			accuracy += 1 / n
		}
		square := 0.0
		for k := range width {
			d := z[i*width+k] - float64(targets[i*width+k])
			square += d * d
		}
		feature += math.Sqrt(square+1e-12) / n
	}
	if !h.o.Feature {
		return task, 0, task, accuracy
	}
	return alpha*feature + (1-alpha)*task, feature, task, accuracy
}

// step does one step of SGD and returns its metrics.
func (h *byHand) step(t testing.TB, images []byte, labels []int64, targets []float32, alpha, rate float64) []float64 {
	t.Helper()
	at := func(p []float64) float64 {
		l, _, _, _ := h.loss(h.forward(t, p, images), labels, targets, alpha)
		return l
	}
	values := h.forward(t, h.p, images)
	l, feature, task, accuracy := h.loss(values, labels, targets, alpha)
	gradient := make([]float64, len(h.p))
	const e = 1e-6
	for i, keep := range h.p {
		h.p[i] = keep + e
		up := at(h.p)
		h.p[i] = keep - e
		gradient[i] = (up - at(h.p)) / (2 * e)
		h.p[i] = keep
	}
	mu, decay := float64(h.o.Momentum), float64(h.o.WeightDecay)
	for i, g := range gradient { // torch.optim.SGD with nesterov=True
		g += decay * h.p[i]
		h.v[i] = mu*h.v[i] + g
		h.p[i] -= rate * (g + mu*h.v[i])
	}
	h.follow(values)
	return []float64{l, feature, task, accuracy}
}

// follow moves the running statistics: m*running + (1-m)*batch, with the unbiased variance, as PyTorch does it.
func (h *byHand) follow(values map[string]*reference.Tensor) {
	at := 0
	for _, n := range h.c.Nodes {
		if n.Op != "BatchNormalization" {
			continue
		}
		x, m := values[n.Inputs[0]], float64(n.Float("momentum", 0.9))
		channels := int(x.Shape[1])
		inner := x.Len() / int(x.Shape[0]) / channels
		count := float64(x.Len() / channels)
		mean, variance := make([]float64, channels), make([]float64, channels)
		for i, v := range x.F {
			mean[i/inner%channels] += v / count
		}
		for i, v := range x.F {
			d := v - mean[i/inner%channels]
			variance[i/inner%channels] += d * d / (count - 1)
		}
		for _, batch := range [][]float64{mean, variance} {
			for _, v := range batch {
				h.s[at] = m*h.s[at] + (1-m)*v
				at++
			}
		}
	}
}

// TestStepByHand compares three steps of SGD, at changing alpha and rate, with the same steps by hand: the metrics, the parameters, their
// momenta and the running statistics. The step's graph runs twice, on the reference interpreter in float64 and on ONNX Runtime.
func TestStepByHand(t *testing.T) {
	for _, withFeature := range []bool{true, false} {
		t.Run(fmt.Sprintf("feature loss %v", withFeature), func(t *testing.T) {
			c := smallNet(t)
			o := train.StepOptions{Batch: 6, Scale: []float32{1. / 64, 1. / 128, 1. / 32}, Shift: []float32{-0.5, 0.25, 0}, Feature: withFeature, Momentum: 0.875, WeightDecay: 1. / 64}
			s, err := train.BuildStep(c, o)
			if err != nil {
				t.Fatal(err)
			}
			const steps = 3
			in := batchOf(t, c, s, o.Batch, []float32{0.75, 0.75, 0.25}, []float32{0.125, 0.0625, 0.03125})

			h := &byHand{c: c, o: o, p: wide(in[0].F32), v: wide(in[1].F32), s: wide(in[2].F32), params: s.Parameters, stat: s.Statistics}
			var metrics []float64
			for k := range steps {
				images, labels, targets := part(in[3].U8, k, steps), part(in[4].I64, k, steps), part(in[5].F32, k, steps)
				metrics = append(metrics, h.step(t, images, labels, targets, float64(in[6].F32[k]), float64(in[7].F32[k]))...)
			}
			want := [4][]float64{h.p, h.v, h.s, metrics}

			inputs := map[string]*reference.Tensor{}
			for i, v := range s.Model.Graph.Inputs {
				inputs[v.Name] = tensor(in[i])
			}
			exact, err := reference.Run(s.Model.Graph, inputs)
			if err != nil {
				t.Fatal(err)
			}
			got := run(t, session(t, s), in)
			for i, what := range []string{"parameters", "momentum", "running statistics", "metrics"} {
				if d := difference(exact[s.Model.Graph.Outputs[i].Name].F, want[i]); d > 1e-6 {
					t.Errorf("%s, in float64: off by %.2g of the largest", what, d)
				}
				if d := difference(got[i], want[i]); d > 1e-4 {
					t.Errorf("%s, by ONNX Runtime: off by %.2g of the largest", what, d)
				}
			}
			if d := difference(want[0], in[0].F32); d < 0.01 {
				t.Errorf("the parameters moved by %.2g only: this tells nothing", d)
			}
		})
	}
}

func wide(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

func part[T any](all []T, k, of int) []T { return all[k*len(all)/of : (k+1)*len(all)/of] }

func tensor(a *ort.Array) *reference.Tensor {
	switch {
	case a.U8 != nil:
		v := make([]int64, len(a.U8))
		for i, x := range a.U8 {
			v[i] = int64(x)
		}
		return reference.Ints(a.Shape, v)
	case a.I64 != nil:
		return reference.Ints(a.Shape, a.I64)
	}
	return reference.Floats(a.Shape, wide(a.F32))
}

// TestStepsInOneRun: three steps in one run are three runs of one step.
func TestStepsInOneRun(t *testing.T) {
	c := smallNet(t)
	o := train.StepOptions{Batch: 6, Scale: []float32{1. / 255, 1. / 255, 1. / 255}, Shift: []float32{0, 0, 0}, Feature: true, Momentum: 0.9, WeightDecay: 5e-4}
	s, err := train.BuildStep(c, o)
	if err != nil {
		t.Fatal(err)
	}
	runner := session(t, s)
	in := batchOf(t, c, s, o.Batch, []float32{0.8, 0.8, 0.2}, []float32{0.1, 0.05, 0.02})
	want := run(t, runner, in)
	var metrics []float32
	state := [4][]float32{in[0].F32, in[1].F32, in[2].F32}
	for k := range 3 {
		one := make([]*ort.Array, len(in))
		for i, a := range in {
			switch {
			case i < 3:
				one[i] = &ort.Array{Shape: a.Shape, F32: state[i]}
			default:
				one[i] = &ort.Array{Shape: append([]int64{1}, a.Shape[1:]...)}
				if a.U8 != nil {
					one[i].U8 = part(a.U8, k, 3)
				} else if a.I64 != nil {
					one[i].I64 = part(a.I64, k, 3)
				} else {
					one[i].F32 = part(a.F32, k, 3)
				}
			}
		}
		state = run(t, runner, one)
		metrics = append(metrics, state[3]...)
	}
	state[3] = metrics
	for i := range want {
		if d := difference(state[i], want[i]); d > 1e-6 {
			t.Errorf("output %d differs by %.2g of the largest", i, d)
		}
	}
}

// TestGradientOfNAD compares the gradient of a published network, 174,842 numbers, with central differences of its loss: along the whole
// gradient, random halves of it, and each tensor's own, where a wrong length or direction shows most.
func TestGradientOfNAD(t *testing.T) {
	c := openShared(t, "nad-wrn16-badnet.onnx")
	third := []float32{1. / 255, 1. / 255, 1. / 255}
	o := train.StepOptions{Batch: 16, Scale: third, Shift: []float32{0, 0, 0}, Feature: true} // no momentum, no decay: momentum out = gradient
	s, err := train.BuildStep(c, o)
	if err != nil {
		t.Fatal(err)
	}
	runner := session(t, s)
	in := batchOf(t, c, s, o.Batch, []float32{0.5}, []float32{0})
	start := slices.Clone(in[0].F32)
	out := run(t, runner, in)
	gradient := out[1]
	if !slices.Equal(out[0], start) {
		t.Error("a step at rate 0 changed parameters")
	}
	check := func(what string, tolerance float64, chosen func(i int) bool) {
		norm := 0.0
		for i, g := range gradient {
			if chosen(i) {
				norm += float64(g) * float64(g)
			}
		}
		norm = math.Sqrt(norm)
		if norm < 1e-3 {
			t.Errorf("%s: the gradient is %.2g long, nothing to compare", what, norm)
			return
		}
		// Far enough to rise above the rounding of a float32 loss, near enough to cross few kinks of ReLU.
		h := 4e-4 / norm
		at := func(step float64) float64 {
			copy(in[0].F32, start)
			for i, g := range gradient {
				if chosen(i) {
					in[0].F32[i] += float32(step * float64(g) / norm)
				}
			}
			return float64(run(t, runner, in)[3][0])
		}
		if got := (at(h) - at(-h)) / (2 * h); math.Abs(got-norm) > tolerance*norm {
			t.Errorf("%s: the loss changes by %.5g along a gradient of %.5g", what, got, norm)
		}
	}
	check("all", 0.01, func(int) bool { return true })
	for seed := range uint64(4) {
		half := make([]bool, len(gradient))
		random := rand.New(rand.NewPCG(seed, 0))
		for i := range half {
			half[i] = random.IntN(2) == 1
		}
		check(fmt.Sprintf("random half %d", seed), 0.01, func(i int) bool { return half[i] })
	}
	for _, slot := range s.Parameters {
		check(slot.Name, 0.03, func(i int) bool { return i >= slot.Offset && i < slot.Offset+slot.Size })
	}
}

// TestStepOfEveryThirdPartyModel: one step on each of them gives finite numbers, and moves every trainable tensor.
func TestStepOfEveryThirdPartyModel(t *testing.T) {
	for _, file := range []string{"vnncomp-resnet_2b.onnx", "vnncomp-cifar_base_kw.onnx", "vnncomp-cifar10_medium_nhwc.onnx", "cntk-mnist.onnx"} {
		t.Run(file, func(t *testing.T) {
			c := openShared(t, file)
			scale, shift := make([]float32, c.Channels), make([]float32, c.Channels)
			for i := range scale {
				scale[i] = 1. / 255
			}
			s, err := train.BuildStep(c, train.StepOptions{Batch: 8, Scale: scale, Shift: shift, Feature: true, Momentum: 0.9})
			if err != nil {
				t.Fatal(err)
			}
			out := run(t, session(t, s), batchOf(t, c, s, 8, []float32{0.5}, []float32{1e-3}))
			for _, slot := range s.Parameters {
				largest := 0.0
				for _, g := range out[1][slot.Offset : slot.Offset+slot.Size] {
					if math.IsNaN(float64(g)) || math.IsInf(float64(g), 0) {
						t.Fatalf("%s: its gradient has a %v", slot.Name, g)
					}
					largest = max(largest, math.Abs(float64(g)))
				}
				if largest == 0 {
					t.Errorf("%s: no gradient", slot.Name)
				}
			}
		})
	}
}

// TestUnsupportedNetwork: no step is built that would leave weights out.
func TestUnsupportedNetwork(t *testing.T) {
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, -1, 3, 4, 4)
	y := b.Op("Conv", []string{"x", b.Const(onnx.NewFloat("w", []int64{2, 3, 4, 4}, make([]float32, 96)))})
	y = b.Op("Flatten", []string{b.Op("Det", []string{y})})
	y = b.Op("MatMul", []string{y, b.Const(onnx.NewFloat("v", []int64{2, 2}, make([]float32, 4)))})
	b.Output(y, onnx.Float, -1, 2)
	c := classify(t, b)
	if _, err := train.BuildStep(c, train.StepOptions{Batch: 2, Scale: []float32{1, 1, 1}, Shift: []float32{0, 0, 0}}); !errors.Is(err, classifier.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}
