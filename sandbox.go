package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"grindstone/internal/sandbox"
	"grindstone/sanitize"
	"grindstone/sanitize/ort"
)

// confine shuts this process in before it reads the model, and returns what confines it. Unless a sandbox is required, there is none where a GPU computes: nobody has
// tried what its driver needs.
func confine(mode string, o *sanitize.Options, report string) (string, error) {
	if mode == sandbox.Off {
		return "", nil
	}
	provider, err := ort.Resolve(o.Provider)
	switch {
	case err != nil:
		return "", err
	case provider != ort.CPU && mode == sandbox.Require:
		return "", fmt.Errorf("there is no sandbox for the provider %s: run on the CPU (--provider cpu), or without one (--sandbox off)", provider)
	case provider != ort.CPU:
		return "", nil
	}
	info, err := ort.Load()
	if err != nil {
		return "", err
	}
	files := sandbox.Files{
		Read:  []string{o.Model, filepath.Dir(o.Model)}, // with its external data
		Write: []string{filepath.Dir(o.Output), os.TempDir()},
	}
	if library, err := filepath.EvalSymlinks(info.Path); err == nil { // else it is the system's
		files.Read = append(files.Read, filepath.Dir(library))
	}
	for _, path := range []string{o.Data, o.HeldOut} {
		if path != "" {
			files.Trusted = append(files.Trusted, path)
		}
	}
	if report != "" {
		files.Write = append(files.Write, filepath.Dir(report))
	}
	return sandbox.Enter(mode, files)
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
