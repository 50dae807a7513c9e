package onnx

import (
	"errors"
	"fmt"
	"slices"
)

// Operators whose arguments moved between attributes and inputs, or whose later versions know more than opset 17.

var argumentUpgrades = map[string]step{
	"AveragePool":        {(*upgrade).averagePool, "windows that end beyond padding that counts: by Pad, divided as since 19, and by Slice where some would begin there; no dilations"},
	"BatchNormalization": {(*upgrade).batchNormalization, "at inference, but of weights that are standardized by their own statistics; no statistics per activation (spatial=0), but of rows"},
	"Cast":               {(*upgrade).cast, "saturation and rounding of later versions concern other types"},
	"CastLike":           {(*upgrade).cast, "as Cast"},
	"Clip":               {(*upgrade).clip, "bounds as attributes until 10"},
	"Dropout":            {(*upgrade).dropout, "becomes Identity"},
	"GridSample":         {(*upgrade).gridSample, "names of the modes since 20"},
	"LpPool":             {(*upgrade).lpPool, "neither ceil_mode nor dilations (18)"},
	"MaxPool":            {(*upgrade).maxPool, ""},
	"Pad":                {(*upgrade).pad, "pads as attribute until 10; axes since 18; mode wrap (19): by Gather"},
	"ReduceL1":           {(*upgrade).reduce, "axes as input since 18"},
	"ReduceL2":           {(*upgrade).reduce, "axes as input since 18"},
	"ReduceLogSum":       {(*upgrade).reduce, "axes as input since 18"},
	"ReduceLogSumExp":    {(*upgrade).reduce, "axes as input since 18"},
	"ReduceMax":          {(*upgrade).reduce, "axes as input since 18"},
	"ReduceMean":         {(*upgrade).reduce, "axes as input since 18"},
	"ReduceMin":          {(*upgrade).reduce, "axes as input since 18"},
	"ReduceProd":         {(*upgrade).reduce, "axes as input since 18"},
	"ReduceSum":          {(*upgrade).axesInput, "axes as attribute until 12"},
	"ReduceSumSquare":    {(*upgrade).reduce, "axes as input since 18"},
	"Resize":             {(*upgrade).resize, "asymmetric at 10; neither anti-aliasing, axes nor aspect policy (18)"},
	"Scatter":            {(*upgrade).scatter, "becomes ScatterElements"},
	"ScatterElements":    {(*upgrade).scatterReduction, "no reduction by max and min (18)"},
	"ScatterND":          {(*upgrade).scatterReduction, "no reduction by max and min (18)"},
	"Slice":              {(*upgrade).slice, "bounds as attributes until 9"},
	"Split":              {(*upgrade).split, "sizes as attribute until 12; num_outputs since 18"},
	"Squeeze":            {(*upgrade).axesInput, "axes as attribute until 12"},
	"TopK":               {(*upgrade).topK, "k as attribute until 9"},
	"Unsqueeze":          {(*upgrade).axesInput, "axes as attribute until 12"},
	"Upsample":           {(*upgrade).upsample, "becomes Resize"},
}

// axesInput: until opset 12 axes were an attribute.
func (u *upgrade) axesInput(n *Node) (*Node, error) {
	if n.Attr("axes") == nil {
		return n, nil
	}
	return n.replace([]string{n.Inputs[0], u.ints(n, "axes", n.Ints("axes"))}, "axes"), nil
}

// reducesNothing is what a reduction with noop_with_empty_axes and no axes does to each element.
var reducesNothing = map[string]string{"ReduceL1": "Abs", "ReduceL2": "Abs", "ReduceLogSum": "Log", "ReduceSumSquare": "Mul"}

// reduce: since opset 18 axes are an input; at 17 an attribute.
func (u *upgrade) reduce(n *Node) (*Node, error) {
	axes, name := n.Ints("axes"), n.Input(1)
	if name != "" {
		t := u.initializer(name)
		if t == nil {
			return nil, fmt.Errorf("axes %q are not constant", name)
		}
		axes = t.Ints()
	}
	if len(axes) == 0 && n.Int("noop_with_empty_axes", 0) != 0 {
		switch op := reducesNothing[n.Op]; op {
		case "":
			return n.last("Identity", n.Inputs[:1])
		case "Mul":
			return n.last(op, []string{n.Inputs[0], n.Inputs[0]})
		default:
			return n.last(op, n.Inputs[:1])
		}
	}
	c := n.replace(n.Inputs[:1], "noop_with_empty_axes", "axes")
	if len(axes) > 0 {
		c.Attrs = append(c.Attrs, Is("axes", axes...))
	}
	return c, nil
}

