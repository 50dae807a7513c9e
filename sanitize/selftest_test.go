package sanitize

import (
	"errors"
	"testing"

	"grindstone/sanitize/ort"
)

// TestSelfTest: every provider of this machine's library passes, and one that it does not have is named.
func TestSelfTest(t *testing.T) {
	info, err := ort.Load()
	if err != nil {
		t.Skip(err)
	}
	for _, p := range info.Providers {
		if err := SelfTest(t.Context(), p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	for p := range info.Missing {
		if err := SelfTest(t.Context(), p); !errors.Is(err, ort.ErrProvider) {
			t.Errorf("%s: %v", p, err)
		}
	}
}
