package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"grindstone/policy"
)

func newPolicyTest() *cobra.Command {
	var only string
	var coverage, asJSON bool
	cmd := &cobra.Command{
		Use:   "test [DIR]",
		Short: "Run a policy's tests under the server's restrictions",
		Long: `Run the rules of a policy that are named test_..., by OPA's own tester and under the restrictions of the server: strict mode, schemas, no functions that
reach the network or the environment, 5 seconds each. Of a test that fails it prints the expression that did not hold, with the values of its
variables, and what print() said. A rule todo_test_... is passed over.

Exit code 0 says that tests ran and all passed; without any test it is 1.`,
		Example: `  grindstone policy test house-policy
  grindstone policy test house-policy --run 'admission_test\.test_licence' --coverage
  grindstone policy test house-policy --json | jq -r '.tests[] | select(.passed | not) | .location'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, o := "", policy.TestOptions{Coverage: coverage}
			if len(args) > 0 {
				dir = args[0]
			}
			if err := checkPolicyFolder(dir); err != nil {
				return err
			}
			var err error
			if only != "" {
				if o.Run, err = regexp.Compile(only); err != nil {
					return usageError("--run: %w", err)
				}
			}
			report, err := policy.Test(cmd.Context(), dir, o)
			if err != nil {
				return err
			}
			failed := len(report.Tests) == 0
			for _, r := range report.Tests {
				failed = failed || !r.Passed && !r.Skipped
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), struct {
					OK bool `json:"ok"`
					policy.TestReport
				}{!failed, report})
			} else {
				printTests(cmd.OutOrStdout(), dir, report)
			}
			switch {
			case err != nil:
				return err
			case len(report.Tests) == 0 && only != "":
				return fmt.Errorf("no test has a name that matches %q", only)
			case len(report.Tests) == 0:
				return fmt.Errorf("the policy has no test: name rules test_..., in files named ..._test.rego")
			case failed:
				return &exitError{code: exitFailure}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&only, "run", "", "only tests whose name, as in data.house_test.test_licence, matches this regular expression")
	cmd.Flags().BoolVar(&coverage, "coverage", false, "tell which lines of the policy no test ran")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printTests(w io.Writer, dir string, report policy.TestReport) {
	prefix := ""
	if dir != "" {
		prefix = strings.TrimSuffix(dir, "/") + "/"
	}
	count := map[string]int{}
	for _, r := range report.Tests {
		mark, word := "FAIL", "failed"
		switch {
		case r.Passed:
			mark, word = "ok  ", "passed"
		case r.Skipped:
			mark, word = "skip", "passed over"
		case r.Error != "":
			mark, word = "ERR ", "ended in an error"
		}
		count[word]++
		fmt.Fprintf(w, "%s  %s%s  %s.%s\n", mark, prefix, r.Location, r.Package, r.Name)
		below := func(text string) {
			fmt.Fprintf(w, "      %s\n", strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n      "))
		}
		if r.Error != "" {
			below(r.Error)
		}
		if len(r.Cases) > 0 {
			below("cases: " + strings.Join(r.Cases, ", "))
		}
		if r.FailedAt != "" {
			below(prefix + r.FailedAt)
		}
		if r.Output != "" {
			below("printed:\n" + r.Output)
		}
	}
	var parts []string
	for _, word := range []string{"passed", "failed", "ended in an error", "passed over"} {
		if n := count[word]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, word))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintln(w, strings.Join(parts, ", "))
	}
	if c := report.Coverage; c != nil {
		fmt.Fprintf(w, "%d of %d lines ran\n", c.Ran, c.Lines)
		for _, place := range c.NotRun {
			fmt.Fprintf(w, "not run: %s%s\n", prefix, place)
		}
	}
}
