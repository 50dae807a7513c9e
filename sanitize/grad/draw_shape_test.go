package grad_test

import (
	"math"
	"slices"

	"pgregory.net/rapid"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/onnx/reference"
)

// Samples of operators that move elements.

// move is a node that reads x and constants.
func move(op string, x []int64, constants []*onnx.Tensor, attrs ...*onnx.Attr) sample {
	s := sample{node: node(op, 1, []string{"x"}, attrs...), inputs: map[string][]int64{"x": x}, wrt: []string{"x"}, constants: constants}
	for _, c := range constants {
		s.node.Inputs = append(s.node.Inputs, c.Name)
	}
	return s
}

func drawCast(t *rapid.T) sample {
	to := rapid.SampledFrom([]onnx.DataType{onnx.Float, onnx.Float, onnx.Float, onnx.Int64}).Draw(t, "to")
	s := move("Cast", anyShape(t), nil, onnx.I("to", int64(to)))
	offGrid(&s)
	return s
}

func drawCastLike(t *rapid.T) sample {
	return move("CastLike", anyShape(t), []*onnx.Tensor{scalar("like", 1)})
}

func drawConcat(t *rapid.T) sample {
	x := anyShape(t)
	a := drawAxis(t, len(x))
	s := sample{node: node("Concat", 1, nil, onnx.I("axis", a)), inputs: map[string][]int64{}}
	for _, name := range []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "inputs")] {
		one := slices.Clone(x)
		at := a
		if at < 0 {
			at += int64(len(x))
		}
		one[at] = dim(t)
		s.node.Inputs = append(s.node.Inputs, name)
		s.inputs[name] = one
		s.wrt = append(s.wrt, name)
	}
	return s
}

func drawSplit(t *rapid.T) sample {
	x := anyShape(t)
	a := drawAxis(t, len(x))
	parts := rapid.IntRange(1, 3).Draw(t, "parts")
	s := move("Split", x, nil, onnx.I("axis", a))
	s.node = node("Split", parts, []string{"x"}, s.node.Attrs...)
	if a < 0 {
		a += int64(len(x))
	}
	if rapid.Bool().Draw(t, "equal") {
		x[a] = int64(parts) * dim(t)
		return s
	}
	sizes := make([]int64, parts)
	x[a] = 0
	for i := range sizes {
		sizes[i] = rapid.Int64Range(0, 3).Draw(t, "part")
		x[a] += sizes[i]
	}
	s.node.Inputs, s.constants = []string{"x", "sizes"}, []*onnx.Tensor{ints("sizes", sizes)}
	return s
}

func drawExpand(t *rapid.T) sample {
	a, b := pair(t)
	return move("Expand", a, []*onnx.Tensor{ints("to", b)})
}

func drawTile(t *rapid.T) sample {
	x := anyShape(t)
	return move("Tile", x, []*onnx.Tensor{ints("repeats", shape(t, len(x)))})
}

func drawFlatten(t *rapid.T) sample {
	x := anyShape(t)
	return move("Flatten", x, nil, onnx.I("axis", int64(rapid.IntRange(-len(x), len(x)).Draw(t, "axis"))))
}

func drawReshape(t *rapid.T) sample {
	x := fullShape(t)
	to := rapid.SampledFrom([][]int64{{-1}, {1, -1}, {0, -1}, {-1, x[len(x)-1]}}).Draw(t, "to")
	return move("Reshape", x, []*onnx.Tensor{ints("to", to)})
}

func drawSqueeze(t *rapid.T) sample {
	x := anyShape(t)
	at := rapid.IntRange(0, len(x)).Draw(t, "at")
	return move("Squeeze", slices.Insert(x, at, 1), []*onnx.Tensor{ints("axes", []int64{int64(at)})})
}

func drawUnsqueeze(t *rapid.T) sample {
	x := anyShape(t)
	return move("Unsqueeze", x, []*onnx.Tensor{ints("axes", []int64{int64(rapid.IntRange(-len(x)-1, len(x)).Draw(t, "at"))})})
}

func drawTranspose(t *rapid.T) sample {
	x := anyShape(t)
	s := move("Transpose", x, nil)
	if rapid.Bool().Draw(t, "given") {
		perm := make([]int64, len(x))
		for i := range perm {
			perm[i] = int64(i)
		}
		s.node.Attrs = append(s.node.Attrs, onnx.Is("perm", rapid.Permutation(perm).Draw(t, "perm")...))
	}
	return s
}

func drawDepthToSpace(t *rapid.T) sample {
	b := rapid.Int64Range(1, 3).Draw(t, "block")
	return move("DepthToSpace", []int64{dim(t), b * b * rapid.Int64Range(1, 2).Draw(t, "channels"), rapid.Int64Range(1, 2).Draw(t, "height"), rapid.Int64Range(1, 3).Draw(t, "width")}, nil,
		onnx.I("blocksize", b), onnx.S("mode", rapid.SampledFrom([]string{"DCR", "CRD"}).Draw(t, "mode")))
}

func drawSpaceToDepth(t *rapid.T) sample {
	b := rapid.Int64Range(1, 3).Draw(t, "block")
	return move("SpaceToDepth", []int64{dim(t), dim(t), b * rapid.Int64Range(1, 2).Draw(t, "height"), b * rapid.Int64Range(1, 2).Draw(t, "width")}, nil, onnx.I("blocksize", b))
}

