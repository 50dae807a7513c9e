package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: what takes long says so every some seconds, and what does not is silent.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := pace{w: &out, what: "images", begin: time.Now()}
		for done := range 121 { // a tenth of a second each
			p.tell(done, 120)
			time.Sleep(time.Second / 10)
		}
		if want := "50 of 120 images, 7s left\n100 of 120 images, 2s left\n"; out.String() != want {
			t.Errorf("said %q, want %q", out.String(), want)
		}
	})
}
