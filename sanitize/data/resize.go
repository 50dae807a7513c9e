package data

import (
	"image"

	"golang.org/x/image/draw"
)

// Fit says how an image of another shape becomes the asked one.
type Fit int

const (
	// Stretch scales height and width, each by its own factor.
	Stretch Fit = iota
	// Crop cuts the largest centred part of the asked proportions and scales it.
	Crop
)

// fit writes the image to dst, [h, w, c]. It scales with a triangle filter that widens when shrinking, as torchvision's and
// Pillow's bilinear resize do.
func (r raster) fit(dst []byte, h, w, c int, f Fit) {
	if r.h != h || r.w != w {
		r = r.scale(h, w, f)
	}
	r.recolour(dst, c)
}

func (r raster) scale(h, w int, f Fit) raster {
	part := image.Rect(0, 0, r.w, r.h)
	if f == Crop {
		cw, ch := r.w, r.h
		if r.w*h > r.h*w {
			cw = max(1, (r.h*w+h/2)/h)
		} else {
			ch = max(1, (r.w*h+w/2)/w)
		}
		part = image.Rect(0, 0, cw, ch).Add(image.Pt((r.w-cw)/2, (r.h-ch)/2))
	}
	if r.c == 4 {
		src := &image.NRGBA{Pix: r.pix, Stride: 4 * r.w, Rect: image.Rect(0, 0, r.w, r.h)}
		dst := image.NewNRGBA(image.Rect(0, 0, w, h))
		draw.BiLinear.Scale(dst, dst.Rect, src, part, draw.Src, nil)
		return raster{h, w, 4, dst.Pix}
	}
	src := image.NewRGBA(image.Rect(0, 0, r.w, r.h))
	r.recolour(src.Pix, 4)
	wide := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.BiLinear.Scale(wide, wide.Rect, src, part, draw.Src, nil)
	out := newRaster(h, w, r.c)
	for i := range h * w {
		copy(out.pix[i*r.c:(i+1)*r.c], wide.Pix[4*i:])
	}
	return out
}

// as returns a copy of the pixels with c channels.
func (r raster) as(c int) []byte {
	out := make([]byte, r.h*r.w*c)
	r.recolour(out, c)
	return out
}

// recolour writes the pixels with c channels: grey is repeated, colour becomes ITU-R 601 luma, missing alpha is opaque.
func (r raster) recolour(dst []byte, c int) {
	if r.c == c {
		copy(dst, r.pix)
		return
	}
	for i := range r.h * r.w {
		s, d := r.pix[i*r.c:(i+1)*r.c], dst[i*c:(i+1)*c]
		switch {
		case r.c == 1:
			d[0], d[1], d[2] = s[0], s[0], s[0]
		case c == 1:
			d[0] = byte((19595*int(s[0]) + 38470*int(s[1]) + 7471*int(s[2]) + 1<<15) >> 16)
		default:
			copy(d[:3], s[:3])
		}
		if c == 4 {
			d[3] = 255
		}
	}
}
