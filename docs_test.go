package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"grindstone/policy"
	"grindstone/webhook"
)

// The guides are held against what they describe: their examples are run, and their tables are compared with the code.

func guide(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns the part of a guide under a heading, to the next heading of the same or a higher level. (One # begins a comment in an
// example.)
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, part, found := strings.Cut(text, "\n"+heading)
	if !found {
		t.Fatalf("no section %q", heading)
	}
	level := strings.IndexByte(heading, ' ')
	if end := regexp.MustCompile(`(?m)^#{2,` + string(rune('0'+level)) + `} `).FindStringIndex(part); end != nil {
		part = part[:end[0]]
	}
	return part
}

var fenced = regexp.MustCompile("(?ms)^```[a-z]+\n# (\\S+)\n(.*?)^```$")

// writeExample writes the files of an example, which name themselves in their first line, and returns their names.
func writeExample(t *testing.T, dir, heading string) (names []string) {
	t.Helper()
	for _, block := range fenced.FindAllStringSubmatch(section(t, guide(t, "policy.md"), heading), -1) {
		if err := os.WriteFile(filepath.Join(dir, block[1]), []byte(block[2]), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, block[1])
	}
	return names
}

func TestPolicyGuideExampleOne(t *testing.T) {
	dir := t.TempDir()
	if got := writeExample(t, dir, "### Example 1"); !slices.Equal(got, []string{"grindstone.yaml"}) {
		t.Fatalf("files %q", got)
	}
	for _, name := range []string{"cifar10.tar.gz", "signs.tar.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := LoadConfig(filepath.Join(dir, "grindstone.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := policy.New(t.Context(), policy.Options{Data: c.Policy.Data, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]struct {
		transformation, dataset string
		epochs                  int
		limit                   string
	}{
		"vision/signs":  {"rotate", "signs", 10, "0.01"},
		"vision/lights": {"rotate", "signs", 0, "0.03"},
		"speech/words":  {"permute", "default", 0, "0.03"},
	} {
		push := policy.AdmissionInput{Repository: repository, Models: []policy.Model{{Name: "model.onnx", Digest: "sha256:bb", Size: 9}}, Datasets: []string{"default", "signs"}}
		d, err := engine.Admission(t.Context(), push)
		if err != nil || d.Action != policy.Sanitize || d.Transformation != want.transformation || d.Dataset != want.dataset || d.Parameters.Epochs != want.epochs {
			t.Errorf("%s: %+v, %v", repository, d, err)
		}
		rate := map[string]any{"value": 0.9, "low": 0.85, "count": 1000}
		r, err := engine.Release(t.Context(), policy.ReleaseInput{Admission: push, Decision: d, Report: map[string]any{
			"schema_version": "1.0", "method": d.Method, "transformation": d.Transformation, "secret_discarded": true,
			"source": map[string]any{"sha256": "bb"}, "sanitized": map[string]any{"sha256": "cc"},
			"dataset": map[string]any{"digest": "sha256:dd", "classes": 10}, "before": map[string]any{"cda": rate}, "after": map[string]any{"cda": rate},
			"phases":  []any{map[string]any{"name": "grind"}, map[string]any{"name": "restore"}},
			"runtime": map[string]any{"engine": "e", "version": "v", "provider": "p"}, "started_at": "s", "finished_at": "f",
		}})
		if err != nil || !r.Release || r.Claims[0].Metric != "cda_loss" || r.Claims[0].Threshold != want.limit {
			t.Errorf("%s: %+v, %v", repository, r, err)
		}
	}
}

func TestPolicyGuideExamplesInRego(t *testing.T) {
	for heading, builtin := range map[string]bool{"### Example 2": true, "### Example 3": false} {
		t.Run(heading[4:], func(t *testing.T) {
			dir := t.TempDir()
			if builtin {
				copyPolicy(t, dir)
			}
			names := writeExample(t, dir, heading)
			if len(names) < 3 {
				t.Fatalf("files %q", names)
			}
			report, err := policy.Test(t.Context(), dir, policy.TestOptions{})
			if err != nil || len(report.Tests) < 3 {
				t.Fatalf("%d tests ran: %v", len(report.Tests), err)
			}
			for _, r := range report.Tests {
				if !r.Passed {
					t.Errorf("%s %s: %s", r.Location, r.Name, r.Error)
				}
			}
			if _, err := policy.New(t.Context(), policy.Options{Dir: dir}); err != nil {
				t.Errorf("the server would not start with it: %v", err)
			}
		})
	}
}

// copyPolicy writes the built-in policy without its tests, as the guide says.
func copyPolicy(t *testing.T, dir string) {
	t.Helper()
	if _, err := command(t, "policy", "default", dir); err != nil {
		t.Fatal(err)
	}
	tests, err := filepath.Glob(filepath.Join(dir, "*_test.rego"))
	if err != nil || len(tests) == 0 {
		t.Fatalf("%q, %v", tests, err)
	}
	for _, name := range tests {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

var tableKey = regexp.MustCompile("(?m)^\\| `([^`]+)` +\\|")

// keys are the first cells of a table's rows.
func keys(text string) (all []string) {
	for _, row := range tableKey.FindAllStringSubmatch(text, -1) {
		all = append(all, row[1])
	}
	slices.Sort(all)
	return all
}

func TestOperatorsGuideHasEveryStateAndReason(t *testing.T) {
	text := guide(t, "operate.md")
	var states []string
	for _, s := range webhook.States {
		states = append(states, string(s))
	}
	slices.Sort(states)
	if got := keys(section(t, text, "## States")); !slices.Equal(got, states) {
		t.Errorf("the guide has the states %q, the server %q", got, states)
	}
	if got, want := keys(section(t, text, "## Reasons")), reasonCodes(t); !slices.Equal(got, want) {
		t.Errorf("the guide has the reasons %q, the server %q", got, want)
	}
}

// reasonCodes reads the constants of type webhook.Reason from its source.
func reasonCodes(t *testing.T) (codes []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("webhook", "state.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Reason" {
			codes = append(codes, strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
		}
		return true
	})
	if len(codes) < 10 {
		t.Fatalf("found the reasons %q", codes)
	}
	slices.Sort(codes)
	return codes
}

func TestOperatorsGuideHasEveryMetricAndRoute(t *testing.T) {
	text := guide(t, "operate.md")
	source, err := os.ReadFile(filepath.Join("webhook", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	var metrics []string
	for _, m := range regexp.MustCompile(`"(grindstone_[a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		metrics = append(metrics, m[1])
	}
	slices.Sort(metrics)
	if got := keys(section(t, text, "## Metrics")); !slices.Equal(got, metrics) {
		t.Errorf("the guide has the metrics %q, the server %q", got, metrics)
	}
	for _, name := range []string{"server.go", "frontend.go"} {
		text, err := os.ReadFile(filepath.Join("webhook", name))
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, text...)
	}
	api, routes := section(t, text, "## API"), regexp.MustCompile(`\bget\("([^"]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(routes) < 7 {
		t.Fatalf("found the routes %q", routes)
	}
	for _, r := range routes {
		if !strings.Contains(api, "`GET "+r[1]+"`") {
			t.Errorf("the guide lacks GET %s", r[1])
		}
	}
}

// TestOperatorsGuideHasTheLimits: the table of limits has the defaults that a server has which is told nothing.
func TestOperatorsGuideHasTheLimits(t *testing.T) {
	text, c := section(t, guide(t, "operate.md"), "## Limits"), DefaultConfig()
	duration := func(d time.Duration) string { return fmt.Sprint(d.Hours(), "h") }
	for field, want := range map[string]string{
		"limits.manifest": formatBytes(c.Limits.Manifest), "limits.blob": formatBytes(c.Limits.Blob), "limits.request": duration(c.Limits.Request),
		"limits.events": fmt.Sprint("10000;", c.Limits.Events), "sanitizer.model": formatBytes(c.Sanitizer.Model), "sanitizer.nodes": fmt.Sprint(c.Sanitizer.Nodes),
		"sanitizer.tensors": fmt.Sprint(c.Sanitizer.Tensors), "sanitizer.timeout": duration(c.Sanitizer.Timeout), "sanitizer.memory": formatBytes(c.Sanitizer.Memory),
		"sanitizer.per_identity": fmt.Sprint(c.Sanitizer.PerIdentity), "sanitizer.workers": fmt.Sprint(c.Sanitizer.Workers),
	} {
		row := regexp.MustCompile("(?m)^\\|[^|]*\\| `" + regexp.QuoteMeta(field) + "` \\| ([^|;]*(?:;[^|;]*)?)").FindStringSubmatch(text)
		if row == nil {
			t.Errorf("the guide has no limit %s", field)
			continue
		}
		got := strings.NewReplacer(" ", "", ",", "").Replace(row[1])
		if first, _, _ := strings.Cut(got, ";"); got != want && first != want {
			t.Errorf("the guide says that %s is %s; it is %s", field, row[1], want)
		}
	}
}

func TestVerifyGuideHasEveryCheck(t *testing.T) {
	text := section(t, guide(t, "verify.md"), "## What is checked")
	source, err := os.ReadFile(filepath.Join("attest", "result.go"))
	if err != nil {
		t.Fatal(err)
	}
	checks := regexp.MustCompile(`(?m)^\tCheck\w+ += "([^"]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(checks) < 10 {
		t.Fatalf("found the checks %q", checks)
	}
	for _, c := range checks {
		if c[1] != "subject digest" && !strings.Contains(text, "`"+c[1]+"`") { // that one is of the Go API alone
			t.Errorf("the guide lacks the check %q", c[1])
		}
	}
}
