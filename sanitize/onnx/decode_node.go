package onnx

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

func (d *decoder) node(n *Node, f field) error {
	if err := errors.Join(d.count(), f.is(protowire.BytesType)); err != nil {
		return err
	}
	err := fields(f.body, func(f field) error {
		switch f.num {
		case 1:
			return appendString(&n.Inputs, f)
		case 2:
			return appendString(&n.Outputs, f)
		case 3:
			return f.string(&n.Name)
		case 4:
			return f.string(&n.Op)
		case 5:
			a := &Attr{}
			n.Attrs = append(n.Attrs, a)
			return d.attr(a, f)
		case 7:
			return f.string(&n.Domain)
		case 8:
			return f.string(&n.Overload)
		}
		return nil
	})
	n.Domain = standardDomain(n.Domain)
	if err != nil {
		return &Error{Node: n.Label(), Err: err}
	}
	names := make(map[string]bool, len(n.Attrs))
	for _, a := range n.Attrs {
		if names[a.Name] {
			return &Error{Node: n.Label(), What: "attribute " + a.Name, Err: malformed("it is given twice")}
		}
		names[a.Name] = true
	}
	return nil
}

func appendString(dst *[]string, f field) error {
	*dst = append(*dst, string(f.body))
	return f.is(protowire.BytesType)
}

func (d *decoder) attr(a *Attr, f field) error {
	if err := errors.Join(d.count(), f.is(protowire.BytesType)); err != nil {
		return err
	}
	var tensor, graph bool
	var guess AttrType // from the field in use: early exporters wrote no type
	err := fields(f.body, func(f field) (err error) {
		switch f.num {
		case 1:
			return f.string(&a.Name)
		case 2:
			guess = AttrFloat
			return f.float32(&a.F)
		case 3:
			guess = AttrInt
			return f.int64(&a.I)
		case 4:
			guess = AttrString
			a.S = f.body
			return f.is(protowire.BytesType)
		case 5:
			guess = AttrTensor
			if err := f.message(&tensor); err != nil {
				return err
			}
			a.Tensor, err = d.tensor(f)
			return err
		case 6:
			guess = AttrGraph
			if err := f.message(&graph); err != nil {
				return err
			}
			a.Graph = &Graph{}
			return d.graph(a.Graph, f.body)
		case 7:
			guess = AttrFloats
			return f.float32s(&a.Floats)
		case 8:
			guess = AttrInts
			return f.int64s(&a.Ints)
		case 9:
			guess = AttrStrings
			a.Strings = append(a.Strings, f.body)
			return f.is(protowire.BytesType)
		case 20:
			a.Type = AttrType(f.val)
			return f.is(protowire.VarintType)
		case 10, 11, 14, 15, 22, 23:
			return fmt.Errorf("%w: attributes that hold types, sparse tensors or lists of tensors or graphs", ErrUnsupported)
		case 21:
			if !d.inside {
				return malformed("a reference to an attribute of a function outside of a function")
			}
			return f.string(&a.Ref)
		}
		return nil
	})
	if a.Type == 0 {
		a.Type = guess
	}
	switch {
	case err != nil:
	case a.Ref != "": // the call has the value
	case a.Type == AttrTensor && a.Tensor == nil, a.Type == AttrGraph && a.Graph == nil:
		err = malformed("it holds nothing")
	case a.Type < AttrFloat || a.Type > AttrStrings:
		err = fmt.Errorf("%w: attribute type %d", ErrUnsupported, a.Type)
	}
	if err != nil {
		return &Error{What: "attribute " + a.Name, Err: err}
	}
	return nil
}

func (d *decoder) value(into *[]*Value, f field) error {
	if err := errors.Join(d.count(), f.is(protowire.BytesType)); err != nil {
		return err
	}
	v := &Value{}
	*into = append(*into, v)
	var typ, kind, shape bool
	tensor := func(f field) error {
		switch f.num {
		case 1:
			v.Type = DataType(f.val)
			return f.is(protowire.VarintType)
		case 2:
			if err := f.message(&shape); err != nil {
				return err
			}
			v.Shape = []Dim{}
			return fields(f.body, func(f field) error { return d.dim(v, f) })
		}
		return nil
	}
	err := fields(f.body, func(f field) error {
		switch f.num {
		case 1:
			return f.string(&v.Name)
		case 2:
			if err := f.message(&typ); err != nil {
				return err
			}
			return fields(f.body, func(f field) error {
				switch f.num {
				case 1:
					if err := f.message(&kind); err != nil {
						return err
					}
					return fields(f.body, tensor)
				case 4, 5, 7, 8, 9:
					v.NotTensor = true
					return f.message(&kind)
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return &Error{What: "value " + v.Name, Err: err}
	}
	return nil
}

func (d *decoder) dim(v *Value, f field) error {
	if f.num != 1 {
		return nil
	}
	if len(v.Shape) == maxRank {
		return fmt.Errorf("%w: more than %d dimensions", ErrLimit, maxRank)
	}
	dim := Dim{Size: -1}
	err := fields(f.body, func(f field) error {
		switch f.num {
		case 1:
			dim.Param = ""
			return f.int64(&dim.Size)
		case 2:
			dim.Size = -1
			return f.string(&dim.Param)
		}
		return nil
	})
	if dim.Size < 0 {
		dim.Size = -1
	}
	v.Shape = append(v.Shape, dim)
	return errors.Join(err, f.is(protowire.BytesType))
}
