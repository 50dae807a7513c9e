package demo

import (
	"math"
	"math/rand/v2"

	"grindstone/sanitize/onnx"
)

// network emits a small residual classifier of 32x32 RGB images, in the manner of ResNet (He et al. 2016): a strided stem, three stages
// of one block each, global average pooling and a linear head. Weights come from values; those that are missing are drawn.
type network struct {
	b      *onnx.Builder
	values map[string][]float32
	random *rand.Rand
	folded bool // as exporters write it: BatchNormalization multiplied into the convolution before it
}

const epsilon = 1e-5

// victimModel returns the classifier as an ONNX model of opset 17.
func victimModel(classes int, values map[string][]float32, seed uint64, folded bool) (*onnx.Model, error) {
	n := &network{b: onnx.NewBuilder(), values: values, random: rand.New(rand.NewPCG(seed, 0)), folded: folded}
	n.b.Input("input", onnx.Float, -1, 3, 32, 32)
	x := n.relu(n.conv("stem", "input", 3, 16, 3, 2))
	x = n.block("stage1", x, 16, 16, 1)
	x = n.block("stage2", x, 16, 32, 2)
	x = n.block("stage3", x, 32, 64, 2)
	x = n.b.Op("Flatten", []string{n.b.Op("GlobalAveragePool", []string{x})}, onnx.I("axis", 1))
	n.b.Named("logits", "Gemm", []string{x, n.weight("head.weight", 64, int64(classes), 64), n.constant("head.bias", int64(classes), 0)}, onnx.I("transB", 1))
	n.b.Output("logits", onnx.Float, -1, int64(classes))
	m := n.b.Model(onnx.Opset)
	return m, n.b.Err()
}

// block is a residual block of two convolutions.
func (n *network) block(name, x string, in, out, stride int64) string {
	y := n.relu(n.conv(name+".conv1", x, in, out, 3, stride))
	y = n.conv(name+".conv2", y, out, out, 3, 1)
	if in != out || stride != 1 {
		x = n.conv(name+".shortcut", x, in, out, 1, stride)
	}
	return n.relu(n.b.Op("Add", []string{y, x}))
}

func (n *network) relu(x string) string { return n.b.Op("Relu", []string{x}) }

// conv is a convolution without bias and a BatchNormalization, or both in one.
func (n *network) conv(name, x string, in, out, kernel, stride int64) string {
	pad := kernel / 2
	attrs := []*onnx.Attr{onnx.Is("kernel_shape", kernel, kernel), onnx.Is("strides", stride, stride), onnx.Is("pads", pad, pad, pad, pad)}
	if n.folded {
		n.fold(name, int(out))
		return n.b.Op("Conv", []string{x, n.weight(name+".weight", in*kernel*kernel, out, in, kernel, kernel), n.constant(name+".bias", out, 0)}, attrs...)
	}
	y := n.b.Op("Conv", []string{x, n.weight(name+".weight", in*kernel*kernel, out, in, kernel, kernel)}, attrs...)
	return n.b.Op("BatchNormalization", []string{y, n.constant(name+".scale", out, 1), n.constant(name+".shift", out, 0),
		n.constant(name+".mean", out, 0), n.constant(name+".variance", out, 1)}, onnx.F("epsilon", epsilon), onnx.F("momentum", 0.9))
}

// fold multiplies a trained BatchNormalization into the weight and leaves a bias.
func (n *network) fold(name string, channels int) {
	w := n.values[name+".weight"]
	bias := make([]float32, channels)
	per := len(w) / channels
	for k := range channels {
		f := n.values[name+".scale"][k] / float32(math.Sqrt(float64(n.values[name+".variance"][k])+epsilon))
		for i := range per {
			w[k*per+i] *= f
		}
		bias[k] = n.values[name+".shift"][k] - n.values[name+".mean"][k]*f
	}
	n.values[name+".bias"] = bias
}

// weight is a constant, drawn after He et al. 2015 when it is new.
func (n *network) weight(name string, fanIn int64, shape ...int64) string {
	size := int64(1)
	for _, d := range shape {
		size *= d
	}
	v := n.values[name]
	if v == nil {
		v = make([]float32, size)
		for i := range v {
			v[i] = float32(n.random.NormFloat64() * math.Sqrt(2/float64(fanIn)))
		}
	}
	return n.put(name, shape, v)
}

func (n *network) constant(name string, size int64, value float32) string {
	v := n.values[name]
	if v == nil {
		v = make([]float32, size)
		for i := range v {
			v[i] = value
		}
	}
	return n.put(name, []int64{size}, v)
}

func (n *network) put(name string, shape []int64, v []float32) string {
	return n.b.Const(onnx.NewFloat(name, shape, v))
}
