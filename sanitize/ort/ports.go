package ort

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
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

// readPorts lists the inputs and outputs that a model declares. The binding could tell them only by creating a second session.
// An input that has an initializer too is no input to feed: ONNX Runtime takes the initializer. Field numbers:
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
func readPorts(model []byte) (in, out []Port, err error) {
	var initialized []string
	graph := func(num protowire.Number, v []byte) error {
		switch num {
		case 5: // initializer: TensorProto, name 8
			initialized = append(initialized, textField(v, 8))
		case 15: // sparse_initializer: values 1, a TensorProto
			initialized = append(initialized, textField([]byte(textField(v, 1)), 8))
		case 11, 12: // input, output
			p, err := readPort(v)
			if err != nil {
				return err
			}
			if num == 11 {
				in = append(in, p)
			} else {
				out = append(out, p)
			}
		}
		return nil
	}
	err = eachField(model, func(num protowire.Number, v []byte, _ uint64) error {
		if num != 7 { // ModelProto.graph
			return nil
		}
		return eachField(v, func(num protowire.Number, v []byte, _ uint64) error { return graph(num, v) })
	})
	in = slices.DeleteFunc(in, func(p Port) bool { return slices.Contains(initialized, p.Name) })
	return in, out, err
}

// readPort reads a ValueInfoProto: name 1, type 2 (TypeProto: tensor_type 1 (elem_type 1, shape 2 (dim 1 (dim_value 1)))).
func readPort(b []byte) (Port, error) {
	var p Port
	dim := func(num protowire.Number, v []byte, _ uint64) error {
		if num != 1 {
			return nil
		}
		size := int64(-1)
		err := eachField(v, func(num protowire.Number, _ []byte, n uint64) error {
			if num == 1 {
				size = int64(n)
			}
			return nil
		})
		p.Shape = append(p.Shape, size)
		return err
	}
	tensor := func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case 1:
			p.Type = int32(n)
		case 2:
			p.Shape = []int64{}
			return eachField(v, dim)
		}
		return nil
	}
	err := eachField(b, func(num protowire.Number, v []byte, _ uint64) error {
		switch num {
		case 1:
			p.Name = string(v)
		case 2:
			return eachField(v, func(num protowire.Number, v []byte, _ uint64) error {
				if num == 1 {
					return eachField(v, tensor)
				}
				return nil
			})
		}
		return nil
	})
	return p, err
}

// eachField calls f for each field of a message: with its bytes, or with its number when it is a varint.
func eachField(b []byte, f func(num protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, k := protowire.ConsumeTag(b)
		if k < 0 {
			return protowire.ParseError(k)
		}
		b = b[k:]
		var v []byte
		var n uint64
		switch typ {
		case protowire.BytesType:
			v, k = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			n, k = protowire.ConsumeVarint(b)
		default:
			k = protowire.ConsumeFieldValue(num, typ, b)
		}
		if k < 0 {
			return protowire.ParseError(k)
		}
		b = b[k:]
		if err := f(num, v, n); err != nil {
			return err
		}
	}
	return nil
}

func textField(b []byte, want protowire.Number) (s string) {
	_ = eachField(b, func(num protowire.Number, v []byte, _ uint64) error {
		if num == want {
			s = string(v)
		}
		return nil
	})
	return s
}
