// Package train turns a classifier into a training step that stock ONNX Runtime executes, and runs it.
//
// One Run of the step's graph does several steps of SGD inside an ONNX Scan, so that the state stays on the device between them. The
// state is three flat vectors: all trainable tensors, their momenta, and the running statistics of BatchNormalization.
package train

import (
	"fmt"
	"slices"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// StepOptions describe one training step.
type StepOptions struct {
	Batch        int
	Scale, Shift []float32 // per channel: network input = pixel (0..255) * Scale + Shift
	Feature      bool      // add the feature loss L_f; without it alpha and targets have no effect
	Momentum     float32   // Nesterov momentum
	WeightDecay  float32
	Forms        *grad.Forms // nil: the default ones
}

// Slot is a tensor's place in a flat vector.
type Slot struct {
	Name   string
	Shape  []int64
	Offset int
	Size   int

	taps bool // a convolution weight kept as grad.Taps: [R, S, K, C]
}

// Step is the training step of a classifier as an ONNX model.
//
// Inputs: parameters [P], momentum [P], statistics [S]; then, with a leading axis of K steps: images uint8 [K, batch, image],
// labels int64 [K, batch], targets float [K, batch, F], alpha float [K, 1], rate float [K, 1].
// Outputs: parameters, momentum and statistics after the K steps, and metrics float [K, 4], a row a step: loss, L_f, L_t and the
// share of the batch that was classified correctly.
type Step struct {
	Model      *onnx.Model
	Parameters []Slot
	Statistics []Slot
}

// BuildStep differentiates a classifier. Every BatchNormalization normalizes by the batch (decision 4 of Feature Grinding: training mode
// while grinding), every other operator does what it does at inference.
func BuildStep(c *classifier.Classifier, o StepOptions) (*Step, error) {
	if err := c.CheckTrainable(); err != nil {
		return nil, err
	}
	shapes, err := c.Shapes(int64(o.Batch))
	if err != nil {
		return nil, err
	}
	outer := c.NewBuilder()
	s := &stepBuilder{c: c, o: o, outer: outer, b: outer.Child(), shapes: shapes, step: &Step{}}
	s.tape = grad.NewTape(s.b, shapes, c.Constants)
	if o.Forms != nil {
		s.tape.Forms = *o.Forms
	}
	if err := s.build(); err != nil {
		return nil, err
	}
	return s.step, nil
}

type stepBuilder struct {
	c      *classifier.Classifier
	o      StepOptions
	outer  *onnx.Builder // the model
	b      *onnx.Builder // the body of the Scan: one step
	tape   *grad.Tape
	shapes map[string][]int64
	step   *Step
}

func (s *stepBuilder) build() error {
	b, batch, f := s.b, int64(s.o.Batch), int64(s.c.FeatureWidth)
	image := s.c.ImageShape(batch)

	s.tape.Plan(s.c.Nodes, s.c.Trainable)
	s.layOut()
	p, st := length(s.step.Parameters), length(s.step.Statistics)
	b.Input("step/parameters", onnx.Float, p)
	b.Input("step/momentum", onnx.Float, p)
	b.Input("step/statistics", onnx.Float, st)
	b.Input("step/images", onnx.Uint8, image...)
	b.Input("step/labels", onnx.Int64, batch)
	b.Input("step/targets", onnx.Float, batch, f)
	b.Input("step/alpha", onnx.Float, 1)
	b.Input("step/rate", onnx.Float, 1)

	s.bindParameters()
	s.tape.Bind(s.c.Input, emitInput(b, "step/images", s.c.Layout, s.o.Scale, s.o.Shift))
	s.tape.Forward(s.c.Nodes)
	seeds, metrics := s.loss()
	grads, err := s.tape.Backward(s.c.Nodes, seeds, s.c.Trainable)
	if err != nil {
		return err
	}
	params, momentum := s.update(grads)
	b.Output(params, onnx.Float, p)
	b.Output(momentum, onnx.Float, p)
	b.Output(s.updateStatistics(), onnx.Float, st)
	b.Output(metrics, onnx.Float, 4)
	s.wrap(p, st, image, batch, f)
	return b.Err()
}

// layOut assigns the flat vectors' slots.
func (s *stepBuilder) layOut() {
	for _, name := range s.c.Trainable {
		s.step.Parameters = appendSlot(s.step.Parameters, name, s.c.Constants[name].Shape)
		last := &s.step.Parameters[len(s.step.Parameters)-1]
		last.taps = s.tape.Native(last.Name) == grad.Taps
	}
	for _, n := range s.c.Nodes {
		if n.Op != "BatchNormalization" {
			continue
		}
		s.tape.Training[n.Outputs[0]] = true
		for _, name := range n.Inputs[3:5] {
			s.step.Statistics = appendSlot(s.step.Statistics, name, s.c.Constants[name].Shape)
		}
	}
	if len(s.step.Statistics) == 0 { // a network without BatchNormalization: the vector must not be empty
		s.step.Statistics = appendSlot(nil, "", []int64{1})
	}
}

func appendSlot(slots []Slot, name string, shape []int64) []Slot {
	if slices.ContainsFunc(slots, func(o Slot) bool { return o.Name == name }) {
		return slots
	}
	size := 1
	for _, d := range shape {
		size *= int(d)
	}
	return append(slots, Slot{Name: name, Shape: shape, Offset: int(length(slots)), Size: size})
}

func length(slots []Slot) int64 {
	if len(slots) == 0 {
		return 0
	}
	last := slots[len(slots)-1]
	return int64(last.Offset + last.Size)
}

// bindParameters cuts the flat vector into tensors and puts the other constants into the model.
func (s *stepBuilder) bindParameters() {
	sizes := make([]int64, len(s.step.Parameters))
	trained := map[string]bool{}
	for i, slot := range s.step.Parameters {
		sizes[i] = int64(slot.Size)
		trained[slot.Name] = true
	}
	parts := s.b.OpN("Split", len(sizes), []string{"step/parameters", s.b.Int64s(sizes...)}, onnx.I("axis", 0))
	for i, slot := range s.step.Parameters {
		s.tape.Bind(slot.Name, s.b.Op("Reshape", []string{parts[i], s.b.Int64s(slot.stored()...)}))
	}
	for _, slot := range s.step.Statistics {
		trained[slot.Name] = true // not read while training: no need to carry them
	}
	for _, n := range s.c.Nodes {
		for _, in := range n.Inputs {
			if t := s.c.Constants[in]; t != nil && !trained[in] {
				trained[in] = true
				s.outer.Const(t)
			}
		}
	}
}

// emitInput turns bytes in the model's layout into the model's input.
func emitInput(b *onnx.Builder, images string, layout classifier.Layout, scale, shift []float32) string {
	n := int64(len(scale))
	shape := []int64{1, n, 1, 1}
	if layout == classifier.NHWC {
		shape = []int64{1, 1, 1, n}
	}
	x := b.Op("Cast", []string{images}, onnx.I("to", int64(onnx.Float)))
	x = b.Op("Mul", []string{x, b.Floats(shape, scale)})
	if slices.ContainsFunc(shift, func(v float32) bool { return v != 0 }) {
		x = b.Op("Add", []string{x, b.Floats(shape, shift)})
	}
	return x
}

// update is SGD with Nesterov momentum and weight decay (Sutskever et al. 2013, in PyTorch's form): g += wd*p; v = mu*v + g;
// p -= rate*(g + mu*v).
func (s *stepBuilder) update(grads map[string]string) (params, momentum string) {
	b := s.b
	flat := make([]string, len(s.step.Parameters))
	for i, slot := range s.step.Parameters {
		if g := grads[slot.Name]; g != "" {
			flat[i] = b.Op("Reshape", []string{g, b.Int64s(-1)})
		} else { // the loss does not depend on it
			flat[i] = b.Floats([]int64{int64(slot.Size)}, make([]float32, slot.Size))
		}
	}
	g := b.Op("Concat", flat, onnx.I("axis", 0))
	g = b.Op("Add", []string{g, b.Op("Mul", []string{"step/parameters", b.Float(s.o.WeightDecay)})})
	v := b.Op("Add", []string{b.Op("Mul", []string{"step/momentum", b.Float(s.o.Momentum)}), g})
	ahead := b.Op("Add", []string{g, b.Op("Mul", []string{v, b.Float(s.o.Momentum)})})
	return b.Op("Sub", []string{"step/parameters", b.Op("Mul", []string{ahead, "step/rate"})}), v
}

// updateStatistics moves the running statistics towards the batch's: running = m*running + (1-m)*batch, m as each node says.
func (s *stepBuilder) updateStatistics() string {
	b := s.b
	batch := s.tape.Statistics
	if len(batch) == 0 {
		return b.Op("Identity", []string{"step/statistics"})
	}
	var parts []string
	keep := make([]float32, length(s.step.Statistics))
	for i, st := range batch {
		parts = append(parts, st.Mean, st.Variance)
		for _, slot := range s.step.Statistics[2*i : 2*i+2] {
			for k := range slot.Size {
				keep[slot.Offset+k] = st.Node.Float("momentum", 0.9)
			}
		}
	}
	rest := make([]float32, len(keep))
	for i, m := range keep {
		rest[i] = 1 - m
	}
	n := int64(len(keep))
	old := b.Op("Mul", []string{"step/statistics", b.Floats([]int64{n}, keep)})
	new := b.Op("Mul", []string{b.Op("Concat", parts, onnx.I("axis", 0)), b.Floats([]int64{n}, rest)})
	return b.Op("Add", []string{old, new})
}

// wrap puts the step into a Scan over K steps.
func (s *stepBuilder) wrap(p, st int64, image []int64, batch, f int64) {
	o := s.outer
	state := []string{o.Input("in/parameters", onnx.Float, p), o.Input("in/momentum", onnx.Float, p), o.Input("in/statistics", onnx.Float, st)}
	scan := []string{
		o.Input("in/images", onnx.Uint8, append([]int64{-1}, image...)...),
		o.Input("in/labels", onnx.Int64, -1, batch),
		o.Input("in/targets", onnx.Float, -1, batch, f),
		o.Input("in/alpha", onnx.Float, -1, 1),
		o.Input("in/rate", onnx.Float, -1, 1),
	}
	out := []string{"out/parameters", "out/momentum", "out/statistics", "out/metrics"}
	o.Add(&onnx.Node{Name: "steps", Op: "Scan", Inputs: append(state, scan...), Outputs: out,
		Attrs: []*onnx.Attr{onnx.G("body", s.b.Graph("step")), onnx.I("num_scan_inputs", int64(len(scan)))}})
	o.Output(out[0], onnx.Float, p)
	o.Output(out[1], onnx.Float, p)
	o.Output(out[2], onnx.Float, st)
	o.Output(out[3], onnx.Float, -1, 4)
	s.step.Model = o.Model(onnx.Opset)
}

// Fill writes tensors into a flat vector.
func Fill(flat []float32, slots []Slot, values map[string][]float32) error {
	for _, s := range slots {
		if s.Name == "" {
			continue
		}
		v := values[s.Name]
		if len(v) != s.Size {
			return fmt.Errorf("tensor %q has %d elements, its slot %d", s.Name, len(v), s.Size)
		}
		s.write(flat, v)
	}
	return nil
}

// stored is the shape in which the flat vector keeps the tensor.
func (s Slot) stored() []int64 {
	if s.taps {
		return []int64{s.Shape[2], s.Shape[3], s.Shape[0], s.Shape[1]}
	}
	return s.Shape
}

// write puts a tensor into the flat vector.
func (s Slot) write(flat, v []float32) {
	s.each(func(at, i int) { flat[at] = v[i] })
}

// read takes the tensor out of the flat vector.
func (s Slot) read(flat []float32) []float32 {
	v := make([]float32, s.Size)
	s.each(func(at, i int) { v[i] = flat[at] })
	return v
}

// each pairs every position in the flat vector with the element of the tensor that stands there.
func (s Slot) each(pair func(at, element int)) {
	if !s.taps {
		for i := range s.Size {
			pair(s.Offset+i, i)
		}
		return
	}
	outer, taps := int(s.Shape[0]*s.Shape[1]), int(s.Shape[2]*s.Shape[3])
	for kc := range outer {
		for rs := range taps {
			pair(s.Offset+rs*outer+kc, kc*taps+rs)
		}
	}
}
