package classifier

import (
	"fmt"
	"math"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// readRows serves a network that reads each image as a row of numbers, as the perceptrons of scikit-learn do: a Flatten in front of it takes
// images. If the network makes images of the rows, they are those; else three or four numbers a pixel stand together (NHWC), as images do in
// NumPy. The file stays as it is.
func (c *Classifier) readRows(in *onnx.Value, o Options) error {
	width := max(in.Shape[1].Size, 0)
	if !c.readReshape(in.Name, width) && !c.guessImage(width, o) {
		return &onnx.Error{What: "input " + in.Name, Err: fmt.Errorf("%w: rows of %d numbers are no image of 1, 3 or 4 channels; give its height and width with --size", ErrInput, width)}
	}
	c.Input = in.Name + "/image"
	c.Nodes = append([]*onnx.Node{{Name: c.Input, Op: "Flatten", Inputs: []string{c.Input}, Outputs: []string{in.Name}}}, c.Nodes...)
	c.explain("input %s: rows of %d numbers, read as %dx%d pixels of %d, %s", in.Name, width, c.Height, c.Width, c.Channels, c.Layout)
	return nil
}

// readReshape looks for a Reshape to an image before the first layer.
func (c *Classifier) readReshape(row string, width int64) bool {
	data, by := grad.Reach(c.Nodes, []string{row}), producers(c.Nodes)
	for _, n := range c.Nodes {
		switch {
		case !data[n.Input(0)]:
		case c.isLinear(by, n):
			return false
		case n.Op == "Reshape":
			shape := c.Constants[n.Inputs[1]]
			if shape == nil || shape.Len() != 4 {
				return false
			}
			axes := shape.Ints()[1:]
			return slices.Min(axes) > 0 && elements(axes) == width && c.setImage(axes...)
		}
	}
	return false
}

// guessImage takes a row for a square, or an image of the size that is given.
func (c *Classifier) guessImage(width int64, o Options) bool {
	for _, channels := range []int{1, 3, 4} {
		h, w := o.Height, o.Width
		if h == 0 {
			h = int(math.Round(math.Sqrt(float64(width) / float64(channels))))
			w = h
		}
		if width == 0 || int64(h)*int64(w)*int64(channels) != width {
			continue
		}
		c.Height, c.Width, c.Channels, c.Layout = h, w, channels, NHWC
		if channels == 1 {
			c.Layout = NCHW
		}
		return true
	}
	return false
}
