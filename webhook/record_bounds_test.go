package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"grindstone/policy"
	"grindstone/registry"
)

// asked is a pipeline that admits into records, with the policy in a folder, "" for the built-in one.
func asked(t *testing.T, policyDir string) *Pipeline {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	engine, err := policy.New(t.Context(), policy.Options{Dir: policyDir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := NewPipeline(PipelineConfig{Dir: dir, Policy: engine, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	p.store = openStore(t, filepath.Join(dir, "admissions"))
	return p
}

// Names and types that fill a manifest, thousands of them too, do not fill the record, also where the policy quotes each; and none is forgotten in silence.
func TestWordsOfThePusherAreBounded(t *testing.T) {
	p := asked(t, "")
	long := "\x1b[2J" + strings.Repeat("x", 1<<20)
	for name, push := range map[string]registry.Push{
		"one long name": {OtherModels: []registry.OtherModel{{Name: long + ".pt", Format: "pytorch"}}},
		"long types":    {OtherModels: []registry.OtherModel{{Name: "a.pt", Format: "pytorch"}}, MediaType: long, ArtifactType: long},
		"a problem":     {Problem: long},
		"many names":    {OtherModels: slices.Repeat([]registry.OtherModel{{Name: long[:1000] + ".pt", Format: "pytorch"}}, 4000)},
	} {
		t.Run(name, func(t *testing.T) {
			push.Repository, push.Digest, push.Tag = "m/a", "sha256:"+name, "v1"
			if _, err := p.Admit(context.Background(), push); err != nil {
				t.Fatal(err)
			}
			a, ok := p.store.Newest("m/a", push.Digest)
			if !ok || a.Decision == nil || a.Decision.Action != policy.Quarantine {
				t.Fatalf("%+v", a)
			}
			text, err := json.Marshal(a)
			if err != nil || len(text) > 128<<10 || strings.Contains(string(text), "\\u001b") {
				t.Errorf("the record has %d bytes, %v: %.2000s", len(text), err, text)
			}
			if len(push.OtherModels) > maxOthers && (len(a.Source.OtherModels) != maxOthers || !strings.Contains(a.Source.Problem, "4000 models of other formats")) {
				t.Errorf("%d other models, problem %q", len(a.Source.OtherModels), a.Source.Problem)
			}
			before := a.Source
			if before.bound(); before.Problem != a.Source.Problem || before.ArtifactType != a.Source.ArtifactType {
				t.Errorf("bounded again it is %+v", before)
			}
		})
	}
	many := Source{Models: make([]Model, maxFiles+1)}
	for range 2 {
		if many.bound(); many.Problem != "it holds 1025 ONNX files; no more than 1024 are taken in one package" {
			t.Errorf("problem %q", many.Problem)
		}
	}
	if message := reasons(slices.Repeat([]string{strings.Repeat("x", 500)}, 32)); len(message) > maxProblem+4 {
		t.Errorf("a message of %d bytes", len(message))
	}
}

// A record has of a manifest's annotations what the bounds allow, and says how many it leaves out. The policy is asked about all of them at the push.
func TestAnnotationsAreBounded(t *testing.T) {
	dir := t.TempDir()
	rego := `package grindstone
admission.decision := {"action": "quarantine", "reasons": [sprintf("%d annotations", [count(input.annotations)])]}
release.decision := {"release": false, "reasons": ["never"]}
`
	if err := os.WriteFile(filepath.Join(dir, "policy.rego"), []byte(rego), 0o600); err != nil {
		t.Fatal(err)
	}
	p := asked(t, dir)
	push := registry.Push{Repository: "m/a", Digest: "sha256:1", Tag: "v1", Annotations: map[string]string{
		"a": strings.Repeat("x", maxAnnotation-1), "b": strings.Repeat("x", maxAnnotation), annotationPreprocess: "unit",
	}}
	for n := range 97 {
		push.Annotations[fmt.Sprintf("c%02d", n)] = strings.Repeat("x", 1<<10)
	}
	if _, err := p.Admit(context.Background(), push); err != nil {
		t.Fatal(err)
	}
	a, ok := p.store.Newest("m/a", "sha256:1")
	if !ok || a.Decision == nil || a.Decision.Reasons[0] != "100 annotations" {
		t.Fatalf("%+v", a)
	}
	s := a.Source
	if _, b := s.Annotations["b"]; b || len(s.Annotations["a"]) != maxAnnotation-1 || s.Annotations[annotationPreprocess] != "unit" || s.Annotations["c10"] == "" || s.Annotations["c11"] != "" {
		t.Errorf("kept are %d annotations", len(s.Annotations))
	}
	if len(s.Annotations)+s.AnnotationsDropped != 100 {
		t.Errorf("%d are kept and %d left out", len(s.Annotations), s.AnnotationsDropped)
	}
	text, err := json.Marshal(a)
	if err != nil || len(text) > maxAnnotations+4<<10 {
		t.Errorf("the record has %d bytes, %v", len(text), err)
	}
}

// Records of servers before, with all annotations, are bounded when they are read.
func TestAnnotationsOfOldRecords(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	a := create(t, s, "m/a", "sha256:1", "v1")
	if _, err := s.Update(a.ID, func(a *Admission) {
		a.Source.Annotations = map[string]string{"a": "x", "b": strings.Repeat("x", 1<<20)}
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // counted once
		s = openStore(t, dir)
		now, _ := s.Get(a.ID)
		if len(now.Source.Annotations) != 1 || now.Source.AnnotationsDropped != 1 {
			t.Errorf("%d kept, %d left out", len(now.Source.Annotations), now.Source.AnnotationsDropped)
		}
		if _, err := s.Update(a.ID, func(*Admission) {}); err != nil {
			t.Fatal(err)
		}
	}
}
