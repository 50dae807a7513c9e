package integration

import (
	"cmp"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
)

// The smallest classification task that can be sanitized: noisy images of three colours, and a network that tells them apart by
// weights that are written down and not trained. A run on it takes seconds.

var colours = map[string][3]int{"blue": {60, 60, 200}, "green": {60, 200, 60}, "red": {200, 60, 60}}

const tinySide = 16 // pixels

// tinyImages writes 200 images of each colour as an archive and returns its path.
func tinyImages(t *testing.T) string {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	classes := []string{"blue", "green", "red"}
	var pixels []byte
	var labels []int32
	for i := range 600 {
		label := i % len(classes)
		light := random.IntN(80) - 40
		for range tinySide * tinySide {
			for _, c := range colours[classes[label]] {
				pixels = append(pixels, byte(min(max(c+light+random.IntN(80)-40, 0), 255)))
			}
		}
		labels = append(labels, int32(label))
	}
	d, err := data.New("colours", classes, tinySide, tinySide, 3, pixels, labels)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "colours.tar.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.WriteTarGz(f); err != nil {
		t.Fatal(err)
	}
	return path
}

// tiny builds the network that classifies the colours: one convolution, eight features, a linear head.
type tiny struct {
	name     string // makes models that differ in nothing else
	shift    int    // of the classes: with 1 every answer is wrong
	external string // file that the convolution's weight is said to be in
	headFile string // likewise the head's
	outside  string // file that all weights are said to be in, one after the other
	det      bool   // pools by a determinant, an operator without a gradient rule
	features int    // of the convolution; 0: 8
}

func (n tiny) model() *onnx.Model {
	features := cmp.Or(n.features, 8)
	b := onnx.NewBuilder()
	b.Input("image", onnx.Float, -1, 3, tinySide, tinySide)
	kernel := make([]float32, features*3*9)
	for k := range features { // the centre takes one colour less half of the others
		for c := range 3 {
			w := float32(-0.5)
			if c == k%3 {
				w = 1 + float32(k)/10
			}
			kernel[(k*3+c)*9+4] = w
		}
	}
	weight := onnx.NewFloat("conv.weight", []int64{int64(features), 3, 3, 3}, kernel)
	if n.external != "" {
		weight.Raw, weight.External = nil, &onnx.External{Location: n.external}
	}
	b.Const(weight)
	b.Const(onnx.NewFloat("conv.bias", []int64{int64(features)}, make([]float32, features)))
	b.Add(&onnx.Node{Name: "conv", Op: "Conv", Inputs: []string{"image", "conv.weight", "conv.bias"}, Outputs: []string{"colour"},
		Attrs: []*onnx.Attr{onnx.Is("kernel_shape", 3, 3), onnx.Is("pads", 1, 1, 1, 1)}})
	active := b.Op("Relu", []string{"colour"})
	pooled := ""
	if n.det {
		pooled = "determinant"
		b.Add(&onnx.Node{Name: "det", Op: "Det", Inputs: []string{active}, Outputs: []string{pooled}})
	} else {
		pooled = b.Op("Flatten", []string{b.Op("GlobalAveragePool", []string{active})}, onnx.I("axis", 1))
	}
	head := make([]float32, 3*features) // feature k speaks of colour k%3: red, green, blue; the classes are blue, green, red
	for k := range features {
		class := (2 - k%3 + n.shift) % 3
		head[class*features+k] = 1 / (1 + float32(k)/10)
	}
	headWeight := onnx.NewFloat("head.weight", []int64{3, int64(features)}, head)
	if n.headFile != "" {
		headWeight.Raw, headWeight.External = nil, &onnx.External{Location: n.headFile}
	}
	b.Const(headWeight)
	b.Const(onnx.NewFloat("head.bias", []int64{3}, []float32{0, 0, -0.01}))
	b.Named("logits", "Gemm", []string{pooled, "head.weight", "head.bias"}, onnx.I("transB", 1))
	b.Output("logits", onnx.Float, -1, 3)
	m := b.Model(onnx.Opset)
	if at := int64(0); n.outside != "" {
		for _, w := range m.Graph.Initializers {
			size := int64(len(w.Raw))
			w.Raw, w.External = nil, &onnx.External{Location: n.outside, Offset: at, Length: size}
			at += size
		}
	}
	m.Doc = n.name
	return m
}

// file is the network as the layer model.onnx.
func (n tiny) file(t *testing.T) layerFile {
	t.Helper()
	text, err := n.model().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return layerFile{"model.onnx", "application/octet-stream", text}
}

// tinyConfig is the configuration of a server that sanitizes tiny models in seconds, with more YAML.
func tinyConfig(t *testing.T, more string) string {
	t.Helper()
	return writeConfig(t, t.TempDir(), "datasets: {default: \""+tinyImages(t)+"\"}\ntrainer: {steps: 60, learning_rate: 0.02, batch: 32, preprocessing: unit}\n"+
		"policy: {data: {settings: {max_cda_loss: 0.9}}}\nintercept: [\"models/**\"]\n"+more)
}
