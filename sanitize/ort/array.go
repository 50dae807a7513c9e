package ort

import (
	"fmt"
	"math"
	"runtime"
	"unsafe"

	binding "github.com/yalue/onnxruntime_go"
)

// Array is a dense tensor in row-major order. Exactly one slice is set, and its length is the product of Shape; a scalar has Shape
// [] and one element. An Array without any slice is a place for an output that ONNX Runtime allocates.
type Array struct {
	Shape []int64

	F32  []float32
	F64  []float64
	I64  []int64
	I32  []int32
	I16  []int16
	I8   []int8
	U64  []uint64
	U32  []uint32
	U16  []uint16
	U8   []uint8
	Bool []bool
	F16  []uint16 // bits of IEEE 754 half precision
	BF16 []uint16 // bits of bfloat16
}

// Len is the number of elements that the shape asks for; -1 when a dimension is negative or the product exceeds int64.
func (a *Array) Len() int { return product(a.Shape) }

// Type is the element type as TensorProto.DataType numbers it; 0 when no slice is set.
func (a *Array) Type() int32 {
	if e := a.element(); e != nil {
		return e.typ
	}
	return 0
}

// element is the row of the table for the slice that is set; nil when none is.
func (a *Array) element() *element {
	for i := range elements {
		if elements[i].len(a) >= 0 {
			return &elements[i]
		}
	}
	return nil
}

// check says why an array cannot be handed to ONNX Runtime as a port's value.
func (a *Array) check(p Port) error {
	set := 0
	for i := range elements {
		if elements[i].len(a) >= 0 {
			set++
		}
	}
	e := a.element()
	switch {
	case set == 0:
		return fmt.Errorf("%w: %s: no data", ErrArray, p)
	case set > 1:
		return fmt.Errorf("%w: %s: more than one slice is set", ErrArray, p)
	case p.Type != 0 && e.typ != p.Type:
		return fmt.Errorf("%w: %s: the array is %s", ErrArray, p, typeName(e.typ))
	case a.Len() != e.len(a):
		return fmt.Errorf("%w: %s: shape %v does not hold %d elements", ErrArray, p, a.Shape, e.len(a))
	case !p.accepts(a.Shape):
		return fmt.Errorf("%w: %s: the array's shape is %v", ErrArray, p, a.Shape)
	}
	return nil
}

func product(shape []int64) int {
	n := 1
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt/int(d) {
			return -1
		}
		n *= int(d)
	}
	return n
}

// element is how one element type crosses into ONNX Runtime.
type element struct {
	typ  int32
	name string
	len  func(*Array) int // -1: this slice is not set

	// value wraps the array's memory, pinned, without a copy. A scalar is copied: the binding has no other way.
	value func(*Array, *runtime.Pinner) (binding.Value, error)
	// take sets the array from a value that ONNX Runtime filled; false when the value has another type.
	take func(*Array, binding.Value) bool
	make func(*Array) // allocates the slice for the shape
}

var elements = []element{
	plain(1, "float", func(a *Array) *[]float32 { return &a.F32 }),
	plain(2, "uint8", func(a *Array) *[]uint8 { return &a.U8 }),
	plain(3, "int8", func(a *Array) *[]int8 { return &a.I8 }),
	plain(4, "uint16", func(a *Array) *[]uint16 { return &a.U16 }),
	plain(5, "int16", func(a *Array) *[]int16 { return &a.I16 }),
	plain(6, "int32", func(a *Array) *[]int32 { return &a.I32 }),
	plain(7, "int64", func(a *Array) *[]int64 { return &a.I64 }),
	plain(9, "bool", func(a *Array) *[]bool { return &a.Bool }),
	plain(11, "double", func(a *Array) *[]float64 { return &a.F64 }),
	plain(12, "uint32", func(a *Array) *[]uint32 { return &a.U32 }),
	plain(13, "uint64", func(a *Array) *[]uint64 { return &a.U64 }),
	half(10, "float16", binding.TensorElementDataTypeFloat16, func(a *Array) *[]uint16 { return &a.F16 }),
	half(16, "bfloat16", binding.TensorElementDataTypeBFloat16, func(a *Array) *[]uint16 { return &a.BF16 }),
}

func elementOf(typ int32) *element {
	for i := range elements {
		if elements[i].typ == typ {
			return &elements[i]
		}
	}
	return nil
}

func typeName(typ int32) string {
	if e := elementOf(typ); e != nil {
		return e.name
	}
	return fmt.Sprintf("element type %d", typ)
}

func lengthOf[T any](field func(*Array) *[]T) func(*Array) int {
	return func(a *Array) int {
		if s := *field(a); s != nil {
			return len(s)
		}
		return -1
	}
}

// plain is an element type that is a Go type as well.
func plain[T binding.TensorData](typ int32, name string, field func(*Array) *[]T) element {
	return element{
		typ: typ, name: name, len: lengthOf(field),
		value: func(a *Array, pin *runtime.Pinner) (binding.Value, error) {
			data := *field(a)
			if len(a.Shape) == 0 {
				return binding.NewScalar(data[0])
			}
			if len(data) > 0 {
				pin.Pin(&data[0])
			}
			return binding.NewTensor(a.Shape, data)
		},
		take: func(a *Array, v binding.Value) bool {
			switch v := v.(type) {
			case *binding.Tensor[T]:
				a.Shape, *field(a) = v.GetShape(), v.GetData()
			case *binding.Scalar[T]:
				if s := *field(a); len(s) == 1 {
					s[0] = v.GetData()
				} else {
					a.Shape, *field(a) = []int64{}, []T{v.GetData()}
				}
			default:
				return false
			}
			return true
		},
		make: func(a *Array) { *field(a) = make([]T, a.Len()) },
	}
}

// half is a 16-bit floating-point type, which Go does not have. The binding takes such memory as bytes; it can wrap neither
// scalars nor empty tensors of this kind, and cannot allocate them.
func half(typ int32, name string, dt binding.TensorElementDataType, field func(*Array) *[]uint16) element {
	return element{
		typ: typ, name: name, len: lengthOf(field),
		value: func(a *Array, pin *runtime.Pinner) (binding.Value, error) {
			data := *field(a)
			if len(a.Shape) == 0 || len(data) == 0 {
				return nil, fmt.Errorf("%w: scalar and empty %s arrays are not supported", ErrArray, name)
			}
			pin.Pin(&data[0])
			return binding.NewCustomDataTensor(a.Shape, unsafe.Slice((*byte)(unsafe.Pointer(&data[0])), 2*len(data)), dt)
		},
		take: func(*Array, binding.Value) bool { return false },
		make: func(a *Array) { *field(a) = make([]uint16, a.Len()) },
	}
}
