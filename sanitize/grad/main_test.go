package grad_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain fixes the random samples, so that every run checks the same ones; -rapid.seed asks for others.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse() // what the command line asks for comes after and counts
	os.Exit(m.Run())
}
