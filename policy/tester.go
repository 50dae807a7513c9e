package policy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// TestResult is the outcome of one test_ rule.
type TestResult struct {
	Package  string        `json:"package"`
	Name     string        `json:"name"`
	Location string        `json:"location"` // file:line
	Passed   bool          `json:"passed"`
	Skipped  bool          `json:"skipped,omitempty"` // todo_test_ rules
	Error    string        `json:"error,omitempty"`
	Output   string        `json:"output,omitempty"` // of print
	Duration time.Duration `json:"duration_ns"`
}

// Test runs the tests of the policy in dir (rules named test_ in *_test.rego, or in any module), or of the embedded policy for "",
// by OPA's own tester and under the same restrictions as decisions. Results come in order of package and name. The error is
// ErrLoad where nothing could be run.
func Test(ctx context.Context, dir string) ([]TestResult, error) {
	results, err := test(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLoad, err)
	}
	return results, nil
}

func test(ctx context.Context, dir string) ([]TestResult, error) {
	src, err := read(dir)
	if err != nil {
		return nil, err
	}
	c, err := compiler()
	if err != nil {
		return nil, err
	}
	modules := map[string]*ast.Module{}
	maps.Copy(modules, src.modules)
	maps.Copy(modules, src.tests)
	store := inmem.NewFromObject(src.data)
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return nil, err
	}
	defer store.Abort(ctx, txn)
	outcomes, err := tester.NewRunner().
		SetCompiler(c.WithEnablePrintStatements(true)).
		SetStore(store).
		SetModules(modules).
		SetTimeout(DefaultTimeout).
		RaiseBuiltinErrors(true).
		RunTests(ctx, txn)
	if err != nil {
		return nil, err
	}
	var all []TestResult
	for o := range outcomes {
		r := TestResult{Package: o.Package, Name: o.Name, Passed: o.Pass(), Skipped: o.Skip, Output: string(o.Output), Duration: o.Duration}
		if o.Location != nil {
			r.Location = fmt.Sprintf("%s:%d", o.Location.File, o.Location.Row)
		}
		if o.Error != nil {
			r.Error = o.Error.Error()
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b TestResult) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Name, b.Name))
	})
	return all, nil
}
