package sanitize

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/train"
)

// checkRun holds the report of a run against its files: what was written, what was measured, what was counted.
func checkRun(t *testing.T, o Options, r *Report) {
	t.Helper()
	source, err := os.ReadFile(o.Model)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(o.Output)
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string]struct {
		info FileInfo
		path string
		data []byte
	}{"source": {r.Source, o.Model, source}, "sanitized": {r.Sanitized, o.Output, out}} {
		sum := sha256.Sum256(pair.data)
		if pair.info != (FileInfo{filepath.Base(pair.path), hex.EncodeToString(sum[:]), int64(len(pair.data))}) {
			t.Errorf("%s: %+v", what, pair.info)
		}
	}
	onlyWeightsDiffer(t, source, out)

	h := r.Hyperparameters
	if r.SchemaVersion != "1.0" || r.Method != "feature-grinding" || r.Transformation != string(o.Transformation) || r.SecretDiscarded == secretIsFixed {
		t.Errorf("%s, %s, %s, secret discarded: %v", r.SchemaVersion, r.Method, r.Transformation, r.SecretDiscarded)
	}
	if h.Steps != *o.Steps || h.BatchSize != o.Batch || h.LearningRate != o.LearningRate || h.LearningRateFrom != "flag" || h.Optimizer != "sgd-nesterov" || h.Schedule != "cosine" {
		t.Errorf("hyper-parameters %+v", h)
	}
	if want := float64(h.Steps*h.BatchSize) / float64(r.Dataset.Train); math.Abs(h.Epochs-want) > 1e-9 {
		t.Errorf("%v epochs, %d steps of %d over %d images are %v", h.Epochs, h.Steps, h.BatchSize, r.Dataset.Train, want)
	}
	steps, seconds := 0, 0.0
	for i, p := range r.Phases {
		if p.Name != []string{"grind", "restore"}[i] || p.Alpha != []float64{h.AlphaGrind, h.AlphaRestore}[i] {
			t.Errorf("phase %d: %s, alpha %v", i, p.Name, p.Alpha)
		}
		for _, e := range []struct{ loss, feature, task float64 }{{p.Loss.First, p.Feature.First, p.Task.First}, {p.Loss.Last, p.Feature.Last, p.Task.Last}} {
			if want := p.Alpha*e.feature + (1-p.Alpha)*e.task; math.Abs(e.loss-want) > 1e-4*want {
				t.Errorf("%s: loss %v, %v of features and %v of the task give %v", p.Name, e.loss, e.feature, e.task, want)
			}
		}
		steps += p.Steps
		seconds += p.Seconds
	}
	if len(r.Phases) != 2 || steps != h.Steps || r.Phases[0].Steps != h.GrindSteps {
		t.Errorf("phases %+v", r.Phases)
	}
	if seconds <= 0 || seconds > r.Seconds || r.FinishedAt.Sub(r.StartedAt).Seconds() != r.Seconds {
		t.Errorf("%.3f s of training in %.3f s", seconds, r.Seconds)
	}
	if got := float64(h.Steps*h.BatchSize) / r.ImagesPerSecond; got < seconds*.9 || got > r.Seconds {
		t.Errorf("%v images a second make %.3f s, the phases took %.3f", r.ImagesPerSecond, got, seconds)
	}
	if r.Before.CDA.Count != r.Dataset.HeldOut || r.After.CDA.Count != r.Dataset.HeldOut {
		t.Errorf("CDA of %d and %d images, %d are held out", r.Before.CDA.Count, r.After.CDA.Count, r.Dataset.HeldOut)
	}
	if !strings.HasPrefix(r.Dataset.Digest, "sha256:") || len(r.Dataset.Digest) != 71 {
		t.Errorf("dataset digest %q", r.Dataset.Digest)
	}
	if r.FeatureDistance.Before <= 0 || r.FeatureDistance.After <= 0 || r.FeatureDistance.Floor < 0 || r.FeatureDistance.Floor > r.FeatureDistance.Before {
		t.Errorf("feature distance %+v", r.FeatureDistance)
	}
	if r.Runtime.Engine != "onnxruntime" || r.Runtime.Provider != "CPUExecutionProvider" || r.Runtime.Version == "" || r.Runtime.Threads < 1 {
		t.Errorf("runtime %+v", r.Runtime)
	}

	// The written file, read as a stranger's, has the accuracy that the report claims, on the images that were held out.
	_, held := split(t, o)
	c := openModel(t, o.Output)
	p, err := data.Named(r.Preprocessing.Name, data.Layout(c.Layout), c.Height, c.Width, c.Channels)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Evaluate(t.Context(), c, nil, p, held, nil, cpu)
	if err != nil {
		t.Fatal(err)
	}
	if e.CDA != r.After.CDA {
		t.Errorf("the written file has a CDA of %v, the report says %v", e.CDA, r.After.CDA)
	}
}

