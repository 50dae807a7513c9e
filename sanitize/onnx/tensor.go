package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Size is the number of bytes that one element takes in Raw; 0 for strings and types this package does not know.
func (t DataType) Size() int64 {
	switch t {
	case Bool, Uint8, Int8:
		return 1
	case Float16, BFloat16, Uint16, Int16:
		return 2
	case Float, Int32, Uint32:
		return 4
	case Double, Int64, Uint64:
		return 8
	}
	return 0
}

// IsFloat tells whether elements of the type are floating-point numbers.
func (t DataType) IsFloat() bool {
	return t == Float || t == Double || t == Float16 || t == BFloat16
}

func (t DataType) String() string {
	names := map[DataType]string{Undefined: "undefined", Float: "float", Uint8: "uint8", Int8: "int8", Uint16: "uint16", Int16: "int16", Int32: "int32",
		Int64: "int64", String: "string", Bool: "bool", Float16: "float16", Double: "double", Uint32: "uint32", Uint64: "uint64", BFloat16: "bfloat16"}
	if s, known := names[t]; known {
		return s
	}
	return fmt.Sprintf("type %d", int32(t))
}

// NewFloat makes a float32 tensor with a copy of v. Marshal refuses tensors whose shape and values disagree; shape nil is a scalar.
func NewFloat(name string, shape []int64, v []float32) *Tensor {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return newTensor(name, Float, shape, raw)
}

// NewDouble makes a float64 tensor with a copy of v.
func NewDouble(name string, shape []int64, v []float64) *Tensor {
	raw := make([]byte, 0, 8*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(x))
	}
	return newTensor(name, Double, shape, raw)
}

// NewInt64 makes an int64 tensor with a copy of v.
func NewInt64(name string, shape []int64, v []int64) *Tensor {
	raw := make([]byte, 0, 8*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(x))
	}
	return newTensor(name, Int64, shape, raw)
}

// NewInt32 makes an int32 tensor with a copy of v.
func NewInt32(name string, shape []int64, v []int32) *Tensor {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(x))
	}
	return newTensor(name, Int32, shape, raw)
}

// NewUint8 makes a uint8 tensor with a copy of v.
func NewUint8(name string, shape []int64, v []uint8) *Tensor {
	return newTensor(name, Uint8, shape, slices.Clone(v))
}

// NewInts makes a tensor of an integer type; values beyond it wrap.
func NewInts(name string, t DataType, shape []int64, v []int64) *Tensor {
	size := int(t.Size())
	raw := make([]byte, 0, size*len(v))
	for _, x := range v {
		raw = append(raw, binary.LittleEndian.AppendUint64(nil, uint64(x))[:size]...)
	}
	return newTensor(name, t, shape, raw)
}

// NewBool makes a bool tensor from v.
func NewBool(name string, shape []int64, v []bool) *Tensor {
	raw := make([]byte, len(v))
	for i, x := range v {
		if x {
			raw[i] = 1
		}
	}
	return newTensor(name, Bool, shape, raw)
}

func newTensor(name string, t DataType, shape []int64, raw []byte) *Tensor {
	return &Tensor{Name: name, Type: t, Shape: append([]int64{}, shape...), Raw: raw}
}

// Len is the number of elements by Shape.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= int(d)
	}
	return n
}

// Floats returns the elements as float32: floats of every width, integers and bools (0 or 1). It is nil for strings.
func (t *Tensor) Floats() []float32 {
	if t.Type == Float {
		return convert(t, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	}
	wide := t.Doubles()
	if wide == nil {
		return nil
	}
	v := make([]float32, len(wide))
	for i, x := range wide {
		v[i] = float32(x)
	}
	return v
}

// Doubles returns the elements as float64: floats of every width, integers and bools (0 or 1). It is nil for strings.
func (t *Tensor) Doubles() []float64 {
	switch t.Type {
	case Float:
		return convert(t, func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))) })
	case Double:
		return convert(t, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) })
	case Float16:
		return convert(t, func(b []byte) float64 { return float64(fromHalf(binary.LittleEndian.Uint16(b))) })
	case BFloat16:
		return convert(t, func(b []byte) float64 { return float64(fromBrain(binary.LittleEndian.Uint16(b))) })
	case Uint64:
		return convert(t, func(b []byte) float64 { return float64(binary.LittleEndian.Uint64(b)) })
	}
	ints := t.Ints()
	if ints == nil {
		return nil
	}
	v := make([]float64, len(ints))
	for i, x := range ints {
		v[i] = float64(x)
	}
	return v
}

// Ints returns the elements of an integer or bool tensor as int64 (uint64 wraps). It is nil for floats and strings.
func (t *Tensor) Ints() []int64 {
	switch t.Type {
	case Int64, Uint64:
		return convert(t, func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) })
	case Int32:
		return convert(t, func(b []byte) int64 { return int64(int32(binary.LittleEndian.Uint32(b))) })
	case Uint32:
		return convert(t, func(b []byte) int64 { return int64(binary.LittleEndian.Uint32(b)) })
	case Int16:
		return convert(t, func(b []byte) int64 { return int64(int16(binary.LittleEndian.Uint16(b))) })
	case Uint16:
		return convert(t, func(b []byte) int64 { return int64(binary.LittleEndian.Uint16(b)) })
	case Int8:
		return convert(t, func(b []byte) int64 { return int64(int8(b[0])) })
	case Uint8:
		return convert(t, func(b []byte) int64 { return int64(b[0]) })
	case Bool:
		return convert(t, func(b []byte) int64 {
			if b[0] != 0 {
				return 1
			}
			return 0
		})
	}
	return nil
}

func convert[T any](t *Tensor, element func([]byte) T) []T {
	size := int(t.Type.Size())
	v := make([]T, len(t.Raw)/size)
	for i := range v {
		v[i] = element(t.Raw[i*size:])
	}
	return v
}

// Convert returns the tensor with elements of another type. Floats convert to floats; a finite value that the narrower type cannot hold
// is an error. Other types convert only to themselves.
func (t *Tensor) Convert(to DataType) (*Tensor, error) {
	if t.Type == to {
		return t, nil
	}
	if !t.Type.IsFloat() || !to.IsFloat() {
		return nil, fmt.Errorf("%w: elements of type %v where the model has %v", ErrMismatch, t.Type, to)
	}
	wide := t.Doubles()
	raw := make([]byte, 0, int64(len(wide))*to.Size())
	for i, x := range wide {
		var back float64
		switch to {
		case Double:
			raw, back = binary.LittleEndian.AppendUint64(raw, math.Float64bits(x)), x
		case Float:
			raw, back = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(x))), float64(float32(x))
		case Float16:
			h := toHalf(float32(x))
			raw, back = binary.LittleEndian.AppendUint16(raw, h), float64(fromHalf(h))
		case BFloat16:
			h := toBrain(float32(x))
			raw, back = binary.LittleEndian.AppendUint16(raw, h), float64(fromBrain(h))
		}
		if math.IsInf(back, 0) && !math.IsInf(x, 0) {
			return nil, fmt.Errorf("%w: element %d is %g, too large for %v", ErrMismatch, i, x, to)
		}
	}
	return newTensor(t.Name, to, t.Shape, raw), nil
}
