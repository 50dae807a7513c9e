package onnx

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Rewrite returns the bytes that the model was parsed from with only the data of the named weights replaced. A weight is an initializer
// of the main graph, or the output of a Constant node that holds a tensor or floats. Everything else survives as it was: order, unknown fields,
// doc strings, the field that holds the data. With no weights, or unchanged ones, the bytes are identical.
//
// A replacement has the shape of the original; floats are rounded to the original's element type. Weights kept in external files
// need RewriteFile.
func (m *Model) Rewrite(weights map[string]*Tensor) ([]byte, error) {
	r := &rewriter{weights: weights}
	return r.model(m)
}

// patch is a change to an external data file.
type patch struct {
	offset int64
	data   []byte
}

type rewriter struct {
	weights map[string]*Tensor
	used    map[string]bool
	patches map[string][]patch // by location; nil: external data cannot be replaced
}

func (r *rewriter) model(m *Model) ([]byte, error) {
	if m.raw == nil {
		return nil, fmt.Errorf("%w: only a model that was read can be rewritten", ErrUnsupported)
	}
	r.used = map[string]bool{}
	if len(r.weights) == 0 {
		return slices.Clone(m.raw), nil
	}
	out, err := splice(m.raw, func(f field) ([]byte, error) {
		if f.num == 7 {
			return splice(f.body, r.graphField)
		}
		return f.body, nil
	})
	if err != nil {
		return nil, err
	}
	for name := range r.weights {
		if !r.used[name] {
			return nil, &Error{What: "tensor " + strconv.Quote(name), Err: fmt.Errorf("%w: it has no initializer or constant of that name", ErrMismatch)}
		}
	}
	return slices.Clone(out), nil
}

// splice copies msg, with the bodies of length-delimited fields replaced by what change returns for them. Fields whose body stays as
// it is keep all their bytes.
func splice(msg []byte, change func(field) ([]byte, error)) ([]byte, error) {
	var out []byte // nil: nothing has changed so far
	done := 0
	err := fields(msg, func(f field) error {
		start := done
		done += len(f.whole)
		if f.typ != protowire.BytesType {
			if out != nil {
				out = append(out, f.whole...)
			}
			return nil
		}
		body, err := change(f)
		if err != nil {
			return err
		}
		if bytes.Equal(body, f.body) {
			if out != nil {
				out = append(out, f.whole...)
			}
			return nil
		}
		if out == nil {
			out = append(make([]byte, 0, len(msg)+len(body)-len(f.body)+8), msg[:start]...)
		}
		out = append(out, f.with(body)...)
		return nil
	})
	if out == nil {
		out = msg
	}
	return out, err
}

// with returns the field's bytes with another body.
func (f field) with(body []byte) []byte {
	head := f.whole[:len(f.whole)-len(f.body)]
	if len(body) != len(f.body) {
		head = protowire.AppendVarint(protowire.AppendTag(nil, f.num, f.typ), uint64(len(body)))
	}
	return slices.Concat(head, body)
}

func (r *rewriter) graphField(f field) ([]byte, error) {
	switch f.num {
	case 1:
		return r.constant(f)
	case 5:
		return r.tensor(f, "")
	}
	return f.body, nil
}

// constant rewrites the tensor, or the floats, of a Constant node whose output is among the weights.
func (r *rewriter) constant(f field) ([]byte, error) {
	n := &Node{}
	if err := (&decoder{}).node(n, f); err != nil {
		return nil, err
	}
	if r.weights[n.Output(0)] == nil || !n.HoldsFloats() {
		return f.body, nil
	}
	return splice(f.body, func(f field) ([]byte, error) {
		if f.num != 5 {
			return f.body, nil
		}
		a := &Attr{}
		if err := (&decoder{}).attr(a, f); err != nil {
			return nil, err
		}
		switch a.Name {
		case "value_float", "value_floats":
			body, err := r.floats(f, constantValue(n))
			if err != nil {
				return nil, &Error{What: "tensor " + strconv.Quote(n.Outputs[0]), Err: err}
			}
			return body, r.use(n.Outputs[0])
		case "value":
			return splice(f.body, func(f field) ([]byte, error) {
				if f.num != 5 {
					return f.body, nil
				}
				return r.tensor(f, n.Outputs[0])
			})
		}
		return f.body, nil
	})
}

// HoldsFloats reports whether a node is a Constant whose value Rewrite can replace.
func (n *Node) HoldsFloats() bool {
	return n.Op == "Constant" && n.Domain == "" && len(n.Outputs) == 1 &&
		(n.typed("value", AttrTensor) != nil || n.typed("value_float", AttrFloat) != nil || n.typed("value_floats", AttrFloats) != nil)
}

