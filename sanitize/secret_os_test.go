//go:build !fixedsecret

package sanitize

import "testing"

// slack widens bounds on what a short run reaches: every run draws another secret.
const slack = .15

// TestSecretIsNotSeeded: the same seed repeats the split, but not the transformation.
func TestSecretIsNotSeeded(t *testing.T) {
	a, b := toyTwice(t)
	if a.Before != b.Before || a.Dataset != b.Dataset || a.Source != b.Source {
		t.Error("the same seed gives another split")
	}
	if a.FeatureDistance.Before == b.FeatureDistance.Before || a.Sanitized.SHA256 == b.Sanitized.SHA256 {
		t.Error("the same seed gives the same transformation")
	}
}