// pad: until opset 10 pads and value were attributes; since 18 there may be an axes input. Exporters leave pads of zero, which do nothing.
func (u *upgrade) pad(n *Node) (*Node, error) {
	pads := n.Ints("pads")
	if t := u.initializer(n.Input(1)); t != nil {
		pads = t.Ints()
	}
	if len(pads) > 0 && !slices.ContainsFunc(pads, func(p int64) bool { return p != 0 }) {
		return n.last("Identity", n.Inputs[:1])
	}
	if n.Input(3) != "" {
		c, all, err := u.padAxes(n, pads)
		if err != nil {
			return nil, err
		}
		n, pads = c, all
	}
	if n.String("mode", "constant") == "wrap" {
		return u.wrap(n, pads)
	}
	if n.Attr("pads") == nil {
		return n, nil
	}
	in := []string{n.Inputs[0], u.ints(n, "pads", n.Ints("pads"))}
	if v := n.Float("value", 0); v != 0 {
		in = append(in, u.scalar(n, "value", v))
	}
	return n.replace(in, "pads", "value"), nil
}

// padAxes spells out the pads of all axes, and returns them.
func (u *upgrade) padAxes(n *Node, pads []int64) (*Node, []int64, error) {
	axes, rank := u.initializer(n.Input(3)), u.rank(n.Inputs[0])
	if axes == nil || pads == nil || rank < 0 {
		return nil, nil, errors.New("axes, pads or the rank of the input are not constant")
	}
	list := axes.Ints()
	all := make([]int64, 2*rank)
	for i, a := range list {
		if a < 0 {
			a += int64(rank)
		}
		if a < 0 || a >= int64(rank) || len(pads) != 2*len(list) {
			return nil, nil, fmt.Errorf("axes %v and pads %v do not fit rank %d", list, pads, rank)
		}
		all[a], all[rank+int(a)] = pads[i], pads[len(list)+i]
	}
	in := slices.Clone(n.Inputs[:3])
	in[1] = u.ints(n, "pads", all)
	return n.replace(in), all, nil
}

// wrap continues each axis with its other end: position k of the padded axis is position k - pad of the input, modulo its length.
func (u *upgrade) wrap(n *Node, pads []int64) (*Node, error) {
	if len(pads) == 0 || len(pads)%2 != 0 {
		return nil, errors.New("mode wrap with pads that are not constant")
	}
	x, rank := n.Inputs[0], len(pads)/2
	for axis := range rank {
		before, after := pads[axis], pads[rank+axis]
		if before == 0 && after == 0 {
			continue
		}
		number := func(what string, v int64) string {
			return u.constant(n, what, func(name string) *Tensor { return NewInt64(name, nil, []int64{v}) })
		}
		length := u.op(n, "Squeeze", []string{u.op(n, "Shape", []string{n.Inputs[0]}, I("start", int64(axis)), I("end", int64(axis)+1))})
		positions := u.op(n, "Range", []string{number("first", -before), u.op(n, "Add", []string{length, number("after", after)}), number("one", 1)})
		x = u.op(n, "Gather", []string{x, u.op(n, "Mod", []string{positions, length})}, I("axis", int64(axis)))
	}
	return n.last("Identity", []string{x})
}

// clip: until opset 10 the bounds were attributes.
func (u *upgrade) clip(n *Node) (*Node, error) {
	if n.Attr("min") == nil && n.Attr("max") == nil {
		return n, nil
	}
	in := []string{n.Inputs[0], "", ""}
	if a := n.Attr("min"); a != nil {
		in[1] = u.scalar(n, "min", a.F)
	}
	if a := n.Attr("max"); a != nil {
		in[2] = u.scalar(n, "max", a.F)
	}
	return n.replace(in, "min", "max"), nil
}

// dropout does nothing outside of training, and Feature Grinding trains without it.
func (u *upgrade) dropout(n *Node) (*Node, error) { return n.last("Identity", n.Inputs[:1]) }

// batchNormalization keeps what inference at opset 17 knows. Of rows, whose scale is a vector, statistics per activation are those per channel.
func (u *upgrade) batchNormalization(n *Node) (*Node, error) {
	if n.Int("spatial", 1) == 0 && u.rank(n.Input(1)) != 1 {
		return nil, errors.New("spatial=0 (statistics per activation) is not supported")
	}
	if n.Int("training_mode", 0) != 0 && u.fixed(n.Inputs[0]) && u.rank(n.Inputs[0]) > 1 {
		return u.standardized(n)
	}
	c := n.replace(n.Inputs, "spatial", "training_mode", "is_test", "consumed_inputs")
	c.Outputs = n.Outputs[:1]
	return c, nil
}

