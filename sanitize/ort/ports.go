package ort

import (
	"fmt"
	"slices"

	"grindstone/sanitize/onnx"
)

// Port is an input or output of a session.
type Port struct {
	Name  string
	Type  int32   // element type as TensorProto.DataType numbers it
	Shape []int64 // -1: decided at run time; nil when the model does not say even the rank; [] for a scalar
}

func (p Port) String() string {
	if p.Shape == nil {
		return fmt.Sprintf("%q (%s)", p.Name, typeName(p.Type))
	}
	return fmt.Sprintf("%q (%s %v)", p.Name, typeName(p.Type), p.Shape)
}

// accepts tells whether a shape fits the declared one.
func (p Port) accepts(shape []int64) bool {
	if p.Shape == nil {
		return true
	}
	return slices.EqualFunc(p.Shape, shape, func(want, got int64) bool { return want < 0 || want == got })
}

// readPorts lists the inputs and outputs that a model declares. (The binding could tell them only by creating a second session.)
// An input that has an initializer too is no input to feed: ONNX Runtime takes the initializer.
func readPorts(model []byte) (in, out []Port, err error) {
	m, err := onnx.Parse(model)
	if err != nil {
		return nil, nil, err
	}
	initialized := map[string]bool{}
	for _, t := range m.Graph.Initializers {
		initialized[t.Name] = true
	}
	ports := func(values []*onnx.Value) (list []Port) {
		for _, v := range values {
			list = append(list, Port{v.Name, int32(v.Type), v.Sizes()})
		}
		return list
	}
	in = slices.DeleteFunc(ports(m.Graph.Inputs), func(p Port) bool { return initialized[p.Name] })
	return in, ports(m.Graph.Outputs), nil
}
