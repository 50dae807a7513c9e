package data

import (
	"bytes"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
)

func decodeFile(t testing.TB, name string) raster {
	t.Helper()
	blob, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeImage(blob, false)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r
}

// differences are the largest and the mean absolute difference of two images' bytes.
func differences(t testing.TB, a, b []byte) (largest int, mean float64) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%d and %d bytes", len(a), len(b))
	}
	sum := 0
	for i := range a {
		diff := int(a[i]) - int(b[i])
		if diff < 0 {
			diff = -diff
		}
		largest, sum = max(largest, diff), sum+diff
	}
	return largest, float64(sum) / float64(len(a))
}

// The references are what Pillow 13.0 (libjpeg-turbo, libwebp) made of the same files. Two decoders may round the inverse
// transform differently, and nothing else.
func TestDecodesAsLibjpegAndLibwebp(t *testing.T) {
	for _, name := range []string{"444.jpg", "422.jpg", "420.jpg", "420-progressive.jpg", "lossy.webp"} {
		got, want := decodeFile(t, filepath.Join("testdata", "libjpeg", name)), decodeFile(t, filepath.Join("testdata", "libjpeg", name+".png"))
		largest, mean := differences(t, got.pix, want.pix)
		if largest > 3 || mean > .15 {
			t.Errorf("%s differs by up to %d, %.3f in the mean", name, largest, mean)
		}
	}
	// The standard library's own conversion is what this package avoids; the test would notice.
	blob, err := os.ReadFile(filepath.Join("testdata", "libjpeg", "420.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	var plain []byte
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			plain = append(plain, byte(r>>8), byte(g>>8), byte(b>>8))
		}
	}
	if largest, _ := differences(t, plain, decodeFile(t, filepath.Join("testdata", "libjpeg", "420.jpg.png")).pix); largest < 20 {
		t.Errorf("nearest-sample colour differs by %d only; the picture is no test", largest)
	}
}

func TestResizesAsPillow(t *testing.T) {
	r := decodeFile(t, filepath.Join("testdata", "libjpeg", "original.png"))
	got := make([]byte, 12*16*3)
	r.fit(got, 12, 16, 3, Stretch)
	if largest, mean := differences(t, got, decodeFile(t, filepath.Join("testdata", "libjpeg", "small.png")).pix); largest > 1 {
		t.Errorf("differs by up to %d, %.3f in the mean", largest, mean)
	}
}

func TestFitCrop(t *testing.T) {
	// Three columns of 4: red, green, blue. A centred square of the 4x12 image is the green one.
	wide := newRaster(4, 12, 3)
	for i := range 48 {
		wide.pix[3*i+i%12/4] = 255
	}
	tall := newRaster(12, 4, 3)
	for i := range 48 {
		tall.pix[3*i+i/16] = 255
	}
	for _, r := range []raster{wide, tall} {
		got := make([]byte, 2*2*3)
		r.fit(got, 2, 2, 3, Crop)
		if !bytes.Equal(got, bytes.Repeat([]byte{0, 255, 0}, 4)) {
			t.Errorf("%dx%d cropped to %v", r.h, r.w, got)
		}
	}
}