// split opens a run's dataset as the run does.
func split(t *testing.T, o Options) (trainSet, held *data.Dataset) {
	t.Helper()
	o.Progress = nil
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	r := &run{Options: o, report: &Report{}}
	for _, stage := range []func(context.Context) error{r.load, r.openData} {
		if err := stage(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return r.trainSet, r.held
}

// onlyWeightsDiffer parses both files: they are equal once the data of the initializers is. At least one initializer has changed.
func onlyWeightsDiffer(t *testing.T, source, out []byte) {
	t.Helper()
	a, err := onnx.Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	b, err := onnx.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(source) != len(out) {
		t.Errorf("the file has %d bytes instead of %d", len(out), len(source))
	}
	changed := 0
	for i, w := range a.Graph.Initializers {
		v := b.Graph.Initializers[i]
		if v.Name != w.Name || !slices.Equal(v.Shape, w.Shape) || v.Type != w.Type {
			t.Fatalf("initializer %d: %s %v instead of %s %v", i, v.Name, v.Shape, w.Name, w.Shape)
		}
		if !slices.Equal(v.Raw, w.Raw) {
			changed++
			if w.Type != onnx.Float {
				t.Errorf("%s is no weight, but has changed", w.Name)
			}
		}
		v.Raw = w.Raw
	}
	if changed == 0 {
		t.Error("no weight has changed")
	}
	if !onnx.Equal(a, b) || !maps.Equal(a.Metadata, b.Metadata) || !maps.Equal(a.Opsets, b.Opsets) || a.ProducerName != b.ProducerName || a.Doc != b.Doc {
		t.Error("something else than weights has changed")
	}
}

// TestRun sanitizes the toy by each transformation.
func TestRun(t *testing.T) {
	for _, kind := range Transformations {
		t.Run(string(kind), func(t *testing.T) {
			o := toyOptions(t)
			o.Transformation = kind
			var lines []Progress
			o.Progress = func(p Progress) { lines = append(lines, p) }
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			checkRun(t, o, r)
			if r.Before.CDA.Value < .95 || r.After.CDA.Value < .9-slack {
				t.Errorf("CDA %v before, %v after", r.Before.CDA, r.After.CDA)
			}
			if r.FeatureDistance.After >= r.FeatureDistance.Before {
				t.Errorf("grinding has not moved the features towards their targets: %+v", r.FeatureDistance)
			}
			if kind == Permute && r.FeatureDistance.Floor != 0 || kind != Permute && r.FeatureDistance.Floor == 0 {
				t.Errorf("%s: floor %v; only a permutation keeps features from becoming negative", kind, r.FeatureDistance.Floor)
			}
			if (r.Hyperparameters.Angle != 0) != (kind == Rotate2D) {
				t.Errorf("angle %v", r.Hyperparameters.Angle)
			}
			if r.Unfolded != 1 || !r.Hyperparameters.Unfold || r.FeatureLayer != "feature" || r.FeatureWidth != 12 || r.Dataset.Train != 480 || r.Dataset.HeldOut != 120 || r.Dataset.Classes != 3 {
				t.Errorf("%d unfolded, %s, %d wide, %+v", r.Unfolded, r.FeatureLayer, r.FeatureWidth, r.Dataset)
			}
			checkProgress(t, lines, *o.Steps, r.Hyperparameters.GrindSteps)
		})
	}
}

// checkProgress: phases in their order, steps that only grow, and an end.
func checkProgress(t *testing.T, lines []Progress, steps, grind int) {
	t.Helper()
	var phases []string
	last := 0
	for _, p := range lines {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
		if p.Phase == "grind" || p.Phase == "restore" {
			if p.Steps != steps || p.Step <= last || (p.Phase == "grind") != (p.Step <= grind) || p.ImagesPerSecond <= 0 || p.Remaining < 0 || p.Loss <= 0 {
				t.Errorf("after step %d: %+v", last, p)
			}
			last = p.Step
		}
	}
	if got := strings.Join(phases, " "); got != "load preprocess evaluate record grind restore evaluate write done" {
		t.Errorf("phases: %s", got)
	}
	if last != steps {
		t.Errorf("the last of %d steps was %d", steps, last)
	}
}

// TestSettings: variants of a run.
func TestSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(o *Options)
		check  func(t *testing.T, o Options, r *Report)
	}{
		"a rate that is searched": {func(o *Options) { o.LearningRate = 0 }, func(t *testing.T, o Options, r *Report) {
			h := r.Hyperparameters
			if h.LearningRateFrom != "search" || !slices.Contains(rates, h.LearningRate) || r.After.CDA.Value < .9-slack {
				t.Errorf("rate %v from %s, CDA %v", h.LearningRate, h.LearningRateFrom, r.After.CDA)
			}
		}},
		"epochs": {func(o *Options) { o.Steps, o.Epochs, o.GrindEpochs = nil, 4, 1 }, func(t *testing.T, o Options, r *Report) {
			if h := r.Hyperparameters; h.Steps != 60 || h.GrindSteps != 15 || h.Epochs != 4 || h.GrindEpochs != 1 {
				t.Errorf("%+v", h)
			}
		}},
		"grinding alone": {func(o *Options) { o.Steps, o.GrindSteps = new(40), 40 }, func(t *testing.T, o Options, r *Report) {
			if len(r.Phases) != 1 || r.Phases[0].Name != "grind" || r.Phases[0].Steps != 40 {
				t.Errorf("phases %+v", r.Phases)
			}
		}},
		"some samples": {func(o *Options) { o.Samples = 90 }, func(t *testing.T, o Options, r *Report) {
			if r.Dataset.Train != 90 || r.Dataset.HeldOut != 120 {
				t.Errorf("%+v", r.Dataset)
			}
		}},
		"fewer samples than a batch": {func(o *Options) { o.Samples = 20 }, func(t *testing.T, o Options, r *Report) {
			if r.Dataset.Train != 20 || r.Hyperparameters.Epochs != 80*32/20 {
				t.Errorf("%+v, %v epochs", r.Dataset, r.Hyperparameters.Epochs)
			}
		}},
		"neither momentum nor weight decay": {func(o *Options) { o.Momentum, o.WeightDecay = new(0.), new(0.) }, func(t *testing.T, o Options, r *Report) {
			if h := r.Hyperparameters; h.Momentum != 0 || h.WeightDecay != 0 {
				t.Errorf("%+v", h)
			}
		}},
		"nothing unfolded": {func(o *Options) { o.NoUnfold = true }, func(t *testing.T, o Options, r *Report) {
			if r.Unfolded != 0 || r.Hyperparameters.Unfold {
				t.Errorf("%d unfolded", r.Unfolded)
			}
		}},
		"augmentation": {func(o *Options) { o.NoAugment, o.Mirror = false, MirrorOn }, func(t *testing.T, o Options, r *Report) {
			if r.After.CDA.Value < .6-slack { // a square of half the side covers much of so small an image
				t.Errorf("CDA %v", r.After.CDA)
			}
		}},
		"a named preprocessing": {func(o *Options) { o.Preprocess = "unit" }, func(t *testing.T, o Options, r *Report) {
			if r.Preprocessing != (Preprocessing{Name: "unit", Layout: "NCHW", From: "flag"}) {
				t.Errorf("%+v", r.Preprocessing)
			}
		}},
		"no output, a trial": {func(o *Options) { o.Output = "" }, func(t *testing.T, o Options, r *Report) {
			if r.Sanitized != (FileInfo{}) {
				t.Errorf("%+v", r.Sanitized)
			}
		}},
		"a deeper feature layer": {func(o *Options) {
			o.Feature = "relu_1" // in front of the second convolution
			o.Transformation = Rotate2D
		}, func(t *testing.T, o Options, r *Report) {
			if r.FeatureLayer != "relu_1" || r.FeatureWidth != 8*8*8 || r.Unfolded != 0 || r.After.CDA.Value < .8-slack {
				t.Errorf("%s, %d wide, %d unfolded, CDA %v", r.FeatureLayer, r.FeatureWidth, r.Unfolded, r.After.CDA)
			}
		}},
		"the output in place of the model": {func(o *Options) { o.Output = o.Model }, func(t *testing.T, o Options, r *Report) {
			if r.Source.SHA256 == r.Sanitized.SHA256 {
				t.Error("nothing was written")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := toyOptions(t)
			tt.change(&o)
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			tt.check(t, o, r)
		})
	}
}

// TestNoSteps: a whole run of no steps writes an equal file, and says that it did nothing. The head is not reset, nothing is rounded anew.
func TestNoSteps(t *testing.T) {
	for name, model := range map[string]func() []byte{
		"floats": func() []byte { return toy.model }, "integers": func() []byte { return quantizedToy(t, false) }, "rounded floats": func() []byte { return quantizedToy(t, true) },
	} {
		t.Run(name, func(t *testing.T) {
			o := toyOptions(t)
			o.Steps, o.LearningRate, o.Preprocess = new(0), 0, "unit"
			source := model()
			if err := os.WriteFile(o.Model, source, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			out, err := os.ReadFile(o.Output)
			if err != nil {
				t.Fatal(err)
			}
			a, err := onnx.Parse(source)
			if err != nil {
				t.Fatal(err)
			}
			b, err := onnx.Parse(out)
			if err != nil {
				t.Fatal(err)
			}
			if !onnx.Equal(a, b) || !slices.Equal(source, out) {
				t.Error("the file has changed")
			}
			if r.Hyperparameters.Steps != 0 || len(r.Phases) != 0 || r.After.CDA != r.Before.CDA || r.Unfolded != 0 || len(r.Warnings) != 1 || r.Runtime.Provider != "CPUExecutionProvider" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestRival: a preprocessing that was guessed is called that, with the other one that may be right.
func TestRival(t *testing.T) {
	o := toyOptions(t)
	o.Steps, o.Preprocess = new(0), ""
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Preprocessing; p.Name == "" || p.Rival == "" || p.Rival == p.Name || !strings.Contains(r.Warnings[0], "with "+p.Rival+" the model is within") {
		t.Errorf("%+v, %q", p, r.Warnings)
	}
}

// TestHeldOutImages: what is held out is never trained on, however it is held out.
func TestHeldOutImages(t *testing.T) {
	check := func(name string, o Options, count int) {
		trainSet, held := split(t, o)
		seen := map[string]bool{}
		for i := range trainSet.Len() {
			px, _ := trainSet.At(i)
			seen[string(px)] = true
		}
		for i := range held.Len() {
			if px, _ := held.At(i); seen[string(px)] {
				t.Errorf("%s: held-out image %d is trained on", name, i)
			}
		}
		if held.Len() != count && count >= 0 {
			t.Errorf("%s: %d images are held out, want %d", name, held.Len(), count)
		}
	}
	o := toyOptions(t)
	check("a share", o, 120)
	o.Seed = 9
	check("a share by another seed", o, 120)
	o.Samples = 100
	check("a share, and some samples", o, 120)

	other, err := toyImages(60, 77)
	if err != nil {
		t.Fatal(err)
	}
	o.HeldOut = filepath.Join(t.TempDir(), "held")
	if err := other.WriteFolder(o.HeldOut); err != nil {
		t.Fatal(err)
	}
	check("a dataset of its own", o, 60)

	whole := filepath.Join(t.TempDir(), "whole")
	for part, d := range map[string]*data.Dataset{"train": toy.images, "test": other} {
		if err := d.WriteFolder(filepath.Join(whole, part)); err != nil {
			t.Fatal(err)
		}
	}
	o.HeldOut, o.Data = "", whole
	check("a test folder within the dataset", o, 60)

	// Copies: of a third of the images under other names and labels, and of held-out images in another dataset.
	o = toyOptions(t)
	copied := copies(t, toy.images, toy.images.Subset(200, 1), 1)
	o.Data = filepath.Join(t.TempDir(), "copied")
	if err := copied.WriteFolder(o.Data); err != nil {
		t.Fatal(err)
	}
	check("a share of images with copies", o, -1)
	o = toyOptions(t)
	o.HeldOut = filepath.Join(t.TempDir(), "held")
	if err := copies(t, other, toy.images.Subset(30, 1), 0).WriteFolder(o.HeldOut); err != nil {
		t.Fatal(err)
	}
	check("a dataset of its own with training images", o, 90)
}

// copies is a dataset with images of another one, whose labels are moved.
func copies(t *testing.T, d, more *data.Dataset, move int) *data.Dataset {
	t.Helper()
	var pixels []byte
	var labels []int32
	for _, part := range []*data.Dataset{d, more} {
		for i := range part.Len() {
			px, label := part.At(i)
			if part == more {
				label = (label + move) % 3
			}
			pixels, labels = append(pixels, px...), append(labels, int32(label))
		}
	}
	both, err := data.New("copies", d.Classes, toySide, toySide, 3, pixels, labels)
	if err != nil {
		t.Fatal(err)
	}
	return both
}

// TestOverlap: training images that are held out as well are left out of training, and the report says so.
func TestOverlap(t *testing.T) {
	o := toyOptions(t)
	o.HeldOut = filepath.Join(t.TempDir(), "held")
	if err := toy.images.Subset(60, 1).WriteFolder(o.HeldOut); err != nil {
		t.Fatal(err)
	}
	o.Steps = new(0)
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Dataset.Train != 540 || r.Dataset.HeldOut != 60 || len(r.Warnings) != 2 || !strings.HasPrefix(r.Warnings[0], "60 of 600 training images are held out as well") {
		t.Errorf("%+v, %q", r.Dataset, r.Warnings)
	}
}

// TestRunRefuses: every reason to end a run has an error of its own, and leaves no output.
func TestRunRefuses(t *testing.T) {
	write := func(d *data.Dataset, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "images")
		if err := d.WriteFolder(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	relabelled := func(classes []string, label func(i int, old int32) int32) string {
		d := toy.images
		var pixels []byte
		labels := make([]int32, d.Len())
		for i := range d.Len() {
			px, l := d.At(i)
			pixels = append(pixels, px...)
			labels[i] = label(i, int32(l))
		}
		return write(data.New("relabelled", classes, toySide, toySide, 3, pixels, labels))
	}
	three := []string{"a", "b", "c"}
	for _, tt := range []struct {
		name   string
		change func(o *Options)
		err    error
		says   string
	}{
		{"labels that mean nothing", func(o *Options) { o.Data = relabelled(three, func(i int, _ int32) int32 { return int32(i / 3 % 3) }) }, ErrAtChance, "--preprocess"},
		{"classes in another order", func(o *Options) { o.Data = relabelled(three, func(_ int, l int32) int32 { return (l + 1) % 3 }) }, ErrAtChance, "alphabetical"},
		{"two classes exchanged", func(o *Options) {
			var pixels []byte
			var labels []int32
			for i := range toy.images.Len() {
				if px, l := toy.images.At(i); l == 0 || i < 150 {
					pixels, labels = append(pixels, px...), append(labels, []int32{0, 2, 1}[l])
				}
			}
			o.Data = write(data.New("exchanged", three, toySide, toySide, 3, pixels, labels))
		}, ErrClasses, `most images of "b", class 1 in`},
		{"too many classes", func(o *Options) {
			o.Data = relabelled([]string{"a", "b", "c", "d"}, func(i int, l int32) int32 { return int32(i % 4) })
		}, ErrClasses, "has 4, the model 3"},
		{"held-out images that are trained on", func(o *Options) { o.HeldOut = o.Data }, ErrOptions, "never be trained on"},
		{"fewer samples than classes", func(o *Options) { o.Samples = 2 }, data.ErrClasses, `of the 2 images to train on is of class "`},
		{"too few held-out images", func(o *Options) { o.HoldOut = .01 }, ErrTooFewHeldOut, "6, at least 20"},
		{"a rate that destroys the model", func(o *Options) { o.LearningRate = 1e12 }, nil, "diverged"},
		{"no such model", func(o *Options) { o.Model += "x" }, os.ErrNotExist, "toy.onnxx"},
		{"no such dataset", func(o *Options) { o.Data += "x" }, os.ErrNotExist, "stripes.tar.gzx"},
		{"no such preprocessing", func(o *Options) { o.Preprocess = "sepia" }, data.ErrOption, "sepia"},
		{"no such feature layer", func(o *Options) { o.Feature = "nothing" }, nil, `"nothing"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := toyOptions(t)
			tt.change(&o)
			_, err := Run(t.Context(), o)
			if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %v with %q", err, tt.err, tt.says)
			}
			noOutput(t, o)
		})
	}
}

// noOutput: neither the output nor a part of it is there.
func noOutput(t *testing.T, o Options) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(o.Output))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "toy.onnx" && e.Name() != "stripes.tar.gz" {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// TestFreezeBelow: what was asked to stay has the same bytes, running statistics too, and the report says so.
func TestFreezeBelow(t *testing.T) {
	o := toyOptions(t)
	o.FreezeBelow = []string{"relu_1"}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	before, after := openModel(t, o.Model), openModel(t, o.Output)
	for name, frozen := range map[string]bool{"conv1.w": true, "norm.scale": true, "norm.shift": true, "norm.mean": true, "norm.variance": true, "conv2.w": false, "head.w": false} {
		if slices.Equal(before.Constants[name].Floats(), after.Constants[name].Floats()) != frozen {
			t.Errorf("%s: frozen should be %v", name, frozen)
		}
	}
	if f := r.Frozen; f == nil || !slices.Equal(f.Below, o.FreezeBelow) || !slices.Equal(f.Tensors, []string{"conv1.w", "norm.scale", "norm.shift"}) || f.Parameters != 8*3*9+8+8 {
		t.Errorf("report: %+v", f)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "below relu_1 were not trained") {
		t.Errorf("warnings %q", r.Warnings)
	}
}

// TestDivergence: training that diverges is tried once more, at a lower rate. A weight decay of 80 multiplies the weights by -3 in a step of
// rate 0.05, and by 0 in one of a quarter of it.
func TestDivergence(t *testing.T) {
	o := toyOptions(t)
	o.WeightDecay, o.LearningRate = new(80.), .05
	starts, last := 0, 0
	o.Progress = func(p Progress) {
		if p.Phase == "grind" || p.Phase == "restore" {
			if p.Step <= last || starts == 0 {
				starts++
			}
			last = p.Step
		}
	}
	r, err := Run(t.Context(), o)
	if errors.Is(err, train.ErrDiverged) || starts != 2 || last != *o.Steps {
		t.Errorf("%d starts, the last ended at step %d of %d: %v", starts, last, *o.Steps, err)
	}
	if err == nil && (r.Hyperparameters.LearningRate != .0125 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "trained again")) {
		t.Errorf("rate %v, warnings %q", r.Hyperparameters.LearningRate, r.Warnings)
	}
}

// TestInterrupted: a run that is interrupted in any phase ends with the context's error and leaves nothing.
func TestInterrupted(t *testing.T) {
	for _, phase := range []string{"load", "preprocess", "evaluate", "record", "search", "grind", "restore"} {
		t.Run(phase, func(t *testing.T) {
			o := toyOptions(t)
			if phase == "search" {
				o.LearningRate = 0
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o.Progress = func(p Progress) {
				if p.Phase == phase {
					cancel()
				}
			}
			if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			noOutput(t, o)
		})
	}
}

// TestNothingTellsTheSecret: neither report nor progress has a field that could hold a transformation, which takes a number for each
// feature at least; and the report that a run makes has none in its words either.
func TestNothingTellsTheSecret(t *testing.T) {
	var walk func(path string, of reflect.Type)
	walk = func(path string, of reflect.Type) {
		switch of.Kind() {
		case reflect.Struct:
			if of.PkgPath() == "time" {
				return
			}
			for i := range of.NumField() {
				f := of.Field(i)
				if !f.IsExported() {
					t.Errorf("%s.%s is not exported: the report says everything it holds", path, f.Name)
				}
				walk(path+"."+f.Name, f.Type)
			}
		case reflect.Slice:
			if of != reflect.TypeFor[[]Phase]() && of != reflect.TypeFor[[]DataFile]() && of != reflect.TypeFor[[]string]() {
				t.Errorf("%s is a list of %s", path, of.Elem())
			}
			walk(path, of.Elem())
		case reflect.Pointer:
			walk(path, of.Elem())
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint64, reflect.Float64:
		default:
			t.Errorf("%s is a %s", path, of)
		}
	}
	walk("Report", reflect.TypeFor[Report]())
	walk("Progress", reflect.TypeFor[Progress]())

	o := toyOptions(t)
	var lines []Progress
	o.Progress = func(p Progress) { lines = append(lines, p) }
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings) > 0 || len(r.Phases) != 2 {
		t.Errorf("warnings %q, %d phases", r.Warnings, len(r.Phases))
	}
	for _, p := range lines {
		if p.Message != "" && p.Message != o.Model && p.Message != o.Data && p.Message != o.Output {
			t.Errorf("progress says %q", p.Message)
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(&back, r) {
		t.Errorf("the report does not survive JSON: %v\n%s", err, b)
	}
}

// TestRunNAD sanitizes a published backdoored model for a short while, over 1,500 images.
func TestRunNAD(t *testing.T) {
	model := shared.Path(t, "models", "nad-wrn16-badnet.onnx")
	path := shared.Path(t, "data", "cifar10", "train.tar.gz")
	d, err := data.Open(t.Context(), path, data.Options{Limit: 1700, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := Options{Model: model, Data: filepath.Join(dir, "images"), Output: filepath.Join(dir, "out.onnx"), Transformation: Permute,
		HoldOut: 200. / 1700, Steps: new(60), Batch: 64, LearningRate: .05, NoAugment: true, Preprocess: "unit", Provider: cpu.Provider}
	if err := d.WriteFolder(o.Data); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	checkRun(t, o, r)
	if r.Unfolded != 6 || r.FeatureWidth != 64 || r.Preprocessing.Name != "unit" || r.Dataset.Train != 1500 || r.Dataset.HeldOut != 200 || r.FeatureDistance.Floor != 0 {
		t.Errorf("%+v", r)
	}
	if r.Before.CDA.Value < .7 || r.After.CDA.Value < .25-slack/3 || r.FeatureDistance.After > (.9+slack/3)*r.FeatureDistance.Before {
		t.Errorf("CDA %v before, %v after; feature distance %+v", r.Before.CDA, r.After.CDA, r.FeatureDistance)
	}
	t.Logf("CDA %v before, %v after; feature distance %+v; %.1f s", r.Before.CDA, r.After.CDA, r.FeatureDistance, r.Seconds)
}
