package webhook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"grindstone/policy"
	"grindstone/sanitize"
)

// newRun makes a scratch folder with a model for a sanitizer process.
func newRun(t *testing.T) (sanitizerRun, string) {
	t.Helper()
	dir := t.TempDir()
	r := sanitizerRun{
		Model: filepath.Join(dir, "model.onnx"), Out: filepath.Join(dir, "out.onnx"), Report: filepath.Join(dir, "report.json"),
		Data: dir, Dir: dir, Args: []string{"--transform", "permute"}, Most: 1 << 20,
	}
	if err := os.WriteFile(r.Model, []byte("a model"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum, _, err := syncedSHA256(r.Model, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return r, sum
}

// TestSanitizerArgs: of the schedule a policy says all or the configuration does; steps of the one and epochs of the other would be refused.
func TestSanitizerArgs(t *testing.T) {
	for _, tt := range []struct {
		policy, config policy.Parameters
		want           string
	}{
		{policy.Parameters{Steps: 100}, policy.Parameters{Epochs: 5, GrindEpochs: 2, Batch: 64}, "--steps 100 --batch 64"},
		{policy.Parameters{Epochs: 3}, policy.Parameters{Steps: 900, GrindSteps: 500}, "--epochs 3"},
		{policy.Parameters{Epochs: 3}, policy.Parameters{Epochs: 9, GrindEpochs: 4}, "--epochs 3"},
		{policy.Parameters{GrindEpochs: 1, Batch: 32}, policy.Parameters{Epochs: 5, GrindEpochs: 2, Batch: 64}, "--epochs 5 --grind-epochs 1 --batch 32"},
		{policy.Parameters{LearningRate: .5}, policy.Parameters{Steps: 900, LearningRate: .1}, "--steps 900 --lr 0.5"},
	} {
		p := &Pipeline{PipelineConfig: PipelineConfig{Defaults: tt.config}}
		if got := strings.Join(p.sanitizerArgs(&Admission{Decision: &policy.AdmissionDecision{Parameters: tt.policy}}), " "); got != tt.want {
			t.Errorf("policy %+v, configuration %+v: %s, want %s", tt.policy, tt.config, got, tt.want)
		}
	}
}

// TestSanitizerVerdicts runs real processes that misbehave and checks the reason that each is held for.
func TestSanitizerVerdicts(t *testing.T) {
	t.Setenv("GRINDSTONE_KEY_PASSWORD", "secret")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for behaviour, want := range map[string]struct {
		reason Reason
		words  string
	}{
		"ok":                   {},
		"noise":                {},
		"environment":          {},
		"crash":                {ReasonCrashed, "segmentation violation"},
		"panic":                {ReasonCrashed, "a bug in the sanitizer"},
		"hang":                 {ReasonTimeout, "longer than 4s"},
		"greedy":               {ReasonOutOfMemory, "more than 400 MiB"},
		"unsupported":          {ReasonUnsupported, "NonMaxSuppression"},
		"malformed":            {ReasonInvalidModel, "truncated"},
		"bad-dataset":          {ReasonDataset, "no images"},
		"no-runtime":           {ReasonRuntime, "library"},
		"at-chance":            {ReasonAccuracy, "chance"},
		"no-memory":            {ReasonOutOfMemory, "too low"},
		"gives-up":             {ReasonFailed, "no learning rate"},
		"interrupted":          {ReasonCrashed, "interrupted from outside"},
		"silent":               {ReasonInvalidOutput, "no report"},
		"bad-report":           {ReasonInvalidOutput, "not JSON"},
		"secretive":            {ReasonInvalidOutput, "secret"},
		"other-model":          {ReasonInvalidOutput, "another sanitized model"},
		"other-transformation": {ReasonInvalidOutput, "rotate-2d"},
		"report-pipe":          {ReasonInvalidOutput, "report is no file"},
		"report-endless":       {ReasonInvalidOutput, "report is no file"},
		"report-huge":          {ReasonInvalidOutput, "report is no file of at most 1048576 bytes"},
		"model-pipe":           {ReasonInvalidOutput, "model is no file"},
		"model-endless":        {ReasonInvalidOutput, "model is no file"},
		"model-huge":           {ReasonInvalidOutput, "model is no file of at most 1048576 bytes"},
	} {
		t.Run(behaviour, func(t *testing.T) {
			r, source := newRun(t)
			c := SanitizerConfig{Command: sanitizerCommand(behaviour), Timeout: 20 * time.Second, Memory: 400 << 20}
			if want.reason == ReasonTimeout {
				c.Timeout = 4 * time.Second
			}
			var lines []sanitize.Progress
			err := c.run(t.Context(), r, func(p sanitize.Progress) { lines = append(lines, p) })
			if err == nil {
				_, err = checkOutput(r, source, "permute")
			}
			if len(lines) == 0 || lines[0].Phase != "load" {
				t.Errorf("progress is %v", lines)
			}
			if want.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var v *verdict
			if !errors.As(err, &v) || v.State != Held || v.Reason != want.reason || !strings.Contains(v.Message, want.words) {
				t.Errorf("%v; want %s with %q", err, want.reason, want.words)
			}
		})
	}
}

func TestSanitizerKilledFromOutside(t *testing.T) {
	r, _ := newRun(t)
	c := SanitizerConfig{Command: sanitizerCommand("hang"), Timeout: 20 * time.Second}
	err := c.run(t.Context(), r, func(p sanitize.Progress) {
		if pid, err := strconv.Atoi(p.Message); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	var v *verdict
	if !errors.As(err, &v) || v.Reason != ReasonCrashed {
		t.Errorf("%v; want %s", err, ReasonCrashed)
	}
}

// TestKernelOutOfMemory lets the kernel itself end the process, in a memory control group made for the test.
func TestKernelOutOfMemory(t *testing.T) {
	group := memoryGroup(t, 200<<20)
	r, _ := newRun(t)
	// The shell joins the group before it becomes the sanitizer.
	script := fmt.Sprintf("echo $$ > %s/cgroup.procs && exec \"$0\" \"$@\"", group)
	c := SanitizerConfig{Command: append([]string{"/bin/sh", "-c", script}, sanitizerCommand("greedy")...), Timeout: 30 * time.Second}
	err := c.run(t.Context(), r, func(sanitize.Progress) {})
	var v *verdict
	if !errors.As(err, &v) || v.Reason != ReasonOutOfMemory || !strings.Contains(v.Message, "kernel") {
		t.Errorf("%v; want %s by the kernel", err, ReasonOutOfMemory)
	}
}

// memoryGroup makes a control group (version 1 or 2) with a memory limit, or skips the test where that is not allowed.
func memoryGroup(t *testing.T, limit int64) string {
	t.Helper()
	for _, g := range []struct{ root, file string }{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		dir := filepath.Join(g.root, fmt.Sprintf("grindstone-test-%d", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		if os.WriteFile(filepath.Join(dir, g.file), []byte(strconv.FormatInt(limit, 10)), 0) == nil {
			return dir
		}
	}
	t.Skip("no memory control group can be made here, so the kernel cannot be made to run out of memory for one process")
	return ""
}

func TestSanitizerStopsWithTheServer(t *testing.T) {
	r, _ := newRun(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := SanitizerConfig{Command: sanitizerCommand("hang"), Timeout: time.Minute}
	pid := 0
	err := c.run(ctx, r, func(p sanitize.Progress) {
		if n, err := strconv.Atoi(p.Message); err == nil {
			pid = n
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an interruption is no failure of the model: %v", err)
	}
	if pid == 0 || syscall.Kill(pid, 0) == nil {
		t.Errorf("the process %d still runs", pid)
	}
}

func FuzzProgressLines(f *testing.F) {
	f.Add([]byte("{\"phase\":\"grind\",\"step\":1}\n{\"phase\":\"failed\",\"error\":\"\\u001b[2J\"}\n"), 3)
	f.Add([]byte("\n\n{}\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		var whole, parts []sanitize.Progress
		w := &progressLines{report: func(p sanitize.Progress) { whole = append(whole, p) }}
		w.Write(data)
		v := &progressLines{report: func(p sanitize.Progress) { parts = append(parts, p) }}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), max(1, chunk))
			v.Write(rest[:n])
			rest = rest[n:]
		}
		if len(whole) != len(parts) || w.failure != v.failure {
			t.Errorf("%d lines at once, %d in parts", len(whole), len(parts))
		}
		for _, p := range whole {
			if p.Phase == "" || strings.ContainsAny(p.Phase+p.Message+p.Error, "\x1b\n\x00") {
				t.Errorf("unfit for a log: %+v", p)
			}
		}
	})
}

func TestPublicWords(t *testing.T) {
	r := sanitizerRun{Dir: "/srv/work/id/tmp", Data: "/data/images"}
	for said, want := range map[string]string{
		"/srv/work/id/in/v1/model.onnx: tensor \"a\": no": "v1/model.onnx: tensor \"a\": no",
		"cannot write /srv/work/id/out/model.onnx":        "cannot write model.onnx",
		"/data/images/cat/1.png: damaged":                 "images/cat/1.png: damaged",
		"v1/data/weights.bin: too short":                  "v1/data/weights.bin: too short",
	} {
		if got := r.publicWords(said); got != want {
			t.Errorf("%q becomes %q, want %q", said, got, want)
		}
	}
}
