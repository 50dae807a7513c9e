package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"grindstone/policy"
	"grindstone/webhook"
)

func newPolicyEval() *cobra.Command {
	ask := asking{client: &apiClient{}}
	cmd := &cobra.Command{
		Use:   "eval [DIR] --input FILE | --admission ID",
		Short: "Ask a policy about a push, or about a sanitized model",
		Long: `Ask a policy the admission question, or with --release the release question, and print the decision in JSON as the server would record it. The
question is an input in a file, or made of an admission that a server has; docs/policy.md lists its fields. Nothing is changed anywhere. About a package
of several models the release question is asked once for each.

What the policy prints goes to standard error, and where it leaves the question undefined, every expression that did not hold. Exit code 0 says that there is a
decision, whatever it is; 1 that there is none (undefined, a conflict, a value or field that does not exist, an error, more than 5 seconds): a server
then holds the model with the reason policy-error.`,
		Example: `  echo '{"repository": "vision/signs", "models": [{"name": "a.onnx", "digest": "sha256:bb", "size": 9}], "datasets": ["default"]}' > push.json
  grindstone policy eval --input push.json
  grindstone policy eval house-policy --input push.json | jq -e '.action == "sanitize"'
  grindstone policy eval house-policy --admission 0199c2f4-8d1e --dataset default
  grindstone policy eval house-policy --admission 0199c2f4-8d1e --config grindstone.yaml --release`,
		Args: cobra.MaximumNArgs(1),
		RunE: ask.run,
	}
	ask.source.flags(cmd)
	serverFlags(cmd, ask.client)
	cmd.Flags().StringVar(&ask.input, "input", "", `JSON file of the input, "-" for standard input`)
	cmd.Flags().StringVar(&ask.admission, "admission", "", "id of an admission of the server")
	cmd.Flags().StringSliceVar(&ask.datasets, "dataset", nil, "with --admission: name of a clean dataset that the server has (may be given several times); else those of --config, or the decision's")
	cmd.Flags().BoolVar(&ask.release, "release", false, "ask the release question; the input has admission, decision and report")
	return cmd
}

// asking is what eval was told.
type asking struct {
	source           policySource
	client           *apiClient
	input, admission string
	datasets         []string
	release          bool
}

func (a *asking) run(cmd *cobra.Command, args []string) error {
	if (a.input == "") == (a.admission == "") {
		return usageError("name the input's file with --input, or an admission of a server with --admission")
	}
	if a.admission == "" {
		if err := ignored(cmd, "no server is asked without --admission", "server", "token", "username", "password-stdin", "ca", "dataset"); err != nil {
			return err
		}
	}
	o, configured, err := a.source.options(args)
	if err != nil {
		return err
	}
	o.Debug = &visible{w: cmd.ErrOrStderr()}
	engine, err := policy.New(cmd.Context(), o)
	if err != nil {
		return err
	}
	pushed, sanitized, err := a.questions(cmd, configured)
	if err != nil {
		return err
	}
	answer := func(decision any, err error) error {
		if err != nil {
			return fmt.Errorf("%w; a server would hold the model (policy-error)", err)
		}
		return printJSON(cmd.OutOrStdout(), decision)
	}
	if !a.release {
		d, err := engine.Admission(cmd.Context(), pushed)
		return answer(d, err)
	}
	for _, in := range sanitized {
		d, err := engine.Release(cmd.Context(), in)
		if err := answer(d, err); err != nil {
			return err
		}
	}
	return nil
}

// questions are the admission question, or the release questions, one for each model.
func (a *asking) questions(cmd *cobra.Command, configured []string) (pushed policy.AdmissionInput, sanitized []policy.ReleaseInput, err error) {
	if a.admission != "" {
		return a.ofAdmission(cmd.Context(), cmd.ErrOrStderr(), configured)
	}
	text, err := readInput(cmd, a.input)
	if err != nil {
		return pushed, nil, err
	}
	if !a.release {
		err = decodeInput(text, &pushed)
	} else {
		var in struct {
			Admission policy.AdmissionInput    `json:"admission"`
			Decision  policy.AdmissionDecision `json:"decision"`
			Report    json.RawMessage          `json:"report"`
		}
		err = decodeInput(text, &in)
		pushed, sanitized = in.Admission, []policy.ReleaseInput{{Admission: in.Admission, Decision: in.Decision, Report: in.Report}}
	}
	if err != nil {
		return pushed, nil, fmt.Errorf("%s: %w (the fields are in docs/policy.md; --release asks the other question)", a.input, err)
	}
	if pushed.Time.IsZero() {
		pushed.Time = time.Now()
	}
	return pushed, sanitized, nil
}

// ofAdmission makes the questions of a server's record.
func (a *asking) ofAdmission(ctx context.Context, warn io.Writer, configured []string) (pushed policy.AdmissionInput, sanitized []policy.ReleaseInput, err error) {
	var record webhook.Admission
	if err := a.client.get(ctx, "/api/v1/admissions/"+url.PathEscape(a.admission), nil, &record); err != nil {
		return pushed, nil, err
	}
	datasets := configured
	switch {
	case len(a.datasets) > 0:
		datasets = a.datasets
	case a.source.config == "" && record.Decision != nil && record.Decision.Dataset != "":
		datasets = []string{record.Decision.Dataset}
	case a.source.config == "":
		return pushed, nil, usageError("the record does not say which clean datasets the server has: --dataset NAME, or --config with the server's configuration")
	}
	if n := record.Source.AnnotationsDropped; n > 0 {
		fmt.Fprintf(warn, "the record lacks %d annotations, which the server asks its policy about\n", n)
	}
	if sanitized = record.ReleaseInputs(datasets); a.release && len(sanitized) == 0 {
		return pushed, nil, fmt.Errorf("admission %s is %s and has no report yet, which the release question is about", record.ID, record.State)
	}
	return record.AdmissionInput(datasets), sanitized, nil
}

func readInput(cmd *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError("--input: %w", err)
	}
	return text, nil
}

// decodeInput reads one JSON value without fields that a question does not have.
func decodeInput(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the JSON value")
	}
	return nil
}
