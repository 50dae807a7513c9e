package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of a TensorProto that hold elements.
const (
	floatData  protowire.Number = 4
	int32Data  protowire.Number = 5
	stringData protowire.Number = 6
	int64Data  protowire.Number = 7
	rawData    protowire.Number = 9
	doubleData protowire.Number = 10
	uint64Data protowire.Number = 11
)

// typedField is the field that holds elements of type t when raw_data does not, by the comments in the standard's TensorProto.
func typedField(t DataType) protowire.Number {
	switch t {
	case Float:
		return floatData
	case Double:
		return doubleData
	case Int64:
		return int64Data
	case Uint32, Uint64:
		return uint64Data
	case String:
		return stringData
	}
	return int32Data
}

// elements is what a tensor's message says about its data: which field holds them, in which pieces.
type elements struct {
	field    protowire.Number // 0: none
	pieces   []field
	external bool
	location map[string]string
}

// tensor reads a TensorProto. The element count that dims claim is held against the bytes present before anything is allocated.
func (d *decoder) tensor(f field) (*Tensor, error) {
	if err := errors.Join(d.count(), f.is(protowire.BytesType)); err != nil {
		return nil, err
	}
	t, e, err := d.tensorFields(f.body)
	if err == nil {
		err = t.fill(e)
	}
	if err != nil {
		return nil, &Error{What: "tensor " + strconv.Quote(t.Name), Err: err}
	}
	return t, nil
}

func (d *decoder) tensorFields(msg []byte) (*Tensor, elements, error) {
	t, e := &Tensor{Shape: []int64{}}, elements{location: map[string]string{}}
	err := fields(msg, func(f field) error {
		switch f.num {
		case 1:
			if err := f.int64s(&t.Shape); err != nil {
				return err
			}
			if len(t.Shape) > maxRank {
				return fmt.Errorf("%w: more than %d dimensions", ErrLimit, maxRank)
			}
		case 2:
			t.Type = DataType(f.val)
			return f.is(protowire.VarintType)
		case 3:
			return fmt.Errorf("%w: tensors in segments", ErrUnsupported)
		case floatData, int32Data, stringData, int64Data, rawData, doubleData, uint64Data:
			if f.typ == protowire.BytesType && len(f.body) == 0 && f.num != stringData {
				return nil // says nothing, as when raw_data is written empty
			}
			if e.field != 0 && (e.field != f.num || f.num == rawData) {
				return malformed("its data are given twice (fields %d and %d)", e.field, f.num)
			}
			e.field, e.pieces = f.num, append(e.pieces, f)
		case 8:
			return f.string(&t.Name)
		case 13:
			return d.entry(e.location, f)
		case 14:
			e.external = f.val == 1
			return f.is(protowire.VarintType)
		}
		return nil
	})
	return t, e, err
}

// fill sets Raw, Strings or External from e.
func (t *Tensor) fill(e elements) error {
	n, err := t.count()
	if err != nil {
		return err
	}
	size := t.Type.Size()
	switch {
	case t.Type != String && size == 0:
		return fmt.Errorf("%w: element type %d", ErrUnsupported, t.Type)
	case e.external:
		return t.fillExternal(e)
	case e.field == 0:
		if n != 0 {
			return malformed("shape %v claims %d elements, the file holds none", t.Shape, n)
		}
		if t.Type != String {
			t.Raw = []byte{}
		}
		return nil
	case t.Type == String:
		return t.fillStrings(e, n)
	}
	if e.field != rawData && e.field != typedField(t.Type) {
		return malformed("elements of type %v are in field %d", t.Type, e.field)
	}
	have, err := e.count(size)
	if err != nil {
		return err
	}
	if have != n {
		return malformed("shape %v claims %d elements of type %v, the file holds %d", t.Shape, n, t.Type, have)
	}
	t.Raw, err = e.bytes(n, size)
	return err
}

func (t *Tensor) fillStrings(e elements, n int64) error {
	if e.field != stringData || int64(len(e.pieces)) != n {
		return malformed("shape %v claims %d strings, the file holds %d", t.Shape, n, len(e.pieces))
	}
	for _, p := range e.pieces {
		if err := p.is(protowire.BytesType); err != nil {
			return err
		}
		t.Strings = append(t.Strings, p.body)
	}
	return nil
}

// count is the number of elements that the shape claims; its product with the element size fits an int64.
func (t *Tensor) count() (int64, error) {
	n, empty := int64(1), false
	for _, d := range t.Shape {
		switch {
		case d < 0:
			return 0, malformed("shape %v has a negative dimension", t.Shape)
		case d == 0:
			empty = true
		case n > math.MaxInt64/8/d:
			return 0, malformed("the element count of shape %v overflows", t.Shape)
		default:
			n *= d
		}
	}
	if empty {
		return 0, nil
	}
	return n, nil
}

// count is the number of elements of the given size in the pieces.
func (e elements) count(size int64) (int64, error) {
	n := int64(0)
	for _, p := range e.pieces {
		k, err := p.elements(size)
		if err != nil {
			return 0, err
		}
		n += k
	}
	return n, nil
}

// elements is the number of elements of the given size in one piece of tensor data.
func (f field) elements(size int64) (int64, error) {
	width := int64(0) // of a fixed-width element in the file
	switch f.num {
	case rawData:
		if err := f.is(protowire.BytesType); err != nil {
			return 0, err
		}
		width = size
	case floatData:
		width = 4
	case doubleData:
		width = 8
	}
	switch {
	case f.typ == protowire.Fixed32Type && f.num == floatData, f.typ == protowire.Fixed64Type && f.num == doubleData,
		f.typ == protowire.VarintType && width == 0:
		return 1, nil
	case f.typ != protowire.BytesType:
		return 0, malformed("field %d has wire type %d", f.num, f.typ)
	case width == 0: // varints: one byte in each has no continuation bit
		n := int64(0)
		for _, b := range f.body {
			if b < 0x80 {
				n++
			}
		}
		return n, nil
	case int64(len(f.body))%width != 0:
		return 0, malformed("field %d: %d bytes are not whole elements of %d bytes", f.num, len(f.body), width)
	}
	return int64(len(f.body)) / width, nil
}

// bytes returns the n elements as little-endian bytes, without copying where the file keeps them so.
func (e elements) bytes(n, size int64) ([]byte, error) {
	fixed := e.field == rawData || e.field == floatData || e.field == doubleData
	if fixed && len(e.pieces) == 1 && e.pieces[0].typ == protowire.BytesType {
		return e.pieces[0].body, nil
	}
	raw := make([]byte, 0, n*size)
	for _, p := range e.pieces {
		if p.typ != protowire.BytesType {
			raw = appendElement(raw, p.val, size)
			continue
		}
		if fixed {
			raw = append(raw, p.body...)
			continue
		}
		for b := p.body; len(b) > 0; {
			v, k := protowire.ConsumeVarint(b)
			if k < 0 {
				return nil, malformed("field %d: %v", p.num, protowire.ParseError(k))
			}
			raw, b = appendElement(raw, v, size), b[k:]
		}
	}
	return raw, nil
}

// appendElement appends the low size bytes of v.
func appendElement(raw []byte, v uint64, size int64) []byte {
	switch size {
	case 1:
		return append(raw, byte(v))
	case 2:
		return binary.LittleEndian.AppendUint16(raw, uint16(v))
	case 4:
		return binary.LittleEndian.AppendUint32(raw, uint32(v))
	}
	return binary.LittleEndian.AppendUint64(raw, v)
}
