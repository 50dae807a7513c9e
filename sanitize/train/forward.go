package train

import (
	"context"
	"fmt"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// images names the input of a forward graph; no exporter writes such a name.
const images = "grindstone/images"

// Forward evaluates a classifier on batches of images given as bytes, with constant weights.
type Forward struct {
	session *ort.Session
	image   []int64
	outputs int
}

// NewForward prepares a classifier for inference. It returns the values named, each flattened to [batch, width]; values holds weights
// that replace the classifier's own, and may be nil.
func NewForward(c *classifier.Classifier, scale, shift []float32, values map[string][]float32, outputs []string, o ort.Options) (*Forward, error) {
	b := c.NewBuilder()
	b.Input(images, onnx.Uint8, c.ImageShape(-1)...)
	emitForward(b, c, emitInput(b, images, c.Layout, scale, shift), values)
	for _, name := range outputs {
		b.Output(b.Op("Flatten", []string{name}, onnx.I("axis", 1)), onnx.Float, -1, -1)
	}
	return newForward(c, b, len(outputs), o)
}

// emitForward emits the classifier's nodes at inference, reading the input from x.
func emitForward(b *onnx.Builder, c *classifier.Classifier, x string, values map[string][]float32) {
	emitNodes(b, c, x, values, b.Add)
}

// emitNodes emits the constants, and each node by emit.
func emitNodes(b *onnx.Builder, c *classifier.Classifier, x string, values map[string][]float32, emit func(*onnx.Node)) {
	b.Named(c.Input, "Identity", []string{x})
	done := map[string]bool{}
	for _, n := range c.Nodes {
		for _, in := range n.Reads() {
			t := c.Constants[in]
			if t == nil || done[in] {
				continue
			}
			done[in] = true
			if v, ok := values[in]; ok {
				t = onnx.NewFloat(in, t.Shape, v)
			}
			b.Const(t)
		}
		emit(n)
	}
}

func newForward(c *classifier.Classifier, b *onnx.Builder, outputs int, o ort.Options) (*Forward, error) {
	s, err := ort.NewModelSession(b.Model(onnx.Opset), o)
	if err != nil {
		return nil, err
	}
	return &Forward{session: s, image: c.ImageShape(1), outputs: outputs}, nil
}

// Run evaluates n images, packed in the model's layout.
func (f *Forward) Run(ctx context.Context, images []byte) ([]*ort.Array, error) {
	per := int64(1)
	for _, d := range f.image[1:] {
		per *= d
	}
	n := int64(len(images)) / per
	if n*per != int64(len(images)) {
		return nil, fmt.Errorf("%d bytes are not a whole number of images of %d bytes", len(images), per)
	}
	shape := append([]int64{n}, f.image[1:]...)
	out := make([]*ort.Array, f.outputs)
	err := f.session.Run(ctx, []*ort.Array{{Shape: shape, U8: images}}, out)
	return out, err
}

// Close frees the session.
func (f *Forward) Close() error { return f.session.Close() }
