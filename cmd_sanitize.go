package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"grindstone/sanitize"
	"grindstone/sanitize/ort"
)

func newSanitizeCommand() *cobra.Command {
	var o sanitize.Options
	var provider, precision, transform, mirror, size, memory string
	var steps int
	var momentum, decay float64
	var confined confinement
	var jsonProgress bool
	cmd := &cobra.Command{
		Use:   "sanitize MODEL.onnx -o OUT.onnx --data PATH",
		Short: "Remove possible backdoors from a model by Feature Grinding",
		Long: `Sanitize fine-tunes an ONNX image classifier so that a backdoor in it no longer answers to its trigger. No trigger and no target
class need to be known: clean, labelled images are enough.

It records the features of the clean images, perturbs them by a secret random transformation, resets the head and trains the model first
on the perturbed features (grinding), then on its task (restoration). The output is the incoming file with other weights: names, opset,
inputs, outputs and metadata stay as they were. The transformation is drawn from the system's random source, used once and wiped; no
report, log or file holds it.

--data is a folder or archive (tar, tar.gz, zip) of images where the directory that holds an image is its class, CIFAR-10 in its binary
version, or IDX (MNIST). Classes are numbered in alphabetical order and must be the model's. A tenth of the images is held out, never
trained on, and gives every accuracy; --held-out names a dataset of its own instead.

What removes a backdoor is the number of steps, so the default is five epochs but at least ` + strconv.Itoa(sanitize.DefaultSteps) + ` steps, two fifths of them grinding, at the
learning rate that short trials find best by clean accuracy.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 the model cannot be read or trained, 4 the dataset cannot be used, 5 no ONNX Runtime
library, 6 the accuracy is at chance before or after, 7 out of memory, 130 interrupted. An interrupted or failed run leaves neither model nor report.`,
		Example: `  # with the defaults: permute, five epochs or 3000 steps, rate found
  grindstone sanitize resnet18.onnx -o resnet18-clean.onnx --data cifar10/train.tar.gz --held-out cifar10/test.tar.gz

  # the paper's other transformations, and its schedule
  grindstone sanitize m.onnx -o out.onnx --data images/ --transform rotate --epochs 5 --grind-epochs 2 --lr 0.05

  # for a script: the report as a file, progress as JSON lines on standard output
  grindstone sanitize m.onnx -o out.onnx --data images.zip --report report.json --progress-json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Model = args[0]
			if o.Output == "" {
				return usageError("no output file given: -o OUT.onnx")
			}
			var err error
			if o.Provider, err = ort.ParseProvider(provider); err != nil {
				return usageError("%w", err)
			}
			if o.Transformation, err = sanitize.ParseTransformation(transform); err != nil {
				return usageError("%w", err)
			}
			if o.Transformation != sanitize.Rotate2D {
				if err := ignored(cmd, "an angle is that of --transform rotate-2d", "angle"); err != nil {
					return err
				}
			}
			if err := zero(cmd, "lr", "batch", "hold-out", "epochs", "grind-epochs", "grind-steps", "angle", "samples"); err != nil {
				return err
			}
			o.Mirror, o.Precision = sanitize.Mirror(mirror), sanitize.Precision(precision)
			if memory != "" {
				if o.MemoryLimit, err = parseBytes(memory); err != nil {
					return usageError("--memory-limit %q: %w; give bytes, or a number with KiB, MiB or GiB", memory, err)
				}
			}
			if err := parseSize(size, &o.Height, &o.Width); err != nil {
				return usageError("%w", err)
			}
			if cmd.Flags().Changed("steps") {
				o.Steps = &steps
			}
			o.Momentum, o.WeightDecay = &momentum, &decay
			confined.provider, confined.model, confined.trusted, confined.write = o.Provider, o.Model, []string{o.Data, o.HeldOut}, []string{o.Output, o.Report}
			signal.Ignore(syscall.SIGPIPE) // whoever reads the progress may go: the run matters more
			progress := newProgress(cmd.OutOrStdout(), cmd.ErrOrStderr(), jsonProgress)
			o.Progress = progress.show
			var r *sanitize.Report
			if o.Sandbox, err = confined.enter(); err == nil {
				r, err = sanitize.Run(cmd.Context(), o)
			}
			if err != nil {
				err = ofModel(o.Model, err)
				progress.failed(err)
				return err
			}
			if !jsonProgress {
				printReport(cmd.OutOrStdout(), o.Output, r)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Output, "output", "o", "", "file to write the sanitized model to")
	f.StringVar(&o.Data, "data", "", "clean, labelled images")
	f.StringVar(&o.HeldOut, "held-out", "", "clean images that are never trained on, for the accuracies (default: a part of --data)")
	f.Float64Var(&o.HoldOut, "hold-out", 0.1, "share of --data that is held out")
	f.IntVar(&o.Samples, "samples", 0, "training images to use (default all)")
	f.StringVar(&transform, "transform", "permute", "permute, rotate or rotate-2d")
	f.Float64Var(&o.Angle, "angle", 0, "angle of rotate-2d in radians (default pi/2)")
	f.Float64Var(&o.Epochs, "epochs", 0, "passes over the images (default 5, at least "+strconv.Itoa(sanitize.DefaultSteps)+" steps)")
	f.Float64Var(&o.GrindEpochs, "grind-epochs", 0, "of these, for grinding (default two fifths)")
	f.IntVar(&steps, "steps", 0, "SGD steps, in place of epochs; with 0 the model is measured and written as it is (default: from epochs)")
	f.IntVar(&o.GrindSteps, "grind-steps", 0, "of these, for grinding (default two fifths)")
	f.IntVar(&o.Batch, "batch", 128, "images a step")
	f.Float64Var(&o.LearningRate, "lr", 0, "peak learning rate (default: found by clean accuracy)")
	f.Float64Var(&momentum, "momentum", 0.9, "Nesterov momentum of SGD")
	f.Float64Var(&decay, "weight-decay", 5e-4, "weight decay of SGD")
	f.StringVar(&mirror, "mirror", "auto", "mirror half of the images: on, off, or auto, where the model knows mirrored images as well")
	f.BoolVar(&o.NoAugment, "no-augment", false, "neither random crop nor cutout")
	f.BoolVar(&o.NoUnfold, "no-unfold", false, "leave BatchNormalizations folded while training (ablation: destroys most models)")
	readingFlags(cmd, &o.ClassOutput, &o.Feature)
	f.StringArrayVar(&o.FreezeBelow, "freeze-below", nil, "node, by name or output, that is not trained, nor anything that it depends on; may be given again")
	f.StringVar(&o.Preprocess, "preprocess", "auto", "how pixels become the model's input: a name (unit, bytes, signed, imagenet, cifar10, ...), or 'mean=.. std=.. range=LOW,HIGH order=bgr'; auto tries the common ways on clean images")
	f.StringVar(&o.PreprocessFrom, "preprocess-from", "flag", "who says so, for the report")
	_ = f.MarkHidden("preprocess-from")
	f.StringVar(&size, "size", "", "image size HxW, where the model leaves it open")
	f.StringVar(&provider, "provider", "auto", providerHelp)
	f.StringVar(&precision, "precision", string(sanitize.TF32), "of matrix products and convolutions on CUDA: tf32, or float32, which is exact and slower; the CPU computes in float32")
	f.Var(natural{&o.Threads}, "threads", "CPU threads (default all)")
	f.StringVar(&memory, "memory-limit", "", "main memory that the process may hold, such as 2GiB: batches that would need more are split (default: no limit)")
	f.IntVar(&o.MicroBatch, "micro-batch", 0, "images in memory at once, a divisor of --batch: gradients are added up, BatchNormalization normalizes by these (default: the batch, or what --memory-limit allows)")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of shuffling, augmentation, split and head; the secret never depends on it")
	f.Int64Var(&o.Limits.Bytes, "max-bytes", 0, "of the ONNX file and its external data; a larger model is refused (default: no limit but the format's)")
	f.IntVar(&o.Limits.Nodes, "max-nodes", 0, "nodes of the model")
	f.IntVar(&o.Limits.Tensors, "max-tensors", 0, "tensors of the model")
	confined.flag(cmd)
	f.StringVar(&o.Report, "report", "", "file to write the report to, as JSON")
	f.BoolVar(&jsonProgress, "progress-json", false, "progress as JSON lines on standard output")
	return cmd
}

// parseSize reads HxW.
func parseSize(s string, h, w *int) error {
	if s == "" {
		return nil
	}
	if _, err := fmt.Sscanf(s, "%dx%d", h, w); err != nil || *h < 1 || *w < 1 || fmt.Sprintf("%dx%d", *h, *w) != s {
		return fmt.Errorf("size %q is not of the form HEIGHTxWIDTH", s)
	}
	return nil
}

func printReport(w io.Writer, out string, r *sanitize.Report) {
	fmt.Fprintf(w, "wrote            %s (sha256 %s)\n", out, r.Sanitized.SHA256)
	fmt.Fprintf(w, "method           %s, %s; the transformation was drawn, used once and discarded\n", r.Method, r.Transformation)
	fmt.Fprintf(w, "clean accuracy   %v before\n", r.Before.CDA)
	fmt.Fprintf(w, "                 %v after, on %d held-out images\n", r.After.CDA, r.Dataset.HeldOut)
	fmt.Fprintf(w, "feature distance %.2f before, %.2f after (layer %s, width %d)\n", r.FeatureDistance.Before, r.FeatureDistance.After, r.FeatureLayer, r.FeatureWidth)
	h := r.Hyperparameters
	fmt.Fprintf(w, "training         %d steps of %d images (%.1f epochs), %d of them grinding, rate %g (%s)\n", h.Steps, h.BatchSize, h.Epochs, h.GrindSteps, h.LearningRate, h.LearningRateFrom)
	fmt.Fprintf(w, "took             %s, %.0f images/s on %s\n", time.Duration(r.Seconds*float64(time.Second)).Round(time.Second/10), r.ImagesPerSecond, r.Runtime.Provider)
	if r.Runtime.Sandbox != "" {
		fmt.Fprintf(w, "sandbox          %s\n", r.Runtime.Sandbox)
	}
	if m := r.Memory; m.Peak > 0 {
		fmt.Fprintf(w, "memory           %d MiB at most\n", m.Peak>>20)
	}
	for _, warning := range r.Warnings {
		fmt.Fprintln(w, "warning         ", warning)
	}
}

// progress shows a run's progress: JSON lines for a program, a bar for a person.
type progress struct {
	out   *json.Encoder // nil: a bar
	err   io.Writer
	bar   *bar
	phase string
}

func newProgress(out, err io.Writer, asJSON bool) *progress {
	p := &progress{err: err}
	if asJSON {
		p.out = json.NewEncoder(out)
	}
	return p
}

// labels of the phases, for people.
var phaseLabels = map[string]string{
	"load": "reading", "preprocess": "finding the preprocessing", "evaluate": "measuring clean accuracy", "record": "recording features",
	"search": "finding the learning rate", "grind": "grinding", "restore": "restoring", "write": "writing", "done": "done",
}

func (p *progress) show(e sanitize.Progress) {
	if p.out != nil {
		_ = p.out.Encode(e) // it may be that nobody reads it any more
		return
	}
	training := e.Phase == "grind" || e.Phase == "restore"
	if !training {
		p.bar.end()
		p.bar = nil
		if p.phase != e.Phase || e.Message != "" {
			fmt.Fprintln(p.err, strings.TrimSpace(phaseLabels[e.Phase]+" "+e.Message))
		}
		p.phase = e.Phase
		return
	}
	if p.bar == nil {
		p.bar = newBar(p.err, e.Steps)
	}
	p.bar.set(e.Step, e.Steps, fmt.Sprintf("%-9s %6.0f images/s  %s left  loss %.3f", phaseLabels[e.Phase], e.ImagesPerSecond,
		time.Duration(e.Remaining*float64(time.Second)).Round(time.Second), e.Loss))
}

func (p *progress) failed(err error) {
	if p.out != nil {
		_ = p.out.Encode(sanitize.Progress{Phase: "failed", Error: err.Error()})
	} else {
		p.bar.end()
	}
}

// providerHelp explains --provider.
const providerHelp = "cpu, cuda, tensorrt, rocm, migraphx, openvino, coreml, or auto: CUDA where it works, else the CPU; see grindstone doctor"
