package ort

import (
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// Small models, written field by field: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto

type message []byte

func (m message) bytes(num protowire.Number, b []byte) message {
	return protowire.AppendBytes(protowire.AppendTag(m, num, protowire.BytesType), b)
}

func (m message) text(num protowire.Number, s string) message { return m.bytes(num, []byte(s)) }

func (m message) number(num protowire.Number, v int64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), uint64(v))
}

// value is a ValueInfoProto. A nil shape is an unknown rank, a negative dimension an unknown size.
func value(name string, typ int32, shape []int64) message {
	tensor := message{}.number(1, int64(typ))
	if shape != nil {
		dims := message{}
		for _, d := range shape {
			dim := message{}
			if d >= 0 {
				dim = dim.number(1, d)
			}
			dims = dims.bytes(1, dim)
		}
		tensor = tensor.bytes(2, dims)
	}
	return message{}.text(1, name).bytes(2, message{}.bytes(1, tensor))
}

func node(op string, inputs, outputs []string, attrs ...message) message {
	m := message{}
	for _, s := range inputs {
		m = m.text(1, s)
	}
	for _, s := range outputs {
		m = m.text(2, s)
	}
	m = m.text(4, op)
	for _, a := range attrs {
		m = m.bytes(5, a)
	}
	return m
}

func graphAttr(name string, g message) message {
	return message{}.text(1, name).bytes(6, g).number(20, 5)
}

func intAttr(name string, v int64) message { return message{}.text(1, name).number(3, v).number(20, 2) }

func floatTensor(name string, shape []int64, data ...float32) message {
	m := message{}
	for _, d := range shape {
		m = m.number(1, d)
	}
	m = m.number(2, 1)
	var raw []byte
	for _, v := range data {
		raw = protowire.AppendFixed32(raw, math.Float32bits(v))
	}
	return m.bytes(9, raw).text(8, name)
}

func scalarTensor(name string, typ int32, raw []byte) message {
	return message{}.number(2, int64(typ)).bytes(9, raw).text(8, name)
}

type graphParts struct {
	nodes, in, out, init []message
}

func (g graphParts) graph() message {
	m := message{}
	for _, n := range g.nodes {
		m = m.bytes(1, n)
	}
	m = m.text(2, "g")
	for _, t := range g.init {
		m = m.bytes(5, t)
	}
	for _, v := range g.in {
		m = m.bytes(11, v)
	}
	for _, v := range g.out {
		m = m.bytes(12, v)
	}
	return m
}

func (g graphParts) model() []byte {
	return message{}.number(1, 8).bytes(7, g.graph()).bytes(8, message{}.number(2, 17))
}

// unary is Y = op(X).
func unary(op string, typ int32, in, out []int64, attrs ...message) []byte {
	return graphParts{
		nodes: []message{node(op, []string{"X"}, []string{"Y"}, attrs...)},
		in:    []message{value("X", typ, in)},
		out:   []message{value("Y", typ, out)},
	}.model()
}

// endless is Y = a Loop that squares-roots X forever (2^62 times).
func endless() []byte {
	body := graphParts{
		nodes: []message{
			node("Identity", []string{"cond"}, []string{"again"}),
			node("Sqrt", []string{"x"}, []string{"y"}),
		},
		in:  []message{value("i", 7, []int64{}), value("cond", 9, []int64{}), value("x", 1, []int64{64})},
		out: []message{value("again", 9, []int64{}), value("y", 1, []int64{64})},
	}.graph()
	return graphParts{
		nodes: []message{node("Loop", []string{"trips", "go", "X"}, []string{"Y"}, graphAttr("body", body))},
		in:    []message{value("X", 1, []int64{64})},
		out:   []message{value("Y", 1, []int64{64})},
		init: []message{
			scalarTensor("trips", 7, protowire.AppendFixed64(nil, 1<<62)),
			scalarTensor("go", 9, []byte{1}),
		},
	}.model()
}

// open makes a session on the CPU. A machine without the library fails the test: nothing here can be tested without.
func open(t testing.TB, model []byte, opt Options) *Session {
	t.Helper()
	if opt.Provider == "" {
		opt.Provider = CPU
	}
	s, err := NewSession(model, opt)
	if err != nil {
		t.Fatalf("%v\n(run `make runtime` first)", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
