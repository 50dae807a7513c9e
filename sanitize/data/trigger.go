package data

import (
	"fmt"
	"os"
)

// Trigger is a backdoor's mark: x' = x + m*(d-x), with d the mark's pixels and m how much they cover.
type Trigger struct {
	height, width, channels int
	mark                    []byte // d, [h, w, c]
	mask                    []byte // m, [h, w], 255 covers fully
}

// NewTrigger makes a trigger of a mark, [h, w, c], and a mask, [h, w], where 0 keeps the image and 255 shows the mark.
func NewTrigger(h, w, c int, mark, mask []byte) (*Trigger, error) {
	if err := checkSize(h, w, c); err != nil {
		return nil, fmt.Errorf("trigger: %w", err)
	}
	if len(mark) != h*w*c || len(mask) != h*w {
		return nil, fmt.Errorf("trigger: %w: %d bytes of mark and %d of mask for %dx%dx%d images", ErrOption, len(mark), len(mask), h, w, c)
	}
	return &Trigger{h, w, c, mark, mask}, nil
}

// LoadTrigger reads a trigger from two images of exactly h x w pixels. The mask is read as grey; an empty maskPNG takes the mark's
// alpha channel. Nothing is resized: a trigger depends on its very pixels.
func LoadTrigger(imagePNG, maskPNG string, h, w, c int) (*Trigger, error) {
	if err := checkSize(h, w, c); err != nil {
		return nil, fmt.Errorf("trigger: %w", err)
	}
	mark, err := loadImage(imagePNG, h, w, true)
	if err != nil {
		return nil, err
	}
	mask := make([]byte, h*w)
	if maskPNG == "" {
		for i := range mask {
			mask[i] = mark.pix[4*i+3]
		}
	} else {
		m, err := loadImage(maskPNG, h, w, false)
		if err != nil {
			return nil, err
		}
		m.recolour(mask, 1)
	}
	pix := make([]byte, h*w*c)
	mark.recolour(pix, c)
	return NewTrigger(h, w, c, pix, mask)
}

func loadImage(name string, h, w int, alpha bool) (raster, error) {
	fail := func(err error) (raster, error) { return raster{}, fmt.Errorf("trigger %s: %w", name, err) }
	f, err := os.Open(name)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	blob, err := readAll(f, info.Size(), maxImageFile)
	if err != nil {
		return fail(err)
	}
	r, err := decodeImage(blob, alpha)
	if err != nil {
		return fail(err)
	}
	if r.h != h || r.w != w {
		return fail(fmt.Errorf("%w: %dx%d pixels; the model's images have %dx%d, and a trigger is not resized", ErrOption, r.h, r.w, h, w))
	}
	return r, nil
}

// Apply writes the stamped image to dst; px is HWC and may be dst itself. Values are rounded to the nearest byte.
func (t *Trigger) Apply(dst, px []byte) {
	for i, m := range t.mask {
		for k := i * t.channels; k < (i+1)*t.channels; k++ {
			dst[k] = byte((int(px[k])*(255-int(m)) + int(t.mark[k])*int(m) + 127) / 255)
		}
	}
}

// Stamp is a copy of the dataset with the trigger on every image; labels stay.
func (t *Trigger) Stamp(d *Dataset) (*Dataset, error) {
	if t.height != d.Height || t.width != d.Width || t.channels != d.Channels {
		return nil, &Error{Path: d.Name, Err: fmt.Errorf("%w: a trigger of %dx%dx%d for images of %dx%dx%d", ErrOption,
			t.height, t.width, t.channels, d.Height, d.Width, d.Channels)}
	}
	out := *d
	n := d.Size()
	out.Name, out.rows, out.pixels = d.Name+" (stamped)", nil, make([]byte, d.Len()*n)
	for i := range d.Len() {
		px, _ := d.At(i)
		t.Apply(out.pixels[i*n:(i+1)*n], px)
	}
	return &out, nil
}