func drawReverseSequence(t *rapid.T) sample {
	x := append(shape(t, 2), shape(t, rapid.IntRange(0, 2).Draw(t, "more"))...)
	batch := rapid.Int64Range(0, 1).Draw(t, "batch axis")
	lengths := make([]int64, x[batch])
	for i := range lengths {
		lengths[i] = rapid.Int64Range(1, x[1-batch]).Draw(t, "length")
	}
	return move("ReverseSequence", x, []*onnx.Tensor{ints("lengths", lengths)}, onnx.I("batch_axis", batch), onnx.I("time_axis", 1-batch))
}

func drawTrilu(t *rapid.T) sample {
	s := move("Trilu", append(shape(t, rapid.IntRange(0, 1).Draw(t, "batches")), 3, 4), nil, onnx.I("upper", rapid.Int64Range(0, 1).Draw(t, "upper")))
	if rapid.Bool().Draw(t, "diagonal") {
		s.node.Inputs, s.constants = append(s.node.Inputs, "k"), []*onnx.Tensor{ints("k", []int64{rapid.Int64Range(-1, 1).Draw(t, "k")}, []int64{}...)}
		s.constants[0].Shape = nil
	}
	return s
}

func drawCumSum(t *rapid.T) sample {
	x := anyShape(t)
	axis := onnx.NewInt64("axis", nil, []int64{drawAxis(t, len(x))})
	return move("CumSum", x, []*onnx.Tensor{axis}, onnx.I("exclusive", rapid.Int64Range(0, 1).Draw(t, "exclusive")), onnx.I("reverse", rapid.Int64Range(0, 1).Draw(t, "reverse")))
}

func drawPad(t *rapid.T) sample {
	x := fullShape(t)
	mode := rapid.SampledFrom([]string{"constant", "constant", "edge", "reflect"}).Draw(t, "mode")
	pads := make([]int64, 2*len(x))
	for i := range pads {
		low, high := -(x[i%len(x)]-1)/2, int64(2)
		if mode == "reflect" {
			low, high = 0, min(2, x[i%len(x)]-1)
		}
		pads[i] = rapid.Int64Range(low, high).Draw(t, "pad")
	}
	s := move("Pad", x, []*onnx.Tensor{ints("pads", pads)}, onnx.S("mode", mode))
	if rapid.Bool().Draw(t, "computed") {
		s.constants, s.fed = nil, map[string]*reference.Tensor{"pads": reference.Ints([]int64{int64(len(pads))}, pads)}
	}
	return s
}

func drawSlice(t *rapid.T) sample {
	x := fullShape(t)
	var starts, ends, on, steps []int64
	for i := range x {
		if len(on) > 0 && rapid.Bool().Draw(t, "leave") {
			continue
		}
		step := rapid.SampledFrom([]int64{1, 1, 2, 3, -1, -2}).Draw(t, "step")
		start, end := rapid.Int64Range(-x[i], x[i]).Draw(t, "start"), rapid.SampledFrom([]int64{-1, 1, x[i], math.MaxInt64}).Draw(t, "end")
		if step < 0 {
			start, end = rapid.Int64Range(0, x[i]).Draw(t, "start"), rapid.SampledFrom([]int64{0, -x[i] - 1, math.MinInt64}).Draw(t, "end")
		}
		a := int64(i)
		if rapid.Bool().Draw(t, "negative") {
			a -= int64(len(x))
		}
		starts, ends, on, steps = append(starts, start), append(ends, end), append(on, a), append(steps, step)
	}
	s := move("Slice", x, []*onnx.Tensor{ints("starts", starts), ints("ends", ends), ints("axes", on), ints("steps", steps)})
	if rapid.IntRange(0, 3).Draw(t, "computed") == 3 {
		s.constants, s.fed = s.constants[1:], map[string]*reference.Tensor{"starts": reference.Ints([]int64{int64(len(starts))}, starts)}
	}
	return s
}

func drawResize(t *rapid.T) sample {
	x := []int64{rapid.Int64Range(1, 2).Draw(t, "n"), rapid.Int64Range(1, 2).Draw(t, "c"), dim(t) + 1, dim(t) + 1}
	mode := rapid.SampledFrom([]string{"nearest", "linear", "cubic"}).Draw(t, "mode")
	attrs := []*onnx.Attr{onnx.S("mode", mode),
		onnx.S("coordinate_transformation_mode", rapid.SampledFrom([]string{"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"}).Draw(t, "coordinates"))}
	if mode == "nearest" {
		attrs = append(attrs, onnx.S("nearest_mode", rapid.SampledFrom([]string{"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}).Draw(t, "nearest")))
	}
	s := move("Resize", x, nil, attrs...)
	if rapid.Bool().Draw(t, "sizes") {
		s.node.Inputs = []string{"x", "", "", "sizes"}
		s.constants = []*onnx.Tensor{ints("sizes", []int64{x[0], x[1], dim(t) + 1, dim(t) + 1})}
	} else {
		s.node.Inputs = []string{"x", "", "scales"}
		scale := func() float32 { return rapid.SampledFrom([]float32{0.75, 1, 1.5, 2}).Draw(t, "scale") }
		s.constants = []*onnx.Tensor{onnx.NewFloat("scales", []int64{4}, []float32{1, 1, scale(), scale()})}
	}
	return s
}
