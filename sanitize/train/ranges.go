package train

import (
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// NewRanges prepares a classifier to return the least and the largest element, each of shape [1], of each value named, over a batch.
// values holds weights that replace the classifier's own.
func NewRanges(c *classifier.Classifier, scale, shift []float32, values map[string][]float32, names []string, o ort.Options) (*Forward, error) {
	b := c.NewBuilder()
	b.Input(images, onnx.Uint8, c.ImageShape(-1)...)
	emitForward(b, c, emitInput(b, images, c.Layout, scale, shift), values)
	for _, name := range names {
		for _, op := range []string{"ReduceMin", "ReduceMax"} {
			b.Output(b.Op("Reshape", []string{b.Op(op, []string{name}), b.Int64s(1)}), onnx.Float, 1)
		}
	}
	return newForward(c, b, 2*len(names), o)
}