// standardized: weights that are standardized (Qiao et al. 2019) are normalized by their own statistics whenever the file runs. PyTorch fills in a scale of
// ones and a shift of zeros, which are no weights.
func (u *upgrade) standardized(n *Node) (*Node, error) {
	x, axes, shape := n.Inputs[0], []int64{0}, []int64{1, -1}
	for a := 2; a < u.rank(x); a++ {
		axes, shape = append(axes, int64(a)), append(shape, 1)
	}
	only := func(value string, number float32) bool {
		t := u.initializer(value)
		return t != nil && t.Type.IsFloat() && !slices.ContainsFunc(t.Floats(), func(v float32) bool { return v != number })
	}
	centered := u.op(n, "Sub", []string{x, u.op(n, "ReduceMean", []string{x}, Is("axes", axes...))})
	y := u.op(n, "Div", []string{centered, u.rootMeanSquare(n, centered, n.Float("epsilon", 1e-5), axes...)})
	if !only(n.Inputs[1], 1) {
		y = u.op(n, "Mul", []string{y, u.op(n, "Reshape", []string{n.Inputs[1], u.ints(n, "scale", shape)})})
	}
	if !only(n.Inputs[2], 0) {
		y = u.op(n, "Add", []string{y, u.op(n, "Reshape", []string{n.Inputs[2], u.ints(n, "shift", shape)})})
	}
	return n.last("Identity", []string{y})
}

func (u *upgrade) cast(n *Node) (*Node, error) {
	return n.replace(n.Inputs, "saturate", "round_mode"), nil
}

// onlyOnes refuses an attribute that opset 17 does not know, unless it asks for nothing.
func onlyOnes(n *Node, attr string) error {
	if slices.ContainsFunc(n.Ints(attr), func(d int64) bool { return d != 1 }) {
		return fmt.Errorf("%s %v are not supported", attr, n.Ints(attr))
	}
	return nil
}

func (u *upgrade) lpPool(n *Node) (*Node, error) {
	if n.Int("ceil_mode", 0) != 0 {
		return nil, errors.New("ceil_mode is not supported")
	}
	return n.replace(n.Inputs, "ceil_mode", "dilations"), onlyOnes(n, "dilations")
}

// maxPool: storage_order concerns the indices alone.
func (u *upgrade) maxPool(n *Node) (*Node, error) {
	if n.Output(1) != "" {
		return n, nil
	}
	return n.replace(n.Inputs, "storage_order"), nil
}

func (u *upgrade) gridSample(n *Node) (*Node, error) {
	names := map[string]string{"linear": "bilinear", "cubic": "bicubic"}
	to, ok := names[n.String("mode", "linear")]
	if !ok || u.version < 20 {
		return n, nil
	}
	c := n.replace(n.Inputs, "mode")
	c.Attrs = append(c.Attrs, S("mode", to))
	return c, nil
}

// resize: opset 10 had the scales as its second input and took output positions for input positions times the scale.
func (u *upgrade) resize(n *Node) (*Node, error) {
	if u.version < 11 {
		return u.asymmetric(n, n.Input(1))
	}
	switch {
	case n.Int("antialias", 0) != 0:
		return nil, errors.New("antialias is not supported")
	case n.String("keep_aspect_ratio_policy", "stretch") != "stretch":
		return nil, errors.New("keep_aspect_ratio_policy is not supported")
	case n.String("coordinate_transformation_mode", "") == "half_pixel_symmetric", n.String("coordinate_transformation_mode", "") == "tf_crop_and_resize":
		return nil, fmt.Errorf("coordinate_transformation_mode %s is not supported", n.String("coordinate_transformation_mode", ""))
	case n.Attr("axes") != nil:
		return u.resizeAxes(n)
	}
	return n.replace(n.Inputs, "antialias", "keep_aspect_ratio_policy"), nil
}

// resizeAxes spells out scales for all axes. Sizes of the other axes are not known.
func (u *upgrade) resizeAxes(n *Node) (*Node, error) {
	scales, rank := u.initializer(n.Input(2)), u.rank(n.Inputs[0])
	if scales == nil || rank < 0 {
		return nil, errors.New("axes are supported with constant scales of an input of known rank only")
	}
	all := slices.Repeat([]float32{1}, rank)
	given := scales.Floats()
	for i, a := range n.Ints("axes") {
		if a < 0 {
			a += int64(rank)
		}
		if a < 0 || a >= int64(rank) || i >= len(given) {
			return nil, fmt.Errorf("axes %v do not fit rank %d", n.Ints("axes"), rank)
		}
		all[a] = given[i]
	}
	in := []string{n.Inputs[0], "", u.constant(n, "scales", func(name string) *Tensor { return NewFloat(name, []int64{int64(rank)}, all) })}
	return n.replace(in, "antialias", "keep_aspect_ratio_policy", "axes"), nil
}

