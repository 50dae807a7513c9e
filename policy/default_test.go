package policy

import (
	"testing"
)

func TestDefaultPolicyByItsOwnTests(t *testing.T) {
	results, err := Test(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(results) < 30 {
		t.Fatalf("ran %d tests, want at least 30", len(results))
	}
	for _, r := range results {
		if !r.Passed {
			t.Errorf("%s: %s.%s failed: %s %s", r.Location, r.Package, r.Name, r.Error, r.Output)
		}
	}
}
