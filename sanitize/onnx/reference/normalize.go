package reference

import (
	"math"
	"slices"
)

var normalizations = map[string]kernel{
	"Softmax":                   softmax(math.Exp),
	"LogSoftmax":                softmax(nil),
	"Hardmax":                   hardmax,
	"BatchNormalization":        batchNormalization,
	"InstanceNormalization":     instanceNormalization,
	"LayerNormalization":        layerNormalization,
	"LRN":                       localResponse,
	"MeanVarianceNormalization": meanVariance,
	"LpNormalization":           lpNormalization,
}

// softmax along one axis (opset 13); last turns the logarithm into the result, nil keeps it.
func softmax(last func(float64) float64) kernel {
	return func(c *call) []*Tensor {
		x := c.in[0]
		outer, n, inner := split3(x.Shape, axisOf(c.Int("axis", -1), len(x.Shape)))
		out := newFloats(x.Shape)
		for o := range outer {
			for i := range inner {
				at := func(k int64) int64 { return (o*n+k)*inner + i }
				top, sum := math.Inf(-1), 0.0
				for k := range n {
					top = math.Max(top, x.F[at(k)])
				}
				for k := range n {
					sum += math.Exp(x.F[at(k)] - top)
				}
				for k := range n {
					y := x.F[at(k)] - top - math.Log(sum)
					if last != nil {
						y = last(y)
					}
					out.F[at(k)] = y
				}
			}
		}
		return one(out)
	}
}

// hardmax is 1 at the first maximum along the axis, else 0.
func hardmax(c *call) []*Tensor {
	x := c.in[0]
	outer, n, inner := split3(x.Shape, axisOf(c.Int("axis", -1), len(x.Shape)))
	out := newFloats(x.Shape)
	for o := range outer {
		for i := range inner {
			best := o*n*inner + i
			for k := range n {
				if at := (o*n+k)*inner + i; x.F[at] > x.F[best] {
					best = at
				}
			}
			out.F[best] = 1
		}
	}
	return one(out)
}

// batchNormalization of x [N, C, ...] per channel. In training mode it normalizes with the batch's own mean and variance (of the
// population) and returns the running ones moved towards them.
func batchNormalization(c *call) []*Tensor {
	x, scale, bias, mean, variance := c.in[0], c.in[1], c.in[2], c.in[3], c.in[4]
	eps, momentum := float64(c.Float("epsilon", 1e-5)), float64(c.Float("momentum", 0.9))
	channels := x.Shape[1]
	inner := size(x.Shape[2:])
	eachOf := func(ch int64, visit func(at int64)) {
		for n := range x.Shape[0] {
			for i := range inner {
				visit((n*channels+ch)*inner + i)
			}
		}
	}
	y := newFloats(x.Shape)
	runningMean, runningVar := mean.Clone(), variance.Clone()
	for ch := range channels {
		m, v := mean.F[ch], variance.F[ch]
		if c.Int("training_mode", 0) != 0 {
			count := float64(x.Shape[0] * inner)
			m, v = 0, 0
			eachOf(ch, func(at int64) { m += x.F[at] / count })
			eachOf(ch, func(at int64) { v += (x.F[at] - m) * (x.F[at] - m) / count })
			runningMean.F[ch] = mean.F[ch]*momentum + m*(1-momentum)
			runningVar.F[ch] = variance.F[ch]*momentum + v*(1-momentum)
		}
		eachOf(ch, func(at int64) {
			y.F[at] = (x.F[at]-m)/math.Sqrt(v+eps)*scale.F[ch] + bias.F[ch]
		})
	}
	return []*Tensor{y, runningMean, runningVar}
}

// instanceNormalization of x [N, C, ...] per image and channel.
func instanceNormalization(c *call) []*Tensor {
	x, scale, bias := c.in[0], c.in[1], c.in[2]
	channels, inner := x.Shape[1], size(x.Shape[2:])
	y := newFloats(x.Shape)
	for row := range x.Shape[0] * channels {
		out, _, _ := standardize(x.F[row*inner:(row+1)*inner], float64(c.Float("epsilon", 1e-5)))
		for i, v := range out {
			y.F[row*inner+int64(i)] = v*scale.F[row%channels] + bias.F[row%channels]
		}
	}
	return one(y)
}

