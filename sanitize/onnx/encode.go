package onnx

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Marshal writes the model as a ModelProto: fields in ascending order, elements in raw_data, maps sorted by key, so equal models have
// equal bytes. What the types of this package do not hold (doc strings of nodes) is not written; use Rewrite
// for files of others.
func (m *Model) Marshal() ([]byte, error) {
	if m.err != nil {
		return nil, m.err
	}
	if m.Graph == nil {
		return nil, fmt.Errorf("%w: it has no graph", ErrNotModel)
	}
	e := &encoder{}
	e.int(1, m.IRVersion)
	e.string(2, m.ProducerName)
	e.string(3, m.ProducerVersion)
	e.string(4, m.Domain)
	e.int(5, m.ModelVersion)
	e.string(6, m.Doc)
	e.message(7, func() { e.graph(m.Graph) })
	e.opsets(8, m.Opsets)
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		e.entry(14, key, m.Metadata[key])
	}
	for _, f := range m.Functions {
		e.message(25, func() { e.function(f) })
	}
	if e.err == nil && len(e.buf) > maxFile {
		e.err = fmt.Errorf("%w: %d bytes, a protobuf message has at most %d", ErrLimit, len(e.buf), maxFile)
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.buf, nil
}

// Equal tells whether two models hold the same in all fields that this package knows.
func Equal(a, b *Model) bool {
	x, errX := a.Marshal()
	y, errY := b.Marshal()
	return errX == nil && errY == nil && slices.Equal(x, y)
}

// encoder appends fields to buf. Empty strings and zero numbers are left out.
type encoder struct {
	buf []byte
	err error
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *encoder) int(num protowire.Number, v int64) {
	if v != 0 {
		e.varint(num, v)
	}
}

func (e *encoder) varint(num protowire.Number, v int64) {
	e.buf = protowire.AppendVarint(protowire.AppendTag(e.buf, num, protowire.VarintType), uint64(v))
}

func (e *encoder) string(num protowire.Number, s string) {
	if s != "" {
		e.item(num, s)
	}
}

func (e *encoder) item(num protowire.Number, s string) {
	e.buf = protowire.AppendString(protowire.AppendTag(e.buf, num, protowire.BytesType), s)
}

func (e *encoder) bytes(num protowire.Number, b []byte) {
	e.buf = protowire.AppendBytes(protowire.AppendTag(e.buf, num, protowire.BytesType), b)
}

// message appends an embedded message: the body first, then its length is slid in before it.
func (e *encoder) message(num protowire.Number, body func()) {
	e.buf = protowire.AppendTag(e.buf, num, protowire.BytesType)
	start := len(e.buf)
	body()
	size := len(e.buf) - start
	e.buf = slices.Insert(e.buf, start, protowire.AppendVarint(nil, uint64(size))...)
}

func (e *encoder) entry(num protowire.Number, key, value string) {
	e.message(num, func() {
		e.string(1, key)
		e.string(2, value)
	})
}

func (e *encoder) graph(g *Graph) {
	for _, n := range g.Nodes {
		e.message(1, func() { e.node(n) })
	}
	e.string(2, g.Name)
	for _, t := range g.Initializers {
		e.message(5, func() { e.tensor(t) })
	}
	for _, v := range g.Inputs {
		e.message(11, func() { e.value(v) })
	}
	for _, v := range g.Outputs {
		e.message(12, func() { e.value(v) })
	}
	for _, v := range g.Values {
		e.message(13, func() { e.value(v) })
	}
}

func (e *encoder) opsets(num protowire.Number, opsets map[string]int64) {
	for _, domain := range slices.Sorted(maps.Keys(opsets)) {
		e.message(num, func() {
			e.string(1, domain)
			e.int(2, opsets[domain])
		})
	}
}

