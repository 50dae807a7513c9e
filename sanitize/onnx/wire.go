package onnx

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// What can be wrong with a model; every failure of this package is one of these (errors.Is), mostly inside an *Error.
var (
	ErrNotModel    = errors.New("not an ONNX model")
	ErrMalformed   = errors.New("malformed ONNX")
	ErrUnsupported = errors.New("unsupported in ONNX models")
	ErrLimit       = errors.New("over a limit")
	ErrExternal    = errors.New("external data")
	ErrMismatch    = errors.New("does not fit the model")
)

// Limits on files of unknown origin. The largest classifiers stay far below them.
const (
	maxFile     = math.MaxInt32 // bytes: the limit of protobuf itself
	maxMessages = 1 << 20       // nodes, attributes, tensors and values together
	maxDepth    = 16            // graphs inside of graphs
	maxRank     = 64            // dimensions of a tensor
	maxExternal = 16 << 30      // bytes read from external data files together
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// field is one field of a protobuf message as it stands in the file.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	val   uint64 // varint and fixed-width fields
	body  []byte // length-delimited fields
	whole []byte // tag and value
}

// fields calls visit for each field of msg, in file order. Groups are passed over as unknown fields.
func fields(msg []byte, visit func(field) error) error {
	for len(msg) > 0 {
		f := field{}
		num, typ, tag := protowire.ConsumeTag(msg)
		if tag < 0 {
			return malformed("%v", protowire.ParseError(tag))
		}
		if !num.IsValid() { // protobuf's own readers drop the bits of a tag beyond 32, and see another field
			return malformed("a field has the number %d", num)
		}
		f.num, f.typ = num, typ
		rest, n := msg[tag:], 0
		switch typ {
		case protowire.VarintType:
			f.val, n = protowire.ConsumeVarint(rest)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(rest)
			f.val = uint64(v)
		case protowire.Fixed64Type:
			f.val, n = protowire.ConsumeFixed64(rest)
		case protowire.BytesType:
			f.body, n = protowire.ConsumeBytes(rest)
		default:
			n = protowire.ConsumeFieldValue(num, typ, rest)
		}
		if n < 0 {
			return malformed("field %d: %v", num, protowire.ParseError(n))
		}
		f.whole, msg = msg[:tag+n], msg[tag+n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

func (f field) is(t protowire.Type) error {
	if f.typ != t {
		return malformed("field %d has wire type %d instead of %d", f.num, f.typ, t)
	}
	return nil
}

func (f field) string(dst *string) error {
	*dst = string(f.body)
	return f.is(protowire.BytesType)
}

func (f field) int64(dst *int64) error {
	*dst = int64(f.val)
	return f.is(protowire.VarintType)
}

func (f field) float32(dst *float32) error {
	*dst = math.Float32frombits(uint32(f.val))
	return f.is(protowire.Fixed32Type)
}

// message takes an embedded message that may occur once. Protobuf would merge a second occurrence, and what one reader merges another
// replaces: such a file is refused, as it could show different models to different readers.
func (f field) message(seen *bool) error {
	if *seen {
		return malformed("field %d occurs twice", f.num)
	}
	*seen = true
	return f.is(protowire.BytesType)
}

// int64s appends the values of a repeated integer field, packed or not.
func (f field) int64s(dst *[]int64) error {
	if f.typ == protowire.VarintType {
		*dst = append(*dst, int64(f.val))
		return nil
	}
	if err := f.is(protowire.BytesType); err != nil {
		return err
	}
	for b := f.body; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return malformed("field %d: %v", f.num, protowire.ParseError(n))
		}
		*dst, b = append(*dst, int64(v)), b[n:]
	}
	return nil
}

// float32s appends the values of a repeated float field, packed or not.
func (f field) float32s(dst *[]float32) error {
	if f.typ == protowire.Fixed32Type {
		*dst = append(*dst, math.Float32frombits(uint32(f.val)))
		return nil
	}
	if err := f.is(protowire.BytesType); err != nil {
		return err
	}
	if len(f.body)%4 != 0 {
		return malformed("field %d: %d bytes are not whole floats", f.num, len(f.body))
	}
	for b := f.body; len(b) > 0; b = b[4:] {
		v, _ := protowire.ConsumeFixed32(b)
		*dst = append(*dst, math.Float32frombits(v))
	}
	return nil
}
