package data

import "image"

// JPEG stores colour at half the resolution, and how it is brought back is left to the decoder. Classifiers were trained on what
// libjpeg makes of it (Pillow, OpenCV and torchvision all use it): a triangle filter, weights 3/4 and 1/4 in each direction
// (libjpeg-turbo, jdsample.c, "fancy upsampling"), where the standard library repeats the nearest sample. On 32x32 images the
// difference is visible to a model, so this file does as libjpeg does, to the bit. Lossy WebP is upsampled alike.

// fromYCbCr returns the image's RGB pixels, [h, w, 3]; rgb converts one of them.
func fromYCbCr(m *image.YCbCr, rgb toRGB) []byte {
	b := m.Bounds()
	w, h := b.Dx(), b.Dy()
	out := make([]byte, 3*w*h)
	cb, cr := make([]byte, w+2), make([]byte, w+2)
	sum := make([]int, w+1)
	for y := range h {
		chromaRow(cb, sum, m, m.Cb, y)
		chromaRow(cr, sum, m, m.Cr, y)
		luma := m.Y[m.YOffset(b.Min.X, b.Min.Y+y):][:w]
		row := out[3*w*y:][:3*w]
		for x, l := range luma {
			row[3*x], row[3*x+1], row[3*x+2] = rgb(int(l), int(cb[x])-128, int(cr[x])-128)
		}
	}
	return out
}

// toRGB converts luma, 0 to 255, and chroma, -128 to 127.
type toRGB func(y, cb, cr int) (r, g, b byte)

// jfifRGB is the conversion of JPEG in libjpeg's fixed-point arithmetic (jdcolor.c).
func jfifRGB(y, cb, cr int) (r, g, b byte) {
	const half = 1 << 15
	return clamp(y + (91881*cr+half)>>16), clamp(y + (-22554*cb-46802*cr+half)>>16), clamp(y + (116130*cb+half)>>16)
}

// vp8RGB is the conversion of lossy WebP: BT.601 with luma 16 to 235 and chroma 16 to 240 (RFC 6386, section 9.2). The WebP package
// hands out these values as if they were JPEG's, which washes colours out.
func vp8RGB(y, cb, cr int) (r, g, b byte) {
	const half = 1 << 15
	y = 76309*(y-16) + half // 255/219
	return clamp((y + 104597*cr) >> 16), clamp((y - 25675*cb - 53279*cr) >> 16), clamp((y + 132201*cb) >> 16)
}

func clamp(v int) byte { return byte(min(max(v, 0), 255)) }

// chromaRow writes row y of one chroma plane at full width.
func chromaRow(dst []byte, sum []int, m *image.YCbCr, plane []byte, y int) {
	b := m.Bounds()
	w, h := b.Dx(), b.Dy()
	row := func(y int) []byte { return plane[m.COffset(b.Min.X, b.Min.Y+y):] }
	half := (w + 1) / 2
	fine := b.Min == image.Point{} && half > 2 // as libjpeg, which repeats samples in the narrowest images
	switch {
	case fine && m.SubsampleRatio == image.YCbCrSubsampleRatio422:
		widen(dst, row(y), half)
	case fine && m.SubsampleRatio == image.YCbCrSubsampleRatio420:
		near, far := row(y), row(neighbour(y, h))
		for x := range half {
			sum[x] = 3*int(near[x]) + int(far[x])
		}
		widenSums(dst, sum[:half])
	case b.Min == image.Point{} && m.SubsampleRatio == image.YCbCrSubsampleRatio440:
		near, far := row(y), row(neighbour(y, h))
		bias := 1 + y&1
		for x := range w {
			dst[x] = byte((3*int(near[x]) + int(far[x]) + bias) >> 2)
		}
	default:
		for x := range w {
			dst[x] = plane[m.COffset(b.Min.X+x, b.Min.Y+y)]
		}
	}
}

// neighbour is a row in the chroma row next nearest to y: the one above for even rows, the one below for odd ones.
func neighbour(y, h int) int {
	if y%2 == 0 {
		return max(y-1, 0)
	}
	return min(y+1, h-1)
}

// widen doubles a row of n samples (h2v1_fancy_upsample).
func widen(dst, src []byte, n int) {
	for x := range n {
		v := 3 * int(src[x])
		dst[2*x] = byte((v + int(src[max(x-1, 0)]) + 1) >> 2)
		dst[2*x+1] = byte((v + int(src[min(x+1, n-1)]) + 2) >> 2)
	}
}

// widenSums doubles a row of sums 3*near + far of two rows (h2v2_fancy_upsample).
func widenSums(dst []byte, sum []int) {
	n := len(sum)
	for x, v := range sum {
		dst[2*x] = byte((3*v + sum[max(x-1, 0)] + 8) >> 4)
		dst[2*x+1] = byte((3*v + sum[min(x+1, n-1)] + 7) >> 4)
	}
}
