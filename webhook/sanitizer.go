package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"grindstone/registry"
	"grindstone/sanitize"
	"grindstone/sanitize/onnx"
)

// SanitizerConfig says how sanitizer processes are run.
type SanitizerConfig struct {
	Command  []string        // program and first arguments; default: this executable's sanitize command
	Workers  int             // models sanitized at the same time; default 1
	Timeout  time.Duration   // wall clock of one run; default 2 hours
	Memory   int64           // resident bytes of one run, on Linux; 0 is no limit
	Model    sanitize.Limits // what is larger is not sanitized
	Each     int             // models of one identity that are in work at the same time; 0 is no limit
	Provider string          // execution provider unless the decision names one
	Sandbox  string          // "auto", "require" or "off": see internal/sandbox; default auto
	Threads  int             // 0: all cores
}

// withDefaults fills in what is not set.
func (c SanitizerConfig) withDefaults() SanitizerConfig {
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Hour
	}
	if self, err := os.Executable(); err == nil && len(c.Command) == 0 {
		c.Command = []string{self, "sanitize"}
	}
	return c
}

// sanitizerRun is one run of the sanitizer process: the files it is given and the settings that follow them.
type sanitizerRun struct {
	Model, Out, Report, Data string // paths
	Dir                      string // scratch folder, the process's working and temporary folder
	Args                     []string
	Package                  []registry.LocalFile // what the model came with
}

// Why a running sanitizer was stopped by the server, as causes of its context.
var (
	errTimeout = errors.New("over the wall-clock limit")
	errMemory  = errors.New("over the memory limit")
)

// Exit codes of the sanitize command (see its help).
const (
	exitModel       = 3
	exitDataset     = 4
	exitRuntime     = 5
	exitAccuracy    = 6
	exitMemory      = 7
	exitInterrupted = 130
)

// run runs one sanitizer process to its end, hands its progress on, and returns nil, a verdict, or ctx's error when the server
// stops. The process has a process group of its own, dies with the server, leaves no core dump, and sees a reduced environment.
func (c SanitizerConfig) run(ctx context.Context, r sanitizerRun, progress func(sanitize.Progress)) error {
	// The kernel ends the child when the thread that started it ends: keep that thread until the child is gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	limited, stop := context.WithTimeoutCause(ctx, c.Timeout, errTimeout)
	defer stop()
	limited, exceed := context.WithCancelCause(limited)
	defer exceed(nil)

	args := slices.Concat(c.Command[1:], []string{r.Model, "-o", r.Out, "--data", r.Data, "--report", r.Report, "--progress-json"}, r.Args)
	cmd := exec.CommandContext(limited, c.Command[0], args...) //nolint:gosec // the program is the operator's, and no shell reads the arguments
	cmd.Dir = r.Dir
	cmd.Env = reducedEnv(os.Environ(), r.Dir)
	lines := &progressLines{report: func(p sanitize.Progress) {
		p.Message, p.Error = r.publicWords(p.Message), r.publicWords(p.Error)
		progress(p)
	}}
	errs := &ends{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = lines, errs
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	cmd.WaitDelay = 5 * time.Second // for whoever else holds its standard output
	isolate(cmd)

	oomBefore := oomKills()
	if err := cmd.Start(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("start the sanitizer: %w", err)
	}
	confine(cmd.Process.Pid, c.Memory)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchMemory(limited, cmd.Process.Pid, c.Memory, func() { exceed(errMemory) })
	}()
	err := cmd.Wait()
	stop()
	<-watched
	_ = killGroup(cmd.Process) // whatever the child may have started
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.verdict(context.Cause(limited), cmd.ProcessState, r.publicWords(lines.failure), r.publicWords(errs.String()), oomKills() > oomBefore)
}

// knobs stand in place of the sanitizer's flags, by which its messages say what to change: neither pushers nor operators have those.
var knobs = strings.NewReplacer(
	"--preprocess", "trainer.preprocessing in the server's configuration, or the manifest's annotation "+annotationPreprocess,
	"--memory-limit", "sanitizer.memory in the server's configuration",
)

// publicWords takes the server's folders out of what a sanitizer said, and its flags: clients know the files by their names in the package.
func (r sanitizerRun) publicWords(s string) string {
	scratch, separator := filepath.Dir(r.Dir), string(filepath.Separator)
	for _, dir := range []string{filepath.Join(scratch, "in"), filepath.Join(scratch, "out"), r.Dir, scratch} {
		s = strings.ReplaceAll(s, dir+separator, "")
	}
	return knobs.Replace(strings.ReplaceAll(s, r.Data, filepath.Base(r.Data)))
}

// outOfMemory matches what Go, C, C++ and ONNX Runtime say when the kernel, or a GPU, gives them no more memory.
var outOfMemory = regexp.MustCompile(`(?i)out of memory|cannot allocate memory|bad_alloc|bad allocation|failed to allocate memory`)

