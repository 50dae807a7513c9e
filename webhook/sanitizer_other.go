//go:build !linux

package webhook

import (
	"context"
	"os"
	"os/exec"
)

// On systems other than Linux the wall-clock limit holds, and the memory limit is left to the system.

func isolate(*exec.Cmd) {}

func confine(int, int64) {}

// DisableCoreDumps does nothing on this system.
func DisableCoreDumps() error { return nil }

func killGroup(p *os.Process) error { return p.Kill() }

func watchMemory(context.Context, int, int64, func()) {}

func oomKills() int64 { return 0 }

func signalOf(state *os.ProcessState) (string, bool) { return state.String(), !state.Exited() }
