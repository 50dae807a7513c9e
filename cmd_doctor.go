package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"grindstone/internal/sandbox"
	"grindstone/sanitize"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
)

// configFinding is the name of the finding about the configuration.
const configFinding = "configuration"

// finding is the result of one of the doctor's examinations.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"` // what to do when it is not OK
}

func newDoctorCommand() *cobra.Command {
	var flags struct {
		config, dir, data, selfTest string
		json, library               bool
	}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine has and what is missing",
		Long: `Check the ONNX Runtime library and its version, every execution provider that it has by one training step, the devices, write access, the
clock and the clean datasets, and say what to do about what is missing. With --config it checks the file as serve does, and that the policy, the signing
key, the logins and the certificates that it names can be used.

Exit code 1 says that something needs attention, 2 that a server would not start with the configuration.`,
		Example: `  grindstone doctor
  grindstone doctor --config grindstone.yaml
  grindstone doctor --data ./cifar10 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.selfTest != "" {
				return sanitize.SelfTest(cmd.Context(), ort.Provider(flags.selfTest))
			}
			if flags.library {
				_, library := findLibrary()
				return reportFindings(cmd.OutOrStdout(), []finding{library}, flags.json)
			}
			c, err := DefaultConfig(), error(nil)
			if flags.config != "" {
				c, err = LoadConfig(flags.config)
			}
			if err != nil {
				c = DefaultConfig()
			}
			if cmd.Flags().Changed("dir") {
				c.Dir = flags.dir
			}
			if err == nil {
				err = c.CheckParts(cmd.Context())
			}
			var findings []finding
			if flags.config != "" || err != nil {
				findings = append(findings, examine(configFinding, flags.config, err, "correct the file, or what it names"))
			}
			if flags.data != "" {
				c.Datasets["default"] = flags.data
			}
			findings = append(findings, findRuntime(cmd.Context())...)
			findings = append(findings, findSandbox(c.Sanitizer.Sandbox))
			findings = append(findings, findWriteAccess(c.Dir), findClock(time.Now()))
			for name, path := range c.Datasets {
				findings = append(findings, findDataset(cmd.Context(), name, path))
			}
			return reportFindings(cmd.OutOrStdout(), findings, flags.json)
		},
	}
	cmd.Flags().StringVar(&flags.config, "config", "", "check this configuration file, and with its values")
	cmd.Flags().StringVar(&flags.dir, "dir", DefaultConfig().Dir, "folder that the server would keep everything in")
	cmd.Flags().StringVar(&flags.data, "data", "", "clean dataset to read")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON")
	cmd.Flags().StringVar(&flags.selfTest, "self-test", "", "do a training step on this provider, and nothing else")
	cmd.Flags().BoolVar(&flags.library, "library", false, "load the ONNX Runtime library, and nothing else")
	_ = cmd.Flags().MarkHidden("self-test")
	_ = cmd.Flags().MarkHidden("library")
	return cmd
}

func reportFindings(w io.Writer, findings []finding, asJSON bool) error {
	healthy, code := true, exitFailure
	for _, f := range findings {
		healthy = healthy && f.OK
		if f.Name == configFinding && !f.OK {
			code = exitUsage
		}
	}
	if asJSON {
		if err := printJSON(w, map[string]any{"ok": healthy, "findings": findings}); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			mark := "ok  "
			if !f.OK {
				mark = "FAIL"
			}
			fmt.Fprintf(w, "%s  %-14s %s\n", mark, f.Name, strings.ReplaceAll(f.Detail, "\n", "\n                     "))
			if f.Advice != "" {
				fmt.Fprintf(w, "      %-14s -> %s\n", "", f.Advice)
			}
		}
	}
	if !healthy {
		return &exitError{code: code}
	}
	return nil
}

// examine makes a finding of an error, or of what was found without one.
func examine(name, detail string, err error, advice string) finding {
	if err != nil {
		return finding{name, false, err.Error(), advice}
	}
	return finding{Name: name, OK: true, Detail: detail}
}

// findLibrary loads ONNX Runtime.
func findLibrary() (ort.Info, finding) {
	info, err := ort.Load()
	if err != nil {
		return info, examine("onnxruntime", "", err, "install ONNX Runtime "+ort.Version+" with `make runtime`, or set ORT_LIBRARY to its library")
	}
	return info, finding{Name: "onnxruntime", OK: true, Detail: info.Version + " at " + info.Path}
}

// findRuntime loads ONNX Runtime, and has every provider that it knows here do a training step.
func findRuntime(ctx context.Context) []finding {
	info, library := findLibrary()
	found := []finding{library}
	if !library.OK {
		return found
	}
	for _, p := range info.Providers {
		found = append(found, examine(string(p), "a training step gives what it should", selfTest(ctx, p), "use another --provider, or another build of ONNX Runtime"))
	}
	var missing []string
	for _, p := range ort.Providers {
		if info.Missing[p] != nil {
			missing = append(missing, string(p))
		}
	}
	return append(found,
		finding{Name: "not available", OK: true, Detail: strings.Join(missing, ", ") + "; `grindstone inspect MODEL.onnx --provider NAME` says why"},
		finding{Name: "devices", OK: true, Detail: fmt.Sprintf("%s; %d cores in use", strings.Join(info.Devices, "; "), runtime.GOMAXPROCS(0))})
}

// selfTest has a process of its own: a provider's native code may crash.
func selfTest(ctx context.Context, p ort.Provider) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, program, "doctor", "--self-test", string(p)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, firstLine(string(out)))
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// findSandbox says what would confine the sanitizer. To have nothing is a fault only where it is required.
func findSandbox(mode string) finding {
	name, err := sandbox.Available()
	if err != nil && mode != sandbox.Require {
		return finding{Name: "sandbox", OK: true, Detail: "none: " + err.Error()}
	}
	return examine("sandbox", name, err, "use a kernel with Landlock, or set sanitizer.sandbox to auto")
}

// findWriteAccess writes a file into dir, or into the nearest folder above that exists.
func findWriteAccess(dir string) finding {
	path, err := filepath.Abs(dir)
	for err == nil {
		if _, serr := os.Stat(path); serr == nil || filepath.Dir(path) == path {
			break
		}
		path = filepath.Dir(path)
	}
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(path, ".grindstone-*"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	return examine("write access", path, err, "make the folder writable for this user, or name another with --dir")
}

// findClock compares the clock with the time this program was built from: signatures carry times.
func findClock(now time.Time) finding {
	var err error
	if built, perr := time.Parse(time.RFC3339, readBuildInfo().Time); perr == nil && now.Before(built) {
		err = fmt.Errorf("it is %s, which is before this program was written (%s)", now.UTC().Format(time.RFC3339), built.Format(time.RFC3339))
	}
	return examine("clock", now.UTC().Format(time.RFC3339), err, "set the clock: attestations carry the time")
}

// findDataset reads the dataset as the sanitizer would.
func findDataset(ctx context.Context, name, path string) finding {
	d, err := data.Open(ctx, path, data.Options{})
	detail := ""
	if err == nil {
		detail = fmt.Sprintf("%s: %d images of %dx%dx%d in %d classes", path, d.Len(), d.Height, d.Width, d.Channels, len(d.Classes))
	}
	return examine("dataset "+name, detail, err, "see `grindstone sanitize --help` for the forms a dataset can have")
}
