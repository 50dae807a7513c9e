package attest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// A model is signed when it is released and verified before it is deployed.
func Example() {
	dir, err := os.MkdirTemp("", "attest")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	key, err := LoadOrCreateKey(filepath.Join(dir, "grindstone.key"), nil)
	if err != nil {
		panic(err)
	}
	manifest, model := sha("manifest"), sha("model")
	attestation, err := Sign(context.Background(), key, []Subject{{"models/signs", manifest}, {"model.onnx", model}}, predicate())
	if err != nil {
		panic(err)
	}

	result, err := VerifyBundle(attestation.Bundle, key.Public(), "sha256:"+manifest)
	if err != nil {
		panic(err)
	}
	for _, check := range result.Checks {
		fmt.Println(check.Passed, check.Name)
	}
	// Output:
	// true bundle format
	// true envelope signature
	// true in-toto statement
	// true predicate type
	// true predicate schema
	// true subject digest
	// true decision result
	// true policy claims
}
