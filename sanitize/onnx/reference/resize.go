package reference

import (
	"math"
	"slices"
)

// resize interpolates along each axis by itself, as the operator's specification has it at opset 13: coordinates of the output are mapped
// to the input, and near elements are weighted. Cropping to a region and anti-aliasing are not here.
func resize(c *call) []*Tensor {
	x := c.in[0]
	out := slices.Clone(x.Shape)
	scale := make([]float64, len(out))
	if sizes := c.arg(3); sizes != nil {
		copy(out, sizes.I)
		for i := range out {
			scale[i] = float64(out[i]) / float64(x.Shape[i])
		}
	} else {
		for i, s := range c.in[2].F {
			scale[i] = s
			out[i] = int64(math.Floor(float64(x.Shape[i]) * s))
		}
	}
	for axis := range out {
		if scale[axis] != 1 {
			x = resizeAxis(c, x, axis, out[axis], scale[axis])
		}
	}
	return one(x)
}

func resizeAxis(c *call, x *Tensor, axis int, size int64, scale float64) *Tensor {
	outer, n, inner := split3(x.Shape, axis)
	y := newFloats(with(x.Shape, axis, size))
	for k := range size {
		for at, weight := range resizeWeights(c, k, n, size, scale) {
			for o := range outer {
				for i := range inner {
					y.F[(o*size+k)*inner+i] += weight * x.F[(o*n+at)*inner+i]
				}
			}
		}
	}
	return y
}

// resizeWeights are the weights of the input's elements in element k of the output, for one axis that goes from n to size elements.
func resizeWeights(c *call, k, n, size int64, scale float64) map[int64]float64 {
	position := 0.0
	switch mode := c.String("coordinate_transformation_mode", "half_pixel"); mode {
	case "asymmetric":
		position = float64(k) / scale
	case "align_corners":
		if size > 1 {
			position = float64(k) * float64(n-1) / float64(size-1)
		}
	case "half_pixel", "pytorch_half_pixel":
		if mode == "half_pixel" || size > 1 {
			position = (float64(k)+0.5)/scale - 0.5
		}
	default:
		fail("coordinate_transformation_mode %q", mode)
	}
	weights := map[int64]float64{}
	add := func(at int64, weight float64) { weights[min(max(at, 0), n-1)] += weight }
	low := math.Floor(position)
	fraction := position - low
	switch mode := c.String("mode", "nearest"); mode {
	case "nearest":
		add(nearest(c.String("nearest_mode", "round_prefer_floor"), position), 1)
	case "linear":
		add(int64(low), 1-fraction)
		add(int64(low)+1, fraction)
	case "cubic":
		a, total := float64(c.Float("cubic_coeff_a", -0.75)), 0.0
		for i := int64(-1); i <= 2; i++ {
			at, weight := int64(low)+i, cubic(a, math.Abs(float64(i)-fraction))
			if c.Int("exclude_outside", 0) != 0 && (at < 0 || at >= n) {
				continue
			}
			total += weight
			add(at, weight)
		}
		for at := range weights {
			weights[at] /= total // 1, unless elements were left out
		}
	default:
		fail("mode %q", mode)
	}
	return weights
}

func nearest(mode string, position float64) int64 {
	switch mode {
	case "round_prefer_ceil":
		return int64(math.Floor(position + 0.5))
	case "floor":
		return int64(math.Floor(position))
	case "ceil":
		return int64(math.Ceil(position))
	}
	return int64(math.Ceil(position - 0.5))
}

// cubic is the convolution kernel of Keys (1981) at distance d.
func cubic(a, d float64) float64 {
	switch {
	case d <= 1:
		return (a+2)*d*d*d - (a+3)*d*d + 1
	case d < 2:
		return a*d*d*d - 5*a*d*d + 8*a*d - 4*a
	}
	return 0
}
