package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"grindstone/sanitize"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the engine's speed",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchStepCommand())
	return cmd
}

// stepTiming is what bench step prints.
type stepTiming struct {
	Model           string  `json:"model"`
	Batch           int     `json:"batch"`
	Samples         int     `json:"samples"`        // measured runs, of several steps each
	MedianSeconds   float64 `json:"median_seconds"` // of one step
	MinSeconds      float64 `json:"min_seconds"`
	MaxSeconds      float64 `json:"max_seconds"`
	ImagesPerSecond float64 `json:"images_per_second"`
	FeedingShare    float64 `json:"feeding_share"` // of the time, in which the device had nothing to do for want of data
	PeakMemory      int64   `json:"peak_memory"`   // bytes that the process held at most, 0 where the system does not tell
	BuildSeconds    float64 `json:"build_seconds"` // differentiation and session
	Provider        string  `json:"provider"`
	Threads         int     `json:"threads"`
	Version         string  `json:"onnxruntime"`
}

func newBenchStepCommand() *cobra.Command {
	var (
		model, provider, trace  string
		batch, threads, samples int
		micro                   int
		asJSON, noUnfold        bool
	)
	cmd := &cobra.Command{
		Use:   "step --model MODEL.onnx",
		Short: "Time a training step: feeding, forward, backward, update",
		Long: `Step times the training step that sanitizing runs, on random images with random crop and cutout: feeding, forward pass, both losses,
backward pass and SGD update, with BatchNormalizations unfolded. A measured run does several steps, as sanitizing does between two reports of
its progress.`,
		Example: `  grindstone bench step --model resnet18.onnx --batch 128 --json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if model == "" {
				return usageError("no model given: --model MODEL.onnx")
			}
			if err := checkTiming(batch, micro, samples, trace); err != nil {
				return err
			}
			p, err := ort.ParseProvider(provider)
			if err != nil {
				return usageError("%w", err)
			}
			t, err := timeStep(cmd.Context(), model, batch, micro, samples, !noUnfold, ort.Options{Provider: p, Threads: ort.Threads(threads), Profile: trace})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), t)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s, batch %d: %.1f ms a step (%.1f to %.1f, %d runs), %.0f images/s on %s with %d threads, ONNX Runtime %s; %.2f %% of the time waiting for images, %d MiB at most, built in %.2f s\n",
				t.Model, t.Batch, 1e3*t.MedianSeconds, 1e3*t.MinSeconds, 1e3*t.MaxSeconds, t.Samples, t.ImagesPerSecond, t.Provider, t.Threads, t.Version, 100*t.FeedingShare, t.PeakMemory>>20, t.BuildSeconds)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&model, "model", "", "ONNX classifier")
	f.IntVar(&batch, "batch", 128, "images a step")
	f.IntVar(&micro, "micro-batch", 0, "images in memory at once, a divisor of --batch (default: the batch)")
	f.IntVar(&samples, "samples", 7, "measured runs")
	f.StringVar(&provider, "provider", "auto", providerHelp)
	f.IntVar(&threads, "threads", 0, "CPU threads (default all)")
	f.BoolVar(&noUnfold, "no-unfold", false, "leave BatchNormalizations folded")
	f.StringVar(&trace, "profile", "", "write ONNX Runtime's profile to PREFIX_<time>.json, for chrome://tracing or Perfetto")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// checkTiming: what cannot be measured. The runtime says nothing of a profile that it cannot write.
func checkTiming(batch, micro, samples int, trace string) error {
	if batch < 2 {
		return usageError("a batch needs at least 2 images, not %d (--batch)", batch)
	}
	if micro != 0 && (micro < 2 || batch%micro != 0) {
		return usageError("--micro-batch %d: a batch of %d is split into equal ones of at least 2", micro, batch)
	}
	if samples < 1 {
		return usageError("at least one run is measured, not %d (--samples)", samples)
	}
	if dir := filepath.Dir(trace); trace != "" {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return usageError("--profile %s: there is no folder %s; make it first", trace, dir)
		}
	}
	return nil
}

func timeStep(ctx context.Context, model string, batch, micro, samples int, unfold bool, run ort.Options) (*stepTiming, error) {
	info, err := ort.Load()
	if err != nil {
		return nil, err
	}
	c, err := classifier.Open(model, classifier.Options{})
	if err != nil {
		return nil, err
	}
	if layers := c.Foldable(); unfold && len(layers) > 0 {
		mean, variance := make([][]float32, len(layers)), make([][]float32, len(layers))
		for i, l := range layers {
			mean[i], variance[i] = make([]float32, l.Channels), slices.Repeat([]float32{1}, l.Channels)
		}
		c.Unfold(layers, mean, variance)
	}
	images, err := randomImages(8*batch, c)
	if err != nil {
		return nil, err
	}
	pre, err := data.Named("unit", data.Layout(c.Layout), c.Height, c.Width, c.Channels)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	t, err := train.NewTrainer(c, train.StepOptions{Batch: batch, Micro: micro, Scale: pre.Scale, Shift: pre.Shift, Feature: true, Momentum: 0.9, WeightDecay: 5e-4}, run)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	result := &stepTiming{Model: model, Batch: batch, Samples: samples, Threads: run.Threads, Version: info.Version, Provider: string(t.Provider()), BuildSeconds: time.Since(begin).Seconds()}

	const warm = 2
	plan := train.Plan{Steps: (samples + warm) * sanitize.StepsPerRun, Rate: 1e-4}
	feed := data.NewFeeder(ctx, images, pre, data.FeedOptions{Batch: batch, StepsPerChunk: sanitize.StepsPerRun, Steps: plan.Steps,
		Augment: &data.Augment{Pad: c.Height / 8, Cutout: c.Height / 2}, Seed: 1})
	defer feed.Close()
	var times []float64
	var warmed time.Time // the first chunk was not ready beforehand, and the first runs allocate
	var waited time.Duration
	last := time.Now()
	err = t.Run(ctx, feed, make([]float32, images.Len()*c.FeatureWidth), plan, func(ms []train.Metrics) {
		times = append(times, time.Since(last).Seconds()/float64(len(ms)))
		last = time.Now()
		if len(times) == warm {
			warmed, waited = last, t.Waited
		}
	})
	if err != nil {
		return nil, err
	}
	result.FeedingShare = (t.Waited - waited).Seconds() / last.Sub(warmed).Seconds()
	_, result.PeakMemory = sanitize.Resident()
	times = times[warm:]
	slices.Sort(times)
	result.MinSeconds, result.MedianSeconds, result.MaxSeconds = times[0], times[len(times)/2], times[len(times)-1]
	result.ImagesPerSecond = float64(batch) / result.MedianSeconds
	return result, nil
}

// randomImages stand for a dataset: what they show does not change the time.
func randomImages(n int, c *classifier.Classifier) (*data.Dataset, error) {
	rng := rand.New(rand.NewPCG(1, 1))
	pixels, labels := make([]byte, n*c.Height*c.Width*c.Channels), make([]int32, n)
	for i := range pixels {
		pixels[i] = byte(rng.Uint32())
	}
	classes := make([]string, c.Classes)
	for i := range classes {
		classes[i] = fmt.Sprint(i)
	}
	for i := range labels {
		labels[i] = int32(i % c.Classes)
	}
	return data.New("random", classes, c.Height, c.Width, c.Channels, pixels, labels)
}
