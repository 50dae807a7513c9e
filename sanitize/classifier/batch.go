package classifier

import (
	"fmt"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// maxFixedBatch is the largest batch of a file that is run to open it.
const maxFixedBatch = 1024

// openBatch makes a model that was exported with a fixed batch work with any. A run at the file's own batch gives the shapes of all values, in
// which the batch is followed from the input on (place). Sizes that the file says as numbers are opened there, and what meets every image, as class
// tokens do, is repeated as often as there are images. (The input's own dimension is written open by whoever emits the graph.)
func (c *Classifier) openBatch() error {
	if c.FixedBatch == 0 {
		return nil
	}
	if c.FixedBatch > maxFixedBatch {
		return &onnx.Error{What: "input " + c.Input, Err: c.refuse("that is more than %d", maxFixedBatch)}
	}
	shapes, err := c.Shapes(c.FixedBatch)
	if err != nil {
		return err
	}
	file := *c
	o := opener{Classifier: c, shapes: shapes, data: grad.Reach(c.Nodes, []string{c.Input}), counts: map[string]bool{c.Input: true},
		sizes: map[string]int{}, places: map[string]place{c.Input: {axis: 0, outer: 1, inner: 1}}}
	c.Nodes = nil
	for _, n := range file.Nodes {
		opened, err := o.open(n)
		if err != nil {
			return &onnx.Error{Node: n.Label(), What: n.Op, Err: err}
		}
		c.Nodes = append(c.Nodes, opened)
	}
	return c.checkOpened(&file)
}

// opener opens one node after the other.
type opener struct {
	*Classifier
	shapes map[string][]int64 // at the file's batch
	data   map[string]bool    // what depends on the elements of the images
	counts map[string]bool    // what depends on their number
	sizes  map[string]int     // in the shapes of data: which element is the batch's
	places map[string]place   // of the batch in data, as far as it is known
	number string             // a tensor that holds the number of images
}

// open returns the form of a node that takes any batch.
func (o *opener) open(n *onnx.Node) (*onnx.Node, error) {
	o.count(n)
	if n.Domain != "" || !slices.ContainsFunc(n.Reads(), func(in string) bool { return o.data[in] }) {
		return n, nil
	}
	at, k := place{}, slices.IndexFunc(n.Inputs, func(in string) bool { return o.places[in] != place{} })
	if k >= 0 {
		at = o.follow(n, k)
	}
	for _, out := range n.Outputs {
		if len(o.shapes[out]) == len(o.shapes[n.Outputs[0]]) {
			o.places[out] = at
		}
	}
	switch i, sized := sizesInput[n.Op]; {
	case sized && n.Input(i) != "" && !o.counts[n.Inputs[i]]:
		return o.openSizes(n, i, at)
	case at != place{} && joins[n.Op] && n.Op != "Einsum":
		changed := withInputs(n)
		for i, value := range n.Inputs {
			if !o.data[value] && (n.Op != "Where" || i > 0) {
				changed.Inputs[i] = o.openRows(n, i, at)
			}
		}
		return changed, nil
	}
	return n, nil
}

// refuse says why a file cannot be opened, and what to do.
func (c *Classifier) refuse(format string, a ...any) error {
	return fmt.Errorf("%w: the file fixes a batch of %d, and %w; export the model with a dynamic batch", onnx.ErrUnsupported, c.FixedBatch, fmt.Errorf(format, a...))
}

// sizesInput is, by operator, the input that says the sizes of the output.
var sizesInput = map[string]int{"Reshape": 1, "Expand": 1, "Resize": 3}

// openSizes opens the sizes that a node says as numbers: a Reshape infers what the batch has a part in, an Expand takes it from the data, and a Resize,
// which knows nothing of the kind, is given the number of images.
func (o *opener) openSizes(n *onnx.Node, i int, at place) (*onnx.Node, error) {
	changed, sizes := withInputs(n), slices.Clone(o.shapes[n.Outputs[0]])
	var said []int64 // -1 and 0 as the file has them
	if t := o.Constants[n.Inputs[i]]; t != nil && t.Len() == len(sizes) {
		said = t.Ints()
	}
	switch {
	case at == place{} && n.Op == "Reshape" && slices.Min(append(said, 1)) < 1:
		return n, nil // it may do
	case at == place{}:
		return nil, o.refuse("which of the sizes %v counts images cannot be told", sizes)
	case n.Op == "Reshape":
		if said != nil && (said[at.axis] == -1 || said[at.axis] == 0 && o.places[n.Inputs[0]] == at) {
			return n, nil // it does already
		}
		sizes[at.axis] = -1
		changed.Inputs[i] = o.ints(n, "sizes", sizes)
	case n.Op == "Expand":
		sizes[at.axis] = 1
		changed.Inputs[i] = o.ints(n, "sizes", sizes)
	case n.Op == "Resize":
		changed.Inputs[i] = o.emitSizes(n, "sizes", sizes[:at.axis], at.outer*at.inner, sizes[at.axis+1:])
	}
	return changed, nil
}

// openRows repeats what is no data for every image, where a node joins it with data that have the batch there. All of the file's rows of such a
// value are equal (checkOpened); their mean stands for them, so that a training step keeps them equal.
func (o *opener) openRows(n *onnx.Node, i int, at place) string {
	value := n.Inputs[i]
	shape, out := o.shapes[value], o.shapes[n.Outputs[0]]
	axis := at.axis + len(shape) - len(out)
	if axis < 0 || shape[axis] != out[at.axis] || shape[axis] == 1 && n.Op != "Concat" { // it broadcasts
		return value
	}
	name := func(what string) string { return fmt.Sprintf("%d/%s", i, what) }
	before, after := slices.Concat(shape[:axis], []int64{at.outer}), slices.Concat([]int64{at.inner}, shape[axis+1:])
	apart := o.add(n, name("apart"), "Reshape", []string{value, o.ints(n, name("parts"), slices.Concat(before, []int64{o.FixedBatch}, after))})
	row := o.add(n, name("row"), "ReduceMean", []string{apart}, onnx.Is("axes", int64(len(before))))
	rows := o.add(n, name("rows"), "Expand", []string{row, o.emitSizes(n, name("sizes"), before, 1, after)})
	shape = slices.Clone(shape)
	shape[axis] = -1
	return o.add(n, name("together"), "Reshape", []string{rows, o.ints(n, name("shape"), shape)})
}

// emitSizes emits a shape in which one axis has so many elements an image.
func (o *opener) emitSizes(n *onnx.Node, what string, before []int64, each int64, after []int64) string {
	if o.number == "" {
		o.number = o.add(n, "images", "Shape", []string{o.Input}, onnx.I("end", 1))
	}
	batch := o.number
	if each != 1 {
		batch = o.add(n, what+"/batch", "Mul", []string{batch, o.ints(n, what+"/each", []int64{each})})
	}
	parts := []string{o.ints(n, what+"/before", before), batch, o.ints(n, what+"/after", after)}
	return o.add(n, what, "Concat", parts, onnx.I("axis", 0))
}

// ints is a constant, add the output of a new node, for the opening of n.
func (o *opener) ints(n *onnx.Node, what string, v []int64) string {
	name := opened(n, what)
	o.Constants[name] = onnx.NewInt64(name, []int64{int64(len(v))}, v)
	return name
}

func (o *opener) add(n *onnx.Node, what, op string, inputs []string, attrs ...*onnx.Attr) string {
	name := opened(n, what)
	o.Nodes = append(o.Nodes, &onnx.Node{Name: name, Op: op, Inputs: inputs, Outputs: []string{name}, Attrs: attrs})
	return name
}

func opened(n *onnx.Node, what string) string {
	return fmt.Sprintf("%s/open_batch/%s", n.Outputs[0], what)
}

// withInputs is a copy of a node with inputs of its own.
func withInputs(n *onnx.Node) *onnx.Node {
	changed := *n
	changed.Inputs = slices.Clone(n.Inputs)
	return &changed
}
