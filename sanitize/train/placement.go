package train

import (
	"context"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/grad"
	"grindstone/sanitize/ort"
)

// Placement runs one training step of o.Batch images, on zeros, and returns which provider each node ran on. A node has the name of its first
// output, as in the file that BuildGraph writes.
func Placement(ctx context.Context, c *classifier.Classifier, o StepOptions, run ort.Options) ([]ort.Placed, error) {
	var err error
	if run.Provider, err = ort.Resolve(run.Provider); err != nil {
		return nil, err
	}
	if run.Provider != ort.CPU {
		o.Forms = &grad.PlainForms
	}
	m, err := BuildGraph(c, o)
	if err != nil {
		return nil, err
	}
	if run.Provider != ort.CPU {
		portable(m.Graph)
	}
	for _, n := range m.Graph.Nodes {
		n.Name = n.Outputs[0]
	}
	raw, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	n, image := int64(o.Batch), c.ImageShape(int64(o.Batch))
	return ort.Placement(ctx, raw, []*ort.Array{
		{Shape: image, F32: make([]float32, image[0]*image[1]*image[2]*image[3])},
		{Shape: []int64{n}, I64: make([]int64, n)},
		{Shape: []int64{n, int64(c.FeatureWidth)}, F32: make([]float32, o.Batch*c.FeatureWidth)},
		{Shape: []int64{1}, F32: []float32{0.5}},
		{Shape: []int64{1}, F32: []float32{0}},
	}, run)
}
