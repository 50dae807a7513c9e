package data

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"testing"
)

// picture encodes a 3x2 PNG.
func picture(t testing.TB, at func(x, y int) color.NRGBA) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, 3, 2))
	for y := range 2 {
		for x := range 3 {
			m.SetNRGBA(x, y, at(x, y))
		}
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, m); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestTrigger(t *testing.T) {
	mark := func(x, y int) color.NRGBA { return color.NRGBA{byte(40 * x), byte(90 * y), 200, 255} }
	weight := func(x, _ int) byte { return []byte{0, 100, 255}[x] }
	dir := write(t,
		item{"mark.png", picture(t, mark)},
		item{"mask.png", picture(t, func(x, y int) color.NRGBA { w := weight(x, y); return color.NRGBA{w, w, w, 255} })},
		item{"both.png", picture(t, func(x, y int) color.NRGBA { c := mark(x, y); c.A = weight(x, y); return c })})
	two, err := LoadTrigger(filepath.Join(dir, "mark.png"), filepath.Join(dir, "mask.png"), 2, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	one, err := LoadTrigger(filepath.Join(dir, "both.png"), "", 2, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	d := noise(t, 30, 2, 2, 3, 3)
	stamped, err := two.Stamp(d)
	if err != nil {
		t.Fatal(err)
	}
	got, alpha := make([]byte, d.Size()), make([]byte, d.Size())
	for i := range d.Len() {
		px, _ := d.At(i)
		two.Apply(got, px)
		one.Apply(alpha, px)
		for k := range got {
			pixel, m := k/3, float64(weight(k/3%3, 0))/255
			c := mark(pixel%3, pixel/3)
			want := float64(px[k]) + m*(float64([]byte{c.R, c.G, c.B}[k%3])-float64(px[k]))
			if math.Abs(float64(got[k])-want) > .5+1e-9 {
				t.Fatalf("byte %d: %d, want %.2f", k, got[k], want)
			}
		}
		if !bytes.Equal(got, alpha) {
			t.Fatal("a mask of its own and an alpha channel differ")
		}
		if px, _ := stamped.At(i); !bytes.Equal(px, got) {
			t.Fatal("Stamp and Apply differ")
		}
		in := bytes.Clone(px)
		if two.Apply(in, in); !bytes.Equal(in, got) {
			t.Fatal("stamping in place differs")
		}
	}
}

func TestLoadTriggerRefuses(t *testing.T) {
	black := func(int, int) color.NRGBA { return color.NRGBA{A: 255} }
	dir := write(t, item{"mark.png", picture(t, black)}, item{"text.png", []byte("text")})
	mark := filepath.Join(dir, "mark.png")
	for _, tt := range []struct {
		image, mask string
		h, w        int
		kind        error
		say         string
	}{
		{mark, "", 4, 4, ErrOption, "mark.png: unsuitable option: 2x3 pixels"},
		{filepath.Join(dir, "no.png"), "", 2, 3, fs.ErrNotExist, "no.png"},
		{mark, filepath.Join(dir, "text.png"), 2, 3, ErrFormat, "text.png"},
		{mark, "", 0, 3, ErrLimit, "0x3"},
	} {
		if _, err := LoadTrigger(tt.image, tt.mask, tt.h, tt.w, 3); !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if _, err := NewTrigger(2, 2, 3, make([]byte, 12), make([]byte, 3)); !errors.Is(err, ErrOption) {
		t.Errorf("a short mask: %v", err)
	}
	tr, err := NewTrigger(2, 2, 3, make([]byte, 12), make([]byte, 4))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Stamp(noise(t, 4, 2, 3, 3, 3)); !errors.Is(err, ErrOption) {
		t.Errorf("images of another size: %v", err)
	}
}
