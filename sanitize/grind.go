package sanitize

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// Run sanitizes a model by Feature Grinding and writes the result to Options.Output, which appears only when everything else succeeded.
// The steps, in the order of the paper's section 4.2: record the features of the clean data, perturb them by a secret
// transformation, reset the head, fine-tune on the perturbed features (grinding), then on the task (restoration).
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	if err := o.checkOutput(); err != nil {
		return nil, err
	}
	r := &run{Options: o, report: &Report{SchemaVersion: "1.0", Method: "feature-grinding", Transformation: string(o.Transformation), Phases: []Phase{}, StartedAt: time.Now().UTC()}}
	defer r.unlimitMemory()
	type stage = func(context.Context) error
	training := []stage{r.unfold, r.resetHead, r.fineTune, r.measureStatistics}
	if r.Steps != nil && *r.Steps == 0 {
		training = []stage{r.leave}
	}
	for _, stage := range slices.Concat([]stage{r.load, r.openData, r.limitMemory, r.preprocess, r.before, r.findMirror, r.record}, training, []stage{r.after, r.write}) {
		if err := stage(ctx); err != nil {
			return nil, err
		}
	}
	r.Progress(Progress{Phase: "done"})
	return r.report, nil
}

// run is one sanitizing run between its stages.
type run struct {
	Options
	report *Report

	original       *classifier.Classifier // as it came, a quantized model with its rounding
	c              *classifier.Classifier // with BatchNormalizations unfolded, for training
	unrounded      *classifier.Classifier // of a quantized model: what c was before that; else nil
	trainSet, held *data.Dataset
	pre            data.Preprocess
	mirror         bool                    // half of the training images
	targets        []float32               // [images, width]: the transformed features
	start          map[string][]float32    // weights at the start of training
	values         map[string][]float32    // weights at its end
	integers       map[string]*onnx.Tensor // those of them that a quantized model keeps in integers
	arena          int64                   // bytes that the runtime may allocate in main memory, 0: no limit
	collect        int                     // GOGC before the run, where there is a limit
}

// ort are the options of every session. Idle threads do not spin: the sanitizer shares its machine with the server, and under load
// spinning makes a step several times slower.
func (r *run) ort() ort.Options {
	return ort.Options{Provider: r.Provider, Threads: r.Threads, TF32: r.Precision != Float32, Config: map[string]string{"session.intra_op.allow_spinning": "0"}}
}

func (r *run) load(context.Context) error {
	r.Progress(Progress{Phase: "load", Message: r.Model})
	info, err := ort.Load()
	if err != nil {
		return err
	}
	m, err := r.Limits.read(r.Model)
	if err != nil {
		return err
	}
	if err := r.checkFolder(m); err != nil {
		return err
	}
	o := classifier.Options{Output: r.ClassOutput, Feature: r.Feature, FreezeBelow: r.FreezeBelow, Height: r.Height, Width: r.Width}
	if r.c, err = classifier.New(m, o); err != nil {
		return err
	}
	if err := r.c.CheckTrainable(); err != nil {
		return err
	}
	if r.c.Quantized() {
		if len(r.FreezeBelow) > 0 {
			return fmt.Errorf("%w %q: new scales of a quantized model change all of it", classifier.ErrFreeze, r.FreezeBelow)
		}
		if r.unrounded, err = classifier.New(m, o); err != nil {
			return err
		}
	}
	o.Rounded = true
	if r.original, err = classifier.New(m, o); err != nil {
		return err
	}
	r.reportFrozen()
	r.report.FeatureLayer, r.report.FeatureWidth = r.c.Feature, r.c.FeatureWidth
	r.report.Runtime = Runtime{Engine: "onnxruntime", Version: info.Version, Device: first(info.Devices), Threads: ort.Threads(r.Threads), Sandbox: r.Sandbox}
	r.report.Source, err = fileInfo(r.Model)
	return err
}

func (r *run) reportFrozen() {
	if len(r.FreezeBelow) == 0 {
		return
	}
	f := &Frozen{Below: r.FreezeBelow, Tensors: r.original.FrozenWeights}
	for _, name := range f.Tensors {
		f.Parameters += int64(len(r.original.Constants[name].Floats()))
	}
	r.report.Frozen = f
	r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("%d tensors (%d parameters) below %s were not trained: what is hidden in them stays",
		len(f.Tensors), f.Parameters, strings.Join(f.Below, ", ")))
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

