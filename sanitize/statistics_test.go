package sanitize

import (
	"math"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// TestLayerStatistics compares the means and variances that unfolding inserts with those of the layers' outputs, two passes over all of
// them in float64. The images do not divide into whole batches.
func TestLayerStatistics(t *testing.T) {
	for _, file := range []string{"cntk-mnist.onnx", "vnncomp-cifar10_medium_nhwc.onnx"} {
		t.Run(file, func(t *testing.T) {
			c := openModel(t, shared.Path(t, "models", file))
			set := "cifar10"
			if c.Channels == 1 {
				set = "mnist"
			}
			d := images(t, set, c.Height, c.Channels).Subset(evalBatch+17, 1)
			p, err := data.Named("unit", data.Layout(c.Layout), c.Height, c.Width, c.Channels)
			if err != nil {
				t.Fatal(err)
			}
			layers := c.Foldable()
			mean, variance, err := layerStatistics(t.Context(), c, layers, p, d, cpu)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, l := range layers {
				names = append(names, l.Node.Outputs[0])
			}
			f, err := train.NewForward(c, p.Scale, p.Shift, nil, names, cpu)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			outputs := make([][]float32, len(layers))
			err = eachBatch(t.Context(), f, p, d, nil, func(_ int, v []*ort.Array) {
				for i := range v {
					outputs[i] = append(outputs[i], v[i].F32...)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, l := range layers {
				per := len(outputs[i]) / d.Len() / l.Channels
				for k := range l.Channels {
					each := func(visit func(x float64)) {
						for r := range d.Len() {
							for j := range per {
								visit(float64(outputs[i][(r*l.Channels+k)*per+j]))
							}
						}
					}
					n := float64(d.Len() * per)
					m, v := 0.0, 0.0
					each(func(x float64) { m += x / n })
					each(func(x float64) { v += (x - m) * (x - m) / n })
					if math.Abs(float64(mean[i][k])-m) > 1e-4*math.Sqrt(v+m*m) || math.Abs(float64(variance[i][k])-v) > 1e-3*(v+1e-6) {
						t.Errorf("%s, channel %d: mean %v and variance %v, want %v and %v", l.Node.Label(), k, mean[i][k], variance[i][k], m, v)
					}
				}
			}
		})
	}
}

// TestUnfoldInARun: the classifier that training starts from classifies as the original does.
func TestUnfoldInARun(t *testing.T) {
	o := toyOptions(t)
	r := &run{Options: o, report: &Report{}}
	if err := r.setDefaults(); err != nil {
		t.Fatal(err)
	}
	for _, stage := range []func() error{
		func() error { return r.load(t.Context()) }, func() error { return r.openData(t.Context()) },
		func() error { return r.preprocess(t.Context()) }, func() error { return r.unfold(t.Context()) },
	} {
		if err := stage(); err != nil {
			t.Fatal(err)
		}
	}
	if r.report.Unfolded != 1 || len(r.c.Unfolded) != 1 || len(r.original.Unfolded) != 0 {
		t.Fatalf("%d layers unfolded", r.report.Unfolded)
	}
	a, err := recordFeatures(t.Context(), r.original, nil, r.pre, r.held, cpu)
	if err != nil {
		t.Fatal(err)
	}
	b, err := recordFeatures(t.Context(), r.c, nil, r.pre, r.held, cpu)
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != r.held.Len()*r.c.FeatureWidth {
		t.Errorf("%d features of %d images", len(a), r.held.Len())
	}
	if d := meanDistance(a, b, r.c.FeatureWidth); d > 1e-4*meanDistance(a, make([]float32, len(a)), r.c.FeatureWidth) {
		t.Errorf("the features moved by %v", d)
	}
}