// Every format and colour model gives the pixels that were stored.
func TestDecodeFormats(t *testing.T) {
	red, half := color.NRGBA{200, 10, 30, 255}, color.NRGBA{200, 10, 30, 128}
	fill := func(m interface {
		image.Image
		Set(x, y int, c color.Color)
	}, c color.Color) image.Image {
		for y := range 3 {
			for x := range 5 {
				m.Set(x, y, c)
			}
		}
		return m
	}
	r := image.Rect(0, 0, 5, 3)
	palette := color.Palette{color.Black, red, half}
	encode := func(f func(*bytes.Buffer) error) []byte {
		var b bytes.Buffer
		if err := f(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	asPNG := func(m image.Image) []byte { return encode(func(b *bytes.Buffer) error { return png.Encode(b, m) }) }
	for _, tt := range []struct {
		name  string
		blob  []byte
		alpha bool
		want  []byte // of each pixel
	}{
		{"PNG RGB", asPNG(fill(image.NewRGBA(r), red)), false, []byte{200, 10, 30}},
		{"PNG RGBA", asPNG(fill(image.NewNRGBA(r), half)), false, []byte{200, 10, 30}},
		{"PNG RGBA with alpha", asPNG(fill(image.NewNRGBA(r), half)), true, []byte{200, 10, 30, 128}},
		{"PNG RGB with alpha", asPNG(fill(image.NewRGBA(r), red)), true, []byte{200, 10, 30, 255}},
		{"PNG grey", asPNG(fill(image.NewGray(r), color.Gray{77})), false, []byte{77}},
		{"PNG grey with alpha", asPNG(fill(image.NewGray(r), color.Gray{77})), true, []byte{77, 77, 77, 255}},
		{"PNG 16 bit grey", asPNG(fill(image.NewGray16(r), color.Gray16{0x4dff})), false, []byte{0x4d}},
		{"PNG 16 bit", asPNG(fill(image.NewNRGBA64(r), color.NRGBA64{0xc8ff, 0x0a00, 0x1eaa, 0xffff})), false, []byte{200, 10, 30}},
		{"PNG palette", asPNG(fill(image.NewPaletted(r, palette), red)), false, []byte{200, 10, 30}},
		{"PNG palette with alpha", asPNG(fill(image.NewPaletted(r, palette), half)), true, []byte{200, 10, 30, 128}},
		{"GIF", encode(func(b *bytes.Buffer) error { return gif.Encode(b, fill(image.NewPaletted(r, palette), red), nil) }), false, []byte{200, 10, 30}},
		{"BMP", encode(func(b *bytes.Buffer) error { return bmp.Encode(b, fill(image.NewRGBA(r), red)) }), false, []byte{200, 10, 30}},
		{"JPEG grey", encode(func(b *bytes.Buffer) error { return jpeg.Encode(b, fill(image.NewGray(r), color.Gray{128}), nil) }), false, []byte{128}},
	} {
		got, err := decodeImage(tt.blob, tt.alpha)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got.h != 3 || got.w != 5 || got.c != len(tt.want) || !bytes.Equal(got.pix, bytes.Repeat(tt.want, 15)) {
			t.Errorf("%s: %dx%dx%d, %v", tt.name, got.h, got.w, got.c, got.pix)
		}
	}
	// A GIF frame that covers a part of the screen, and a second frame that is ignored.
	frame := image.NewPaletted(image.Rect(1, 1, 3, 2), palette)
	frame.SetColorIndex(1, 1, 1)
	frame.SetColorIndex(2, 1, 1)
	blob := encode(func(b *bytes.Buffer) error {
		return gif.EncodeAll(b, &gif.GIF{Image: []*image.Paletted{frame, image.NewPaletted(r, palette)}, Delay: []int{1, 1}, Config: image.Config{Width: 5, Height: 3, ColorModel: palette}})
	})
	got, err := decodeImage(blob, false)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 45)
	copy(want[(5+1)*3:], []byte{200, 10, 30, 200, 10, 30})
	if got.h != 3 || got.w != 5 || !bytes.Equal(got.pix, want) {
		t.Errorf("partial GIF frame: %+v", got)
	}
}

func TestRecolour(t *testing.T) {
	rgb := raster{1, 2, 3, []byte{255, 0, 0, 10, 20, 30}}
	if got := rgb.as(1); !bytes.Equal(got, []byte{76, 18}) { // .299 R + .587 G + .114 B
		t.Errorf("luma %v", got)
	}
	if got := rgb.as(4); !bytes.Equal(got, []byte{255, 0, 0, 255, 10, 20, 30, 255}) {
		t.Errorf("with alpha %v", got)
	}
	if got := (raster{1, 1, 1, []byte{9}}).as(3); !bytes.Equal(got, []byte{9, 9, 9}) {
		t.Errorf("grey repeated %v", got)
	}
}

func TestTooManyJPEGScans(t *testing.T) {
	blob, err := os.ReadFile(filepath.Join("testdata", "libjpeg", "420-progressive.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	blob = append(blob, bytes.Repeat([]byte{0xff, 0xda}, maxScans)...)
	if _, err := decodeImage(blob, false); err == nil || !strings.Contains(err.Error(), "scans") {
		t.Error(err)
	}
}
