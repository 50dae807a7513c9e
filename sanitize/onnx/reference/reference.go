// Package reference runs ONNX graphs in float64 by the letter of the standard (https://onnx.ai/onnx/operators, opset 17): naive loops
// that are easy to hold against the definitions. Tests use it as the truth: gradient rules are checked against its central finite
// differences, which ONNX Runtime's float32 kernels are too coarse for. It is slow and trusts its graphs.
package reference

import (
	"errors"
	"fmt"
	"maps"

	"grindstone/sanitize/onnx"
)

// ErrGraph means that a graph cannot be run: an operator this package does not have, or inputs that do not fit.
var ErrGraph = errors.New("reference interpreter")

// Tensor is a dense row-major tensor. Floating-point types of every width are in F; integers and bools (0 or 1) are in I. The unused
// one is nil. Shape [] is a scalar.
type Tensor struct {
	Shape []int64
	F     []float64
	I     []int64
}

// Floats makes a float tensor, Ints one of integers; neither copies the elements.
func Floats(shape []int64, v []float64) *Tensor { return &Tensor{Shape: shape, F: v} }

// Ints makes an integer or bool tensor.
func Ints(shape []int64, v []int64) *Tensor { return &Tensor{Shape: shape, I: v} }

// Scalar makes a float scalar.
func Scalar(v float64) *Tensor { return Floats([]int64{}, []float64{v}) }

// From converts a model's tensor.
func From(t *onnx.Tensor) *Tensor {
	if t.Type.IsFloat() {
		return Floats(t.Shape, t.Doubles())
	}
	return Ints(t.Shape, t.Ints())
}

// Len is the number of elements.
func (t *Tensor) Len() int { return int(size(t.Shape)) }

// Clone copies the tensor with its elements.
func (t *Tensor) Clone() *Tensor {
	c := newLike(t, t.Shape)
	copy(c.F, t.F)
	copy(c.I, t.I)
	return c
}

// Run computes the outputs of a graph. Inputs are given by name; an initializer stands for an input that is not given.
func Run(g *onnx.Graph, inputs map[string]*Tensor) (map[string]*Tensor, error) {
	values, err := runAll(g, inputs, nil)
	if err != nil {
		return nil, err
	}
	out := map[string]*Tensor{}
	for _, v := range g.Outputs {
		out[v.Name] = values.find(v.Name)
		if out[v.Name] == nil {
			return nil, fmt.Errorf("%w: output %q is never computed", ErrGraph, v.Name)
		}
	}
	return out, nil
}

// RunAll is Run with all values of the graph, those between the nodes too.
func RunAll(g *onnx.Graph, inputs map[string]*Tensor) (map[string]*Tensor, error) {
	values, err := runAll(g, inputs, nil)
	if err != nil {
		return nil, err
	}
	return values.here, nil
}

// scope holds the values of a graph and, for a subgraph, those of the graph around it.
type scope struct {
	here  map[string]*Tensor
	outer *scope
}

func (s *scope) find(name string) *Tensor {
	for ; s != nil; s = s.outer {
		if t := s.here[name]; t != nil {
			return t
		}
	}
	return nil
}

func runAll(g *onnx.Graph, inputs map[string]*Tensor, outer *scope) (*scope, error) {
	s := &scope{here: map[string]*Tensor{}, outer: outer}
	for _, t := range g.Initializers {
		s.here[t.Name] = From(t)
	}
	maps.Copy(s.here, inputs)
	for _, v := range g.Inputs {
		if s.here[v.Name] == nil {
			return nil, fmt.Errorf("%w: input %q is not given", ErrGraph, v.Name)
		}
	}
	for _, n := range g.Nodes {
		if err := runNode(n, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// call is a node with its inputs' values; omitted inputs are nil.
type call struct {
	*onnx.Node
	in    []*Tensor
	scope *scope
}

// arg is input i, or nil where it is omitted.
func (c *call) arg(i int) *Tensor {
	if i < len(c.in) {
		return c.in[i]
	}
	return nil
}

// kernel computes the outputs of a node. It panics with a failure where the inputs do not fit.
type kernel func(*call) []*Tensor

type failure struct{ error }

func fail(format string, args ...any) {
	panic(failure{fmt.Errorf("%w: %s", ErrGraph, fmt.Sprintf(format, args...))})
}

var kernels = map[string]kernel{}

func init() { // not in the declaration, as the kernels of Loop and its like run nodes themselves
	for _, family := range []map[string]kernel{
		elementwise, comparisons, activations, reductions, normalizations, products, convolutions, pools, shapes, gathers, control,
	} {
		maps.Copy(kernels, family)
	}
}

func runNode(n *onnx.Node, s *scope) (err error) {
	k := kernels[n.Op]
	if n.Domain != "" {
		k = own[n.Domain][n.Op]
	}
	if k == nil {
		return &onnx.Error{Node: n.Label(), Err: fmt.Errorf("%w: it has no operator %s", ErrGraph, n.Op)}
	}
	c := &call{Node: n, in: make([]*Tensor, len(n.Inputs)), scope: s}
	for i, name := range n.Inputs {
		if name == "" {
			continue
		}
		if c.in[i] = s.find(name); c.in[i] == nil {
			return &onnx.Error{Node: n.Label(), Err: fmt.Errorf("%w: input %q is not computed before", ErrGraph, name)}
		}
	}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = &onnx.Error{Node: n.Label(), What: n.Op, Err: p.error}
		default:
			err = &onnx.Error{Node: n.Label(), What: n.Op, Err: fmt.Errorf("%w: %v (input shapes %v)", ErrGraph, p, c.shapes())}
		}
	}()
	out := k(c)
	for i, name := range n.Outputs {
		if name != "" && i < len(out) {
			s.here[name] = out[i]
		}
	}
	return nil
}

func (c *call) shapes() [][]int64 {
	var shapes [][]int64
	for _, t := range c.in {
		if t == nil {
			shapes = append(shapes, nil)
			continue
		}
		shapes = append(shapes, t.Shape)
	}
	return shapes
}

func one(t *Tensor) []*Tensor { return []*Tensor{t} }
