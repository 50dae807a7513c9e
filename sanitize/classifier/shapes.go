package classifier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// Shapes returns the static shape of every value for a batch of n images, constants included. It asks the runtime itself, by running
// the graph once on zeros with a Shape node behind each value: exact for every operator, with no inference rules of our own. Optimized, the runtime
// answers from what it infers wherever it can, and does not run the node: that is quick, and done where it was found to be right (measure).
func (c *Classifier) Shapes(n int64) (map[string][]int64, error) {
	if c.inferred {
		return c.shapesBy(n, ort.OptimizeAll)
	}
	return c.shapesBy(n, ort.OptimizeNone)
}

func (c *Classifier) shapesBy(n int64, optimize ort.Optimization) (map[string][]int64, error) {
	b, said := c.NewBuilder(), int64(-1)
	if optimize != ort.OptimizeNone {
		said = n // to infer from
	}
	b.Input(c.Input, onnx.Float, c.ImageShape(said)...)
	c.EmitConstants(b)
	var names []string
	for _, node := range c.Nodes {
		named := *node
		named.Name = node.Label() // for the runtime's messages
		b.Add(&named)
		for _, out := range node.Outputs {
			if out == "" {
				continue
			}
			b.Output(b.Op("Shape", []string{out}), onnx.Int64, -1)
			names = append(names, out)
		}
	}
	s, err := ort.NewModelSession(b.Model(onnx.Opset), ort.Options{Provider: ort.CPU, Optimize: optimize})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	image := c.ImageShape(n)
	zeros := make([]float32, n*image[1]*image[2]*image[3])
	out := make([]*ort.Array, len(names))
	if err := s.Run(context.Background(), []*ort.Array{{Shape: image, F32: zeros}}, out); err != nil {
		return nil, fmt.Errorf("running the model on a batch of %d: %w", n, err)
	}
	shapes := map[string][]int64{c.Input: image}
	for name, t := range c.Constants {
		shapes[name] = t.Shape
	}
	for i, name := range names {
		shapes[name] = out[i].I64
	}
	return shapes, nil
}

// ShapeOf is the shape of a value for a few images.
func (c *Classifier) ShapeOf(value string) []int64 { return c.shapes[value] }

// evaluate computes a value of type float that depends on constants alone.
func (c *Classifier) evaluate(value string) (*onnx.Tensor, error) {
	needed := map[string]bool{value: true}
	var nodes []*onnx.Node // the last one first
	for _, n := range slices.Backward(c.Nodes) {
		if slices.ContainsFunc(n.Outputs, func(out string) bool { return needed[out] }) {
			nodes = append(nodes, n)
			for _, in := range n.Reads() {
				needed[in] = true
			}
		}
	}
	if needed[c.Input] {
		return nil, fmt.Errorf("%q depends on the image", value)
	}
	slices.Reverse(nodes)
	constant := Classifier{Source: c.Source, Nodes: nodes, Constants: c.Constants}
	b := constant.NewBuilder()
	constant.EmitConstants(b)
	for _, n := range nodes {
		b.Add(n)
	}
	b.Output(b.Op("Reshape", []string{value, b.Int64s(-1)}), onnx.Float, -1)
	b.Output(b.Op("Shape", []string{value}), onnx.Int64, -1)
	s, err := ort.NewModelSession(b.Model(onnx.Opset), ort.Options{Provider: ort.CPU})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out := make([]*ort.Array, 2)
	if err := s.Run(context.Background(), nil, out); err != nil {
		return nil, err
	}
	return onnx.NewFloat(value, out[1].I64, out[0].F32), nil
}

// NewBuilder starts a graph whose fresh names stay clear of the classifier's own.
func (c *Classifier) NewBuilder() *onnx.Builder {
	b := onnx.NewBuilder()
	b.Versions(c.Source.Opsets)
	g := &onnx.Graph{Nodes: c.Nodes, Inputs: []*onnx.Value{{Name: c.Input}}}
	for name := range c.Constants {
		g.Initializers = append(g.Initializers, &onnx.Tensor{Name: name})
	}
	b.Reserve(g)
	return b
}

// EmitConstants puts the constants into a graph as initializers under their own names.
func (c *Classifier) EmitConstants(b *onnx.Builder) {
	done := map[string]bool{}
	for _, n := range c.Nodes {
		for _, in := range n.Reads() {
			if t := c.Constants[in]; t != nil && !done[in] {
				done[in] = true
				b.Const(t)
			}
		}
	}
}

// measured is the number of images on which a model is measured: neither what the file fixes nor what exporters' examples mostly have (1 or 2), so
// that a fixed batch shows.
func (c *Classifier) measured() int64 {
	if c.FixedBatch == 3 {
		return 5
	}
	return 3
}

// measure learns classes and feature width by running the graph.
func (c *Classifier) measure() error {
	n := c.measured()
	shapes, err := c.Shapes(n)
	if errors.Is(err, ort.ErrRun) && !errors.Is(err, ort.ErrMemory) {
		return fmt.Errorf("%w: %w; if the model was exported for a fixed batch, export it with a dynamic one", onnx.ErrUnsupported, err)
	}
	if err != nil {
		return err
	}
	c.shapes = shapes
	inferred, err := c.shapesBy(n, ort.OptimizeAll)
	c.inferred = err == nil && maps.EqualFunc(inferred, shapes, slices.Equal[[]int64])
	c.flattenLogits()
	logits := shapes[c.Logits]
	if len(logits) != 2 || logits[0] != n || logits[1] < 2 {
		return &onnx.Error{What: "output " + c.Output, Err: fmt.Errorf("%w: shape %v for %d images, expected [%d, classes]", ErrOutput, logits, n, n)}
	}
	c.Classes = int(logits[1])
	feature := shapes[c.Feature]
	if len(feature) < 2 || feature[0] != n {
		return &onnx.Error{What: "feature tensor " + c.Feature, Err: fmt.Errorf("%w: shape %v for %d images, the batch is not its first axis", ErrNoHead, feature, n)}
	}
	width := int64(1)
	for _, d := range feature[1:] {
		width *= d
	}
	c.FeatureWidth = int(width)
	return nil
}
