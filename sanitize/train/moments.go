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
		moments(b, l.Node.Outputs[0], l.Channels)
	}
	return newForward(c, b, 2*len(layers), o)
}

// NewBatchMoments prepares a classifier to return the same of what each BatchNormalization that training moves reads. As in training these normalize by the
// batch, so that one pass serves all of them: a layer's statistics need not wait for those of the layers before it. Statistics are the names of running mean and
// variance, in the order of the outputs; values holds weights that replace the classifier's own.
func NewBatchMoments(c *classifier.Classifier, scale, shift []float32, values map[string][]float32, o ort.Options) (f *Forward, statistics []string, err error) {
	b := c.NewBuilder()
	b.Input(images, onnx.Uint8, c.ImageShape(-1)...)
	emitNodes(b, c, emitInput(b, images, c.Layout, scale, shift), values, func(n *onnx.Node) {
		if !byBatch(c, n) {
			b.Add(n)
			return
		}
		mean, square := moments(b, n.Inputs[0], c.Constants[n.Inputs[3]].Len())
		mean = b.Op("ReduceMean", []string{mean}, onnx.Is("axes", 0), onnx.I("keepdims", 0))
		square = b.Op("ReduceMean", []string{square}, onnx.Is("axes", 0), onnx.I("keepdims", 0))
		variance := b.Op("Sub", []string{square, b.Op("Mul", []string{mean, mean})})
		own := *n
		own.Inputs = []string{n.Inputs[0], n.Inputs[1], n.Inputs[2], mean, b.Op("Max", []string{variance, b.Float(0)})} // rounding must not make it negative
		b.Add(&own)
		statistics = append(statistics, n.Inputs[3:5]...)
	})
	f, err = newForward(c, b, len(statistics), o)
	return f, statistics, err
}

// moments makes outputs of the mean and the mean square of a value per image and channel.
func moments(b *onnx.Builder, value string, channels int) (mean, square string) {
	// [batch, channels] or [batch, channels, space...] as [batch, channels, everything else]
	x := b.Op("Reshape", []string{value, b.Int64s(0, int64(channels), -1)})
	mean = b.Op("ReduceMean", []string{x}, onnx.Is("axes", 2), onnx.I("keepdims", 0))
	square = b.Op("ReduceMean", []string{b.Op("Mul", []string{x, x})}, onnx.Is("axes", 2), onnx.I("keepdims", 0))
	b.Output(mean, onnx.Float, -1, int64(channels))
	b.Output(square, onnx.Float, -1, int64(channels))
	return mean, square
}
