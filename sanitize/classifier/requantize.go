package classifier

import (
	"fmt"
	"slices"

	"grindstone/sanitize/onnx"
)

// scaleFor is the least scale with which lo and hi, which lie on both sides of 0, are integers' values; 0 if both are 0.
func (q *quantized) scaleFor(lo, hi float64, zero int64) float32 {
	least, most := integerRange(q.zero.Type)
	if q.float != "" && least < 0 && zero == 0 {
		least = -most // weights are symmetric
	}
	s := 0.0
	if most > zero {
		s = max(s, hi/float64(most-zero))
	}
	if least < zero {
		s = max(s, -lo/float64(zero-least))
	}
	return float32(s)
}

// Requantize finds scales for trained weights and for the activations' ranges over clean images (by name: least and largest value), puts
// them among the values, and rounds the weights there. It returns the file's integers. Biases in 32 bits have the product of the
// scales of their layer's input and weight, as the operators that runtimes fuse take for granted (ONNX, QLinearConv).
func (c *Classifier) Requantize(values map[string][]float32, ranges map[string][2]float32) (map[string]*onnx.Tensor, error) {
	scaleOf := map[string][]float32{} // of what layers read
	set := func(q *quantized, s []float32) {
		for _, name := range q.scales {
			values[name] = s
		}
		for _, name := range slices.Concat(q.made, []string{q.float}) {
			scaleOf[name] = s
		}
	}
	for _, q := range c.quantized {
		switch {
		case q.float == "":
			lo, hi := 0.0, 0.0
			for _, name := range q.values {
				lo, hi = min(lo, float64(ranges[name][0])), max(hi, float64(ranges[name][1]))
			}
			s := []float32{q.scaleFor(lo, hi, q.zero.Ints()[0])}
			if s[0] == 0 {
				s = values[q.scales[0]]
			}
			set(q, s)
		case q.zero.Type != onnx.Int32:
			s, err := q.weightScales(values[q.float], c.Constants[q.float].Shape, values[q.scales[0]])
			if err != nil {
				return nil, err
			}
			set(q, s)
		}
	}
	for _, n := range c.Nodes {
		in, w := scaleOf[n.Input(0)], scaleOf[n.Input(1)]
		i := slices.IndexFunc(c.quantized, func(q *quantized) bool { return q.float != "" && q.float == n.Input(2) && q.zero.Type == onnx.Int32 })
		if i < 0 || n.Op != "Conv" && n.Op != "Gemm" || len(in) != 1 || w == nil {
			continue
		}
		q := c.quantized[i]
		s := make([]float32, len(values[q.scales[0]]))
		if len(w) != 1 && len(w) != len(s) {
			return nil, &onnx.Error{Node: n.Label(), What: "bias", Err: fmt.Errorf("%w: %d scales where the weight has %d", onnx.ErrUnsupported, len(s), len(w))}
		}
		for k := range s {
			s[k] = in[0] * w[min(k, len(w)-1)]
		}
		set(q, s)
	}
	integers := map[string]*onnx.Tensor{}
	for _, q := range c.quantized {
		if q.float == "" {
			continue
		}
		shape, s := c.Constants[q.float].Shape, values[q.scales[0]]
		ints, err := q.integers(values[q.float], shape, s)
		if err != nil {
			return nil, err
		}
		t := onnx.NewInts(q.integer, q.zero.Type, shape, ints)
		if values[q.float], err = q.floats(t, s); err != nil {
			return nil, err
		}
		if q.integer != "" {
			integers[q.integer] = t
		}
	}
	return integers, nil
}

// weightScales are the scales of a weight's channels; a channel of zeros keeps its own.
func (q *quantized) weightScales(v []float32, shape []int64, old []float32) ([]float32, error) {
	at, zero, err := q.channels(shape, len(old))
	if err != nil {
		return nil, err
	}
	lo, hi, s := make([]float64, len(old)), make([]float64, len(old)), make([]float32, len(old))
	for i, x := range v {
		lo[at(i)], hi[at(i)] = min(lo[at(i)], float64(x)), max(hi[at(i)], float64(x))
	}
	for k := range s {
		if s[k] = q.scaleFor(lo[k], hi[k], zero[k]); s[k] == 0 {
			s[k] = old[k]
		}
	}
	return s, nil
}

// Integers reports whether a constant is kept in integers by the file, so that it is not written as it is.
func (c *Classifier) Integers(name string) bool {
	return slices.ContainsFunc(c.quantized, func(q *quantized) bool { return q.float == name && q.integer != "" })
}
