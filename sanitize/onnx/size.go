package onnx

// Size is how large a model is, with its subgraphs.
type Size struct {
	Nodes   int
	Tensors int   // initializers, and tensors that are attributes
	Outside int64 // bytes of external data
}

// Size counts nodes and tensors.
func (m *Model) Size() Size {
	var s Size
	m.Graph.eachTensor(func(t *Tensor) {
		s.Tensors++
		if t.External != nil {
			s.Outside += int64(len(t.Raw))
		}
	})
	var count func(g *Graph)
	count = func(g *Graph) {
		s.Nodes += len(g.Nodes)
		for _, n := range g.Nodes {
			for _, a := range n.Attrs {
				if a.Graph != nil {
					count(a.Graph)
				}
			}
		}
	}
	count(m.Graph)
	return s
}
