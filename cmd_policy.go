package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"grindstone/policy"
)

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Write, check, test and ask a policy, as the server does",
		Long: `A policy is a folder of Rego files with data.json or data.yaml, which decides what becomes of a pushed model. These commands compile and ask it
under the server's restrictions, without a server. Without a folder they are about the built-in policy.`,
		Example: `  # Begin with the built-in policy and its tests, change something, and see whether it still holds together
  grindstone policy default house-policy
  grindstone policy check   house-policy
  grindstone policy test    house-policy --coverage

  # What would it say to a push? And to a model that a server has?
  grindstone policy eval house-policy --input push.json
  grindstone policy eval house-policy --admission 0199c2f4-8d1e --config grindstone.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicyDefault(), newPolicyCheck(), newPolicyTest(), newPolicyEval())
	for _, c := range cmd.Commands() {
		c.Args = asUsage(c.Args)
	}
	return cmd
}

// policySource says where a policy is: in a folder, in that of a server's configuration, or in the program.
type policySource struct {
	config string
}

func (s *policySource) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.config, "config", "", "configuration file of a server: lay its policy.data over the policy, which is that of policy.dir where no folder is given")
}

// options are the policy's, and the names of the datasets that the configuration has.
func (s *policySource) options(args []string) (o policy.Options, datasets []string, err error) {
	o.Log = slog.New(slog.DiscardHandler)
	if s.config != "" {
		text, err := os.ReadFile(s.config)
		if err != nil {
			return o, nil, usageError("configuration: %w", err)
		}
		c, found, err := parseConfig(s.config, text) // what else the server needs, such as the datasets' files, need not be here
		if err = errors.Join(err, found.err()); err != nil {
			return o, nil, &exitError{exitUsage, err}
		}
		o.Dir, o.Data, datasets = c.Policy.Dir, c.Policy.Data, slices.Sorted(maps.Keys(c.Datasets))
	}
	if len(args) > 0 {
		o.Dir = args[0]
	}
	return o, datasets, checkPolicyFolder(o.Dir)
}

func checkPolicyFolder(dir string) error {
	if dir == "" {
		return nil // the built-in policy
	}
	if info, err := os.Stat(dir); err != nil {
		return usageError("the policy's folder: %w", err)
	} else if !info.IsDir() {
		return usageError("%s is a file; name the folder that the policy's files are in", dir)
	}
	return nil
}

func newPolicyDefault() *cobra.Command {
	return &cobra.Command{
		Use:   "default [DIR]",
		Short: "Write the built-in policy and its tests to a folder, to begin with",
		Long: `Write the built-in policy and its tests to a folder, "policy" without DIR. Files that are there are never written over. The policy in the folder decides
as the built-in one does, until somebody changes it.`,
		Example: `  grindstone policy default house-policy
  grindstone policy test house-policy
  grindstone serve --config grindstone.yaml    # with policy: {dir: house-policy} in it`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "policy"
			if len(args) > 0 {
				dir = args[0]
			}
			return writeDefaultPolicy(cmd.OutOrStdout(), dir)
		},
	}
}

// writeDefaultPolicy writes all files, or none where one is there.
func writeDefaultPolicy(w io.Writer, dir string) error {
	files, err := fs.Glob(policy.Default(), "*")
	if err != nil {
		return err
	}
	for _, name := range files {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			return usageError("%s is there, and no file is written over: name another folder", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range files {
		text, err := fs.ReadFile(policy.Default(), name)
		if err != nil {
			return err
		}
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // a policy is no secret
		if err != nil {
			return err
		}
		_, err = file.Write(text)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		fmt.Fprintln(w, file.Name())
	}
	return nil
}

// policyCheck is what check prints.
type policyCheck struct {
	OK       bool             `json:"ok"`
	URI      string           `json:"uri,omitempty"`
	Digest   string           `json:"digest,omitempty"`
	Packages []string         `json:"packages,omitempty"`
	Unread   []string         `json:"unread,omitempty"`
	Problems []policy.Problem `json:"problems,omitempty"`
}

func newPolicyCheck() *cobra.Command {
	var source policySource
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: "Compile a policy as the server does at its start",
		Long: `Compile a policy as the server does at its start: in OPA's strict mode, with the schemas of the input, without the functions that reach the network or
the environment; see that both questions have a rule, and what the policy says of its data (grindstone.settings.problems). It prints the policy's digest, which
stands in decisions and attestations; with --config it is the one that a server with that configuration has.

Exit code 0 says that a server starts with the policy, 1 that it does not.`,
		Example: `  grindstone policy check house-policy
  grindstone policy check --config grindstone.yaml --json | jq -r .digest`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, _, err := source.options(args)
			if err != nil {
				return err
			}
			var check policyCheck
			switch engine, err := policy.New(cmd.Context(), o); {
			case errors.Is(err, policy.ErrLoad):
				check.Problems = policy.Problems(err)
			case err != nil:
				return err
			default:
				check = policyCheck{OK: true, URI: engine.URI(), Digest: engine.Digest(), Packages: engine.Packages(), Unread: engine.Unread()}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), check); err != nil {
					return err
				}
			} else {
				check.print(cmd.OutOrStdout(), o.Dir)
			}
			if !check.OK {
				return &exitError{code: exitFailure}
			}
			return nil
		},
	}
	source.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c policyCheck) print(w io.Writer, dir string) {
	for _, p := range c.Problems {
		fmt.Fprintf(w, "%s%s\n", inFolder(dir, p.File, p.Line), strings.ReplaceAll(p.Message, "\n", "\n    "))
	}
	if !c.OK {
		fmt.Fprintln(w, "a server does not start with this policy")
		return
	}
	fmt.Fprintf(w, "policy    %s\ndigest    %s\npackages  %s\n", c.URI, c.Digest, strings.Join(c.Packages, ", "))
	if len(c.Unread) > 0 {
		fmt.Fprintf(w, "not read  %s: data is in files named data.json or data.yaml\n", strings.Join(c.Unread, ", "))
	}
}

// inFolder is a place in a policy's file as editors take it, with what follows set off; "" without a file.
func inFolder(dir, file string, line int) string {
	if file == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d: ", filepath.Join(dir, file), line)
}
