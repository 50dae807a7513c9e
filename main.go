// Grindstone stands in front of a model registry: it quarantines ONNX models that are pushed, removes possible backdoors by
// Feature Grinding, signs what it did and releases the sanitized model. The way of a model:
//
//	push -> quarantine -> decide -> sanitize -> evaluate -> attest -> release -> verify
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the whole program but for the exit. A first interrupt cancels the command, a second one ends it at once.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(&visible{w: stdout})
	root.SetErr(stderr) // with bars that are drawn again
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	text := err.Error()
	if text == "" { // everything was said
		return code
	}
	fmt.Fprintf(stderr, "grindstone: %s\n", codes(text))
	if code == exitUsage {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return code
}

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// newRootCommand assembles the commands, in the order of a model's way.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "grindstone",
		Short: "Quarantine, sanitize, sign and release ONNX models",
		Long: `Grindstone stands in front of a model registry. A model that is pushed to it is quarantined, freed of possible
backdoors by Feature Grinding, signed with a sigstore attestation and released. Whoever deploys it verifies the
attestation first.`,
		Example: `  # Run the registry, with clean images of the classes that the models know
  grindstone serve --data ./cifar10

  # Push a model to it, and follow what happens
  oras push --plain-http 127.0.0.1:5050/models/resnet:v1 model.onnx
  grindstone admissions watch

  # Verify before you deploy
  grindstone verify 127.0.0.1:5050/models/resnet:v1 --key grindstone-data/keys/grindstone.pub --plain-http

Exit codes:
  0    done
  1    failed; verify: some check did not pass; policy: no decision, or a test failed; doctor: something needs attention; admissions watch ID: not released
  2    wrong usage or configuration, also of what a configuration names
  3    the model cannot be read, is invalid or is not supported
  4    the clean dataset, or the trigger, cannot be read or does not fit the model
  5    the ONNX Runtime library was not found or cannot be used
  6    the model's accuracy on the clean dataset is too low to work with
  7    out of memory, or the memory limit is too low
  130  interrupted`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newDemoCommand(),
		newServeCommand(),
		newWorkerCommand(),
		newAdmissionsCommand(),
		newPolicyCommand(),
		newNotificationsCommand(),
		newGCCommand(),
		newSanitizeCommand(),
		newEvaluateCommand(),
		newInspectCommand(),
		newBenchCommand(),
		newVerifyCommand(),
		newDoctorCommand(),
		newVersionCommand(),
	)
	for _, c := range root.Commands() {
		c.Args = asUsage(c.Args)
	}
	root.Args = asUsage(root.Args)
	return root
}

// asUsage gives the errors of a check of arguments the exit code of wrong usage.
func asUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	if check == nil {
		return nil
	}
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &exitError{exitUsage, err}
		}
		return nil
	}
}
