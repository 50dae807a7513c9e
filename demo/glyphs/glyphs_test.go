package glyphs

import (
	"bytes"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"grindstone/sanitize/data"
)

func generate(t testing.TB, n int, seed uint64) *data.Dataset {
	t.Helper()
	d, err := Generate(n, seed)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestGenerateIsDeterministic(t *testing.T) {
	d := generate(t, 300, 7)
	if d.Len() != 300 || d.Height != Side || d.Width != Side || d.Channels != 3 || strings.Join(d.Classes, "") != Letters {
		t.Fatal(d)
	}
	old := runtime.GOMAXPROCS(1)
	again := generate(t, 400, 7)
	runtime.GOMAXPROCS(old)
	for i := range d.Len() {
		a, la := d.At(i)
		b, lb := again.At(i)
		if la != i%10 || la != lb || !bytes.Equal(a, b) {
			t.Fatalf("image %d of a larger set on one core differs", i)
		}
	}
	if d.Digest() == generate(t, 300, 8).Digest() {
		t.Error("two seeds give the same images")
	}
	seen := map[string]bool{}
	for i := range d.Len() {
		px, _ := d.At(i)
		seen[string(px)] = true
	}
	if len(seen) != d.Len() {
		t.Errorf("%d different images of %d", len(seen), d.Len())
	}
	if _, err := Generate(1, 1); err == nil {
		t.Error("one image is no dataset")
	}
}

// Letters are told from their background: the glyph's colour has been kept away from it, so a good part of the pixels stand out.
func TestGlyphsAreVisible(t *testing.T) {
	d := generate(t, 500, 1)
	for i := range d.Len() {
		px, label := d.At(i)
		low, high := 255., 0.
		for p := 0; p < len(px); p += 3 {
			l := .299*float64(px[p]) + .587*float64(px[p+1]) + .114*float64(px[p+2])
			low, high = min(low, l), max(high, l)
		}
		if high-low < 50 {
			t.Errorf("image %d (%s) spans a luma of %.0f only", i, d.Classes[label], high-low)
		}
	}
}

// A linear model does not solve the task, though it solves one where place and colour tell the class.
func TestLinearModelFails(t *testing.T) {
	train, test := generate(t, 3000, 1), generate(t, 500, 2)
	if got := linear(train, test); got > .5 {
		t.Errorf("a linear model reaches %.3f", got)
	} else {
		t.Logf("a linear model reaches %.3f", got)
	}
	if got := linear(easy(t, 3000), easy(t, 500)); got < .95 {
		t.Errorf("the linear model of this test reaches %.3f on a linear task; it proves nothing", got)
	}
}

// easy marks the class with a bright patch at a place of its own.
func easy(t testing.TB, n int) *data.Dataset {
	d := generate(t, n, uint64(n))
	var pixels []byte
	for i := range n {
		px, label := d.At(i)
		px = bytes.Clone(px)
		for y := range 6 {
			for x := range 6 * 3 {
				px[((label/5)*16+4+y)*Side*3+(label%5)*18+x] = 255
			}
		}
		pixels = append(pixels, px...)
	}
	d, err := data.New("easy", d.Classes, Side, Side, 3, pixels, d.Labels)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// linear trains softmax regression on pixels in -1..1 and returns its accuracy.
func linear(train, test *data.Dataset) float64 {
	const classes, features, batch, steps, rate = 10, Side * Side * 3, 32, 400, .003
	weights := make([]float32, classes*features)
	x := make([]float32, features)
	scores := func(d *data.Dataset, i int) (out [classes]float32, label int) {
		px, label := d.At(i)
		for k, v := range px {
			x[k] = float32(v)/127.5 - 1
		}
		for c := range out {
			w := weights[c*features:][:features]
			for k, v := range x {
				out[c] += w[k] * v
			}
		}
		return out, label
	}
	rng := rand.New(rand.NewPCG(1, 1))
	gradient := make([]float32, len(weights))
	for range steps {
		clear(gradient)
		for range batch {
			out, label := scores(train, rng.IntN(train.Len()))
			top, sum := out[0], float32(0)
			for _, v := range out {
				top = max(top, v)
			}
			for c, v := range out {
				out[c] = float32(math.Exp(float64(v - top)))
				sum += out[c]
			}
			for c := range out {
				p := out[c] / sum
				if c == label {
					p--
				}
				g := gradient[c*features:][:features]
				for k, v := range x {
					g[k] += p * v
				}
			}
		}
		for k, g := range gradient {
			weights[k] -= rate * g / batch
		}
	}
	hits := 0
	for i := range test.Len() {
		out, label := scores(test, i)
		best := 0
		for c, v := range out {
			if v > out[best] {
				best = c
			}
		}
		if best == label {
			hits++
		}
	}
	return float64(hits) / float64(test.Len())
}

func BenchmarkGenerate(b *testing.B) {
	const n = 1000
	for b.Loop() {
		if _, err := Generate(n, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "images/s")
}
