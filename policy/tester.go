package policy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// TestOptions choose what Test does; zero runs every test.
type TestOptions struct {
	Run      *regexp.Regexp // only tests whose name matches, data.PACKAGE.test_NAME; nil: all
	Coverage bool           // find what no test ran
}

// TestReport is what became of the tests.
type TestReport struct {
	Tests    []TestResult `json:"tests"` // in order of package and name
	Coverage *Coverage    `json:"coverage,omitempty"`
}

// TestResult is the outcome of one test_ rule.
type TestResult struct {
	Package  string        `json:"package"`
	Name     string        `json:"name"`
	Location string        `json:"location"` // file:line
	Passed   bool          `json:"passed"`
	Skipped  bool          `json:"skipped,omitempty"` // todo_test_ rules
	Error    string        `json:"error,omitempty"`
	Cases    []string      `json:"failed_cases,omitempty"` // of a rule test_NAME[case]
	FailedAt string        `json:"failed_at,omitempty"`    // the expression that did not hold last, with its place and values
	Output   string        `json:"output,omitempty"`       // of print
	Duration time.Duration `json:"duration_ns"`
}

// Coverage says which lines of the policy the tests ran.
type Coverage struct {
	Lines  int      `json:"lines"` // with a rule or an expression, without tests
	Ran    int      `json:"ran"`
	NotRun []string `json:"not_run"` // file:line or file:line-line
}

// Test runs the tests of the policy in dir (rules named test_ in *_test.rego, or in any module), or of the embedded policy for "",
// by OPA's own tester and under the same restrictions as decisions. The error is ErrLoad where nothing could be run.
func Test(ctx context.Context, dir string, o TestOptions) (TestReport, error) {
	report, err := test(ctx, dir, o)
	if err != nil {
		return TestReport{}, fmt.Errorf("%w: %w", ErrLoad, err)
	}
	return report, nil
}

func test(ctx context.Context, dir string, o TestOptions) (TestReport, error) {
	src, err := read(dir)
	if err != nil {
		return TestReport{}, err
	}
	c, err := compiler()
	if err != nil {
		return TestReport{}, err
	}
	c = c.WithEnablePrintStatements(true)
	modules := map[string]*ast.Module{}
	maps.Copy(modules, src.modules)
	maps.Copy(modules, src.tests)
	store := inmem.NewFromObject(src.data)
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return TestReport{}, err
	}
	defer store.Abort(ctx, txn)
	runner := tester.NewRunner().
		SetCompiler(c).
		SetStore(store).
		SetModules(modules).
		SetTimeout(DefaultTimeout).
		RaiseBuiltinErrors(true)
	if o.Run != nil {
		runner.Filter(o.Run.String())
	}
	covered := cover.New()
	if o.Coverage {
		runner.SetCoverageRuns(nil).SetCoverageQueryTracer(covered)
	}
	outcomes, err := runner.RunTests(ctx, txn)
	if err != nil {
		return TestReport{}, err
	}
	report := TestReport{Tests: []TestResult{}}
	for o := range outcomes {
		report.Tests = append(report.Tests, resultOf(o))
	}
	if err := ctx.Err(); err != nil {
		return TestReport{}, err
	}
	for i := range report.Tests {
		if r := &report.Tests[i]; !r.Passed && !r.Skipped && r.Error == "" {
			r.FailedAt = failedAt(ctx, c, store, txn, r.Package+"."+r.Name)
		}
	}
	slices.SortFunc(report.Tests, func(a, b TestResult) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Name, b.Name))
	})
	if o.Coverage {
		report.Coverage = coverage(covered.Report(src.modules), src.modules)
	}
	return report, nil
}

func resultOf(o *tester.Result) TestResult {
	r := TestResult{Package: o.Package, Name: o.Name, Passed: o.Pass(), Skipped: o.Skip, Output: string(o.Output), Duration: o.Duration}
	if o.Location != nil {
		r.Location = fmt.Sprintf("%s:%d", o.Location.File, o.Location.Row)
	}
	switch {
	case topdown.IsCancel(o.Error):
		r.Error = fmt.Sprintf("it took longer than %v, which is what a decision may take", DefaultTimeout)
	case o.Error != nil:
		r.Error = o.Error.Error()
	}
	for path, s := range o.SubResults.Iter {
		if s.Fail && len(s.SubResults) == 0 {
			r.Cases = append(r.Cases, strings.Join(path, "/"))
		}
	}
	return r
}

// failedAt runs a test that failed once more, and finds the expression that it failed at. "" says that none did: the test is false, or no rule of that name applies.
func failedAt(ctx context.Context, c *ast.Compiler, store storage.Store, txn storage.Transaction, rule string) string {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	var f failures
	query, err := rego.New(rego.Query(rule), rego.Compiler(c), rego.Store(store), rego.Transaction(txn)).PrepareForEval(ctx)
	if err == nil {
		_, err = query.Eval(ctx, rego.EvalTransaction(txn), rego.EvalQueryTracer(&f), rego.EvalRuleIndexing(false))
	}
	all := f.inOrder()
	if err != nil || len(all) == 0 {
		return ""
	}
	return all[len(all)-1].String()
}

// coverage sums up OPA's report of the policy's own modules.
func coverage(report cover.Report, modules map[string]*ast.Module) *Coverage {
	all := &Coverage{NotRun: []string{}}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		file := report.Files[name]
		all.Ran += file.CoveredLines
		all.Lines += file.CoveredLines + file.NotCoveredLines
		for _, r := range file.NotCovered {
			place := fmt.Sprintf("%s:%d", name, r.Start.Row)
			if r.End.Row > r.Start.Row {
				place += fmt.Sprintf("-%d", r.End.Row)
			}
			if !slices.Contains(all.NotRun, place) {
				all.NotRun = append(all.NotRun, place)
			}
		}
	}
	return all
}
