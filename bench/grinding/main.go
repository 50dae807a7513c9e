// Grinding measures Feature Grinding on the backdoored model that Neural Attention Distillation (NAD, Li et al. 2021) published: every
// transformation, several secrets, several sizes of the clean dataset. Each run is the sanitize command and the evaluate command; their
// outputs are kept, and a run whose outputs exist is not repeated.
//
//	go run ./bench/grinding -model nad-wrn16-badnet.onnx -data cifar10/train.tar.gz -held-out cifar10/test.tar.gz -work out/ > table.md
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"grindstone/sanitize"
)

// row is one line of the table: some runs that differ in their seed and, as always, in their secret.
type row struct {
	transform string
	samples   int // 0: all
	schedule  []string
}

// paper is the schedule of the paper; few images need the default, which counts in steps.
var paper = []string{"--epochs", "5", "--grind-epochs", "2"}

var rows = []row{{"permute", 0, paper}, {"permute", 5000, nil}, {"permute", 2500, nil}, {"rotate", 0, paper}, {"rotate-2d", 0, paper}}

const seeds = 3

const target = 5 // the class that NAD's trigger forces

func main() {
	var program, model, images, held, work, rate string
	var table bool
	flag.StringVar(&program, "grindstone", "bin/grindstone", "the program")
	flag.StringVar(&model, "model", "", "nad-wrn16-badnet.onnx")
	flag.StringVar(&images, "data", "", "CIFAR-10 training images")
	flag.StringVar(&held, "held-out", "", "CIFAR-10 test images")
	flag.StringVar(&work, "work", "", "folder for models and reports")
	flag.StringVar(&rate, "lr", "", "learning rate (default: searched by each run)")
	flag.BoolVar(&table, "table", false, "print the table of the runs that exist and do none")
	flag.Parse()
	b := bench{program: program, model: model, images: images, held: held, work: work, rate: rate, table: table}
	if err := b.run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "grinding:", err)
		os.Exit(1)
	}
}

type bench struct {
	program, model, images, held, work, rate string
	table                                    bool
}

func (b bench) run(ctx context.Context, w io.Writer) error {
	if b.model == "" || b.images == "" || b.held == "" || b.work == "" {
		return errors.New("-model, -data, -held-out and -work are needed")
	}
	if err := os.MkdirAll(b.work, 0o755); err != nil {
		return err
	}
	if err := drawTrigger(b.path("mark.png"), b.path("mask.png")); err != nil {
		return err
	}
	before, err := b.evaluate(ctx, "before", b.model)
	if err != nil {
		return err
	}
	for seed := 1; seed <= seeds && !b.table; seed++ { // every row once before any row twice
		for _, r := range rows {
			if err := b.grind(ctx, r, seed); err != nil {
				return err
			}
		}
	}
	fmt.Fprintln(w, "| transformation | clean images | steps | rate | runs | CDA | ASR | floor | ARR | seconds a run |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
	fmt.Fprintf(w, "| none (as published) | | | | | %.2f | %.2f | %.2f | %.2f | |\n", 100*before.CDA.Value, 100*before.ASR.Value, 100*before.Floor.Value, 100*before.ARR.Value)
	for _, r := range rows {
		var cda, asr, floor, arr, seconds []float64
		var report *sanitize.Report
		for seed := 1; seed <= seeds; seed++ {
			rep := &sanitize.Report{}
			if err := readJSON(b.path(r.name(seed)+".report.json"), rep); errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return err
			}
			e, err := b.evaluate(ctx, r.name(seed), b.path(r.name(seed)+".onnx"))
			if err != nil {
				return err
			}
			report = rep
			cda, asr, floor, arr = append(cda, 100*e.CDA.Value), append(asr, 100*e.ASR.Value), append(floor, 100*e.Floor.Value), append(arr, 100*e.ARR.Value)
			seconds = append(seconds, rep.Seconds)
		}
		if report != nil {
			fmt.Fprintf(w, "| %s | %d | %d | %g | %d | %s | %s | %s | %s | %.0f |\n", r.transform, report.Dataset.Train, report.Hyperparameters.Steps,
				report.Hyperparameters.LearningRate, len(cda), spread(cda), spread(asr), spread(floor), spread(arr), mean(seconds))
		}
	}
	return nil
}

func (b bench) path(name string) string { return filepath.Join(b.work, name) }

func (r row) name(seed int) string { return fmt.Sprintf("%s-%d-%d", r.transform, r.samples, seed) }

// grind sanitizes and evaluates once.
func (b bench) grind(ctx context.Context, r row, seed int) error {
	name := r.name(seed)
	out, reportFile := b.path(name+".onnx"), b.path(name+".report.json")
	if _, err := os.Stat(reportFile); err != nil {
		args := []string{"sanitize", b.model, "-o", out, "--data", b.images, "--held-out", b.held, "--transform", r.transform, "--seed", strconv.Itoa(seed), "--report", reportFile}
		args = append(args, r.schedule...)
		if r.samples > 0 {
			args = append(args, "--samples", strconv.Itoa(r.samples))
		}
		if b.rate != "" {
			args = append(args, "--lr", b.rate)
		}
		cmd := exec.CommandContext(ctx, b.program, args...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err := b.evaluate(ctx, name, out)
	return err
}

func (b bench) evaluate(ctx context.Context, name, model string) (*sanitize.Evaluation, error) {
	file := b.path(name + ".eval.json")
	if _, err := os.Stat(file); err != nil {
		text, err := exec.CommandContext(ctx, b.program, "evaluate", model, "--data", b.held, "--trigger-image", b.path("mark.png"), "--trigger-mask", b.path("mask.png"),
			"--target", strconv.Itoa(target), "--preprocess", "unit", "--json").Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return nil, err
		}
	}
	var e sanitize.Evaluation
	return &e, readJSON(file, &e)
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// drawTrigger writes NAD's trigger, a 3x3 grid in the bottom right corner of 32x32 pixels.
func drawTrigger(mark, mask string) error {
	grid := [3][3]uint8{{0, 0, 1}, {0, 1, 0}, {1, 0, 1}} // top row first
	m, k := image.NewGray(image.Rect(0, 0, 32, 32)), image.NewGray(image.Rect(0, 0, 32, 32))
	for y := range 3 {
		for x := range 3 {
			m.SetGray(29+x, 29+y, color.Gray{Y: 255 * grid[y][x]})
			k.SetGray(29+x, 29+y, color.Gray{Y: 255})
		}
	}
	return errors.Join(writePNG(mark, m), writePNG(mask, k))
}

func writePNG(path string, m image.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(png.Encode(f, m), f.Close())
}

func mean(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s += x
	}
	return s / float64(len(v))
}

// spread is the mean and, of several, the range.
func spread(v []float64) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, x := range v {
		low, high = min(low, x), max(high, x)
	}
	if len(v) == 1 {
		return fmt.Sprintf("%.2f", v[0])
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", mean(v), low, high)
}
