package sanitize

import (
	"fmt"
	"os"

	"grindstone/sanitize/onnx"
)

// Limits bound the models that are taken; 0 is no limit beyond those of the codec. What is over one is onnx.ErrLimit.
type Limits struct {
	Bytes   int64 // of the ONNX file and its external data
	Nodes   int   // with those of subgraphs
	Tensors int   // initializers, and tensors that are attributes
}

// read reads a model within the limits. A file that is too large is not read.
func (l Limits) read(path string) (*onnx.Model, error) {
	over := func(found int64, what string, limit int64) error {
		if limit > 0 && found > limit {
			return &onnx.Error{File: path, Err: fmt.Errorf("%w: it has %d %s, at most %d are taken", onnx.ErrLimit, found, what, limit)}
		}
		return nil
	}
	file := int64(0)
	if info, err := os.Stat(path); err == nil { // else reading it says why not
		file = info.Size()
	}
	if err := over(file, "bytes", l.Bytes); err != nil {
		return nil, err
	}
	m, err := onnx.ReadFile(path)
	if err != nil {
		return nil, err
	}
	size := m.Size()
	for _, err := range []error{
		over(file+size.Outside, "bytes with its external data", l.Bytes), over(int64(size.Nodes), "nodes", int64(l.Nodes)), over(int64(size.Tensors), "tensors", int64(l.Tensors)),
	} {
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}
