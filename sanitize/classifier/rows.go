package classifier

import (
	"fmt"
	"math"

	"grindstone/sanitize/onnx"
)

// readRows serves a network that reads each image as a row of numbers, as the perceptrons of scikit-learn do: a Flatten in front of it takes
// images. Three or four numbers a pixel stand together (NHWC), as images do in NumPy. The file stays as it is.
func (c *Classifier) readRows(in *onnx.Value, o Options) error {
	width := in.Shape[1].Size
	for _, channels := range []int{1, 3, 4} {
		h, w := o.Height, o.Width
		if h == 0 {
			h = int(math.Round(math.Sqrt(float64(max(width, 0)) / float64(channels))))
			w = h
		}
		if width <= 0 || int64(h)*int64(w)*int64(channels) != width {
			continue
		}
		c.Height, c.Width, c.Channels, c.Layout = h, w, channels, NHWC
		if channels == 1 {
			c.Layout = NCHW
		}
		c.Input = in.Name + "/image"
		c.Nodes = append([]*onnx.Node{{Name: c.Input, Op: "Flatten", Inputs: []string{c.Input}, Outputs: []string{in.Name}}}, c.Nodes...)
		c.explain("input %s: rows of %d numbers, read as %dx%d pixels of %d", in.Name, width, h, w, channels)
		return nil
	}
	return &onnx.Error{What: "input " + in.Name, Err: fmt.Errorf("%w: rows of %d numbers are no image of 1, 3 or 4 channels; give its height and width with --size", ErrInput, width)}
}
