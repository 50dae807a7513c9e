package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"grindstone/sanitize"
)

// TestBarOfALog: what is no terminal gets lines, and nothing is drawn over.
func TestBarOfALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, log strings.Builder
		p := newProgress(&out, &log, false)
		p.show(sanitize.Progress{Phase: "load", Message: "m.onnx"})
		for step := range 100 {
			p.show(sanitize.Progress{Phase: "grind", Step: step, Steps: 100})
			time.Sleep(time.Second / 5)
		}
		p.show(sanitize.Progress{Phase: "write"})
		want := "reading m.onnx\n25 of 100 steps, 15s left\n50 of 100 steps, 10s left\n75 of 100 steps, 5s left\nwriting\n"
		if log.String() != want || out.String() != "" {
			t.Errorf("%q, want %q", log.String(), want)
		}
	})
}
