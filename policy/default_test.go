package policy

import (
	"testing"
)

func TestDefaultPolicyByItsOwnTests(t *testing.T) {
	report, err := Test(t.Context(), "", TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Tests) < 30 {
		t.Fatalf("ran %d tests, want at least 30", len(report.Tests))
	}
	for _, r := range report.Tests {
		if !r.Passed {
			t.Errorf("%s: %s.%s failed: %s %s", r.Location, r.Package, r.Name, r.Error, r.Output)
		}
	}
}
