// Package externaldata lists the files that an ONNX model keeps tensors in, without reading the model: for who carries models and does not know them.
package externaldata

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// kind is a message of onnx.proto that tensors can be inside of.
type kind int

const (
	modelProto kind = iota + 1
	trainingInfo
	function
	graphProto
	node
	attribute
	sparseTensor
	tensorProto
	stringEntry
)

// within gives the fields of each message that lead to the external_data entries of tensors.
var within = map[kind]map[protowire.Number]kind{
	modelProto:   {7: graphProto, 20: trainingInfo, 25: function},
	trainingInfo: {1: graphProto, 2: graphProto},
	function:     {7: node, 11: attribute},
	graphProto:   {1: node, 5: tensorProto, 15: sparseTensor},
	node:         {5: attribute},
	attribute:    {5: tensorProto, 6: graphProto, 10: tensorProto, 11: graphProto, 22: sparseTensor, 23: sparseTensor},
	sparseTensor: {1: tensorProto, 2: tensorProto},
	tensorProto:  {13: stringEntry},
}

// Errors of Locations.
var (
	ErrMalformed = errors.New("malformed ONNX")
	ErrLimit     = errors.New("over a limit")
)

const (
	maxMessages  = 1 << 20 // of a model
	maxDepth     = 64      // messages inside of messages; a graph, node, attribute and tensor are four
	maxLocations = 1000    // files of one model
	maxText      = 4 << 10 // bytes of a location
)

// Locations lists the files that a model of the given size keeps tensors in ("External Tensor Data" of the ONNX IR), sorted, as the model names
// them: relative to its folder, unchecked. It reads the model once, front to back, and keeps nothing of it, so that a model of any size takes no
// memory. Errors are ErrMalformed, ErrLimit, or of r; a file without an error need not be a model.
func Locations(r io.Reader, size int64) ([]string, error) {
	w := locator{r: bufio.NewReaderSize(r, 64<<10)}
	if err := w.message(modelProto, size, 0); err != nil {
		return nil, err
	}
	slices.Sort(w.found)
	return slices.Compact(w.found), nil
}

type locator struct {
	r        *bufio.Reader
	pos      int64
	messages int
	found    []string
}

// message walks over the fields of a message that ends at a position.
func (w *locator) message(k kind, end int64, depth int) error {
	if w.messages++; w.messages > maxMessages || depth > maxDepth {
		return fmt.Errorf("%w: more than %d messages, or nested too deeply", ErrLimit, maxMessages)
	}
	var key, value string
	for w.pos < end {
		num, length, err := w.field(end)
		if err != nil {
			return err
		}
		inside, leads := within[k][num]
		switch {
		case length < 0: // a number
		case leads:
			err = w.message(inside, w.pos+length, depth+1)
		case k == stringEntry && num == 1:
			key, err = w.text(length)
		case k == stringEntry && num == 2:
			value, err = w.text(length)
		default:
			err = w.skip(length)
		}
		if err != nil {
			return err
		}
	}
	if k != stringEntry || key != "location" {
		return nil
	}
	if w.found = append(w.found, value); len(w.found) >= 2*maxLocations { // most tensors name the same few
		slices.Sort(w.found)
		if w.found = slices.Compact(w.found); len(w.found) > maxLocations {
			return fmt.Errorf("%w: external data in more than %d files", ErrLimit, maxLocations)
		}
	}
	return nil
}

// field reads the tag of a field and the length of what follows; it is -1 for a number, which is passed over.
func (w *locator) field(end int64) (num protowire.Number, length int64, err error) {
	tag, err := w.varint()
	if err != nil {
		return 0, 0, err
	}
	num, typ := protowire.DecodeTag(tag)
	length = -1
	switch typ {
	case protowire.VarintType:
		_, err = w.varint()
	case protowire.Fixed32Type:
		err = w.skip(4)
	case protowire.Fixed64Type:
		err = w.skip(8)
	case protowire.BytesType:
		var n uint64
		if n, err = w.varint(); err == nil && n > uint64(end) {
			return 0, 0, malformed("field %d at %d is longer than the file", num, w.pos)
		}
		length = int64(n)
	default:
		return 0, 0, malformed("field %d at %d has wire type %d", num, w.pos, typ)
	}
	if err == nil && (!num.IsValid() || w.pos+max(length, 0) > end) {
		err = malformed("field %d ends behind its message, at %d", num, w.pos)
	}
	return num, length, err
}

func (w *locator) varint() (v uint64, err error) {
	for shift := 0; shift < 64; shift += 7 {
		b, err := w.r.ReadByte()
		if err != nil {
			return 0, ended(err, w.pos)
		}
		w.pos++
		if v |= uint64(b&0x7f) << shift; b < 0x80 {
			return v, nil
		}
	}
	return 0, malformed("a number of more than 64 bits at %d", w.pos)
}

func (w *locator) text(length int64) (string, error) {
	if length > maxText {
		return "", fmt.Errorf("%w: a location of %d bytes", ErrLimit, length)
	}
	b := make([]byte, length)
	n, err := io.ReadFull(w.r, b)
	w.pos += int64(n)
	return string(b), ended(err, w.pos)
}

func (w *locator) skip(length int64) error {
	for length > 0 {
		n, err := w.r.Discard(int(min(length, 1<<30)))
		w.pos, length = w.pos+int64(n), length-int64(n)
		if err != nil {
			return ended(err, w.pos)
		}
	}
	return nil
}

func ended(err error, pos int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("it ends at %d, inside of a message", pos)
	}
	return err
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
