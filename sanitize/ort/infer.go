package ort

import (
	"fmt"

	binding "github.com/yalue/onnxruntime_go"
)

// InferOutputs returns the outputs of a model with the types and shapes that ONNX Runtime infers when it loads the model, without running
// it. Errors: *LibraryError, ErrModel.
func InferOutputs(model []byte) ([]Port, error) {
	if err := load(); err != nil {
		return nil, err
	}
	_, outputs, err := binding.GetInputOutputInfoWithONNXData(model)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModel, err)
	}
	ports := make([]Port, len(outputs))
	for i, o := range outputs {
		ports[i] = Port{Name: o.Name, Type: int32(o.DataType), Shape: o.Dimensions}
	}
	return ports, nil
}

// Bytes is the size of an array for the port; 0 where its shape is not known.
func (p Port) Bytes() int64 { return max(0, int64(product(p.Shape))) * widths[p.Type] }

// widths are the bytes of an element, by its type as TensorProto.DataType numbers it.
var widths = map[int32]int64{1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
