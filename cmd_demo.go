package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"grindstone/demo"
	"grindstone/sanitize"
	"grindstone/sanitize/ort"
)

func newDemoCommand() *cobra.Command {
	var (
		o                     demo.Options
		asJSON                bool
		keep, provider        string
		image, mask           string
		targetClass, maxSteps int
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything at work on this machine: push, quarantine, sanitize, sign, release, verify",
		Long: `Demo starts a real server on loopback and plays both sides. A third party pushes a backdoored model with an ordinary OCI client; the
server quarantines it, asks the policy, removes the backdoor by Feature Grinding, signs an attestation and releases the sanitized model;
the deployer pulls and verifies it. At the end stands what the model did before and after: CDA (clean accuracy), ASR (how often the
trigger works) and ARR (how often a triggered image gets its true class).

Nothing is downloaded. Without --model and --data the images are generated and the backdoored model is trained on them first, by the same
engine. With your own, give the trigger too if you know it.

The last line of --json is one object: source_digest, released_digest, transformation, verified, before and after.`,
		Example: `  grindstone demo
  grindstone demo --keep demo-files --json | tail -n 1 | jq .after
  grindstone demo --model m.onnx --data images.tar.gz --trigger-image patch.png --trigger-mask mask.png --target 5`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if (o.Model == "") != (o.Data == "") {
				return usageError("--model and --data go together")
			}
			if image == "" && mask == "" {
				if err := ignored(cmd, "a target is a trigger's; give --trigger-image and --trigger-mask", "target"); err != nil {
					return err
				}
			} else {
				if o.Model == "" || image == "" || mask == "" || targetClass < 0 {
					return usageError("a trigger needs --model, --trigger-image, --trigger-mask and --target")
				}
				o.Trigger = &demo.Trigger{Image: image, Mask: mask, Target: targetClass}
			}
			if o.Provider, err = ort.ParseProvider(provider); err != nil {
				return usageError("%w", err)
			}
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
			if o.Dir, err = demoDir(keep); err != nil {
				return err
			}
			if keep == "" {
				defer os.RemoveAll(o.Dir)
			}
			o.Steps = maxSteps
			tell := newTeller(cmd, asJSON)
			o.Say, o.Progress = tell.say, tell.progress
			begin := time.Now()
			outcome, err := demo.Run(cmd.Context(), o)
			tell.end()
			if err != nil {
				return err
			}
			if keep != "" {
				outcome.Dir = o.Dir
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(outcome)
			}
			printOutcome(cmd, outcome, time.Since(begin))
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON lines; the last one is the outcome")
	f.StringVar(&keep, "keep", "", "folder to keep models, images, keys, state and log in")
	f.StringVar(&o.Model, "model", "", "your own model in place of the generated victim")
	f.StringVar(&o.Data, "data", "", "your own clean images")
	f.StringVar(&image, "trigger-image", "", "image of the model's known trigger, PNG")
	f.StringVar(&mask, "trigger-mask", "", "mask of the trigger, PNG")
	f.IntVar(&targetClass, "target", -1, "number of the trigger's target class")
	f.IntVar(&maxSteps, "steps", 0, fmt.Sprintf("SGD steps of the sanitizer (default %d for the generated victim, else %d or five epochs)", demo.DefaultSteps, sanitize.DefaultSteps))
	f.StringVar(&provider, "provider", "auto", providerHelp)
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the generated images and the victim")
	return cmd
}

// demoDir makes the folder that the demo keeps everything in.
func demoDir(keep string) (string, error) {
	if keep == "" {
		return os.MkdirTemp("", "grindstone-demo-")
	}
	if entries, err := os.ReadDir(keep); err == nil && len(entries) > 0 {
		return "", usageError("%s is not empty", keep)
	}
	dir, err := filepath.Abs(keep)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// teller narrates: text and a bar for a person, JSON lines for a program.
type teller struct {
	cmd  *cobra.Command
	json *json.Encoder
	bar  *bar
	what string
}

func newTeller(cmd *cobra.Command, asJSON bool) *teller {
	t := &teller{cmd: cmd}
	if asJSON {
		t.json = json.NewEncoder(cmd.OutOrStdout())
	}
	return t
}

func (t *teller) say(format string, a ...any) {
	t.end()
	if t.json != nil {
		_ = t.json.Encode(map[string]string{"say": fmt.Sprintf(format, a...)})
		return
	}
	fmt.Fprintf(t.cmd.OutOrStdout(), format+"\n", a...)
}

func (t *teller) progress(what string, step, steps int, detail string) {
	if t.json != nil {
		_ = t.json.Encode(map[string]any{"progress": what, "step": step, "steps": steps, "detail": detail})
		return
	}
	if t.what != what {
		t.end()
		t.what = what
		t.bar = newBar(t.cmd.ErrOrStderr(), steps)
	}
	t.bar.set(step, steps, fmt.Sprintf("  %-20s %s", what, detail))
}

// end closes a bar.
func (t *teller) end() {
	t.bar.end()
	t.bar, t.what = nil, ""
}

func printOutcome(cmd *cobra.Command, o *demo.Outcome, took time.Duration) {
	w := cmd.OutOrStdout()
	percent := func(v *float64) string {
		if v == nil {
			return "unknown"
		}
		return fmt.Sprintf("%.1f %%", 100**v)
	}
	fmt.Fprintf(w, "\n%-30s %-10s %-10s %-10s\n", "", "CDA", "ASR", "ARR")
	fmt.Fprintf(w, "%-30s %-10s %-10s %-10s\n", "pushed by the third party", percent(&o.Before.CDA), percent(o.Before.ASR), percent(o.Before.ARR))
	fmt.Fprintf(w, "%-30s %-10s %-10s %-10s\n", "released, "+o.Transformation, percent(&o.After.CDA), percent(o.After.ASR), percent(o.After.ARR))
	if o.Floor != nil {
		fmt.Fprintf(w, "%-30s %-10s %-10s\n", "  the same without trigger", "", percent(o.Floor))
	}
	fmt.Fprintf(w, "\nverified: %v, images: %s, took %s\n", o.Verified, o.Images, took.Round(time.Second))
	if o.Dir != "" {
		fmt.Fprintf(w, "files kept in %s\n", o.Dir)
	}
}
