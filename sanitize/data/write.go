package data

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// WriteTarGz writes the dataset as a gzipped tar of class/NNNNN.png, which Open reads back (with classes in
// alphabetical order). The same dataset gives the same bytes.
func (d *Dataset) WriteTarGz(w io.Writer) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	err := d.each(func(name string, data []byte) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

// WriteFolder writes the dataset as dir/class/NNNNN.png, which Open reads back. The folder must be new or empty.
func (d *Dataset) WriteFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if old, err := os.ReadDir(dir); err != nil {
		return err
	} else if len(old) > 0 {
		return &Error{Path: d.Name, Err: fmt.Errorf("%w: %s is not empty", ErrOption, dir)}
	}
	return d.each(func(name string, data []byte) error {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return os.WriteFile(name, data, 0o644)
	})
}

// each encodes every image and hands it over with its name, class by class.
func (d *Dataset) each(write func(name string, data []byte) error) error {
	encoder := png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: new(buffers)}
	var buf bytes.Buffer
	for class, name := range d.Classes {
		if !filepath.IsLocal(name) || strings.ContainsAny(name, `/\`) || hidden(name) {
			return &Error{Path: d.Name, Err: fmt.Errorf("%w: class name %q cannot be a folder's name", ErrClasses, name)}
		}
		n := 0
		for i, l := range d.Labels {
			if int(l) != class {
				continue
			}
			px, _ := d.At(i)
			buf.Reset()
			if err := encoder.Encode(&buf, d.image(px)); err != nil {
				return &Error{Path: d.Name, Entry: name, Err: err}
			}
			if err := write(fmt.Sprintf("%s/%05d.png", name, n), buf.Bytes()); err != nil {
				return &Error{Path: d.Name, Entry: name, Err: err}
			}
			n++
		}
		if n == 0 {
			return &Error{Path: d.Name, Entry: name, Err: fmt.Errorf("%w: no image of this class; a folder of class folders cannot express that", ErrClasses)}
		}
	}
	return nil
}

// Image returns image i for viewing or encoding. It is a copy.
func (d *Dataset) Image(i int) image.Image {
	px, _ := d.At(i)
	return d.image(px)
}

func (d *Dataset) image(px []byte) image.Image {
	r := image.Rect(0, 0, d.Width, d.Height)
	switch d.Channels {
	case 1:
		return &image.Gray{Pix: append([]byte(nil), px...), Stride: d.Width, Rect: r}
	case 4:
		return &image.NRGBA{Pix: append([]byte(nil), px...), Stride: 4 * d.Width, Rect: r}
	}
	m := image.NewRGBA(r)
	raster{d.Height, d.Width, 3, px}.recolour(m.Pix, 4)
	return m
}

// buffers lets the PNG encoder reuse its memory.
type buffers struct{ b *png.EncoderBuffer }

func (p *buffers) Get() *png.EncoderBuffer  { return p.b }
func (p *buffers) Put(b *png.EncoderBuffer) { p.b = b }
