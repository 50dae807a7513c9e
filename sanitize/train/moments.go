package train

import (
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// NewMoments prepares a classifier to return, for each layer in turn, the mean and the mean square of its output per image and channel:
// two values of shape [batch, channels] a layer.
func NewMoments(c *classifier.Classifier, scale, shift []float32, layers []classifier.Foldable, o ort.Options) (*Forward, error) {
	b := c.NewBuilder()
	b.Input(images, onnx.Uint8, c.ImageShape(-1)...)
	emitForward(b, c, emitInput(b, images, c.Layout, scale, shift), nil)
	for _, l := range layers {
		// [batch, channels] or [batch, channels, space...] as [batch, channels, everything else]
		x := b.Op("Reshape", []string{l.Node.Outputs[0], b.Int64s(0, int64(l.Channels), -1)})
		mean := b.Op("ReduceMean", []string{x}, onnx.Is("axes", 2), onnx.I("keepdims", 0))
		square := b.Op("ReduceMean", []string{b.Op("Mul", []string{x, x})}, onnx.Is("axes", 2), onnx.I("keepdims", 0))
		b.Output(mean, onnx.Float, -1, int64(l.Channels))
		b.Output(square, onnx.Float, -1, int64(l.Channels))
	}
	return newForward(c, b, 2*len(layers), o)
}