// upsample: the scales were an attribute until opset 8, then an input.
func (u *upgrade) upsample(n *Node) (*Node, error) {
	scales := n.Input(1)
	if a := n.Attr("scales"); a != nil {
		scales = u.constant(n, "scales", func(name string) *Tensor { return NewFloat(name, []int64{int64(len(a.Floats))}, a.Floats) })
	}
	return u.asymmetric(n, scales)
}

// asymmetric takes output position k for input position k/scale, rounded down to the nearest element where the axis grows. (Where it shrinks,
// which Resize could at opset 10, ONNX Runtime rounds up.)
func (u *upgrade) asymmetric(n *Node, scales string) (*Node, error) {
	mode, round := n.String("mode", "nearest"), "floor"
	if mode == "bilinear" {
		mode = "linear"
	}
	if n.Op == "Resize" && mode == "nearest" {
		t := u.initializer(scales)
		if t == nil {
			return nil, fmt.Errorf("scales %q are not constant", scales)
		}
		if s := t.Floats(); len(s) > 0 && slices.Min(s) < 1 {
			if round = "ceil"; slices.Max(s) > 1 {
				return nil, fmt.Errorf("scales %v grow one axis and shrink another", s)
			}
		}
	}
	return n.last("Resize", []string{n.Inputs[0], "", scales}, S("mode", mode), S("coordinate_transformation_mode", "asymmetric"), S("nearest_mode", round))
}

func (u *upgrade) scatter(n *Node) (*Node, error) {
	c := n.replace(n.Inputs)
	c.Op = "ScatterElements"
	return c, nil
}

func (u *upgrade) scatterReduction(n *Node) (*Node, error) {
	if r := n.String("reduction", "none"); r == "max" || r == "min" {
		return nil, fmt.Errorf("reduction %s is not supported", r)
	}
	return n, nil
}

// slice: until opset 9 the bounds were attributes.
func (u *upgrade) slice(n *Node) (*Node, error) {
	if n.Attr("starts") == nil {
		return n, nil
	}
	in := []string{n.Inputs[0], u.ints(n, "starts", n.Ints("starts")), u.ints(n, "ends", n.Ints("ends"))}
	if axes := n.Ints("axes"); axes != nil {
		in = append(in, u.ints(n, "axes", axes))
	}
	return n.replace(in, "starts", "ends", "axes"), nil
}

// split: until opset 12 the sizes were an attribute. Since 18 the number of parts is said again, and the last may be smaller.
func (u *upgrade) split(n *Node) (*Node, error) {
	if a := n.Attr("split"); a != nil {
		return n.replace([]string{n.Inputs[0], u.ints(n, "split", a.Ints)}, "split"), nil
	}
	parts := n.Int("num_outputs", 0)
	switch {
	case parts == 0:
		return n, nil
	case parts != int64(len(n.Outputs)):
		return nil, malformed("num_outputs %d with %d outputs", parts, len(n.Outputs))
	}
	c, axis, total := n.replace(n.Inputs, "num_outputs"), n.Int("axis", 0), int64(0)
	if v := u.said[n.Inputs[0]]; v != nil {
		at := axis
		if at < 0 {
			at += int64(len(v.Shape))
		}
		if at < 0 || at >= int64(len(v.Shape)) {
			return nil, fmt.Errorf("axis %d of shape %v", axis, v.Sizes())
		}
		total = v.Sizes()[at]
	}
	switch {
	case total > 0 && total%parts == 0:
	case total > 0:
		sizes, each := []int64{}, (total+parts-1)/parts
		for i := range parts {
			sizes = append(sizes, max(0, min(each, total-i*each)))
		}
		c.Inputs = []string{n.Inputs[0], u.ints(n, "split", sizes)}
	default: // as the length is found to be
		behind := []*Attr{I("start", axis)}
		if axis != -1 {
			behind = append(behind, I("end", axis+1))
		}
		length, first := u.op(n, "Shape", n.Inputs[:1], behind...), make([]int64, parts)
		for i := range first {
			first[i] = int64(i)
		}
		each := u.op(n, "Div", []string{u.op(n, "Add", []string{length, u.ints(n, "up", []int64{parts - 1})}), u.ints(n, "parts", []int64{parts})})
		left := u.op(n, "Sub", []string{length, u.op(n, "Mul", []string{each, u.ints(n, "before", first)})})
		c.Inputs = []string{n.Inputs[0], u.op(n, "Max", []string{u.op(n, "Min", []string{each, left}), u.ints(n, "none", []int64{0})})}
	}
	return c, nil
}

func (u *upgrade) topK(n *Node) (*Node, error) {
	if n.Attr("k") == nil {
		return n, nil
	}
	return n.replace([]string{n.Inputs[0], u.ints(n, "k", []int64{n.Int("k", 1)})}, "k"), nil
}
