package reference

var convolutions = map[string]kernel{
	"Conv":          conv,
	"ConvTranspose": convTranspose,
}

// conv correlates x [N, C, in...] with w [M, C/group, kernel...] into [N, M, out...].
func conv(c *call) []*Tensor {
	x, w := c.in[0], c.in[1]
	in := x.Shape[2:]
	win := windowOf(c, w.Shape[2:], in)
	groups := c.Int("group", 1)
	batch, channels, maps := x.Shape[0], x.Shape[1], w.Shape[0]
	if channels%groups != 0 || maps%groups != 0 || w.Shape[1] != channels/groups {
		fail("%d channels in %d groups and weights of shape %v", channels, groups, w.Shape)
	}
	spatial := win.outputs(in, false)
	y := newFloats(append([]int64{batch, maps}, spatial...))
	position := make([]int64, len(in))
	inSize, kernelSize := size(in), size(win.kernel)
	at := int64(0)
	for n := range batch {
		for m := range maps {
			first := m / (maps / groups) * w.Shape[1] // of the group's channels
			each(spatial, func(o []int64) {
				if bias := c.arg(2); bias != nil {
					y.F[at] = bias.F[m]
				}
				tap := int64(0)
				each(win.kernel, func(k []int64) {
					if win.place(o, k, in, position) {
						p := flat(in, position, false)
						for ch := range w.Shape[1] {
							y.F[at] += x.F[(n*channels+first+ch)*inSize+p] * w.F[(m*w.Shape[1]+ch)*kernelSize+tap]
						}
					}
					tap++
				})
				at++
			})
		}
	}
	return one(y)
}

// convTranspose spreads x [N, C, in...] with w [C, M/group, kernel...] into [N, M, out...]: the gradient of conv by its input.
func convTranspose(c *call) []*Tensor {
	x, w := c.in[0], c.in[1]
	in := x.Shape[2:]
	win, spatial := transposeWindow(c, w.Shape[2:], in)
	groups := c.Int("group", 1)
	batch, channels, perGroup := x.Shape[0], x.Shape[1], w.Shape[1]
	maps := perGroup * groups
	y := newFloats(append([]int64{batch, maps}, spatial...))
	outSize, kernelSize := size(spatial), size(win.kernel)
	position := make([]int64, len(in))
	for n := range batch {
		if bias := c.arg(2); bias != nil {
			for i := range maps * outSize {
				y.F[n*maps*outSize+i] = bias.F[i/outSize]
			}
		}
		for ch := range channels {
			first := ch / (channels / groups) * perGroup
			from := (n*channels + ch) * size(in)
			each(in, func(i []int64) {
				tap := int64(0)
				each(win.kernel, func(k []int64) {
					if win.place(i, k, spatial, position) {
						p := flat(spatial, position, false)
						for m := range perGroup {
							y.F[(n*maps+first+m)*outSize+p] += x.F[from] * w.F[(ch*perGroup+m)*kernelSize+tap]
						}
					}
					tap++
				})
				from++
			})
		}
	}
	return one(y)
}

// transposeWindow is the window of the convolution that a ConvTranspose reverses, and its output sizes.
func transposeWindow(c *call, kernel, in []int64) (window, []int64) {
	w := windowOf(c, kernel, in)
	extra := c.Ints("output_padding", make([]int64, len(in))...)
	asked := c.Ints("output_shape")
	if len(asked) > len(in) {
		asked = asked[len(asked)-len(in):]
	}
	mode := c.String("auto_pad", "NOTSET")
	if len(asked) == 0 && (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
		for i := range in {
			asked = append(asked, in[i]*w.stride[i])
		}
	}
	out := make([]int64, len(in))
	for i := range in {
		full := w.stride[i]*(in[i]-1) + extra[i] + w.extent(i)
		if len(asked) > 0 {
			total := max(0, full-asked[i])
			w.begin[i], w.end[i] = total-total/2, total/2
			if mode == "SAME_UPPER" {
				w.begin[i], w.end[i] = w.end[i], w.begin[i]
			}
			out[i] = asked[i]
			continue
		}
		out[i] = full - w.begin[i] - w.end[i]
	}
	return w, out
}
