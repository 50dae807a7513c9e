package sanitize

import (
	"errors"
	"fmt"
	"math"

	"grindstone/sanitize/ort"
)

// What can end a run, for callers that tell cases apart. Invalid models and datasets come with the errors of their packages.
var (
	ErrOptions        = errors.New("invalid options")
	ErrClasses        = errors.New("the dataset's classes are not the model's")
	ErrAtChance       = errors.New("the model's accuracy on the clean dataset is at chance")
	ErrAccuracyFell   = errors.New("the sanitized model's accuracy is at chance")
	ErrTooFewHeldOut  = errors.New("too few held-out images")
	ErrMemoryLimit    = errors.New("the memory limit is too low")
	ErrDoesNotImprove = errors.New("no learning rate trains this model")
)

// Options are the settings of a sanitizing run. The zero value of a field stands for the default that its comment gives.
type Options struct {
	Model  string // path of the incoming model
	Limits Limits // of that model; none
	Output string // path of the sanitized model
	Report string // path of the report, as JSON; "": it is only returned

	Data    string  // clean dataset: folder, archive, CIFAR-10 binary, IDX
	HeldOut string  // dataset that is held out; "": a part of Data
	HoldOut float64 // that part, 0.1
	Samples int     // training images to use, 0: all

	Transformation Transformation // permute
	Angle          float64        // of rotate-2d, radians; pi/2

	Steps        *int     // SGD steps, with none of which the model stays as it is; nil: from Epochs
	GrindSteps   int      // of Steps, for grinding; 0: two fifths
	Epochs       float64  // 0: five, but at least DefaultSteps steps
	GrindEpochs  float64  // of Epochs; 0: two fifths
	Batch        int      // 128
	LearningRate float64  // peak of the cosine; 0: searched
	Momentum     *float64 // nil: 0.9
	WeightDecay  *float64 // nil: 5e-4
	AlphaGrind   float64  // 0.8
	AlphaRestore float64  // 0.2

	NoAugment bool   // neither random crop nor cutout
	Mirror    Mirror // mirror half of the images; auto

	NoUnfold       bool   // leave folded BatchNormalizations folded: an ablation that usually destroys the model
	ClassOutput    string // name of the model's output with the classes; "": found
	Feature        string // name of the feature tensor; "": found
	Preprocess     string // as data.ParsePreprocess reads it; "" or "auto": the common one with the best accuracy on clean images
	PreprocessFrom string // who chose Preprocess, for the report: "flag", "policy", "annotation", "config"
	Height         int    // image size where the model leaves it open
	Width          int

	FreezeBelow []string // nodes that, with all that they depend on, are not trained

	Seed     uint64 // of shuffling, augmentation, split and head; the secret has its own source
	Provider ort.Provider
	Threads  int // 0: all CPUs

	Precision   Precision // of matrix products and convolutions on CUDA; TF32
	MemoryLimit int64     // bytes that the process may hold in main memory; a batch that would need more is split; 0: no limit
	MicroBatch  int       // images in memory at once, a divisor of Batch; 0: Batch, or what MemoryLimit allows

	Sandbox  string         // what confines the process, for the report: "" is nothing
	Progress func(Progress) `json:"-"`
}

// DefaultSteps is the least number of SGD steps of a run without explicit Steps or Epochs. What removes a backdoor is the number of
// steps and the rate, not the number of epochs: with 5,000 images five epochs leave it in place. 2,000 steps remove NAD's; with 2,500 images
// the accuracy is two points higher after 3,000.
const DefaultSteps = 3000

// More than these nobody means; larger numbers would not fit into an integer when they are multiplied.
const (
	maxBatch = 1 << 16
	maxSteps = 1 << 30
)

// minHeldOut is the least number of images that an accuracy is measured on; below it, its interval says nothing.
const minHeldOut = 20

