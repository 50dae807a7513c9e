package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"sync"

	"grindstone/webhook"
)

// errNoRuntime says that no model can be sanitized on this machine.
var errNoRuntime = errors.New("the ONNX Runtime library was not found; `grindstone doctor` says where it was looked for")

// loadRuntime reports whether ONNX Runtime can be loaded. The server itself never loads native code: a doctor in a process of its own does.
func loadRuntime(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return errors.New("this program's own file cannot be found")
	}
	out, _ := exec.CommandContext(ctx, self, "doctor", "--json", "--library").Output() //nolint:gosec // this program itself; its exit code is in the answer
	var answer struct{ OK bool }
	if err := json.Unmarshal(out, &answer); err != nil {
		return errors.New("`grindstone doctor` does not answer")
	}
	if !answer.OK {
		return errNoRuntime
	}
	return nil
}

// runtimeCheck is the server's readiness check for the ONNX Runtime library. A good answer is kept.
func runtimeCheck() webhook.Check {
	var (
		mu    sync.Mutex
		found bool
	)
	return webhook.Check{Name: "runtime", Run: func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if found {
			return nil
		}
		err := loadRuntime(ctx)
		found = err == nil
		return err
	}}
}

// missingRuntime says at the start why this machine sanitizes nothing, "" where it can, or leaves it to others. A good answer is the readiness check's, too.
func (c Config) missingRuntime(ctx context.Context, runtime webhook.Check, log *slog.Logger) string {
	if c.Sanitizer.Workers == 0 {
		return ""
	}
	if err := runtime.Run(ctx); err != nil {
		log.Warn("pushed models stay in quarantine until a start with ONNX Runtime", "cause", err)
		return "no ONNX Runtime library was found: pushed models stay in quarantine; run `grindstone doctor`, install it, restart"
	}
	return ""
}
