package sanitize

import (
	"math"
	"os"
	"slices"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// quantizedToy is the toy as a quantizer would write it: weights in signed bytes with a scale per channel, the bias of the second
// convolution in 32 bits, activations in unsigned bytes, and no ReLU in front of a zero point of 0. With floats, weights are floats that
// are rounded when the model runs.
func quantizedToy(t *testing.T, floats bool) []byte {
	t.Helper()
	m, err := onnx.Parse(toy.model)
	if err != nil {
		t.Fatal(err)
	}
	value := map[string]*onnx.Tensor{}
	for _, i := range m.Graph.Initializers {
		value[i.Name] = i
	}
	b := onnx.NewBuilder()
	scales := map[string][]float32{}
	weight := func(name string) string {
		w, per := value[name], 0
		v, channels := w.Floats(), int(w.Shape[0])
		per = len(v) / channels
		scale, ints := make([]float32, channels), make([]int64, len(v))
		for k := range channels {
			for _, x := range v[k*per : (k+1)*per] {
				scale[k] = max(scale[k], float32(math.Abs(float64(x)))/127)
			}
		}
		for i, x := range v {
			ints[i] = int64(math.RoundToEven(float64(x / scale[i/per])))
		}
		scales[name] = scale
		s := b.Const(onnx.NewFloat(name+"_scale", []int64{int64(channels)}, scale))
		z := b.Const(onnx.NewInts(name+"_zero", onnx.Int8, []int64{int64(channels)}, make([]int64, channels)))
		if floats {
			q := b.Op("QuantizeLinear", []string{b.Const(onnx.NewFloat(name, w.Shape, v)), s, z}, onnx.I("axis", 0))
			return b.Op("DequantizeLinear", []string{q, s, z}, onnx.I("axis", 0))
		}
		return b.Op("DequantizeLinear", []string{b.Const(onnx.NewInts(name+"_int8", onnx.Int8, w.Shape, ints)), s, z}, onnx.I("axis", 0))
	}
	activation := func(x string, name string, top float32, zero uint8) string {
		scales[name] = []float32{top / float32(255-zero)}
		s, z := b.Const(onnx.NewFloat(name+"_scale", nil, scales[name])), b.Const(onnx.NewUint8(name+"_zero", nil, []uint8{zero}))
		return b.Named(name, "DequantizeLinear", []string{b.Op("QuantizeLinear", []string{x, s, z}), s, z})
	}
	keep := func(name string) string { return b.Const(value[name]) }

	b.Input("image", onnx.Float, -1, 3, toySide, toySide)
	y := b.Op("Conv", []string{activation("image", "pixels", 1, 0), weight("conv1.w")}, onnx.Is("pads", 1, 1, 1, 1))
	y = b.Op("BatchNormalization", []string{y, keep("norm.scale"), keep("norm.shift"), keep("norm.mean"), keep("norm.variance")})
	y = activation(y, "first", 16, 0) // cuts off what is negative
	w := weight("conv2.w")
	bias := value["conv2.b"].Floats()
	product, ints := make([]float32, len(bias)), make([]int64, len(bias))
	for k, x := range bias {
		product[k] = scales["first"][0] * scales["conv2.w"][k]
		ints[k] = int64(math.RoundToEven(float64(x / product[k])))
	}
	size := []int64{int64(len(bias))}
	bq := b.Op("DequantizeLinear", []string{b.Const(onnx.NewInts("conv2.b_int32", onnx.Int32, size, ints)), b.Const(onnx.NewFloat("conv2.b_scale", size, product)),
		b.Const(onnx.NewInts("conv2.b_zero", onnx.Int32, size, make([]int64, len(bias))))}, onnx.I("axis", 0))
	y = activation(b.Op("Conv", []string{y, w, bq}, onnx.Is("strides", 2, 2)), "second", 16, 0)
	y = b.Op("Flatten", []string{b.Op("GlobalAveragePool", []string{y})})
	y = activation(y, "feature", 16, 20)
	y = b.Op("Gemm", []string{y, weight("head.w"), keep("head.b")}, onnx.I("transB", 1))
	b.Named("logits", "Identity", []string{activation(y, "scores", 40, 128)})
	b.Output("logits", onnx.Float, -1, 3)
	raw, err := b.Model(13).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestQuantized sanitizes models whose weights are integers, or are rounded to them. The new file rounds as the old one did, its scales fit
// its weights, and ONNX Runtime on the file itself finds the accuracy that the report promises.
func TestQuantized(t *testing.T) {
	for name, floats := range map[string]bool{"integers": false, "floats": true} {
		t.Run(name, func(t *testing.T) {
			o := toyOptions(t)
			o.Preprocess = "unit"
			source := quantizedToy(t, floats)
			if err := os.WriteFile(o.Model, source, 0o644); err != nil {
				t.Fatal(err)
			}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if r.Before.CDA.Value < .95 || r.After.CDA.Value < .9-slack {
				t.Errorf("CDA %v before, %v after", r.Before.CDA, r.After.CDA)
			}
			_, held := split(t, o)
			if got := fileAccuracy(t, o.Output, held); math.Abs(got-r.After.CDA.Value) > .03 { // fused operators round a little otherwise
				t.Errorf("the file's accuracy is %v, the report says %v", got, r.After.CDA)
			}

			out, err := os.ReadFile(o.Output)
			if err != nil {
				t.Fatal(err)
			}
			was, is := initializers(t, source), initializers(t, out)
			for name := range was {
				if was[name].Type != is[name].Type || !slices.Equal(was[name].Shape, is[name].Shape) {
					t.Errorf("%s is %v %v, was %v %v", name, is[name].Type, is[name].Shape, was[name].Type, was[name].Shape)
				}
			}
			changed := func(name string) bool { return !slices.Equal(was[name].Raw, is[name].Raw) }
			for _, name := range []string{"conv1.w_scale", "conv2.w_scale", "conv2.b_int32", "conv2.b_scale", "head.w_scale", "first_scale", "second_scale", "feature_scale", "head.b"} {
				if !changed(name) {
					t.Errorf("%s has not changed", name)
				}
			}
			for _, name := range []string{"conv1.w_zero", "conv2.b_zero", "first_zero", "feature_zero"} {
				if changed(name) {
					t.Errorf("the zero point %s has changed", name)
				}
			}
			first := is["first_scale"].Floats()[0]
			for k, s := range is["conv2.b_scale"].Floats() {
				if want := first * is["conv2.w_scale"].Floats()[k]; s != want {
					t.Errorf("the bias of channel %d has scale %v, input and weight make %v", k, s, want)
				}
			}
			if w := is["conv2.w_int8"]; !floats {
				if !changed("conv1.w_int8") || !changed("conv2.w_int8") || !changed("head.w_int8") {
					t.Error("integers have not changed")
				}
				per := w.Len() / int(w.Shape[0])
				for k := range int(w.Shape[0]) { // each channel uses its scale to the end
					v := w.Ints()[k*per : (k+1)*per]
					if most := max(slices.Max(v), -slices.Min(v)); most != 127 {
						t.Errorf("channel %d of conv2.w goes to %d", k, most)
					}
				}
			}
		})
	}
}

// fileAccuracy runs the model's file as it is.
func fileAccuracy(t *testing.T, path string, d *data.Dataset) float64 {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ort.NewSession(raw, cpu)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	hits := 0
	for i := range d.Len() {
		pixels, label := d.At(i)
		x := make([]float32, len(pixels))
		for k, v := range pixels { // [height, width, channels] to [channels, height, width]
			x[k%3*toySide*toySide+k/3] = float32(v) / 255
		}
		y := make([]*ort.Array, 1)
		if err := s.Run(t.Context(), []*ort.Array{{Shape: []int64{1, 3, toySide, toySide}, F32: x}}, y); err != nil {
			t.Fatal(err)
		}
		if slices.Index(y[0].F32, slices.Max(y[0].F32)) == label {
			hits++
		}
	}
	return float64(hits) / float64(d.Len())
}

func initializers(t *testing.T, model []byte) map[string]*onnx.Tensor {
	t.Helper()
	m, err := onnx.Parse(model)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*onnx.Tensor{}
	for _, i := range m.Graph.Initializers {
		all[i.Name] = i
	}
	return all
}

// TestQuantizedForms: the form that is trained puts a ReLU where a zero point cuts off negative values; the form that is evaluated rounds,
// to the same scores but for the steps of the integers.
func TestQuantizedForms(t *testing.T) {
	o := toyOptions(t)
	m, err := onnx.Parse(quantizedToy(t, false))
	if err != nil {
		t.Fatal(err)
	}
	d, err := data.Open(t.Context(), o.Data, data.Options{Height: toySide, Width: toySide, Channels: 3})
	if err != nil {
		t.Fatal(err)
	}
	p := unitOf(t, toySide)
	var scores [2][]float32
	for i, rounded := range []bool{false, true} {
		c, err := classifier.New(m, classifier.Options{Rounded: rounded})
		if err != nil {
			t.Fatal(err)
		}
		if c.Feature != "feature" || c.FeatureWidth != 12 {
			t.Errorf("rounded %v: feature layer %s, %d wide", rounded, c.Feature, c.FeatureWidth)
		}
		f, err := train.NewForward(c, p.Scale, p.Shift, nil, []string{c.Logits}, cpu)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := eachBatch(t.Context(), f, p, d, nil, func(_ int, v []*ort.Array) { scores[i] = append(scores[i], v[0].F32...) }); err != nil {
			t.Fatal(err)
		}
	}
	sum, off := 0.0, 0.0
	for i, x := range scores[0] {
		sum += float64(x) * float64(x)
		off += math.Pow(float64(x-scores[1][i]), 2)
	}
	if e := math.Sqrt(off / sum); e > .05 || e == 0 {
		t.Errorf("rounding changes the scores by %.2g of their norm", e)
	}
}
