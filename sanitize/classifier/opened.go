package classifier

import (
	"context"
	"math"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// checkOpened compares the opened model with the file's: an image has the same scores whatever its batch, and wherever in it. What an exporter
// made of a batch of one has more than one open form, and a network that mixes images has none.
func (c *Classifier) checkOpened(file *Classifier) error {
	n := c.FixedBatch
	size := elements(c.ImageShape(1))
	images := make([]float32, (n+2)*size)
	for i := range images {
		images[i] = float32(1+math.Sin(float64(i)*float64(i))) / 2 // each image another
		if c.Bytes {
			images[i] = float32(math.Round(float64(255 * images[i])))
		}
	}
	want, err := file.scores(n, images[size:(n+1)*size])
	if err != nil {
		return err
	}
	got, err := c.scores(n+2, images)
	if err != nil {
		return &onnx.Error{What: "input " + c.Input, Err: c.refuse("with another it does not run (%w)", err)}
	}
	each := len(want) / int(n)
	if len(got) != (int(n)+2)*each {
		return &onnx.Error{What: "input " + c.Input, Err: c.refuse("for %d images it gives %d scores, not %d", n+2, len(got), (int(n)+2)*each)}
	}
	worst, largest := 0.0, 0.0
	for i, w := range want {
		if size := math.Abs(float64(w)); size <= math.MaxFloat32 { // a number
			worst, largest = max(worst, math.Abs(float64(got[each+i]-w))), max(largest, size)
		}
	}
	if !(worst <= 1e-3*largest) {
		return &onnx.Error{What: "output " + c.Output, Err: c.refuse("an image's scores depend on the others'")}
	}
	return nil
}

// scores are the logits of n images.
func (c *Classifier) scores(n int64, images []float32) ([]float32, error) {
	b := c.NewBuilder()
	b.Input(c.Input, onnx.Float, c.ImageShape(-1)...)
	c.EmitConstants(b)
	for _, node := range c.Nodes {
		b.Add(node)
	}
	b.Output(b.Op("Identity", []string{c.Logits}), onnx.Float)
	m := b.Model(onnx.Opset)
	m.Graph.Outputs[0].Shape = nil
	s, err := ort.NewModelSession(m, ort.Options{Provider: ort.CPU, Optimize: ort.OptimizeNone})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out := make([]*ort.Array, 1)
	if err := s.Run(context.Background(), []*ort.Array{{Shape: c.ImageShape(n), F32: images}}, out); err != nil {
		return nil, err
	}
	return out[0].F32, nil
}
