package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A flag that changes nothing is an error: whoever gives it expects that it does.

// natural is the value of a flag that takes a whole number from 0 on.
type natural struct{ value *int }

func (n natural) String() string {
	if n.value == nil { // as the flag package asks for what stands for no value
		return "0"
	}
	return strconv.Itoa(*n.value)
}

func (n natural) Set(text string) error {
	v, err := strconv.Atoi(text)
	if err != nil || v < 0 {
		return fmt.Errorf("it is a whole number from 0 on")
	}
	*n.value = v
	return nil
}

func (n natural) Type() string { return "int" }

// ignored is the error that one of the flags was given although it has no effect; but says when it has one.
func ignored(cmd *cobra.Command, but string, flags ...string) error {
	var given []string
	for _, name := range flags {
		if cmd.Flags().Changed(name) {
			given = append(given, "--"+name)
		}
	}
	if len(given) == 0 {
		return nil
	}
	return usageError("%s would change nothing: %s", strings.Join(given, ", "), but)
}

// zero is the error that one of the flags was given as 0, which stands for the default in the options.
func zero(cmd *cobra.Command, flags ...string) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		for _, name := range flags {
			if v, perr := strconv.ParseFloat(f.Value.String(), 64); f.Name == name && perr == nil && v == 0 {
				err = usageError("--%s cannot be 0; without it there is the default, see --help", name)
			}
		}
	})
	return err
}
