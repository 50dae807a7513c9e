package data

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"sync"

	"golang.org/x/image/bmp"
	"golang.org/x/image/webp"
)

// raster is one decoded image.
type raster struct {
	h, w, c int    // c is 1, 3 or 4
	pix     []byte // [h, w, c]
}

// codec is an image format. Formats are told by their first bytes; a file's extension does not matter.
type codec struct {
	name   string
	magic  string // '?' stands for any byte
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

var codecs = []codec{
	{"PNG", "\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode},
	{"JPEG", "\xff\xd8", jpeg.DecodeConfig, jpeg.Decode},
	{"GIF", "GIF8?a", gif.DecodeConfig, gif.Decode}, // the first frame
	{"BMP", "BM????\x00\x00\x00\x00", bmp.DecodeConfig, bmp.Decode},
	{"WebP", "RIFF????WEBPVP8", webp.DecodeConfig, webp.Decode},
}

func (c codec) matches(data []byte) bool {
	if len(data) < len(c.magic) {
		return false
	}
	for i := range len(c.magic) {
		if c.magic[i] != '?' && c.magic[i] != data[i] {
			return false
		}
	}
	return true
}

// large lets one image at a time take much memory.
var large sync.Mutex

// decodeImage decodes an image file. A grey image has one channel and others three, or four with alpha. Without alpha, transparency
// is ignored and the stored colour taken.
func decodeImage(data []byte, alpha bool) (raster, error) {
	for _, c := range codecs {
		if !c.matches(data) {
			continue
		}
		conf, err := c.config(bytes.NewReader(data))
		if err != nil {
			return raster{}, fmt.Errorf("%w: %s header: %w", ErrCorrupt, c.name, err)
		}
		if err := checkSize(conf.Height, conf.Width, 1); err != nil {
			return raster{}, err
		}
		if c.name == "JPEG" && bytes.Count(data, []byte{0xff, 0xda}) > maxScans {
			return raster{}, fmt.Errorf("%w: a JPEG of more than %d scans", ErrLimit, maxScans)
		}
		if conf.Height*conf.Width > largePixels {
			large.Lock()
			defer large.Unlock()
		}
		img, err := c.decode(bytes.NewReader(data))
		if err != nil {
			return raster{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, c.name, err)
		}
		convert := toRGB(jfifRGB)
		if c.name == "WebP" {
			convert = vp8RGB
		}
		return toRaster(img, conf.Width, conf.Height, alpha, convert), nil
	}
	return raster{}, fmt.Errorf("%w: not a PNG, JPEG, GIF, BMP or WebP image", ErrFormat)
}

// toRaster copies an image's pixels. A GIF's frame may cover only a part of its w x h screen; the rest is black and transparent.
func toRaster(img image.Image, w, h int, alpha bool, convert toRGB) raster {
	b := img.Bounds()
	switch m := img.(type) {
	case *image.Gray:
		if !alpha {
			r := newRaster(h, w, 1)
			for y := range b.Dy() {
				copy(r.pix[y*w:][:w], m.Pix[y*m.Stride:])
			}
			return r
		}
	case *image.Gray16:
		if !alpha {
			r := newRaster(h, w, 1)
			for y := range b.Dy() {
				for x := range b.Dx() {
					r.pix[y*w+x] = m.Pix[y*m.Stride+2*x] // the high byte
				}
			}
			return r
		}
	case *image.YCbCr:
		r := raster{h, w, 3, fromYCbCr(m, convert)}
		if alpha {
			r.pix, r.c = r.as(4), 4
		}
		return r
	case *image.NYCbCrA:
		r := raster{h, w, 3, fromYCbCr(&m.YCbCr, convert)}
		if alpha {
			r.pix, r.c = r.as(4), 4
			for y := range h {
				for x := range w {
					r.pix[(y*w+x)*4+3] = m.A[y*m.AStride+x]
				}
			}
		}
		return r
	}
	c := 3
	if alpha {
		c = 4
	}
	r := newRaster(h, w, c)
	at := pixelOf(img)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			p := at(x, y)
			i := (y*w + x) * c
			r.pix[i], r.pix[i+1], r.pix[i+2] = p.R, p.G, p.B
			if alpha {
				r.pix[i+3] = p.A
			}
		}
	}
	return r
}

func newRaster(h, w, c int) raster { return raster{h, w, c, make([]byte, h*w*c)} }

// pixelOf returns an image's pixels with straight alpha, fast for the types that decoders produce.
func pixelOf(img image.Image) func(x, y int) color.NRGBA {
	switch m := img.(type) {
	case *image.RGBA:
		if m.Opaque() {
			return func(x, y int) color.NRGBA {
				p := m.Pix[m.PixOffset(x, y):]
				return color.NRGBA{p[0], p[1], p[2], p[3]}
			}
		}
	case *image.NRGBA:
		return m.NRGBAAt
	case *image.Paletted:
		table := make([]color.NRGBA, 256)
		for i, c := range m.Palette {
			table[i] = color.NRGBAModel.Convert(c).(color.NRGBA)
		}
		return func(x, y int) color.NRGBA { return table[m.ColorIndexAt(x, y)] }
	}
	return func(x, y int) color.NRGBA { return color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA) }
}
