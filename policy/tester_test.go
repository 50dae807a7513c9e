package policy

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const testedPolicy = "package grindstone.admission\ndecision := {\"action\": \"admit\"} if input.tag != \"old\"\nelse := {\"action\": \"deny\",\n\t\"reasons\": [\"old\"]} if input.size > 1\n"

func byName(t *testing.T, dir string, o TestOptions) (map[string]TestResult, TestReport) {
	t.Helper()
	report, err := Test(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]TestResult{}
	for _, r := range report.Tests {
		all[r.Name] = r
	}
	return all, report
}

func TestTestReportsFailures(t *testing.T) {
	all, report := byName(t, dir(t, map[string]string{
		"a.rego": testedPolicy,
		"a_test.rego": `package grindstone.admission_test
import data.grindstone.admission
new := {"tag": "new"}
test_a if {
	print("asked about", new.tag)
	d := admission.decision with input as new
	d.action == "deny"
}
test_b if admission.decision.action == "admit" with input as new
todo_test_c if false
test_d if to_number(admission.decision.action) == 1 with input as new
test_e[tag] if {
	some tag in ["new", "old", "older"]
	admission.decision.action == "admit" with input as {"tag": tag}
}
test_f := false`,
	}), TestOptions{})
	if len(report.Tests) != 6 || report.Coverage != nil {
		t.Fatalf("%+v", report)
	}
	a := all["test_a"]
	if a.Passed || a.Location != "a_test.rego:4" || a.Output != "asked about new\n" {
		t.Errorf("%+v", a)
	}
	if !strings.HasPrefix(a.FailedAt, "a_test.rego:7:\n") || !strings.Contains(a.FailedAt, `d.action == "deny"`) || !strings.Contains(a.FailedAt, `"admit"`) {
		t.Errorf("failed at %s", a.FailedAt)
	}
	if !all["test_b"].Passed || all["test_b"].FailedAt != "" || !all["todo_test_c"].Skipped || all["test_f"].Passed {
		t.Errorf("%+v", report)
	}
	if d := all["test_d"]; d.Passed || !strings.Contains(d.Error, "to_number") {
		t.Errorf("%+v", d)
	}
	if e := all["test_e"]; e.Passed || !slices.Equal(e.Cases, []string{"old"}) {
		t.Errorf("%+v", e)
	}
	if _, err := Test(t.Context(), dir(t, map[string]string{"a.rego": "package"}), TestOptions{}); !errors.Is(err, ErrLoad) {
		t.Errorf("syntax error: %v, want ErrLoad", err)
	}
}

func TestTestsByName(t *testing.T) {
	all, _ := byName(t, "", TestOptions{Run: regexp.MustCompile(`release_test\.test_loss$`)})
	if len(all) != 1 || !all["test_loss"].Passed {
		t.Errorf("%+v", all)
	}
}

func TestCoverageIsOfThePolicy(t *testing.T) {
	_, report := byName(t, dir(t, map[string]string{
		"a.rego":      testedPolicy,
		"a_test.rego": "package a_test\ntest_a if data.grindstone.admission.decision.action == \"admit\" with input as {\"tag\": \"new\"}\nunused if false",
	}), TestOptions{Coverage: true})
	c := report.Coverage
	if c == nil || c.Ran == 0 || c.Ran >= c.Lines || !slices.Equal(c.NotRun, []string{"a.rego:3-4"}) {
		t.Errorf("coverage %+v", c)
	}
}

func TestTestThatTakesTooLong(t *testing.T) {
	t.Parallel()
	all, _ := byName(t, dir(t, map[string]string{
		"a.rego":      testedPolicy,
		"a_test.rego": "package a_test\ntest_a if count([1 | some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i * j < 0]) == 0\ntest_b := true",
	}), TestOptions{})
	if a := all["test_a"]; a.Passed || a.Error != "it took longer than 5s, which is what a decision may take" || !all["test_b"].Passed {
		t.Errorf("%+v", all)
	}
}