func (e *encoder) function(f *Function) {
	e.string(1, f.Name)
	for _, s := range f.Inputs {
		e.item(4, s)
	}
	for _, s := range f.Outputs {
		e.item(5, s)
	}
	for _, s := range f.Attrs {
		e.item(6, s)
	}
	for _, n := range f.Nodes {
		e.message(7, func() { e.node(n) })
	}
	e.opsets(9, f.Opsets)
	e.string(10, f.Domain)
	for _, a := range f.Defaults {
		e.message(11, func() { e.attr(a) })
	}
	e.string(13, f.Overload)
}

func (e *encoder) node(n *Node) {
	for _, s := range n.Inputs {
		e.item(1, s) // an empty name stands for an omitted input
	}
	for _, s := range n.Outputs {
		e.item(2, s)
	}
	e.string(3, n.Name)
	e.string(4, n.Op)
	for _, a := range n.Attrs {
		e.message(5, func() { e.attr(a) })
	}
	e.string(7, n.Domain)
	e.string(8, n.Overload)
}

func (e *encoder) attr(a *Attr) {
	e.string(1, a.Name)
	if a.Ref != "" {
		e.varint(20, int64(a.Type))
		e.string(21, a.Ref)
		return
	}
	switch a.Type {
	case AttrFloat:
		e.buf = protowire.AppendFixed32(protowire.AppendTag(e.buf, 2, protowire.Fixed32Type), math.Float32bits(a.F))
	case AttrInt:
		e.varint(3, a.I)
	case AttrString:
		e.bytes(4, a.S)
	case AttrTensor:
		e.message(5, func() { e.tensor(a.Tensor) })
	case AttrGraph:
		e.message(6, func() { e.graph(a.Graph) })
	case AttrFloats:
		for _, v := range a.Floats {
			e.buf = protowire.AppendFixed32(protowire.AppendTag(e.buf, 7, protowire.Fixed32Type), math.Float32bits(v))
		}
	case AttrInts:
		for _, v := range a.Ints {
			e.varint(8, v)
		}
	case AttrStrings:
		for _, s := range a.Strings {
			e.bytes(9, s)
		}
	default:
		e.fail(&Error{What: "attribute " + a.Name, Err: fmt.Errorf("%w: attribute type %d", ErrUnsupported, a.Type)})
	}
	e.varint(20, int64(a.Type))
}

func (e *encoder) tensor(t *Tensor) {
	for _, d := range t.Shape {
		e.varint(1, d)
	}
	e.varint(2, int64(t.Type))
	for _, s := range t.Strings {
		e.bytes(stringData, s)
	}
	e.string(8, t.Name)
	n, err := t.count()
	outside := t.External != nil && t.Raw == nil
	if err == nil && t.Type != String && !outside && int64(len(t.Raw)) != n*t.Type.Size() {
		err = malformed("shape %v of type %v takes %d bytes, it has %d", t.Shape, t.Type, n*t.Type.Size(), len(t.Raw))
	}
	if err != nil {
		e.fail(&Error{What: "tensor " + strconv.Quote(t.Name), Err: err})
		return
	}
	if !outside {
		if t.Type != String {
			e.bytes(rawData, t.Raw)
		}
		return
	}
	e.entry(13, "location", t.External.Location)
	e.entry(13, "offset", strconv.FormatInt(t.External.Offset, 10))
	e.entry(13, "length", strconv.FormatInt(n*t.Type.Size(), 10))
	e.varint(14, 1)
}

func (e *encoder) value(v *Value) {
	e.string(1, v.Name)
	if v.NotTensor {
		e.fail(&Error{What: "value " + strconv.Quote(v.Name), Err: fmt.Errorf("%w: values that are not tensors", ErrUnsupported)})
	}
	if v.Type == Undefined && v.Shape == nil {
		return
	}
	e.message(2, func() {
		e.message(1, func() {
			e.int(1, int64(v.Type))
			if v.Shape == nil {
				return
			}
			e.message(2, func() {
				for _, d := range v.Shape {
					e.message(1, func() {
						if d.Size >= 0 {
							e.varint(1, d.Size)
						} else {
							e.string(2, d.Param)
						}
					})
				}
			})
		})
	})
}
