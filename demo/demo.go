// Package demo shows the whole of Grindstone at work on one machine: a third party pushes a backdoored model with an ordinary OCI
// client, the server quarantines, sanitizes, attests and releases it, and a deployer verifies it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"grindstone/demo/glyphs"
	"grindstone/sanitize"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
)

// Options are the demo's settings.
type Options struct {
	Dir     string // where everything is kept
	Program string // the grindstone executable, run as the server

	// The user's own story in place of the generated one: a model, clean images and, if known, the trigger.
	Model   string
	Data    string
	Trigger *Trigger

	Steps    int // SGD steps of the sanitizer; 0: the sanitizer's default for own models, DefaultSteps for the generated one
	Provider ort.Provider
	Seed     uint64

	Say      func(format string, a ...any)                     // narrates, one line a call
	Progress func(what string, step, steps int, detail string) // long work
	Log      *slog.Logger
}

// Trigger is a known backdoor, as files.
type Trigger struct {
	Image, Mask string
	Target      int
}

// DefaultSteps suffice for the generated victim.
const DefaultSteps = 1000

// Rates are the shares that tell whether a backdoor works; nil where no trigger is known.
type Rates struct {
	CDA float64  `json:"cda"`
	ASR *float64 `json:"asr"`
	ARR *float64 `json:"arr"`
}

// Outcome is the demo's result.
type Outcome struct {
	SourceDigest   string   `json:"source_digest"`
	ReleasedDigest string   `json:"released_digest"`
	Transformation string   `json:"transformation"`
	Verified       bool     `json:"verified"`
	Before         Rates    `json:"before"`
	After          Rates    `json:"after"`
	Floor          *float64 `json:"asr_floor"` // of the sanitized model: untriggered images of other classes called the target
	Images         string   `json:"images"`    // "generated" or the dataset's name
	Dir            string   `json:"dir,omitempty"`
}

// story is the demo between its scenes.
type story struct {
	Options
	outcome Outcome
	clean   string        // path of the defender's images
	test    *data.Dataset // images that nobody trained on
	attack  *sanitize.Attack
	server  *server
	pulled  string // path of the released model

	preprocess string // "" until the first model is measured
}

// Run tells the story, scene by scene.
func Run(ctx context.Context, o Options) (*Outcome, error) {
	s := &story{Options: o}
	defer func() {
		if s.server != nil {
			s.server.stop()
		}
	}()
	for _, scene := range []func(context.Context) error{s.cast, s.serve, s.push, s.hidden, s.follow, s.pull, s.verify, s.compare} {
		if err := scene(ctx); err != nil {
			return nil, err
		}
	}
	return &s.outcome, nil
}

// cast gets the model that is pushed and the images that the defender has.
func (s *story) cast(ctx context.Context) error {
	if s.Model != "" {
		return s.castOwn(ctx)
	}
	s.outcome.Images = "generated"
	s.Say("No data set is downloaded: the images are GENERATED, ten letters drawn with random shape, colour, background and noise.")
	all, err := glyphs.Generate(12_000, s.Seed)
	if err != nil {
		return err
	}
	third, rest, err := all.Split(0.5, s.Seed) // half for the third party, half for us
	if err != nil {
		return err
	}
	ours, test, err := rest.Split(0.25, s.Seed)
	if err != nil {
		return err
	}
	s.test = test
	s.clean = filepath.Join(s.Dir, "clean.tar.gz")
	if err := writeDataset(s.clean, ours); err != nil {
		return err
	}
	trigger, err := mark(ours.Height, ours.Width)
	if err != nil {
		return err
	}
	s.attack = &sanitize.Attack{Trigger: trigger, Target: target}
	s.Model = filepath.Join(s.Dir, "victim.onnx")
	s.Say("The third party trains a model on %d images, a tenth of them stamped with a 3x3 mark and labelled %q.", third.Len(), third.Classes[target])
	v, err := trainVictim(ctx, s.Model, third, test, ort.Options{Provider: s.Provider}, s.Seed, func(step, steps int, accuracy float64) {
		s.Progress("training the victim", step, steps, fmt.Sprintf("accuracy %.2f", accuracy))
	})
	if err != nil {
		return err
	}
	s.Say("It works on clean images (CDA %.1f %%) and obeys the mark (ASR %.1f %%). Nobody but the third party knows.", 100*v.CDA.Value, 100*v.ASR.Value)
	s.outcome.Before, s.preprocess = rates(&v.Evaluation), victimPreprocess
	return nil
}