// standardize brings values to mean 0 and (nearly) variance 1.
func standardize(x []float64, eps float64) (y []float64, mean, invStd float64) {
	variance := 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x))
	}
	invStd = 1 / math.Sqrt(variance+eps)
	for _, v := range x {
		y = append(y, (v-mean)*invStd)
	}
	return y, mean, invStd
}

// layerNormalization over the dimensions from axis on; it also returns mean and 1/deviation, with those dimensions kept as 1.
func layerNormalization(c *call) []*Tensor {
	x, scale, bias := c.in[0], c.in[1], c.arg(2)
	axis := axisOf(c.Int("axis", -1), len(x.Shape))
	rows, inner := size(x.Shape[:axis]), size(x.Shape[axis:])
	kept := slices.Clone(x.Shape)
	for i := axis; i < len(kept); i++ {
		kept[i] = 1
	}
	y, mean, invStd := newFloats(x.Shape), newFloats(kept), newFloats(kept)
	for r := range rows {
		var row []float64
		row, mean.F[r], invStd.F[r] = standardize(x.F[r*inner:(r+1)*inner], float64(c.Float("epsilon", 1e-5)))
		copy(y.F[r*inner:], row)
	}
	y = zip(y, scale, func(a, b float64) float64 { return a * b }, nil)
	if bias != nil {
		y = zip(y, bias, func(a, b float64) float64 { return a + b }, nil)
	}
	return []*Tensor{y, mean, invStd}
}

// localResponse divides by a power of the squares in a window of channels.
func localResponse(c *call) []*Tensor {
	x := c.in[0]
	width := c.Int("size", 0)
	alpha, beta, bias := float64(c.Float("alpha", 1e-4)), float64(c.Float("beta", 0.75)), float64(c.Float("bias", 1))
	channels, inner := x.Shape[1], size(x.Shape[2:])
	y := newFloats(x.Shape)
	for n := range x.Shape[0] {
		for ch := range channels {
			for i := range inner {
				sum := 0.0
				for k := max(0, ch-(width-1)/2); k <= min(channels-1, ch+width/2); k++ {
					v := x.F[(n*channels+k)*inner+i]
					sum += v * v
				}
				at := (n*channels+ch)*inner + i
				y.F[at] = x.F[at] / math.Pow(bias+alpha/float64(width)*sum, beta)
			}
		}
	}
	return one(y)
}

func lpNormalization(c *call) []*Tensor {
	x, p := c.in[0], c.Int("p", 2)
	outer, n, inner := split3(x.Shape, axisOf(c.Int("axis", -1), len(x.Shape)))
	y := newFloats(x.Shape)
	for o := range outer {
		for i := range inner {
			norm := 0.0
			for k := range n {
				norm += math.Pow(math.Abs(x.F[(o*n+k)*inner+i]), float64(p))
			}
			norm = math.Pow(norm, 1/float64(p))
			for k := range n {
				at := (o*n+k)*inner + i
				y.F[at] = x.F[at] / norm
			}
		}
	}
	return one(y)
}

// meanVariance brings each group of elements that differ in the axes only to mean 0 and variance 1.
func meanVariance(c *call) []*Tensor {
	x := c.in[0]
	kept := slices.Clone(x.Shape)
	count := 1.0
	for _, a := range axesOf(c.Ints("axes", 0, 2, 3), len(kept)) {
		count *= float64(kept[a])
		kept[a] = 1
	}
	average := func(t *Tensor) *Tensor {
		sum := newFloats(kept)
		i := 0
		each(t.Shape, func(index []int64) {
			sum.F[offset(kept, index)] += t.F[i] / count
			i++
		})
		return sum
	}
	centered := zip(x, average(x), func(a, b float64) float64 { return a - b }, nil)
	variance := average(mapFloats(centered, func(v float64) float64 { return v * v }))
	return one(zip(centered, variance, func(v, variance float64) float64 { return v / (math.Sqrt(variance) + 1e-9) }, nil))
}
