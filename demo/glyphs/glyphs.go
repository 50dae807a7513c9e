// Package glyphs draws a dataset: ten letters of several fonts, turned, sheared and shifted, in any colour, brighter or darker than a
// cluttered background. It needs no download, and a small convolutional network learns it in a few hundred steps, while a linear
// model, which has no notion of a shape apart from its place and colour, does not.
package glyphs

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goitalic"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"

	"grindstone/sanitize/data"
)

const (
	// Side is the images' height and width in pixels.
	Side = 32
	// Letters are the classes, in the order of their labels.
	Letters = "ACEHKOSTWX"

	channels = 3
	area     = Side * Side
	unit     = 1000 // fixed-point size at which outlines are loaded
)

// Generate draws n images, [32, 32, 3], with labels 0, 1, ... 9, 0, 1, ... The same n and seed give the same images, and a larger n
// starts with the images of a smaller one.
func Generate(n int, seed uint64) (*data.Dataset, error) {
	if n < 2 {
		return nil, fmt.Errorf("glyphs: %d images; two or more are needed", n)
	}
	shapes, err := outlines()
	if err != nil {
		return nil, fmt.Errorf("glyphs: %w", err)
	}
	pixels, labels := make([]byte, n*area*channels), make([]int32, n)
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for k := range workers {
		wg.Go(func() {
			p := newPainter(shapes)
			for i := k; i < n; i += workers {
				labels[i] = int32(i % len(Letters))
				p.rng = rand.New(rand.NewPCG(seed, uint64(i)))
				p.paint(pixels[i*area*channels:(i+1)*area*channels], i%len(Letters))
			}
		})
	}
	wg.Wait()
	return data.New("glyphs", strings.Split(Letters, ""), Side, Side, channels, pixels, labels)
}

// outline is a letter's shape, centred on the origin, with a height of 1 and y downwards.
type outline []sfnt.Segment

// point is a place in an outline's own units.
type point struct{ x, y float32 }

func (o outline) at(p fixed.Point26_6) point {
	return point{float32(p.X) / unit, float32(p.Y) / unit}
}

// outlines loads every letter of every font: [letter][font].
func outlines() ([][]outline, error) {
	files := [][]byte{goregular.TTF, gobold.TTF, gomedium.TTF, goitalic.TTF, gomono.TTF}
	shapes := make([][]outline, len(Letters))
	var buf sfnt.Buffer
	for _, file := range files {
		f, err := sfnt.Parse(file)
		if err != nil {
			return nil, err
		}
		for i, letter := range Letters {
			index, err := f.GlyphIndex(&buf, letter)
			if err != nil {
				return nil, err
			}
			segments, err := f.LoadGlyph(&buf, index, unit, nil)
			if err != nil {
				return nil, err
			}
			shapes[i] = append(shapes[i], normalize(segments))
		}
	}
	return shapes, nil
}

// normalize centres a shape and scales it to a height of 1, in units of 1/unit.
func normalize(segments sfnt.Segments) outline {
	b := segments.Bounds()
	scale := float64(unit) / float64(b.Max.Y-b.Min.Y)
	o := make(outline, len(segments))
	for i, s := range segments {
		o[i].Op = s.Op
		for k, a := range s.Args {
			o[i].Args[k] = fixed.Point26_6{
				X: fixed.Int26_6(math.Round(float64(a.X-(b.Min.X+b.Max.X)/2) * scale)),
				Y: fixed.Int26_6(math.Round(float64(a.Y-(b.Min.Y+b.Max.Y)/2) * scale)),
			}
		}
	}
	return o
}
