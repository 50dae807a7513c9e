package onnx

import (
	"bufio"
	"os"
	"path/filepath"
)

// maxInside is the size up to which a model is kept in one message; protobuf itself ends at 2 GiB.
const maxInside = 1 << 30

// FitsMessage tells whether the model can be serialized as one message, by the size of its tensors.
func (m *Model) FitsMessage() bool {
	total := int64(0)
	m.Graph.eachTensor(func(t *Tensor) { total += int64(len(t.Raw)) })
	return total <= maxInside
}

// WriteOutside writes the model into a folder as model.onnx, with the data of its larger initializers in a file of their own, weights.bin
// (ONNX IR, "External Tensor Data"). It returns the path of the model. The model itself is not changed.
func (m *Model) WriteOutside(dir string) (path string, err error) {
	const data, small, page = "weights.bin", 1 << 10, 4 << 10
	f, err := os.Create(filepath.Join(dir, data))
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	outside, graph, at := *m, *m.Graph, int64(0)
	graph.Initializers = nil
	for _, t := range m.Graph.Initializers {
		if len(t.Raw) > small {
			moved := *t
			moved.Raw, moved.External = nil, &External{Location: data, Offset: at, Length: int64(len(t.Raw))}
			padding := (page - len(t.Raw)%page) % page // so that a runtime can map each tensor into memory
			at += int64(len(t.Raw) + padding)
			for _, b := range [][]byte{t.Raw, make([]byte, padding)} {
				if _, err := w.Write(b); err != nil {
					return "", err
				}
			}
			t = &moved
		}
		graph.Initializers = append(graph.Initializers, t)
	}
	outside.Graph = &graph
	if err := w.Flush(); err != nil {
		return "", err
	}
	raw, err := outside.Marshal()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "model.onnx")
	return path, os.WriteFile(path, raw, 0o600)
}
