package train

import (
	"fmt"
	"slices"
	"strings"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// BuildGraph writes one training step as an ordinary ONNX model that any runtime runs: no subgraphs, standard operators, every tensor of
// the state an input and an output of its own. Its doc_string says what they are. Scale and Shift of the options have no part in it: images
// are what the classifier itself takes.
//
// Inputs: images float, labels int64 [batch], targets float [batch, F], alpha [1], rate [1]; then per trainable tensor W its value W and
// its momentum W/momentum, and each running statistic of BatchNormalization. The state's inputs have defaults: the model's own values, and
// momenta of zero.
// Outputs: loss, feature_loss, task_loss, accuracy, each [1]; then per trainable tensor W/gradient, of the loss alone, without weight
// decay, W/next and W/momentum/next; and per statistic S/next.
//
// A tensor of the model may have one of these names: then the step's own input or output gets another (see Renamed).
func BuildGraph(c *classifier.Classifier, o StepOptions) (*onnx.Model, error) {
	b := c.NewBuilder()
	s, err := newStepBuilder(c, o, b, b)
	if err != nil {
		return nil, err
	}
	s.open = false // the file says what it takes
	n := int64(o.Batch)
	name := portNames(c, b)
	b.Input(name["images"], onnx.Float, c.ImageShape(n)...)
	b.Named("step/labels", "Identity", []string{b.Input(name["labels"], onnx.Int64, n)})
	b.Named("step/targets", "Identity", []string{b.Input(name["targets"], onnx.Float, n, int64(c.FeatureWidth))})
	b.Named("step/alpha", "Identity", []string{b.Input(name["alpha"], onnx.Float, 1)})
	b.Named("step/rate", "Identity", []string{b.Input(name["rate"], onnx.Float, 1)})
	s.joinInputs("step/parameters", s.step.Parameters, func(slot Slot) *onnx.Tensor {
		return onnx.NewFloat(slot.Name, slot.Shape, c.Constants[slot.Name].Floats())
	})
	s.joinInputs("step/momentum", s.step.Parameters, func(slot Slot) *onnx.Tensor {
		return onnx.NewFloat(slot.Name+"/momentum", slot.Shape, make([]float32, slot.Size))
	})
	statistics := len(s.step.Statistics) > 1 // else the one that stands for none
	if statistics {
		s.joinInputs("step/statistics", s.step.Statistics, func(slot Slot) *onnx.Tensor {
			return onnx.NewFloat(slot.Name, slot.Shape, c.Constants[slot.Name].Floats())
		})
	} else {
		b.Named("step/statistics", "Identity", []string{b.Floats([]int64{1}, []float32{0})})
	}
	a, err := s.emit(name["images"])
	if err != nil {
		return nil, err
	}
	for i, metric := range graphOutputs {
		at := int64(i)
		b.Output(b.Named(name[metric], "Slice", []string{a.metrics, b.Int64s(at), b.Int64s(at + 1)}), onnx.Float, 1)
	}
	s.cut(a.gradient, s.step.Parameters, "/gradient")
	s.cut(a.parameters, s.step.Parameters, "/next")
	s.cut(a.momentum, s.step.Parameters, "/momentum/next")
	if statistics {
		s.cut(a.statistics, s.step.Statistics, "/next")
	}
	m := b.Model(onnx.Opset)
	schedule(m.Graph, []string{name["images"]}, []string{name["labels"], name["targets"]})
	m.Doc = s.describe(name)
	return m, b.Err()
}

// The inputs and outputs of the graph that come first.
var (
	graphInputs  = []string{"images", "labels", "targets", "alpha", "rate"}
	graphOutputs = []string{"loss", "feature_loss", "task_loss", "accuracy"}
)

// portNames are what the step's own inputs and outputs are called: as they are, unless a tensor of the model has the name.
func portNames(c *classifier.Classifier, b *onnx.Builder) map[string]string {
	names := map[string]string{}
	for _, name := range slices.Concat(graphInputs, graphOutputs) {
		names[name] = name
		if c.Constants[name] != nil {
			names[name] = b.Fresh(name)
		}
	}
	return names
}

// Renamed says which inputs and outputs of a graph of BuildGraph have other names than it documents.
func Renamed(m *onnx.Model) []string {
	var notes []string
	note := func(what string, values []*onnx.Value, names []string) {
		for i, name := range names {
			if now := values[i].Name; now != name {
				notes = append(notes, fmt.Sprintf("the %s %s is called %s, since a tensor of the model is called %s", what, name, now, name))
			}
		}
	}
	note("input", m.Graph.Inputs, graphInputs)
	note("output", m.Graph.Outputs, graphOutputs)
	return notes
}

// joinInputs makes one flat vector of tensors that are inputs of their own, with defaults.
func (s *stepBuilder) joinInputs(name string, slots []Slot, initial func(Slot) *onnx.Tensor) {
	flat := make([]string, len(slots))
	for i, slot := range slots {
		x := s.b.Default(initial(slot))
		if slot.taps {
			x = s.b.Op("Transpose", []string{x}, onnx.Is("perm", 2, 3, 0, 1))
		}
		flat[i] = s.b.Op("Reshape", []string{x, s.b.Int64s(-1)})
	}
	s.b.Named(name, "Concat", flat, onnx.I("axis", 0))
}

// cut makes an output of every tensor in a flat vector.
func (s *stepBuilder) cut(flat string, slots []Slot, suffix string) {
	sizes := make([]int64, len(slots))
	for i, slot := range slots {
		sizes[i] = int64(slot.Size)
	}
	for i, part := range s.b.OpN("Split", len(slots), []string{flat, s.b.Int64s(sizes...)}, onnx.I("axis", 0)) {
		slot := slots[i]
		name, shape := slot.Name+suffix, s.b.Int64s(slot.stored()...)
		if slot.taps {
			s.b.Named(name, "Transpose", []string{s.b.Op("Reshape", []string{part, shape})}, onnx.Is("perm", 2, 3, 0, 1))
		} else {
			s.b.Named(name, "Reshape", []string{part, shape})
		}
		s.b.Output(name, onnx.Float, slot.Shape...)
	}
}

// describe is the model's documentation.
func (s *stepBuilder) describe(name map[string]string) string {
	c, o := s.c, s.o
	line := func(port, what string) string { return fmt.Sprintf("  %-12s  %s", name[port], what) }
	return strings.Join([]string{
		fmt.Sprintf("One step of SGD on a batch of %d images, for the loss %s*%s + (1-%s)*%s.", o.Batch, name["alpha"], name["feature_loss"], name["alpha"], name["task_loss"]),
		"",
		"Inputs:",
		line("images", fmt.Sprintf("what the classifier itself takes (%s), after preprocessing", c.Layout)),
		line("labels", fmt.Sprintf("the true classes, 0 to %d", c.Classes-1)),
		line("targets", fmt.Sprintf("what the feature layer %q should be, a row an image", c.Feature)),
		line("alpha", "the weight of the feature loss"),
		line("rate", "the learning rate"),
		"  and the state, which begins as the classifier's own: each trained tensor and running statistic by its name, momenta as NAME/momentum.",
		"",
		"Outputs:",
		line("loss", "the above"),
		line("feature_loss", "mean over the images of the L2 norm (not squared) of features minus targets"),
		line("task_loss", "mean cross entropy"),
		line("accuracy", "share of the images classified correctly"),
		"  NAME/gradient  of the loss, without weight decay",
		"  NAME/next, NAME/momentum/next  the state after the step: feed it as NAME, NAME/momentum",
		"",
		fmt.Sprintf("Update: g = gradient + %g*p; v = %g*v + g; p = p - %s*(g + %g*v).", o.WeightDecay, o.Momentum, name["rate"], o.Momentum),
		"BatchNormalization normalizes by the batch; its statistics follow as m*running + (1-m)*batch, with the unbiased variance. Dropout is off.",
	}, "\n")
}
