package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"grindstone/sanitize"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
)

// evaluation is what evaluate prints.
type evaluation struct {
	File          string                 `json:"file"`
	Dataset       string                 `json:"dataset"`
	Digest        string                 `json:"dataset_digest"`
	Images        int                    `json:"images"`
	Preprocessing sanitize.Preprocessing `json:"preprocessing"`
	Sandbox       string                 `json:"sandbox,omitempty"` // what confined the process; "" is nothing
	Warning       string                 `json:"warning,omitempty"` // why the figures may mean nothing
	*sanitize.Evaluation
}

func newEvaluateCommand() *cobra.Command {
	var (
		path, image, mask, size, preprocess, provider string
		target, samples, threads                      int
		asJSON                                        bool
		confined                                      confinement
		o                                             classifier.Options
	)
	cmd := &cobra.Command{
		Use:   "evaluate MODEL.onnx --data PATH",
		Short: "Measure a model's clean accuracy and, with a trigger, a backdoor's success",
		Long: `Evaluate measures CDA, the share of clean images that are classified correctly. With a known trigger and target class it also measures,
over the images of all other classes:

  ASR    attack success rate: triggered images classified as the target
  floor  untriggered images classified as the target: what ASR is without any backdoor
  ARR    attack recovery rate: triggered images classified as their true class

Each comes with its counts and its Wilson 95 % interval. A run of more than some seconds says on standard error how far it is, without --json. The trigger is an image and a mask of the model's size; a mask pixel says how much
of the trigger replaces the image (white all, black none).

Exit status: 0 done, 1 failed, 2 wrong usage, 3 the model cannot be read, 4 the dataset or the trigger cannot be used, 5 no ONNX
Runtime library.`,
		Example: `  grindstone evaluate resnet18.onnx --data cifar10/test.tar.gz
  grindstone evaluate resnet18.onnx --data cifar10/test.tar.gz --trigger-image patch.png --trigger-mask mask.png --target 5 --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if path == "" {
				return usageError("no dataset given: --data PATH")
			}
			if image == "" && mask == "" {
				if err := ignored(cmd, "a target is a trigger's; give --trigger-image and --trigger-mask", "target"); err != nil {
					return err
				}
			}
			if err := zero(cmd, "samples"); err != nil {
				return err
			}
			run := ort.Options{Threads: threads}
			var err error
			if run.Provider, err = ort.ParseProvider(provider); err != nil {
				return usageError("%w", err)
			}
			if err := parseSize(size, &o.Height, &o.Width); err != nil {
				return usageError("%w", err)
			}
			o.Rounded = true
			confined.provider, confined.model, confined.trusted = run.Provider, args[0], []string{path, image, mask}
			sandboxed, err := confined.enter()
			if err != nil {
				return err
			}
			c, err := classifier.Open(args[0], o)
			if err != nil {
				return ofModel(args[0], err)
			}
			d, err := data.OpenHeldOut(ctx, path, data.Options{Height: c.Height, Width: c.Width, Channels: c.Channels, Limit: samples, Seed: 1})
			if err != nil {
				return err
			}
			if len(d.Classes) != c.Classes {
				return fmt.Errorf("%w: %s has %d, the model %d", sanitize.ErrClasses, d.Name, len(d.Classes), c.Classes)
			}
			var attack *sanitize.Attack
			if image != "" || mask != "" {
				if image == "" || mask == "" || target < 0 || target >= c.Classes {
					return usageError("a trigger needs --trigger-image, --trigger-mask and a --target from 0 to %d", c.Classes-1)
				}
				attack = &sanitize.Attack{Target: target}
				if attack.Trigger, err = data.LoadTrigger(image, mask, c.Height, c.Width, c.Channels); err != nil {
					return &exitError{exitDataset, err}
				}
			}
			p, info, err := sanitize.FindPreprocess(ctx, c, preprocess, d, run)
			if err != nil {
				return err
			}
			people := cmd.ErrOrStderr()
			if asJSON {
				people = io.Discard // the object says it all
			}
			long := pace{w: people, what: "images measured", begin: time.Now()}
			e, err := sanitize.EvaluateTelling(ctx, c, nil, p, d, attack, run, long.tell)
			if err != nil {
				return err
			}
			result := evaluation{File: args[0], Dataset: d.Name, Digest: d.Digest(), Images: d.Len(), Preprocessing: info, Sandbox: sandboxed, Evaluation: e}
			switch {
			case e.OtherOrder() != "":
				result.Warning = "the dataset's classes are not in the model's order: " + e.OtherOrder()
			case e.AtChance():
				result.Warning = "the model is no better than guessing; check that the dataset's classes, in alphabetical order, are the model's, and its preprocessing (--preprocess)"
			}
			if result.Warning != "" {
				fmt.Fprintf(people, "warning: %s\n", result.Warning)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), result)
			}
			result.print(cmd.OutOrStdout())
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "data", "", "labelled images: folder, tar, tar.gz, zip, CIFAR-10 binary or IDX; where it has train/ and test/ or val/, or the like, those set apart")
	f.StringVar(&image, "trigger-image", "", "image of the trigger, PNG")
	f.StringVar(&mask, "trigger-mask", "", "mask of the trigger, PNG: white where the trigger replaces the image")
	f.IntVar(&target, "target", -1, "number of the backdoor's target class")
	f.Var(natural{&samples}, "samples", "images to use (default all)")
	f.StringVar(&preprocess, "preprocess", "auto", "how pixels become the model's input: a name (unit, bytes, signed, imagenet, cifar10, ...), or 'mean=.. std=.. range=LOW,HIGH order=bgr'; auto tries the common ways on clean images")
	f.StringVar(&size, "size", "", "image size HxW, where the model leaves it open")
	readingFlags(cmd, &o.Output, &o.Feature)
	f.StringVar(&provider, "provider", "auto", providerHelp)
	f.Var(natural{&threads}, "threads", "CPU threads (default all)")
	confined.flag(cmd)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (e *evaluation) print(w io.Writer) {
	fmt.Fprintf(w, "%-8s %s, %d images, preprocessing %s (%s)\n", "data", e.Dataset, e.Images, e.Preprocessing.Name, e.Preprocessing.From)
	fmt.Fprintf(w, "%-8s %v\n", "CDA", e.CDA)
	if e.ASR != nil {
		fmt.Fprintf(w, "%-8s %v\n%-8s %v\n%-8s %v\n", "ASR", e.ASR, "floor", e.Floor, "ARR", e.ARR)
	}
}
