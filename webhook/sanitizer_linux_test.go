package webhook

import (
	"errors"
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
