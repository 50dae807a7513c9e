package classifier

import (
	"fmt"
	"math"
	"slices"

	"grindstone/sanitize/onnx"
)

// Exporters fold BatchNormalization into the convolution before it, and training the folded network naively destroys it: the scale that
// normalization took care of is gone. So every linear layer that has a bias and no BatchNormalization behind it gets one for the
// time of training. Inserted with the measured statistics of the layer's own output it changes nothing; after training it is folded
// back, and the file keeps its graph.

// Foldable is a linear layer that lacks a BatchNormalization.
type Foldable struct {
	Node         *onnx.Node // the layer; for a MatMul with an Add behind it, the Add
	Weight, Bias string
	Axis         int // of the weight, that counts output channels
	Channels     int
}

// Unfolded is a layer behind which a BatchNormalization was inserted.
type Unfolded struct {
	Foldable
	Norm *onnx.Node
}

// epsilon of the inserted BatchNormalizations.
const epsilon = 1e-5

// Foldable lists the layers that Unfold can serve. The head is left out, since it is re-initialised, and so are layers that share a
// weight or bias with another node, since folding back would change that node too.
func (c *Classifier) Foldable() []Foldable {
	by := producers(c.Nodes)
	users, follows := c.users(), map[string][]*onnx.Node{}
	for _, n := range c.Nodes {
		for _, in := range n.Reads() {
			follows[in] = append(follows[in], n)
		}
	}
	var out []Foldable
	for _, n := range c.Nodes {
		if slices.Contains(c.Head, n) {
			continue
		}
		f, ok := c.foldable(by, n)
		if ok && n.Op == "Add" { // what the MatMul alone gives must have no other reader
			ok = users[c.dataInput(n)] == 1
		}
		if !ok || users[f.Weight] != 1 || users[f.Bias] != 1 {
			continue
		}
		next := follows[n.Outputs[0]]
		if len(next) == 1 && next[0].Op == "BatchNormalization" {
			continue
		}
		if slices.Contains(c.Trainable, f.Weight) && slices.Contains(c.Trainable, f.Bias) {
			out = append(out, f)
		}
	}
	return out
}

func (c *Classifier) foldable(by map[string]*onnx.Node, n *onnx.Node) (Foldable, bool) {
	f := Foldable{Node: n}
	switch n.Op {
	case "Conv":
		f.Weight, f.Bias = n.Input(1), n.Input(2)
	case "Gemm":
		f.Weight, f.Bias = n.Input(1), n.Input(2)
		if n.Int("transB", 0) == 0 {
			f.Axis = 1
		}
		if n.Float("beta", 1) != 1 || n.Int("transA", 0) != 0 {
			return f, false
		}
	case "Add":
		if f.Bias = c.biasOf(by, n); !slices.Contains(n.Inputs, f.Bias) { // there is none, or it is moved before it is added
			return f, false
		}
		mm := by[c.dataInput(n)]
		if mm.Op != "MatMul" || c.Constants[mm.Input(1)] == nil || len(c.Constants[mm.Inputs[1]].Shape) != 2 || len(c.shapes[n.Outputs[0]]) != 2 {
			return f, false
		}
		f.Weight, f.Axis = mm.Inputs[1], 1
	default:
		return f, false
	}
	w, b := c.Constants[f.Weight], c.Constants[f.Bias]
	if w == nil || b == nil {
		return f, false
	}
	f.Channels = int(w.Shape[f.Axis])
	return f, int64(f.Channels) == elements(b.Shape)
}

// dataInput is the input that is not a constant.
func (c *Classifier) dataInput(n *onnx.Node) string {
	for _, in := range n.Inputs {
		if in != "" && c.Constants[in] == nil {
			return in
		}
	}
	return ""
}

// Unfold inserts a BatchNormalization behind each layer, given the mean and variance of every channel of the layer's output.
func (c *Classifier) Unfold(layers []Foldable, mean, variance [][]float32) {
	at := map[*onnx.Node]int{}
	for i, f := range layers {
		at[f.Node] = i
	}
	var nodes []*onnx.Node
	for _, n := range c.Nodes {
		i, ok := at[n]
		if !ok {
			nodes = append(nodes, n)
			continue
		}
		f, out := layers[i], n.Outputs[0]
		prefix := fmt.Sprintf("%s/unfold", out)
		raw := *n
		raw.Outputs = []string{prefix + "/raw"}
		scale := make([]float32, f.Channels)
		for k, v := range variance[i] {
			scale[k] = float32(math.Sqrt(float64(v) + epsilon))
		}
		put := func(what string, v []float32) string {
			name := prefix + "/" + what
			c.Constants[name] = onnx.NewFloat(name, []int64{int64(f.Channels)}, v)
			c.changeable[name] = true
			return name
		}
		norm := &onnx.Node{Name: prefix, Op: "BatchNormalization", Outputs: []string{out}, Attrs: []*onnx.Attr{onnx.F("epsilon", epsilon), onnx.F("momentum", 0.9)},
			Inputs: []string{raw.Outputs[0], put("scale", scale), put("shift", mean[i]), put("mean", mean[i]), put("variance", variance[i])}}
		f.Node = &raw
		nodes = append(nodes, &raw, norm)
		c.Trainable = append(c.Trainable, norm.Inputs[1], norm.Inputs[2])
		c.Unfolded = append(c.Unfolded, Unfolded{Foldable: f, Norm: norm})
	}
	c.Nodes = nodes
}

// Fold multiplies the inserted BatchNormalizations into the layers before them. It takes the values of all constants by name, changes
// weights and biases in place and removes the inserted ones.
func (c *Classifier) Fold(values map[string][]float32) {
	for _, u := range c.Unfolded {
		in := u.Norm.Inputs
		scale, shift, mean, variance := values[in[1]], values[in[2]], values[in[3]], values[in[4]]
		w, b := values[u.Weight], values[u.Bias]
		shape := c.Constants[u.Weight].Shape
		inner := int(elements(shape[u.Axis+1:]))
		factor := make([]float32, u.Channels)
		for k := range factor {
			f := float64(scale[k]) / math.Sqrt(float64(variance[k])+epsilon)
			factor[k] = float32(f)
			b[k] = float32((float64(b[k])-float64(mean[k]))*f + float64(shift[k]))
		}
		for i := range w {
			w[i] *= factor[i/inner%u.Channels]
		}
		for _, name := range in[1:] {
			delete(values, name)
		}
	}
}

func elements(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}