func (r *run) openData(ctx context.Context) error {
	r.Progress(Progress{Phase: "load", Message: r.Data})
	o := data.Options{Height: r.original.Height, Width: r.original.Width, Channels: r.original.Channels, Seed: r.Seed}
	var err error
	switch r.trainSet, r.held, err = data.OpenSplit(ctx, r.Data, r.HeldOut, o); {
	case errors.Is(err, data.ErrNoSplit):
		var all *data.Dataset
		if all, err = data.Open(ctx, r.Data, o); err != nil {
			return err
		}
		if r.trainSet, r.held, err = all.Split(r.HoldOut, r.Seed); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	if r.HeldOut != "" && r.held.Digest() == r.trainSet.Digest() {
		return fmt.Errorf("%w: %s and %s are the same images; held-out images must never be trained on", ErrOptions, r.Data, r.HeldOut)
	}
	if n := r.held.Len(); n < minHeldOut {
		return fmt.Errorf("%w: %d, at least %d are needed to measure an accuracy", ErrTooFewHeldOut, n, minHeldOut)
	}
	if n := len(r.trainSet.Classes); n != r.original.Classes {
		return fmt.Errorf("%w: %s has %d, the model %d", ErrClasses, r.trainSet.Name, n, r.original.Classes)
	}
	if apart := r.trainSet.Without(r.held); apart.Len() < r.trainSet.Len() {
		r.warn("%d of %d training images are held out as well: they were not trained on", r.trainSet.Len()-apart.Len(), r.trainSet.Len())
		r.trainSet = apart
	}
	if r.Samples > 0 && r.Samples < r.trainSet.Len() {
		r.trainSet = r.trainSet.Subset(r.Samples, r.Seed)
	}
	if class := slices.Index(r.trainSet.Counts(), 0); class >= 0 {
		return fmt.Errorf("%w: none of the %d images to train on is of class %q, which the model would forget", data.ErrClasses, r.trainSet.Len(), r.trainSet.Classes[class])
	}
	r.report.Dataset = DatasetInfo{Name: r.trainSet.Name, Digest: r.trainSet.Digest(), Classes: len(r.trainSet.Classes), Train: r.trainSet.Len(), HeldOut: r.held.Len()}
	return nil
}

func (r *run) preprocess(ctx context.Context) (err error) {
	r.Progress(Progress{Phase: "preprocess"})
	r.pre, r.report.Preprocessing, err = FindPreprocess(ctx, r.original, r.Preprocess, r.trainSet, r.ort())
	if info := r.report.Preprocessing; info.Rival != "" {
		r.warn("the preprocessing was found by trying: with %s the model is within %.1f points as accurate as with %s, for which it was trained; name the right one if you know it",
			info.Rival, 100*info.Margin, info.Name)
	}
	if from := &r.report.Preprocessing.From; *from == "flag" && r.PreprocessFrom != "" {
		*from = r.PreprocessFrom
	}
	return err
}

// before measures the incoming model. A model at chance on the clean dataset is no case for training: the dataset, its class order or the
// preprocessing is not this model's.
func (r *run) before(ctx context.Context) error {
	r.Progress(Progress{Phase: "evaluate"})
	e, err := Evaluate(ctx, r.original, nil, r.pre, r.held, nil, r.ort())
	if err != nil {
		return err
	}
	r.report.Before.CDA = e.CDA
	if e.AtChance() {
		return fmt.Errorf("%w: %v where guessing has %.2f %%; %s", ErrAtChance, e.CDA, 100*e.chance,
			cmp.Or(e.order, "check that the dataset's classes, in alphabetical order, are the model's, and its preprocessing (--preprocess)"))
	}
	if e.order != "" {
		return fmt.Errorf("%w: %s", ErrClasses, e.order)
	}
	return nil
}

// record makes the targets: the features of the clean images, transformed by a secret that exists only here.
func (r *run) record(ctx context.Context) error {
	r.Progress(Progress{Phase: "record", Steps: r.trainSet.Len()})
	features, err := recordFeatures(ctx, r.original, nil, r.pre, r.trainSet, r.ort())
	if err != nil {
		return err
	}
	r.targets = slices.Clone(features)
	s, err := drawSecret(r.Transformation, r.original.FeatureWidth, r.Angle)
	if err != nil {
		return err
	}
	s.apply(r.targets)
	s.wipe()
	r.report.SecretDiscarded = !secretIsFixed
	r.report.FeatureDistance.Before = meanDistance(features, r.targets, r.original.FeatureWidth)
	r.report.FeatureDistance.Floor = unreachable(features, r.targets, r.original.FeatureWidth)
	return nil
}

func (r *run) unfold(ctx context.Context) error {
	layers := r.c.Foldable()
	if r.NoUnfold || len(layers) == 0 {
		return nil
	}
	sample := r.trainSet
	if sample.Len() > statisticsImages {
		sample = sample.Subset(statisticsImages, r.Seed)
	}
	mean, variance, err := layerStatistics(ctx, r.c, layers, r.pre, sample, r.ort())
	if err != nil {
		return err
	}
	r.c.Unfold(layers, mean, variance)
	r.report.Unfolded = len(layers)
	return nil
}

// after measures the sanitized model: the classifier as it came with the new weights, nothing of the training graph.
func (r *run) after(ctx context.Context) error {
	r.Progress(Progress{Phase: "evaluate"})
	r.c.Fold(r.values)
	if err := r.requantize(ctx); err != nil {
		return err
	}
	e, err := Evaluate(ctx, r.original, r.values, r.pre, r.held, nil, r.ort())
	if err != nil {
		return err
	}
	r.report.After.CDA = e.CDA
	if e.AtChance() {
		return fmt.Errorf("%w: %v where guessing has %.2f %%; before it was %v", ErrAccuracyFell, e.CDA, 100*e.chance, r.report.Before.CDA)
	}
	features, err := recordFeatures(ctx, r.original, r.values, r.pre, r.trainSet, r.ort())
	if err != nil {
		return err
	}
	r.report.FeatureDistance.After = meanDistance(features, r.targets, r.original.FeatureWidth)
	clear(r.targets)
	return nil
}
