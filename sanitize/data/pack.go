package data

// Pack writes one image, HWC bytes, in the model's layout and channel order. Both slices hold Height*Width*Channels bytes.
func (p Preprocess) Pack(dst, px []byte) { p.place(dst, px, placement{}) }

// Float writes one image, HWC bytes, as the model's input, in its layout and channel order.
func (p Preprocess) Float(dst []float32, px []byte) {
	c, plane := p.Channels, p.Height*p.Width
	for k := range c {
		from, at, step := p.source(k), k*plane, 1
		if p.Layout == NHWC {
			at, step = k, c
		}
		scale, shift := p.Scale[min(k, len(p.Scale)-1)], p.Shift[min(k, len(p.Shift)-1)]
		for i := range plane {
			dst[at+i*step] = float32(px[i*c+from])*scale + shift
		}
	}
}

// source is the channel of an HWC image that the model takes as its channel k.
func (p Preprocess) source(k int) int {
	if p.BGR && k < 3 {
		return 2 - k
	}
	return k
}

// placement is where a crop lies, and whether it is mirrored.
type placement struct {
	dy, dx int // the crop's top left corner in the image; what lies outside of the image is filled
	flip   bool
	fill   [4]byte // by channel of the image
}

// place writes a crop of an image, of the image's own size, in the model's layout and channel order.
func (p Preprocess) place(dst, px []byte, a placement) {
	h, w, c := p.Height, p.Width, p.Channels
	left, right := min(max(0, -a.dx), w), max(min(w, w-a.dx), 0) // columns of the crop that lie within the image
	for y := range h {
		sy := y + a.dy
		if sy < 0 || sy >= h || left >= right {
			p.fillRow(dst, y, 0, w, a.fill)
			continue
		}
		from, to := left, right
		if a.flip {
			from, to = w-right, w-left
		}
		p.row(dst, y, from, px[(sy*w+left+a.dx)*c:(sy*w+right+a.dx)*c], a.flip)
		p.fillRow(dst, y, 0, from, a.fill)
		p.fillRow(dst, y, to, w, a.fill)
	}
}

// row writes pixels to row y from column x on.
func (p Preprocess) row(dst []byte, y, x int, px []byte, flip bool) {
	w, c := p.Width, p.Channels
	n := len(px) / c
	at := y*w + x
	if !flip && (c == 1 || p.Layout == NHWC && !p.BGR) {
		copy(dst[at*c:], px)
		return
	}
	if c == 3 && p.Layout == NCHW {
		plane := p.Height * w
		planes := [3][]byte{dst[at:][:n], dst[plane+at:][:n], dst[2*plane+at:][:n]}
		if p.BGR {
			planes[0], planes[2] = planes[2], planes[0]
		}
		if flip {
			split3Flipped(planes[0], planes[1], planes[2], px)
		} else {
			split3(planes[0], planes[1], planes[2], px)
		}
		return
	}
	if c == 3 { // NHWC
		out, step := dst[3*at:][:3*n], 3
		d, red, blue := 0, 0, 2
		if flip {
			d, step = 3*(n-1), -3
		}
		if p.BGR {
			red, blue = 2, 0
		}
		for ; len(px) >= 3; px = px[3:] {
			o := out[d:][:3]
			o[red], o[1], o[blue] = px[0], px[1], px[2]
			d += step
		}
		return
	}
	for k := range c {
		s, d, step := p.source(k), k*p.Height*w+at, 1
		if p.Layout == NHWC {
			d, step = at*c+k, c
		}
		if flip {
			d, step = d+(n-1)*step, -step
		}
		for range n {
			dst[d] = px[s]
			s, d = s+c, d+step
		}
	}
}

// split3 separates interleaved colours; the loops are written for the compiler to drop its bounds checks.
func split3(r, g, b, px []byte) {
	g, b = g[:len(r)], b[:len(r)]
	for i := range r {
		if len(px) < 3 {
			return
		}
		r[i], g[i], b[i] = px[0], px[1], px[2]
		px = px[3:]
	}
}

func split3Flipped(r, g, b, px []byte) {
	g, b = g[:len(r)], b[:len(r)]
	for i := len(r) - 1; i >= 0 && len(px) >= 3; i-- {
		r[i], g[i], b[i] = px[0], px[1], px[2]
		px = px[3:]
	}
}

// fillRow paints columns from to to-1 of row y.
func (p Preprocess) fillRow(dst []byte, y, from, to int, fill [4]byte) {
	if from >= to {
		return
	}
	for k := range p.Channels {
		v := fill[p.source(k)]
		if p.Layout == NHWC {
			for x := from; x < to; x++ {
				dst[(y*p.Width+x)*p.Channels+k] = v
			}
			continue
		}
		part := dst[(k*p.Height+y)*p.Width:][from:to]
		for i := range part {
			part[i] = v
		}
	}
}
