package reference

import (
	"slices"

	"grindstone/sanitize/onnx"
)

var control = map[string]kernel{
	"If":   ifElse,
	"Loop": loop,
	"Scan": scan,
}

// body runs a subgraph, its inputs given in order, and returns its outputs in order.
func (c *call) body(name string, in []*Tensor) []*Tensor {
	a := c.Attr(name)
	if a == nil || a.Graph == nil || len(a.Graph.Inputs) != len(in) {
		fail("graph %s does not take %d inputs", name, len(in))
	}
	return runBody(a.Graph, in, c.scope)
}

func runBody(g *onnx.Graph, in []*Tensor, outer *scope) []*Tensor {
	inputs := map[string]*Tensor{}
	for i, v := range g.Inputs {
		inputs[v.Name] = in[i]
	}
	values, err := runAll(g, inputs, outer)
	if err != nil {
		panic(failure{err})
	}
	var out []*Tensor
	for _, v := range g.Outputs {
		t := values.find(v.Name)
		if t == nil {
			fail("output %q is never computed", v.Name)
		}
		out = append(out, t)
	}
	return out
}

func ifElse(c *call) []*Tensor {
	if c.in[0].I[0] != 0 {
		return c.body("then_branch", nil)
	}
	return c.body("else_branch", nil)
}

// loop runs its body (iteration, condition, carried...) -> (condition, carried..., scanned...) until the trip count or the condition
// ends it; the scanned values are stacked.
func loop(c *call) []*Tensor {
	trips, cond := c.arg(0), c.arg(1)
	carried := slices.Clone(c.in[2:])
	stacks := make([][]*Tensor, len(c.Outputs)-len(carried))
	goOn := cond == nil || cond.I[0] != 0
	for i := int64(0); goOn && (trips == nil || i < trips.I[0]); i++ {
		out := c.body("body", append([]*Tensor{Ints([]int64{}, []int64{i}), Ints([]int64{}, []int64{truth(goOn)})}, carried...))
		goOn = out[0].I[0] != 0
		copy(carried, out[1:])
		for j := range stacks {
			stacks[j] = append(stacks[j], out[1+len(carried)+j])
		}
	}
	for _, s := range stacks {
		carried = append(carried, stack(s, 0))
	}
	return carried
}

// stack joins tensors of one shape along a new axis.
func stack(parts []*Tensor, axis int) *Tensor {
	if len(parts) == 0 {
		return newFloats([]int64{0})
	}
	shape := slices.Insert(slices.Clone(parts[0].Shape), axis, int64(len(parts)))
	out := newLike(parts[0], shape)
	outer, n, inner := split3(shape, axis)
	for o := range outer {
		for k := range n {
			for i := range inner {
				out.set((o*n+k)*inner+i, parts[k], o*inner+i)
			}
		}
	}
	return out
}

// scan feeds its body (states..., one slice of each scanned input) -> (states..., slices of the scanned outputs).
func scan(c *call) []*Tensor {
	inputs := int(c.Int("num_scan_inputs", 0))
	states := slices.Clone(c.in[:len(c.in)-inputs])
	scanned := c.in[len(c.in)-inputs:]
	outputs := len(c.Outputs) - len(states)
	zeros := func(n int) []int64 { return make([]int64, n) }
	inAxes, inBack := c.Ints("scan_input_axes", zeros(inputs)...), c.Ints("scan_input_directions", zeros(inputs)...)
	outAxes, outBack := c.Ints("scan_output_axes", zeros(outputs)...), c.Ints("scan_output_directions", zeros(outputs)...)
	steps := scanned[0].Shape[axisOf(inAxes[0], len(scanned[0].Shape))]
	stacks := make([][]*Tensor, outputs)
	for i := range steps {
		in := slices.Clone(states)
		for j, t := range scanned {
			at := i
			if inBack[j] != 0 {
				at = steps - 1 - i
			}
			in = append(in, take(t, axisOf(inAxes[j], len(t.Shape)), at))
		}
		out := c.body("body", in)
		copy(states, out)
		for j := range stacks {
			stacks[j] = append(stacks[j], out[len(states)+j])
		}
	}
	for j, s := range stacks {
		if outBack[j] != 0 {
			slices.Reverse(s)
		}
		states = append(states, stack(s, axisOf(outAxes[j], len(s[0].Shape)+1)))
	}
	return states
}

// take is slice k along an axis, without the axis.
func take(t *Tensor, axis int, k int64) *Tensor {
	outer, n, inner := split3(t.Shape, axis)
	out := newLike(t, drop(t.Shape, []int{axis}))
	for o := range outer {
		for i := range inner {
			out.set(o*inner+i, t, (o*n+k)*inner+i)
		}
	}
	return out
}
