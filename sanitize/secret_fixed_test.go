//go:build fixedsecret

package sanitize

import "testing"

const slack = 0

// TestSameBytes: all but the secret is seeded, so that with a fixed secret two runs write the same file.
func TestSameBytes(t *testing.T) {
	a, b := toyTwice(t)
	if a.Sanitized.SHA256 != b.Sanitized.SHA256 || a.After != b.After || a.FeatureDistance != b.FeatureDistance {
		t.Errorf("two runs of the same seed: %+v, %+v", a, b)
	}
}