// floats rewrites an attribute that holds a number or a list of them, in as many pieces as it was.
func (r *rewriter) floats(f field, old *Tensor) ([]byte, error) {
	want, err := fitting(r.weights[old.Name], old)
	if err != nil || bytes.Equal(old.Raw, want.Raw) {
		return f.body, err
	}
	raw, num := want.Raw, protowire.Number(7)
	if len(old.Shape) == 0 {
		num = 2
	}
	var out []byte
	err = fields(f.body, func(f field) error {
		if f.num != num {
			out = append(out, f.whole...)
			return nil
		}
		size := 4
		if f.typ == protowire.BytesType {
			size = len(f.body)
		}
		if len(raw) < size {
			return malformed("a number is given twice")
		}
		if f.typ == protowire.BytesType {
			out = append(out, f.with(raw[:size])...)
		} else {
			out = append(protowire.AppendTag(out, f.num, f.typ), raw[:size]...)
		}
		raw = raw[size:]
		return nil
	})
	return out, err
}

// tensor rewrites a TensorProto; name "" takes the tensor's own.
func (r *rewriter) tensor(f field, name string) ([]byte, error) {
	d := &decoder{}
	old, e, err := d.tensorFields(f.body)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = old.Name
	}
	want := r.weights[name]
	if want == nil {
		return f.body, nil
	}
	body, err := r.replace(f.body, old, e, want)
	if err != nil {
		return nil, &Error{What: "tensor " + strconv.Quote(name), Err: err}
	}
	return body, r.use(name)
}

// use notes that a weight has found its place.
func (r *rewriter) use(name string) error {
	if r.used[name] {
		return &Error{What: "tensor " + strconv.Quote(name), Err: malformed("the name is used twice")}
	}
	r.used[name] = true
	return nil
}

// fitting is a weight with the element type of the tensor that it replaces, whose shape it must have.
func fitting(want, old *Tensor) (*Tensor, error) {
	if !slices.Equal(old.Shape, want.Shape) {
		return nil, fmt.Errorf("%w: shape %v where the model has %v", ErrMismatch, want.Shape, old.Shape)
	}
	n, _ := old.count()
	if old.Type == String || int64(len(want.Raw)) != n*want.Type.Size() {
		return nil, fmt.Errorf("%w: %d bytes of data for shape %v of type %v", ErrMismatch, len(want.Raw), want.Shape, want.Type)
	}
	return want.Convert(old.Type)
}

func (r *rewriter) replace(msg []byte, old *Tensor, e elements, want *Tensor) ([]byte, error) {
	if err := old.fill(e); err != nil {
		return nil, err
	}
	want, err := fitting(want, old)
	if err != nil {
		return nil, err
	}
	if x := old.External; x != nil {
		if r.patches == nil {
			return nil, fmt.Errorf("%w: the data are in file %q; rewrite the model as a file", ErrExternal, x.Location)
		}
		r.patches[x.Location] = append(r.patches[x.Location], patch{x.Offset, want.Raw})
		return msg, nil
	}
	if bytes.Equal(old.Raw, want.Raw) {
		return msg, nil
	}
	return refill(msg, e.field, want)
}

// refill rewrites the pieces of a tensor's data field with the elements of t, each piece with as many elements as it had.
func refill(msg []byte, num protowire.Number, t *Tensor) ([]byte, error) {
	out := make([]byte, 0, len(msg))
	size := t.Type.Size()
	raw := t.Raw
	err := fields(msg, func(f field) error {
		if f.num != num {
			out = append(out, f.whole...)
			return nil
		}
		n, err := f.elements(size)
		if err != nil {
			return err
		}
		var body []byte
		if num == rawData || num == floatData || num == doubleData {
			body = raw[:n*size]
		} else {
			for i := range n {
				body = protowire.AppendVarint(body, t.varint(raw[i*size:]))
			}
		}
		raw = raw[n*size:]
		if f.typ == protowire.BytesType {
			out = append(out, f.with(body)...)
		} else {
			out = append(protowire.AppendTag(out, f.num, f.typ), body...)
		}
		return nil
	})
	return out, err
}

// varint is how int32_data, int64_data and uint64_data hold an element: signed ones sign-extended, the others (float16 bit patterns
// among them) as they are.
func (t *Tensor) varint(raw []byte) uint64 {
	e := Tensor{Type: t.Type, Raw: raw[:t.Type.Size()]}
	switch t.Type {
	case Float16, BFloat16:
		e.Type = Uint16
	case Bool:
		e.Type = Uint8
	}
	return uint64(e.Ints()[0])
}
