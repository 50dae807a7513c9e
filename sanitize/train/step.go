// Package train turns a classifier into a training step that stock ONNX Runtime executes, and runs it.
//
// On a device one run of the step's graph does several steps of SGD inside an ONNX Scan, so that the state stays there between them; in main memory a
// run is a forward and a backward pass, and SGD is done beside it. The state is three flat vectors: all trainable tensors, their momenta, and the running
// statistics of BatchNormalization.
package train

import (
	"fmt"
	"slices"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// StepOptions describe one training step.
type StepOptions struct {
	Batch        int
	Micro        int       // images in memory at once: a divisor of Batch, see BuildStep; 0: Batch
	Scale, Shift []float32 // per channel: network input = pixel (0..255) * Scale + Shift
	Feature      bool      // add the feature loss L_f; without it alpha and targets have no effect
	Momentum     float32   // Nesterov momentum
	WeightDecay  float32
	Forms        *grad.Forms                // nil: the default ones
	Split        func(micro int, why error) // told when a Trainer's memory ran out, and of the micro-batches with which it goes on; may be nil
	PlainLayout  bool                       // keep every activation as the ONNX standard has it, where training on a CPU prefers other layouts
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

// BuildStep differentiates a classifier. Every BatchNormalization that is not frozen normalizes by the batch (decision 4 of Feature Grinding:
// training mode while grinding), every other operator does what it does at inference.
//
// With Micro images at once the step adds up the gradients of micro-batches (gradient accumulation) and updates once: what comes out is the
// step of the whole batch, but for BatchNormalization, which normalizes by the micro-batch, and whose running statistics move with each.
func BuildStep(c *classifier.Classifier, o StepOptions) (*Step, error) {
	parts, err := o.split()
	if err != nil {
		return nil, err
	}
	outer := c.NewBuilder()
	s, err := newStepBuilder(c, o, outer, outer.Child())
	if err != nil {
		return nil, err
	}
	if err := s.scan(parts); err != nil {
		return nil, err
	}
	return s.step, nil
}

// split makes the batch that of the graph, a micro-batch, and returns how many of them a step has.
func (o *StepOptions) split() (parts int, err error) {
	if o.Micro == 0 || o.Micro == o.Batch {
		return 1, nil
	}
	if o.Micro < 2 || o.Batch%o.Micro != 0 {
		return 0, fmt.Errorf("%w: %d of a batch of %d images", ErrMicroBatch, o.Micro, o.Batch)
	}
	parts, o.Batch = o.Batch/o.Micro, o.Micro
	return parts, nil
}

type stepBuilder struct {
	c      *classifier.Classifier
	o      StepOptions
	outer  *onnx.Builder // the model
	b      *onnx.Builder // one step: the body of the Scan, or the model itself
	tape   *grad.Tape
	shapes map[string][]int64
	open   bool // the batch's size is left out of the graph's shapes, see grad.Tape.OpenBatch
	step   *Step
}

// newStepBuilder begins a step of o.Batch images.
func newStepBuilder(c *classifier.Classifier, o StepOptions, outer, body *onnx.Builder) (*stepBuilder, error) {
	if err := c.CheckTrainable(); err != nil {
		return nil, err
	}
	shapes, err := c.Shapes(int64(o.Batch))
	if err != nil {
		return nil, err
	}
	s := &stepBuilder{c: c, o: o, outer: outer, b: body, tape: grad.NewTape(body, shapes, c.Constants), shapes: shapes, step: &Step{}}
	switch {
	case o.Forms != nil:
		s.tape.Forms = *o.Forms
	case !o.PlainLayout:
		s.tape.Forms.Block, s.tape.Forms.Join = ort.Block(), true
	}
	s.open = s.tape.Forms.OpenBatch
	if !o.PlainLayout {
		s.tape.Plan(c.Nodes, c.Trainable)
	}
	s.layOut()
	return s, nil
}

// after names what one step leaves behind.
type after struct {
	gradient, parameters, momentum, statistics, metrics string
}

// emit writes one step into the body: x is the name of the model's input; the state and the rest of what the step reads are called
// step/parameters, step/momentum, step/statistics, step/labels, step/targets, step/alpha and step/rate.
func (s *stepBuilder) emit(x string) (after, error) {
	s.bindVector()
	a, err := s.vectorPass(x)
	if err != nil {
		return after{}, err
	}
	a.parameters, a.momentum = s.update(a.gradient)
	return a, nil
}

// size is the number of images in that many micro-batches, -1 where it is left open.
func (s *stepBuilder) size(parts int) int64 {
	if s.open {
		return -1
	}
	return int64(s.o.Batch * parts)
}

// batchInputs declares what a step reads of a batch of that many micro-batches.
func (s *stepBuilder) batchInputs(b *onnx.Builder, prefix string, parts int) {
	n := s.size(parts)
	b.Input(prefix+"images", onnx.Uint8, s.c.ImageShape(n)...)
	b.Input(prefix+"labels", onnx.Int64, n)
	b.Input(prefix+"targets", onnx.Float, n, int64(s.c.FeatureWidth))
}

// pass emits the forward and the backward pass. What it leaves are the gradients of the parameters that the loss depends on, and the metrics.
func (s *stepBuilder) pass(x string) (grads map[string]string, metrics string, err error) {
	if s.open {
		s.tape.OpenBatch(int64(s.o.Batch), s.b.Op("Shape", []string{"step/labels"}))
	}
	s.tape.Kept[s.c.Feature], s.tape.Kept[s.c.Logits] = true, true
	s.tape.Bind(s.c.Input, x)
	s.tape.Forward(s.c.Nodes)
	seeds, metrics := s.loss()
	grads, err = s.tape.Backward(s.c.Nodes, seeds, s.c.Trainable)
	return grads, metrics, err
}

// vectorPass emits a pass, and leaves its gradients as one vector.
func (s *stepBuilder) vectorPass(x string) (after, error) {
	grads, metrics, err := s.pass(x)
	if err != nil {
		return after{}, err
	}
	return after{gradient: s.join(grads), statistics: s.updateStatistics(), metrics: metrics}, nil
}

// scan puts the step into a Scan over K steps.
func (s *stepBuilder) scan(parts int) error {
	b, o, batch, f := s.b, s.outer, s.size(parts), int64(s.c.FeatureWidth)
	p, st := length(s.step.Parameters), length(s.step.Statistics)
	b.Input("step/parameters", onnx.Float, p)
	b.Input("step/momentum", onnx.Float, p)
	whole := "step/" // where the pass reads the batch
	if parts > 1 {
		whole = "batch/"
	}
	b.Input(whole+"statistics", onnx.Float, st)
	s.batchInputs(b, whole, parts)
	b.Input("step/alpha", onnx.Float, 1)
	b.Input("step/rate", onnx.Float, 1)
	var a after
	var err error
	if parts > 1 {
		a, err = s.emitParts(parts)
	} else {
		a, err = s.emit(emitInput(b, "step/images", s.c.Layout, s.o.Scale, s.o.Shift))
	}
	if err != nil {
		return err
	}
	b.Output(a.parameters, onnx.Float, p)
	b.Output(a.momentum, onnx.Float, p)
	b.Output(a.statistics, onnx.Float, st)
	b.Output(a.metrics, onnx.Float, 4)

	body := b.Graph("step")
	if parts == 1 {
		schedule(body, []string{"step/images"}, []string{"step/labels", "step/targets"})
	}

	state := []string{o.Input("in/parameters", onnx.Float, p), o.Input("in/momentum", onnx.Float, p), o.Input("in/statistics", onnx.Float, st)}
	feed := []string{
		o.Input("in/images", onnx.Uint8, append([]int64{-1}, s.c.ImageShape(batch)...)...),
		o.Input("in/labels", onnx.Int64, -1, batch),
		o.Input("in/targets", onnx.Float, -1, batch, f),
		o.Input("in/alpha", onnx.Float, -1, 1),
		o.Input("in/rate", onnx.Float, -1, 1),
	}
	out := []string{"out/parameters", "out/momentum", "out/statistics", "out/metrics"}
	o.Add(&onnx.Node{Name: "steps", Op: "Scan", Inputs: append(state, feed...), Outputs: out,
		Attrs: []*onnx.Attr{onnx.G("body", body), onnx.I("num_scan_inputs", int64(len(feed)))}})
	o.Output(out[0], onnx.Float, p)
	o.Output(out[1], onnx.Float, p)
	o.Output(out[2], onnx.Float, st)
	o.Output(out[3], onnx.Float, -1, 4)
	s.step.Model = o.Model(onnx.Opset)
	return o.Err()
}

// layOut assigns the flat vectors' slots.
func (s *stepBuilder) layOut() {
	for _, name := range s.c.Trainable {
		s.step.Parameters = appendSlot(s.step.Parameters, name, s.c.Constants[name].Shape)
		last := &s.step.Parameters[len(s.step.Parameters)-1]
		last.taps = s.tape.Native(last.Name) == grad.Taps
	}
	for _, n := range s.c.Nodes {
		if !byBatch(s.c, n) {
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

// byBatch reports whether training normalizes by the batch's statistics there.
func byBatch(c *classifier.Classifier, n *onnx.Node) bool {
	return n.Op == "BatchNormalization" && !c.Frozen(n)
}

// bindVector cuts the flat vector into tensors and puts the other constants into the model.
func (s *stepBuilder) bindVector() {
	sizes := make([]int64, len(s.step.Parameters))
	for i, slot := range s.step.Parameters {
		sizes[i] = int64(slot.Size)
	}
	parts := s.b.OpN("Split", len(sizes), []string{"step/parameters", s.b.Int64s(sizes...)}, onnx.I("axis", 0))
	for i, slot := range s.step.Parameters {
		s.tape.Bind(slot.Name, s.b.Op("Reshape", []string{parts[i], s.b.Int64s(slot.stored()...)}))
	}
	s.constants()
}

// constants puts what is not trained into the model.
func (s *stepBuilder) constants() {
	trained := map[string]bool{}
	for _, slot := range slices.Concat(s.step.Parameters, s.step.Statistics) { // statistics are not read while training: no need to carry them
		trained[slot.Name] = true
	}
	for _, n := range s.c.Nodes {
		for _, in := range n.Reads() {
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
