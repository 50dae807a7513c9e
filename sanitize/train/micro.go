package train

import (
	"errors"

	"grindstone/sanitize/onnx"
)

// ErrMicroBatch means that a batch cannot be split as asked.
var ErrMicroBatch = errors.New("a batch is split into equal micro-batches of at least 2 images")

// emitParts writes one step into the body, whose pass is a Scan over micro-batches: their gradients are added up, and the update is done
// once, with the mean. The parameters are the enclosing graph's; running statistics go from one micro-batch to the next.
func (s *stepBuilder) emitParts(parts int) (after, error) {
	step, n, f := s.b, s.size(1), int64(s.c.FeatureWidth)
	p, st := length(s.step.Parameters), length(s.step.Statistics)
	s.bindVector()

	part := s.outer.Child()
	s.b, s.tape.B = part, part
	part.Input("step/statistics", onnx.Float, st)
	part.Input("parts/gradient", onnx.Float, p)
	part.Input("parts/metrics", onnx.Float, 4)
	s.batchInputs(part, "step/", 1)
	a, err := s.vectorPass(emitInput(part, "step/images", s.c.Layout, s.o.Scale, s.o.Shift))
	if err != nil {
		return after{}, err
	}
	part.Output(a.statistics, onnx.Float, st)
	part.Output(part.Op("Add", []string{"parts/gradient", a.gradient}), onnx.Float, p)
	part.Output(part.Op("Add", []string{"parts/metrics", a.metrics}), onnx.Float, 4)
	body := part.Graph("micro-batch")
	schedule(body, []string{"step/images"}, []string{"step/labels", "step/targets"})

	s.b, s.tape.B = step, step
	cut := func(name string, shape ...int64) string {
		return step.Op("Reshape", []string{name, step.Int64s(append([]int64{int64(parts)}, shape...)...)})
	}
	zeros := func(n int64) string { return step.Op("ConstantOfShape", []string{step.Int64s(n)}) }
	state := []string{"batch/statistics", zeros(p), zeros(4)}
	feed := []string{cut("batch/images", s.c.ImageShape(n)...), cut("batch/labels", n), cut("batch/targets", n, f)}
	sums := step.OpN("Scan", len(state), append(state, feed...), onnx.G("body", body), onnx.I("num_scan_inputs", int64(len(feed))))
	mean := func(sum string) string { return step.Op("Mul", []string{sum, step.Float(1 / float32(parts))}) }
	a = after{statistics: sums[0], gradient: mean(sums[1]), metrics: mean(sums[2])}
	a.parameters, a.momentum = s.update(a.gradient)
	return a, nil
}
