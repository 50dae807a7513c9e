package sanitize

import (
	"math"
	"os"
	"slices"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
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

// TestStatisticsAreMeasured: what a BatchNormalization normalizes by after training does not depend on the file's momentum. With one of 1 the running
// statistics never move, and the trained toy would classify by those of the incoming weights.
func TestStatisticsAreMeasured(t *testing.T) {
	o := toyOptions(t)
	m, err := onnx.Parse(toy.model)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range m.Graph.Nodes {
		if n.Op == "BatchNormalization" {
			n.Attrs = append(n.Attrs, onnx.F("momentum", 1))
		}
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Model, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	o.Steps, o.LearningRate, o.NoAugment = new(200), .1, false
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.After.CDA.Value < .9-slack {
		t.Errorf("CDA %v before, %v after", r.Before.CDA, r.After.CDA)
	}
	out, err := os.ReadFile(o.Output)
	if err != nil {
		t.Fatal(err)
	}
	onlyWeightsDiffer(t, raw, out) // the momentum too is as it was

	// They are those of the trained convolution's output on images augmented as in training, and not of images as they are.
	trainSet, _ := split(t, o)
	c, p := openModel(t, o.Output), unitOf(t, toySide)
	i := slices.IndexFunc(c.Nodes, func(n *onnx.Node) bool { return n.Op == "BatchNormalization" })
	layer := classifier.Foldable{Node: &onnx.Node{Outputs: c.Nodes[i].Inputs[:1]}, Channels: 8}
	asTheyAre, _, err := layerStatistics(t.Context(), c, []classifier.Foldable{layer}, p, trainSet, cpu)
	if err != nil {
		t.Fatal(err)
	}
	mean, variance := augmentedStatistics(t, c, layer, p, trainSet)
	other := false
	for k := range 8 {
		m, v := c.Constants["norm.mean"].Floats()[k], c.Constants["norm.variance"].Floats()[k]
		deviation := math.Sqrt(float64(v))
		if math.Abs(float64(m-mean[k])) > .05*deviation || math.Abs(float64(v/variance[k]-1)) > .08 { // of 2,000 images
			t.Errorf("channel %d: mean %v and variance %v, on augmented images they are %v and %v", k, m, v, mean[k], variance[k])
		}
		other = other || math.Abs(float64(asTheyAre[0][k]-mean[k])) > .1*deviation
	}
	if !other {
		t.Error("augmentation changes nothing here: the test says nothing")
	}
}

// augmentedStatistics are mean and variance of a layer's output on 4,000 images augmented as in training.
func augmentedStatistics(t *testing.T, c *classifier.Classifier, layer classifier.Foldable, p data.Preprocess, d *data.Dataset) (mean, variance []float32) {
	t.Helper()
	f, err := train.NewMoments(c, p.Scale, p.Shift, []classifier.Foldable{layer}, cpu)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	feed := data.NewFeeder(t.Context(), d, p, data.FeedOptions{Batch: 100, Steps: 40, Augment: &data.Augment{Pad: toySide / 8, Cutout: toySide / 2}, Seed: 7})
	defer feed.Close()
	var m moments
	for range 40 {
		chunk, err := feed.Next()
		if err != nil {
			t.Fatal(err)
		}
		v, err := f.Run(t.Context(), chunk.Images)
		if err != nil {
			t.Fatal(err)
		}
		m.add(v)
	}
	means, variances := m.statistics()
	return means[0], variances[0]
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
