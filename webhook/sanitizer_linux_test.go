package webhook

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"grindstone/sanitize"
)

// TestMemoryCeiling: nobody looks at the sanitizer's memory, and the kernel still gives it no more than the ceiling, bit by bit or at once. What is only
// reserved does not count.
func TestMemoryCeiling(t *testing.T) {
	poll := memoryPoll
	memoryPoll = time.Hour
	t.Cleanup(func() { memoryPoll = poll })
	for behaviour, words := range map[string]string{"greedy-lazily": "out of memory", "greedy-at-once": "cannot allocate memory", "reserves": ""} {
		t.Run(behaviour, func(t *testing.T) {
			r, source := newRun(t)
			c := SanitizerConfig{Command: sanitizerCommand(behaviour), Timeout: time.Minute, Memory: 256 << 20}
			err := c.run(t.Context(), r, func(sanitize.Progress) {})
			if words == "" {
				if err == nil {
					_, err = checkOutput(r, source, "permute")
				}
				if err != nil {
					t.Error(err)
				}
				return
			}
			var v *verdict
			if !errors.As(err, &v) || v.Reason != ReasonOutOfMemory || !strings.Contains(v.Message, words) || !strings.Contains(v.Message, "256 MiB") {
				t.Errorf("%v; want %s with %q", err, ReasonOutOfMemory, words)
			}
		})
	}
}

// TestSanitizerIsExpendable: a sanitizer in work leaves no core, which would hold the model and the secret, is the first to go when memory runs out, and has the
// kernel's ceiling on its memory.
func TestSanitizerIsExpendable(t *testing.T) {
	s := startServer(t, t.TempDir(), "-sanitizer", "hang") // with 1 GiB
	s.pushModel("models/a", "v1", "a")
	pid := s.sanitizerPID()
	of := func(file string) string {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	ceiling := fmt.Sprint(memoryCeiling(1 << 30))
	for limit, want := range map[string]string{"Max core file size": "0 0 bytes", "Max data size": ceiling + " " + ceiling + " bytes"} {
		got := strings.TrimPrefix(strings.Join(strings.Fields(lineWith(of("limits"), limit)), " "), limit+" ")
		if got != want {
			t.Errorf("%s: %q, want %q", limit, got, want)
		}
	}
	if got := strings.TrimSpace(of("oom_score_adj")); got != "1000" {
		t.Errorf("oom_score_adj %s", got)
	}
}
