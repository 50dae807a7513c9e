package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// quiet keeps decisions out of the test's output.
var quiet = slog.New(slog.DiscardHandler)

func push() AdmissionInput {
	return AdmissionInput{
		Repository: "vision/signs", Tag: "v1", Digest: "sha256:aa", MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 1000,
		Models:   []Model{{Name: "model.onnx", Digest: "sha256:bb", Size: 900}},
		Datasets: []string{"default"}, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// report is what the sanitizer writes, with an accuracy before and after.
func report(before, after float64) json.RawMessage {
	rate := func(v float64) map[string]any {
		return map[string]any{"value": v, "hits": int(v * 1000), "count": 1000, "low": v - 0.01, "high": v + 0.01}
	}
	text, err := json.Marshal(map[string]any{
		"schema_version": "1.0", "method": "feature-grinding", "transformation": "permute",
		"source": map[string]any{"name": "model.onnx", "sha256": "bb", "size": 900}, "sanitized": map[string]any{"name": "model.onnx", "sha256": "cc", "size": 900},
		"dataset": map[string]any{"name": "default", "digest": "sha256:dd", "classes": 10, "train": 4000, "held_out": 1000},
		"before":  map[string]any{"cda": rate(before)}, "after": map[string]any{"cda": rate(after)},
		"phases":     []any{map[string]any{"name": "grind"}, map[string]any{"name": "restore"}},
		"runtime":    map[string]any{"engine": "onnxruntime", "version": "1.27.0", "provider": "CPUExecutionProvider"},
		"started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:09:05Z", "secret_discarded": true,
	})
	if err != nil {
		panic(err)
	}
	return text
}

func engine(t testing.TB, o Options) *Engine {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet
	}
	e, err := New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// dir writes files and returns their directory.
func dir(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestDefaultAdmission(t *testing.T) {
	e := engine(t, Options{})
	d, err := e.Admission(t.Context(), push())
	if err != nil {
		t.Fatal(err)
	}
	if d.Action != Sanitize || d.Method != FeatureGrinding || d.Transformation != "permute" || d.Dataset != "default" || len(d.Reasons) != 0 {
		t.Errorf("decision %+v", d)
	}
	if _, err := uuid.Parse(d.ID); err != nil || d.PolicyDigest != e.Digest() {
		t.Errorf("id %q, digest %q", d.ID, d.PolicyDigest)
	}
	again, err := e.Admission(t.Context(), push())
	if err != nil || again.ID == d.ID {
		t.Errorf("second decision has id %q like the first (%v)", again.ID, err)
	}
}

func TestDefaultAdmissionQuarantines(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*AdmissionInput)
		action Action
		words  []string
	}{
		"no dataset":   {func(in *AdmissionInput) { in.Datasets = nil }, Quarantine, []string{"serve --data PATH", "datasets:"}},
		"two datasets": {func(in *AdmissionInput) { in.Datasets = []string{"b", "a"} }, Quarantine, []string{"a, b", "default"}},
		"other format": {func(in *AdmissionInput) { in.OtherModels = []OtherModel{{"m.pt", "pytorch"}} }, Quarantine, []string{"m.pt", "pytorch"}},
		"problem":      {func(in *AdmissionInput) { in.Models = nil; in.Problem = "layer 1 is a zip" }, Quarantine, []string{"layer 1 is a zip"}},
		"too large":    {func(in *AdmissionInput) { in.Models[0].Size = 3 << 30 }, Deny, []string{"model.onnx", "max_model_bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := push()
			c.change(&in)
			d, err := engine(t, Options{}).Admission(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if d.Action != c.action || d.Method != "" || d.Dataset != "" {
				t.Errorf("decision %+v, want action %s", d, c.action)
			}
			for _, w := range c.words {
				if !strings.Contains(strings.Join(d.Reasons, "\n"), w) {
					t.Errorf("reasons %q do not mention %q", d.Reasons, w)
				}
			}
		})
	}
}

func TestDefaultRelease(t *testing.T) {
	e := engine(t, Options{})
	ask := func(r any) (ReleaseDecision, error) {
		admission, err := e.Admission(t.Context(), push())
		if err != nil {
			t.Fatal(err)
		}
		return e.Release(t.Context(), ReleaseInput{Admission: push(), Decision: admission, Report: r})
	}
	d, err := ask(report(0.95, 0.93))
	if err != nil || !d.Release || len(d.Reasons) != 0 || len(d.Claims) != 3 {
		t.Fatalf("good report: %+v, %v", d, err)
	}
	if want := (Claim{"cda_loss", "<=", "0.05", "0.02", true}); d.Claims[0] != want {
		t.Errorf("claim %+v, want %+v", d.Claims[0], want)
	}
	d, err = ask(report(0.12, 0.03))
	if err != nil || d.Release || len(d.Reasons) != 2 || d.Claims[0].Passed || d.Claims[1].Passed {
		t.Errorf("model at chance that lost accuracy: %+v, %v", d, err)
	}
	var asMap map[string]any
	if err := json.Unmarshal(report(0.95, 0.93), &asMap); err != nil {
		t.Fatal(err)
	}
	if d, err = ask(asMap); err != nil || !d.Release {
		t.Errorf("the same report as a map: %+v, %v", d, err)
	}
	for _, bad := range []any{nil, []byte("{}"), "{}", json.RawMessage("{"), 7, func() {}} {
		if d, err := ask(bad); !errors.Is(err, ErrInput) || d.Release {
			t.Errorf("report %T: %+v, %v, want ErrInput", bad, d, err)
		}
	}
}

func TestZeroDecisionsDoNotRelease(t *testing.T) {
	if d := (ReleaseDecision{}); d.Release {
		t.Error("the zero release decision releases")
	}
	switch (AdmissionDecision{}).Action {
	case Admit, Sanitize:
		t.Error("the zero admission decision admits")
	}
}

func TestDataFromConfiguration(t *testing.T) {
	data := map[string]any{
		"settings":     map[string]any{"max_cda_loss": 0.01},
		"repositories": map[string]any{"vision/*": map[string]any{"transformation": "rotate", "parameters": map[string]any{"epochs": 4, "learning_rate": 0.02}}},
	}
	e := engine(t, Options{Data: data})
	d, err := e.Admission(t.Context(), push())
	if err != nil || d.Transformation != "rotate" || d.Parameters != (Parameters{Epochs: 4, LearningRate: 0.02}) {
		t.Fatalf("decision %+v, %v", d, err)
	}
	d.Transformation = "permute"
	r, err := e.Release(t.Context(), ReleaseInput{Admission: push(), Decision: d, Report: report(0.95, 0.93)})
	if err != nil || r.Release || r.Claims[0].Threshold != "0.01" {
		t.Errorf("release %+v, %v; want a refusal at 0.01", r, err)
	}
	if plain := engine(t, Options{}); plain.Digest() == e.Digest() {
		t.Error("other data, same digest")
	} else if plain.Digest() != engine(t, Options{}).Digest() {
		t.Error("the digest is not reproducible")
	}
	data["settings"].(map[string]any)["max_cda_loss"] = 0.9
	if r, err = e.Release(t.Context(), ReleaseInput{Admission: push(), Decision: d, Report: report(0.95, 0.93)}); err != nil || r.Release {
		t.Errorf("the caller's later change of its map changed the policy: %+v, %v", r, err)
	}
}

func TestDecisionsAreLogged(t *testing.T) {
	var out bytes.Buffer
	e := engine(t, Options{Log: slog.New(slog.NewJSONHandler(&out, nil))})
	d, err := e.Admission(t.Context(), push())
	if err != nil {
		t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"id": d.ID, "question": "admission", "action": "sanitize", "repository": "vision/signs", "policy": e.Digest()} {
		if line[key] != want {
			t.Errorf("%s = %v, want %v", key, line[key], want)
		}
	}
}

// TestDebug: what the policy prints is told with its place, and why a question is undefined; the decision is the same as without.
func TestDebug(t *testing.T) {
	var out bytes.Buffer
	folder := admissionOnly(t, "decision := {\"action\": \"admit\"} if {\n\tprint(\"the tag is\", input.tag)\n\tsmall\n}\nsmall if {\n\tinput.size < 1001\n\tinput.repository == \"other\"\n}")
	e := engine(t, Options{Dir: folder, Debug: &out})
	if e.Digest() != engine(t, Options{Dir: folder}).Digest() {
		t.Error("another digest")
	}
	if _, err := e.Admission(t.Context(), push()); !errors.Is(err, ErrUndefined) {
		t.Errorf("error %v", err)
	}
	for _, words := range []string{"a.rego:3: the tag is v1\n", "a.rego:8:\n", `input.repository == "other"`} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("%q is not in\n%s", words, out.String())
		}
	}
	if strings.Contains(out.String(), "a.rego:7") {
		t.Errorf("what held is among what did not:\n%s", out.String())
	}
	in := push()
	in.Repository = "other"
	if d, err := e.Admission(t.Context(), in); err != nil || d.Action != Admit {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestConcurrentDecisions(t *testing.T) {
	e := engine(t, Options{})
	var wg sync.WaitGroup
	var seen sync.Map
	for i := range 8 {
		wg.Go(func() {
			for range 25 {
				in := push()
				if i%2 == 0 {
					in.Datasets = nil
				}
				d, err := e.Admission(context.Background(), in)
				if err != nil || (d.Action == Quarantine) != (i%2 == 0) {
					t.Errorf("%+v, %v", d, err)
				}
				if _, twice := seen.LoadOrStore(d.ID, true); twice {
					t.Errorf("id %s twice", d.ID)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAdmission(b *testing.B) {
	e, in := engine(b, Options{}), push()
	for b.Loop() {
		if _, err := e.Admission(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRelease(b *testing.B) {
	e := engine(b, Options{})
	in := ReleaseInput{Admission: push(), Decision: AdmissionDecision{Method: FeatureGrinding, Transformation: "permute"}, Report: report(0.95, 0.93)}
	for b.Loop() {
		if d, err := e.Release(b.Context(), in); err != nil || !d.Release {
			b.Fatal(d, err)
		}
	}
}
