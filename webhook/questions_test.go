package webhook

import (
	"slices"
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
