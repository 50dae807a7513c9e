package onnx

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Parse reads a ModelProto. The model refers to data and Rewrite copies from it, so data must not be changed afterwards. Tensors kept
// in external files have External set and no Raw; ReadFile fills them.
//
// Files come from strangers: every length is checked against the bytes that are there before anything is allocated for it.
func Parse(data []byte) (*Model, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%w: %d bytes, a protobuf message has at most %d", ErrLimit, len(data), maxFile)
	}
	m := &Model{Opsets: map[string]int64{}, Metadata: map[string]string{}, raw: data}
	d := &decoder{}
	if err := d.model(m, data); err != nil {
		if m.Graph == nil && errors.Is(err, ErrMalformed) {
			return nil, fmt.Errorf("%w: %w", ErrNotModel, err)
		}
		return nil, err
	}
	if m.Graph == nil {
		return nil, fmt.Errorf("%w: it has no graph", ErrNotModel)
	}
	return m, nil
}

// decoder counts what it has made, so that a small file cannot become a large heap.
type decoder struct {
	messages int
	depth    int
	inside   bool // of a function, where attributes may refer to those of the call
}

func (d *decoder) count() error {
	if d.messages++; d.messages > maxMessages {
		return fmt.Errorf("%w: more than %d nodes, attributes, tensors and values", ErrLimit, maxMessages)
	}
	return nil
}

func (d *decoder) model(m *Model, msg []byte) error {
	var graph bool
	return fields(msg, func(f field) error {
		switch f.num {
		case 1:
			return f.int64(&m.IRVersion)
		case 2:
			return f.string(&m.ProducerName)
		case 3:
			return f.string(&m.ProducerVersion)
		case 4:
			return f.string(&m.Domain)
		case 5:
			return f.int64(&m.ModelVersion)
		case 6:
			return f.string(&m.Doc)
		case 7:
			if err := f.message(&graph); err != nil {
				return err
			}
			m.Graph = &Graph{}
			return d.graph(m.Graph, f.body)
		case 8:
			return d.opset(m.Opsets, f)
		case 14:
			return d.entry(m.Metadata, f)
		case 25:
			fn := &Function{Opsets: map[string]int64{}}
			m.Functions = append(m.Functions, fn)
			return d.function(fn, f)
		}
		return nil
	})
}

func (d *decoder) opset(opsets map[string]int64, f field) error {
	if err := f.is(protowire.BytesType); err != nil {
		return err
	}
	var domain string
	var version int64
	err := fields(f.body, func(f field) error {
		switch f.num {
		case 1:
			return f.string(&domain)
		case 2:
			return f.int64(&version)
		}
		return nil
	})
	domain = standardDomain(domain)
	if old, twice := opsets[domain]; twice && old != version {
		return malformed("operator set %q is imported in versions %d and %d", domain, old, version)
	}
	opsets[domain] = version
	return err
}

// standardDomain gives the standard's own domain its short name.
func standardDomain(domain string) string {
	if domain == "ai.onnx" {
		return ""
	}
	return domain
}

func (d *decoder) entry(into map[string]string, f field) error {
	if err := errors.Join(d.count(), f.is(protowire.BytesType)); err != nil {
		return err
	}
	var key, value string
	err := fields(f.body, func(f field) error {
		switch f.num {
		case 1:
			return f.string(&key)
		case 2:
			return f.string(&value)
		}
		return nil
	})
	into[key] = value
	return err
}

func (d *decoder) graph(g *Graph, msg []byte) error {
	if d.depth++; d.depth > maxDepth {
		return fmt.Errorf("%w: graphs are nested more than %d deep", ErrLimit, maxDepth)
	}
	defer func() { d.depth-- }()
	names := map[string]bool{}
	return fields(msg, func(f field) error {
		switch f.num {
		case 1:
			n := &Node{}
			g.Nodes = append(g.Nodes, n)
			return d.node(n, f)
		case 2:
			return f.string(&g.Name)
		case 5:
			t, err := d.tensor(f)
			if err != nil {
				return err
			}
			if names[t.Name] {
				return &Error{What: "initializer " + t.Name, Err: malformed("the name is used twice")}
			}
			names[t.Name] = true
			g.Initializers = append(g.Initializers, t)
		case 11:
			return d.value(&g.Inputs, f)
		case 12:
			return d.value(&g.Outputs, f)
		case 13:
			return d.value(&g.Values, f)
		case 15:
			return fmt.Errorf("%w: sparse initializers", ErrUnsupported)
		}
		return nil
	})
}
