package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"grindstone/internal/sandbox"
	"grindstone/sanitize/ort"
)

// confinement is what a command that runs a model may use once it has the model's bytes before it.
type confinement struct {
	mode     string
	provider ort.Provider
	model    string   // a file, read with what lies beside it: external data
	trusted  []string // files and folders that whoever runs the command chose: links in them are followed
	write    []string // files; "" is none
}

// flag adds --sandbox.
func (c *confinement) flag(cmd *cobra.Command) {
	c.mode = sandbox.Auto
	cmd.Flags().Var(choice{&c.mode, sandbox.Modes}, "sandbox", "keep the process from other files than its own and from the network (Landlock, Linux): auto, where that can be had and the CPU computes; require, or fail; off")
}

// enter shuts this process in, for good, and returns what confines it. Unless a sandbox is required, there is none where a GPU computes: nobody has tried what its
// driver needs.
func (c *confinement) enter() (string, error) {
	if c.mode == sandbox.Off {
		return "", nil
	}
	provider, err := ort.Resolve(c.provider)
	switch {
	case err != nil:
		return "", err
	case provider != ort.CPU && c.mode == sandbox.Require:
		return "", fmt.Errorf("there is no sandbox for the provider %s: run on the CPU (--provider cpu), or without one (--sandbox off)", provider)
	case provider != ort.CPU:
		return "", nil
	}
	info, err := ort.Load()
	if err != nil {
		return "", err
	}
	files := sandbox.Files{Read: []string{c.model, filepath.Dir(c.model)}, Write: []string{os.TempDir()}}
	if library, err := filepath.EvalSymlinks(info.Path); err == nil { // else it is the system's
		files.Read = append(files.Read, filepath.Dir(library))
	}
	for _, path := range c.trusted {
		if path != "" {
			files.Trusted = append(files.Trusted, path)
		}
	}
	for _, path := range c.write {
		if path != "" {
			files.Write = append(files.Write, filepath.Dir(path))
		}
	}
	return sandbox.Enter(c.mode, files)
}

// checkSandbox says at the start what confines the sanitizers of this machine. It is an error if one is required and there is none.
func (c Config) checkSandbox(log *slog.Logger) error {
	if c.Sanitizer.Workers == 0 || c.Sanitizer.Sandbox == sandbox.Off {
		return nil
	}
	name, err := sandbox.Available()
	switch {
	case err == nil:
		log.Info("sanitizers that compute on the CPU are confined", "sandbox", name)
	case c.Sanitizer.Sandbox == sandbox.Require:
		return fmt.Errorf("sanitizer.sandbox: require: %w", err)
	default:
		log.Warn("sanitizers can read what this user can: keep nothing else on this machine", "cause", err)
	}
	return nil
}
