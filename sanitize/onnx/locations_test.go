package onnx

import (
	"bytes"
	"slices"
	"testing"

	"grindstone/internal/externaldata"
)

// FuzzLocations: every file that an accepted model reads is listed.
func FuzzLocations(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := externaldata.Locations(bytes.NewReader(data), int64(len(data)))
		m, invalid := Parse(data)
		if invalid != nil {
			return
		}
		m.Graph.eachTensor(func(x *Tensor) {
			if x.External != nil && err == nil && !slices.Contains(got, x.External.Location) {
				t.Errorf("%q is not among %q", x.External.Location, got)
			}
		})
	})
}