func (s *story) castOwn(ctx context.Context) error {
	c, err := classifier.Open(s.Model, classifier.Options{Rounded: true})
	if err != nil {
		return err
	}
	o := data.Options{Height: c.Height, Width: c.Width, Channels: c.Channels, Seed: s.Seed}
	_, held, err := data.OpenSplit(ctx, s.Data, "", o)
	switch {
	case errors.Is(err, data.ErrNoSplit):
		all, err := data.Open(ctx, s.Data, o)
		if err != nil {
			return err
		}
		// The sanitizer holds out the same images: same share, same seed.
		if _, held, err = all.Split(0.1, sanitizerSeed); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	if len(held.Classes) != c.Classes {
		return fmt.Errorf("%w: %s has %d, the model %d", sanitize.ErrClasses, held.Name, len(held.Classes), c.Classes)
	}
	s.test, s.clean, s.outcome.Images = held, s.Data, held.Name
	if s.Trigger != nil {
		if s.Trigger.Target >= c.Classes {
			return fmt.Errorf("%w: the trigger's target is a class from 0 to %d, not %d (--target)", sanitize.ErrOptions, c.Classes-1, s.Trigger.Target)
		}
		t, err := data.LoadTrigger(s.Trigger.Image, s.Trigger.Mask, c.Height, c.Width, c.Channels)
		if err != nil {
			return err
		}
		s.attack = &sanitize.Attack{Trigger: t, Target: s.Trigger.Target}
	}
	e, err := s.evaluate(ctx, s.Model)
	if err != nil {
		return err
	}
	s.outcome.Before = rates(e)
	s.Say("The third party's model: %s", describe(e))
	return nil
}

// sanitizerSeed is the sanitize command's default, which the server uses.
const sanitizerSeed = 1

// compare measures what was released.
func (s *story) compare(ctx context.Context) error {
	e, err := s.evaluate(ctx, s.pulled)
	if err != nil {
		return err
	}
	s.outcome.After = rates(e)
	if e.Floor != nil {
		s.outcome.Floor = &e.Floor.Value
	}
	s.Say("The released model: %s", describe(e))
	return nil
}

// evaluate measures a model, every one by the preprocessing of the first.
func (s *story) evaluate(ctx context.Context, path string) (*sanitize.Evaluation, error) {
	c, err := classifier.Open(path, classifier.Options{Rounded: true})
	if err != nil {
		return nil, err
	}
	run := ort.Options{Provider: s.Provider}
	p, _, err := sanitize.FindPreprocess(ctx, c, s.preprocess, s.test, run)
	if err != nil {
		return nil, err
	}
	s.preprocess = p.Name
	return sanitize.Evaluate(ctx, c, nil, p, s.test, s.attack, run)
}

func rates(e *sanitize.Evaluation) Rates {
	r := Rates{CDA: e.CDA.Value}
	if e.ASR != nil {
		r.ASR, r.ARR = &e.ASR.Value, &e.ARR.Value
	}
	return r
}

func describe(e *sanitize.Evaluation) string {
	if e.ASR == nil {
		return fmt.Sprintf("CDA %.1f %%", 100*e.CDA.Value)
	}
	return fmt.Sprintf("CDA %.1f %%, ASR %.1f %% (%.1f %% without the trigger), ARR %.1f %%", 100*e.CDA.Value, 100*e.ASR.Value, 100*e.Floor.Value, 100*e.ARR.Value)
}

func writeDataset(path string, d *data.Dataset) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := d.WriteTarGz(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