// verdict names why a run failed. stopped is why the server stopped it, if it did.
func (c SanitizerConfig) verdict(stopped error, state *os.ProcessState, failure, stderr string, kernelOOM bool) error {
	switch {
	case errors.Is(stopped, errTimeout):
		return held(ReasonTimeout, fmt.Sprintf("sanitizing took longer than %v; raise sanitizer.timeout or lower the number of epochs", c.Timeout))
	case errors.Is(stopped, errMemory):
		return held(ReasonOutOfMemory, fmt.Sprintf("sanitizing needed more than %d MiB of memory; raise sanitizer.memory or lower the batch size", c.Memory>>20))
	}
	for _, said := range []string{failure, stderr} {
		if words := outOfMemory.FindString(said); words != "" {
			return held(ReasonOutOfMemory, fmt.Sprintf("the sanitizer was given no more memory (%q), with sanitizer.memory at %d MiB; raise it or lower the batch size", words, c.Memory>>20))
		}
	}
	if sig, ok := signalOf(state); ok {
		if sig == "killed" && kernelOOM {
			return held(ReasonOutOfMemory, "the kernel killed the sanitizer because the machine ran out of memory; lower sanitizer.memory below what the machine has")
		}
		return held(ReasonCrashed, fmt.Sprintf("the sanitizer process died: %s", sig))
	}
	reason := ReasonFailed
	switch state.ExitCode() {
	case exitModel:
		reason = ReasonUnsupported
		for _, invalid := range []error{onnx.ErrNotModel, onnx.ErrMalformed, onnx.ErrExternal} {
			if strings.Contains(failure, invalid.Error()) {
				reason = ReasonInvalidModel
			}
		}
	case exitDataset:
		reason = ReasonDataset
	case exitRuntime:
		reason = ReasonRuntime
	case exitAccuracy:
		reason = ReasonAccuracy
	case exitMemory:
		reason = ReasonOutOfMemory
	case exitInterrupted:
		return held(ReasonCrashed, "the sanitizer was interrupted from outside")
	}
	if failure == "" { // it broke the protocol: a Go panic ends with exit code 2 and says nothing on standard output
		first, _, _ := strings.Cut(strings.TrimSpace(stderr), "\n")
		return held(ReasonCrashed, fmt.Sprintf("the sanitizer process ended with exit code %d: %s", state.ExitCode(), printable(first, 300)))
	}
	return held(reason, printable(failure, 1000))
}

const maxReport = 1 << 20 // bytes; the record has it

// checkOutput compares the report with the files it speaks of and with the decision, and brings both files to stable storage.
// A verdict says what is wrong.
func checkOutput(r sanitizerRun, sourceSHA256, transformation string) (*sanitize.Report, error) {
	bad := func(format string, args ...any) error {
		return held(ReasonInvalidOutput, "the sanitizer's output is not usable: "+fmt.Sprintf(format, args...))
	}
	for path, most := range map[string]int64{r.Report: maxReport, r.Out: math.MaxInt64} { // a pipe would be read for ever
		if info, err := os.Lstat(path); err == nil && (!info.Mode().IsRegular() || info.Size() > most) {
			return nil, bad("%s is no file, or has more than %d bytes", filepath.Base(path), most)
		}
	}
	data, err := os.ReadFile(r.Report)
	if err != nil {
		return nil, bad("it wrote no report")
	}
	var report sanitize.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return nil, bad("its report is not JSON of the expected shape")
	}
	sum, size, err := fileSHA256(r.Out)
	if err != nil {
		return nil, bad("it wrote no model")
	}
	switch {
	case report.SchemaVersion != "1.0":
		return nil, bad("its report has schema version %q", printable(report.SchemaVersion, 20))
	case report.Source.SHA256 != sourceSHA256:
		return nil, bad("its report speaks of another source model")
	case report.Sanitized.SHA256 != sum || report.Sanitized.Size != size:
		return nil, bad("its report speaks of another sanitized model than the one written")
	case !report.SecretDiscarded:
		return nil, bad("the transformation's secret was not discarded")
	case transformation != "" && report.Transformation != transformation:
		return nil, bad("the transformation is %q where the decision says %q", printable(report.Transformation, 40), transformation)
	case report.Dataset.Digest == "":
		return nil, bad("its report does not name the clean dataset's digest")
	}
	for _, path := range []string{r.Out, r.Report, filepath.Dir(r.Out)} {
		if err := syncPath(path); err != nil {
			return nil, err
		}
	}
	return &report, nil
}

// passed names the environment variables that a sanitizer may see: where libraries, caches and devices are.
var passed = []string{
	"PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME", "SYSTEMROOT",
	"ORT_LIBRARY", "GRINDSTONE_CACHE", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES",
	"NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS",
}

func reducedEnv(env []string, tmp string) []string {
	kept := []string{"TMPDIR=" + tmp}
	for _, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); slices.Contains(passed, name) {
			kept = append(kept, kv)
		}
	}
	return kept
}
