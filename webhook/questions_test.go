package webhook

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"grindstone/policy"
	"grindstone/sanitize"
)

// TestQuestions: what the policy is asked about a record is what it was asked at the push, whenever it is asked; the release question is about every model.
func TestQuestions(t *testing.T) {
	created := time.Now().Add(-time.Hour)
	a := &Admission{
		CreatedAt: created,
		Source: Source{
			Repository: "models/a", Digest: "sha256:aa", Models: []Model{{Name: "a.onnx", Digest: "sha256:bb", Size: 3}, {Name: "b.onnx", Digest: "sha256:cc", Size: 4}},
			OtherModels: []OtherModel{{Name: "c.pt", Format: "pytorch"}},
		},
	}
	in := a.AdmissionInput([]string{"default"})
	want := []policy.Model{{Name: "a.onnx", Digest: "sha256:bb", Size: 3}, {Name: "b.onnx", Digest: "sha256:cc", Size: 4}}
	if !in.Time.Equal(created) || in.Tag != "" || !slices.Equal(in.Models, want) || in.OtherModels[0].Format != "pytorch" || in.Datasets[0] != "default" {
		t.Errorf("%+v", in)
	}
	pushed := created.Add(time.Minute)
	a.pushed("v1", 1, created)
	a.pushed("v2", 2, pushed)
	if in := a.AdmissionInput(nil); !in.Time.Equal(pushed) || in.Tag != "v2" {
		t.Errorf("%+v", in)
	}
	first, second := &sanitize.Report{}, &sanitize.Report{}
	a.Report, a.Further = first, []ModelResult{{Name: "b.onnx", Report: second}}
	if all := a.ReleaseInputs(nil); all != nil {
		t.Errorf("without a decision: %+v", all)
	}
	a.Decision = &policy.AdmissionDecision{ID: "d"}
	if all := a.ReleaseInputs(nil); len(all) != 2 || all[0].Report != any(first) || all[1].Report != any(second) || all[1].Decision.ID != "d" || all[1].Admission.Tag != "v2" {
		t.Errorf("%+v", all)
	}
}

// TestAnnotationsThatTheRecordLeavesOut: what a policy refuses for what a long annotation says, it refuses also when it is asked again, about a release too.
func TestAnnotationsThatTheRecordLeavesOut(t *testing.T) {
	const card = `startswith(input.annotations.card, "evil")`
	for name, answers := range map[string]struct {
		admission, release string
		reason             Reason
	}{
		"admission": {`{"action": "quarantine", "reasons": ["evil"]} if ` + card + "\nelse := " + sanitizesOtherwise, releases, ReasonPolicyHeld},
		"error":     {`{"action": "quarantine", "reasons": ["evil"]} if to_number(input.annotations.card) > 1` + "\nelse := " + sanitizesOtherwise, releases, ReasonPolicyError},
		"release":   {sanitizesOtherwise, `{"release": false, "reasons": ["evil"]} if startswith(input.admission.annotations.card, "evil")` + "\nelse := " + releases, ReasonReleaseRejected},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, t.TempDir(), "-policy", policies(t, answers.admission, answers.release))
			_, err := s.pushAnnotated("models/a", "v1", map[string][]byte{"model.onnx": testModel("a")}, map[string]string{"card": "evil" + strings.Repeat("x", maxAnnotation)})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				a := s.settle()[0]
				if a.State != Held || a.Reason != answers.reason || a.Source.AnnotationsDropped != 1 {
					t.Fatalf("%s %s %s, %d annotations left out", a.State, a.Reason, a.Message, a.Source.AnnotationsDropped)
				}
				if status, text := s.post("/api/v1/admissions/"+a.ID+"/retry", "{}"); status != http.StatusOK {
					t.Fatal(status, text)
				}
			}
		})
	}
}
