package train

import (
	"errors"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// FitMicro returns the largest micro-batch whose step needs at most budget bytes by StepMemory, and what it needs; the smallest that the batch
// can be split into when none does.
func FitMicro(c *classifier.Classifier, o StepOptions, budget int64) (micro int, bytes int64, err error) {
	for o.Micro = o.Batch; ; {
		bytes, err = StepMemory(c, o)
		if err != nil && !errors.Is(err, ort.ErrMemory) || err == nil && bytes <= budget {
			return o.Micro, bytes, err
		}
		next := divisor(o.Batch, o.Micro-1)
		if next == 0 {
			return o.Micro, bytes, err
		}
		o.Micro = next
	}
}

// StepMemory estimates, in bytes, what the runtime holds at the most during a step of o.Micro images (of o.Batch without it): the tensors that
// are alive at the same time, in the order in which ONNX Runtime runs the nodes. The runtime itself tells their shapes when it loads the graph;
// nothing is run. State, feeding and what kernels need while they run come on top.
func StepMemory(c *classifier.Classifier, o StepOptions) (int64, error) {
	if o.Micro != 0 {
		o.Batch = o.Micro
	}
	s, p, err := buildPass(c, o)
	if err != nil {
		return 0, err
	}
	m := p.Model
	planned, err := infer(m)
	if err != nil {
		return 0, err
	}
	outputs := planned
	if s.open { // what comes out when the batch has its size
		s.open = false
		closed := c.NewBuilder()
		s.batchInputs(closed, "step/", 1)
		for i, in := range m.Graph.Inputs {
			for _, v := range closed.Graph("").Inputs {
				if v.Name == in.Name {
					m.Graph.Inputs[i] = v
				}
			}
		}
		if outputs, err = infer(m); err != nil {
			return 0, err
		}
	}
	return peak(m.Graph, outputs, planned), nil
}

// infer returns types and shapes of all nodes' outputs, as the runtime tells them without running the model.
func infer(m *onnx.Model) (map[string]ort.Port, error) {
	all, graph := *m, *m.Graph
	all.Graph, graph.Outputs = &graph, nil
	for _, n := range graph.Nodes {
		for _, out := range n.Outputs {
			if out != "" {
				graph.Outputs = append(graph.Outputs, &onnx.Value{Name: out})
			}
		}
	}
	raw, err := all.Marshal()
	if err != nil {
		return nil, err
	}
	ports, err := ort.InferOutputs(raw)
	if err != nil {
		return nil, err
	}
	byName := map[string]ort.Port{}
	for _, p := range ports {
		byName[p.Name] = p
	}
	return byName, nil
}
