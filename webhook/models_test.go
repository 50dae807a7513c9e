package webhook

import (
	"strings"
	"testing"
)

// TestHeldPackageNamesTheModel: of a package with several models the message says which one failed, and what the server has in place of the sanitizer's flags.
func TestHeldPackageNamesTheModel(t *testing.T) {
	for _, files := range []string{"one.onnx", "one.onnx two.onnx"} {
		s := startServer(t, t.TempDir(), "-sanitizer", "guesses")
		pushed := map[string][]byte{}
		for name := range strings.FieldsSeq(files) {
			pushed[name] = testModel(name)
		}
		if _, err := s.push("models/a", "v1", pushed); err != nil {
			t.Fatal(err)
		}
		a := s.settle()[0]
		want := "at chance; "
		if len(pushed) > 1 {
			want = a.Source.Models[0].Name + ": " + want
		}
		if a.Reason != ReasonAccuracy || !strings.HasPrefix(a.Message, want) || strings.Contains(a.Message, "--") || !strings.Contains(a.Message, "trainer.preprocessing") ||
			!strings.Contains(a.Message, annotationPreprocess) {
			t.Errorf("%s: %s %q, want %q", files, a.Reason, a.Message, want)
		}
	}
}