func (o *Options) setDefaults() error {
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.HoldOut, 0.1)
	def(&o.Angle, math.Pi/2)
	def(&o.AlphaGrind, 0.8)
	def(&o.AlphaRestore, 0.2)
	if o.Momentum == nil {
		o.Momentum = new(0.9)
	}
	if o.WeightDecay == nil {
		o.WeightDecay = new(5e-4)
	}
	if o.Transformation == "" {
		o.Transformation = Permute
	}
	if o.Mirror == "" {
		o.Mirror = MirrorAuto
	}
	if o.Batch == 0 {
		o.Batch = 128
	}
	if o.Precision == "" {
		o.Precision = TF32
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	var problems []error
	check := func(ok bool, format string, a ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf("%w: "+format, append([]any{ErrOptions}, a...)...))
		}
	}
	steps := 0
	if o.Steps != nil {
		steps = *o.Steps
	}
	_, err := ParseTransformation(string(o.Transformation))
	check(err == nil, "%v", err)
	check(o.Mirror.valid(), "mirroring is one of %q, not %q", mirrors, o.Mirror)
	check(o.Model != "", "no model given")
	check(o.Data != "", "no clean dataset given (--data)")
	check(o.HoldOut > 0 && o.HoldOut < 1, "the held-out share must lie between 0 and 1, not %v", o.HoldOut)
	check(o.Batch >= 2 && o.Batch <= maxBatch, "a batch has 2 to %d images, not %d", maxBatch, o.Batch)
	check(o.MicroBatch == 0 || o.MicroBatch >= 2 && o.Batch%o.MicroBatch == 0, "micro-batches of %d images: a batch of %d is split into equal ones of at least 2", o.MicroBatch, o.Batch)
	check(o.MemoryLimit >= 0, "the memory limit cannot be negative")
	check(o.Precision == TF32 || o.Precision == Float32, "the precision is %s or %s, not %q", TF32, Float32, o.Precision)
	check(steps >= 0 && o.Epochs >= 0 && o.GrindEpochs >= 0 && steps <= maxSteps && o.Epochs <= maxSteps, "steps and epochs must be finite and cannot be negative; there are %d at most", maxSteps)
	check(o.Epochs == 0 || o.GrindEpochs <= o.Epochs, "%v grinding epochs do not fit into %v epochs", o.GrindEpochs, o.Epochs)
	check(o.Epochs != 0 || o.GrindEpochs == 0, "grinding epochs need the number of epochs as well (--epochs)")
	check(o.GrindSteps >= 0 && o.GrindSteps <= max(steps, 0), "%d grinding steps do not fit into %d steps", o.GrindSteps, steps)
	check(o.Steps == nil || o.Epochs == 0, "give steps or epochs, not both")
	check(o.Samples >= 0, "the number of samples cannot be negative")
	check(*o.Momentum >= 0 && *o.Momentum < 1, "momentum lies between 0 and 1, not %v", *o.Momentum)
	check(*o.WeightDecay >= 0 && !math.IsInf(*o.WeightDecay, 0), "weight decay cannot be %v", *o.WeightDecay)
	check(!math.IsNaN(o.Angle) && !math.IsInf(o.Angle, 0), "the angle cannot be %v", o.Angle)
	check(o.LearningRate >= 0 && !math.IsInf(o.LearningRate, 0), "the learning rate must be positive")
	check(o.AlphaGrind >= 0 && o.AlphaGrind <= 1 && o.AlphaRestore >= 0 && o.AlphaRestore <= 1, "alpha lies between 0 and 1")
	return errors.Join(problems...)
}

// Precision is that of matrix products and convolutions on CUDA devices. Everything else, and every other provider, computes in float32.
type Precision string

// Values of Precision.
const (
	TF32    Precision = "tf32"    // TensorFloat-32, with 10 bits of mantissa: what PyTorch's convolutions do by default
	Float32 Precision = "float32" // exact
)

// schedule returns the number of steps in all, and of those that grind.
func (o *Options) schedule(images int) (steps, grind int) {
	perEpoch := float64(images) / float64(o.Batch)
	share := 0.4
	switch {
	case o.Steps != nil && o.GrindSteps > 0:
		return *o.Steps, o.GrindSteps
	case o.Steps != nil:
		steps = *o.Steps
	case o.Epochs > 0:
		steps = int(math.Ceil(o.Epochs * perEpoch))
		if o.GrindEpochs > 0 {
			share = o.GrindEpochs / o.Epochs
		}
	default:
		steps = max(int(math.Ceil(5*perEpoch)), DefaultSteps)
	}
	return steps, int(math.Round(share * float64(steps)))
}
