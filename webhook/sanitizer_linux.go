package webhook

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// isolate gives the child a process group of its own and lets the kernel end it when the server dies.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// confine forbids core dumps, puts a ceiling on the memory that the child can ask for, and makes it the first that the kernel ends when memory runs
// out. All are hardening on top of limits that hold without them, so that a kernel that refuses is no failure.
func confine(pid int, memory int64) {
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_DATA, nil, &old); err == nil && memory > 0 {
		ceiling := min(old.Max, uint64(memoryCeiling(memory))) //nolint:gosec // it is positive
		_ = unix.Prlimit(pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: ceiling, Max: ceiling}, nil)
	}
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0)
}

// DisableCoreDumps forbids core dumps of this process, which holds the signing key, and of those that it starts.
func DisableCoreDumps() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }

// memoryCeiling is the kernel's own limit (RLIMIT_DATA: private memory that can be written to, whether it is used or not) for a run that may hold so
// many bytes: what a process takes between two looks of watchMemory, or while the server gets no turn, ends there. It is higher than the limit, for
// threads have stacks, and allocators keep memory, that they do not use. A limit on the address space (RLIMIT_AS) would not do: ONNX Runtime, CUDA and Go
// reserve far more than they ask for.
func memoryCeiling(limit int64) int64 { return limit + limit/2 + 2<<30 }

var memoryPoll = 50 * time.Millisecond

// watchMemory calls exceeded when the process holds more than limit bytes in memory.
func watchMemory(ctx context.Context, pid int, limit int64, exceeded func()) {
	if limit <= 0 {
		return
	}
	tick := time.NewTicker(memoryPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if resident(pid) > limit {
				exceeded()
				return
			}
		}
	}
}

// resident returns the resident set of the process in bytes, 0 when it is gone.
func resident(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize())
}

// oomKills counts the processes that the kernel has ended for want of memory since the machine started, or returns 0.
func oomKills() int64 {
	data, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64)
			return n
		}
	}
	return 0
}

// signalOf names the signal that ended the process.
func signalOf(state *os.ProcessState) (string, bool) {
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() {
		return "", false
	}
	return ws.Signal().String(), true
}
