package train

import (
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// Pass is a forward and a backward pass over a micro-batch as an ONNX model. It is what a training step is in main memory: there the parameters
// are read where they are, the gradients written to where the update reads them, and the update, which one pass over the memory does, is no part of
// the graph, where it takes eight.
//
// Inputs: the parameters, each of its slot's shape; then statistics [S], images uint8 [micro, image], labels int64 [micro], targets float
// [micro, F], alpha float [1].
// Outputs: statistics [S], metrics [4] as those of Step, then the gradients, each a vector.
type Pass struct {
	Model      *onnx.Model
	Parameters []Slot
	Statistics []Slot
	Gradients  []Slot // the parameters that the loss depends on, in the order of the outputs
}

// BuildPass differentiates a classifier, as BuildStep does. It also returns how many passes a step has.
func BuildPass(c *classifier.Classifier, o StepOptions) (p *Pass, parts int, err error) {
	if parts, err = o.split(); err != nil {
		return nil, 0, err
	}
	_, p, err = buildPass(c, o)
	return p, parts, err
}

// buildPass makes the pass over o.Batch images, and returns what it was made with.
func buildPass(c *classifier.Classifier, o StepOptions) (*stepBuilder, *Pass, error) {
	b := c.NewBuilder()
	s, err := newStepBuilder(c, o, b, b)
	if err != nil {
		return nil, nil, err
	}
	p, n := &Pass{Parameters: aligned(s.step.Parameters), Statistics: s.step.Statistics}, length(s.step.Statistics)
	for _, slot := range p.Parameters {
		s.tape.Bind(slot.Name, b.Input(slot.Name, onnx.Float, slot.stored()...))
	}
	s.constants()
	b.Input("step/statistics", onnx.Float, n)
	s.batchInputs(b, "step/", 1)
	b.Input("step/alpha", onnx.Float, 1)
	grads, metrics, err := s.pass(emitInput(b, "step/images", s.c.Layout, s.o.Scale, s.o.Shift))
	if err != nil {
		return nil, nil, err
	}
	flat := s.flatten(grads)
	b.Output(s.updateStatistics(), onnx.Float, n)
	b.Output(metrics, onnx.Float, 4)
	for i, slot := range p.Parameters {
		if flat[i] != "" {
			b.Output(flat[i], onnx.Float, int64(slot.Size))
			p.Gradients = append(p.Gradients, slot)
		}
	}
	p.Model = b.Model(onnx.Opset)
	schedule(p.Model.Graph, []string{"step/images"}, []string{"step/labels", "step/targets"})
	return s, p, b.Err()
}
