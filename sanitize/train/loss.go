package train

import "grindstone/sanitize/onnx"

// loss emits L = alpha*L_f + (1-alpha)*L_t (Feature Grinding, section 4.2) and returns the gradients of features and logits, which
// seed the backward pass, and the step's metrics.
//
// L_t is the mean cross entropy. L_f is the mean un-squared L2 norm of the difference between features and targets, with 1e-12 under
// the root; a squared or width-averaged error would change what alpha means.
func (s *stepBuilder) loss() (seeds map[string]string, metrics string) {
	b, n, k := s.b, int64(s.o.Batch), int64(s.c.Classes)
	logits := s.tape.Ref(s.c.Logits)
	invN := b.Float(1 / float32(n))

	logp := b.Op("LogSoftmax", []string{logits}, onnx.I("axis", 1))
	truth := b.Op("OneHot", []string{"step/labels", b.Int64s(k), b.Floats([]int64{2}, []float32{0, 1})}, onnx.I("axis", -1))
	picked := b.Op("ReduceSum", []string{b.Op("Mul", []string{logp, truth}), b.Int64s(0, 1)}, onnx.I("keepdims", 0))
	one := b.Int64s(1)
	task := b.Op("Reshape", []string{b.Op("Neg", []string{b.Op("Mul", []string{picked, invN})}), one})
	dLogits := b.Op("Mul", []string{b.Op("Sub", []string{b.Op("Exp", []string{logp}), truth}), invN})

	hit := b.Op("Equal", []string{b.Op("ArgMax", []string{logits}, onnx.I("axis", 1), onnx.I("keepdims", 0)), "step/labels"})
	right := b.Op("ReduceMean", []string{b.Op("Cast", []string{hit}, onnx.I("to", int64(onnx.Float)))}, onnx.Is("axes", 0), onnx.I("keepdims", 1))

	if !s.o.Feature {
		zero := b.Op("Mul", []string{"step/alpha", b.Float(0)})
		return map[string]string{s.c.Logits: dLogits}, b.Op("Concat", []string{task, zero, task, right}, onnx.I("axis", 0))
	}

	feature := b.Op("Reshape", []string{s.tape.Ref(s.c.Feature), b.Int64s(-1, int64(s.c.FeatureWidth))})
	diff := b.Op("Sub", []string{feature, "step/targets"})
	square := b.Op("ReduceSumSquare", []string{diff}, onnx.Is("axes", 1), onnx.I("keepdims", 1))
	norm := b.Op("Sqrt", []string{b.Op("Add", []string{square, b.Float(1e-12)})})
	distance := b.Op("Reshape", []string{b.Op("ReduceMean", []string{norm}, onnx.Is("axes", 0), onnx.I("keepdims", 0)), one})
	dFeature := b.Op("Mul", []string{b.Op("Div", []string{diff, norm}), b.Op("Mul", []string{"step/alpha", invN})})

	rest := b.Op("Sub", []string{b.Floats([]int64{1}, []float32{1}), "step/alpha"})
	total := b.Op("Add", []string{b.Op("Mul", []string{"step/alpha", distance}), b.Op("Mul", []string{rest, task})})
	seeds = map[string]string{
		s.c.Logits:  b.Op("Mul", []string{dLogits, rest}),
		s.c.Feature: b.Op("Reshape", []string{dFeature, b.Int64s(append([]int64{-1}, s.shapes[s.c.Feature][1:]...)...)}),
	}
	return seeds, b.Op("Concat", []string{total, distance, task, right}, onnx.I("axis", 0))
}
