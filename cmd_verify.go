package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"oras.land/oras-go/v2/registry/remote/retry"

	"grindstone/attest"
)

func newVerifyCommand() *cobra.Command {
	var flags struct {
		key, bundle, ca string
		plainHTTP, json bool
		allowApproved   bool
	}
	cmd := &cobra.Command{
		Use:   "verify REF|FILE --key PUBLIC.pem",
		Short: "Verify the attestation of a released model",
		Long: `Verify that a model was sanitized, by the attestation that Grindstone attached to it: of a reference in a registry (HOST/REPOSITORY:TAG
or @DIGEST), or of a model file with the bundle in a file of its own. It prints what was checked and what was not.

Exit code 0 says that every check passed. Everything else, also an attestation that is not there, is exit code 1. A model that an operator or
the policy approved without sanitizing has an attestation that says so, and passes only with --allow-approved.`,
		Example: `  grindstone verify registry.example.com/models/resnet:v1 --key grindstone.pub
  grindstone verify 127.0.0.1:5050/models/resnet@sha256:4ae1... --key grindstone.pub --plain-http --json
  grindstone verify resnet.onnx --bundle resnet.sigstore.json --key grindstone.pub
  grindstone verify registry.example.com/models/legacy:v1 --key grindstone.pub --allow-approved`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if flags.key == "" {
				return usageError("no public key given: --key PUBLIC.pem (the server answers it at /api/v1/key; get it from whoever runs the server)")
			}
			subject := args[0]
			info, err := os.Stat(subject)
			isFile := err == nil && !info.IsDir()
			switch {
			case isFile && flags.bundle == "":
				return usageError("%s is a file: name the bundle with --bundle, or give the reference in the registry", subject)
			case !isFile && flags.bundle != "":
				return usageError("--bundle is for a model file, and there is no file %s", subject)
			}
			var result *attest.Result
			public, err := attest.ReadPublicKey(flags.key)
			switch {
			case err != nil:
			case isFile:
				result, err = attest.VerifyFile(cmd.Context(), subject, flags.bundle, public)
			default:
				transport, cerr := trusting(flags.ca)
				if cerr != nil {
					return cerr
				}
				result, err = attest.VerifyRef(cmd.Context(), subject, public, attest.RefOptions{
					PlainHTTP: flags.plainHTTP, TLS: flags.ca != "" || cmd.Flags().Changed("plain-http") && !flags.plainHTTP,
					Client: &http.Client{Transport: retry.NewTransport(transport)},
				})
			}
			if flags.allowApproved && errors.Is(err, attest.ErrVerification) && result != nil {
				err = result.AcceptApproved()
			}
			return printVerification(cmd.OutOrStdout(), subject, result, err, flags.json)
		},
	}
	cmd.Flags().StringVar(&flags.key, "key", "", "public key of the signer, PEM")
	cmd.Flags().StringVar(&flags.bundle, "bundle", "", "sigstore bundle of the model file")
	cmd.Flags().BoolVar(&flags.plainHTTP, "plain-http", false, "talk to the registry without TLS; on loopback that is the default, and --plain-http=false or --ca asks for TLS")
	cmd.Flags().StringVar(&flags.ca, "ca", "", caHelp)
	cmd.Flags().BoolVar(&flags.allowApproved, "allow-approved", false, "let models pass that were approved without sanitizing")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON")
	return cmd
}

// printVerification prints a result, and an error where there is no full one. Verified is only what comes without an error.
func printVerification(w io.Writer, subject string, r *attest.Result, err error, asJSON bool) error {
	verified := err == nil && r != nil && r.OK()
	if asJSON {
		answer := struct {
			Subject  string         `json:"subject"`
			Verified bool           `json:"verified"`
			Error    string         `json:"error,omitempty"`
			Result   *attest.Result `json:"result,omitempty"`
		}{Subject: subject, Verified: verified, Result: r}
		if err != nil {
			answer.Error = err.Error()
		}
		if perr := printJSON(w, answer); perr != nil {
			return perr
		}
	} else {
		printChecks(w, subject, r, verified)
	}
	switch {
	case verified:
		return nil
	case err != nil && (r == nil || !asJSON):
		return &exitError{exitFailure, err}
	}
	return &exitError{code: exitFailure}
}

func printChecks(w io.Writer, subject string, r *attest.Result, verified bool) {
	if r != nil {
		for _, c := range r.Checks {
			mark := "ok  "
			if !c.Passed {
				mark = "FAIL"
			}
			fmt.Fprintf(w, "%s  %-24s %s\n", mark, c.Name, strings.ReplaceAll(c.Detail, "\n", "\n      ")) // no word in it begins a line
		}
		for _, text := range r.NotChecked {
			fmt.Fprintf(w, "not checked: %s\n", text)
		}
	}
	if !verified {
		fmt.Fprintf(w, "NOT VERIFIED: %s\n", subject)
		return
	}
	fmt.Fprintf(w, "verified: %s\n  digest        %s\n", subject, r.Digest)
	if a := r.Statement.Approval; a != nil {
		fmt.Fprintf(w, "  NOT SANITIZED %s\n  source        %s\n  approved at   %s\n", a, a.Source.URI, a.ApprovedAt.Format("2006-01-02 15:04:05 MST"))
		return
	}
	p := r.Statement.Predicate
	fmt.Fprintf(w, "  source        %s\n", p.Source.URI)
	fmt.Fprintf(w, "  transformed   %s, %s; secret discarded\n", p.Transformation.Method, p.Transformation.Type)
	fmt.Fprintf(w, "  accuracy      %s before, %s after\n", share(p.Metrics.Before), share(p.Metrics.After))
	for _, d := range p.Training.Datasets {
		fmt.Fprintf(w, "  clean data    %s sha256:%s\n", d.Name, d.Digest.SHA256)
	}
	fmt.Fprintf(w, "  sanitized at  %s by grindstone %s\n", p.FinishedAt.Format("2006-01-02 15:04:05 MST"), p.Sanitizer.Version.Grindstone)
}

func share(a attest.Accuracy) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", 100*a.Accuracy), ".0") + fmt.Sprintf(" %% (%d of %d)", a.Correct, a.Samples)
}
