package policy_test

import (
	"context"
	"fmt"
	"log/slog"

	"grindstone/policy"
)

// A stricter threshold and another transformation for one team's models, without editing the policy.
func Example() {
	ctx := context.Background()
	engine, err := policy.New(ctx, policy.Options{
		Log: slog.New(slog.DiscardHandler),
		Data: map[string]any{"repositories": map[string]any{
			"vision/*": map[string]any{"max_cda_loss": 0.02, "transformation": "rotate"},
		}},
	})
	if err != nil {
		panic(err)
	}
	push := policy.AdmissionInput{
		Repository: "vision/signs",
		Models:     []policy.Model{{Name: "model.onnx", Digest: "sha256:...", Size: 44_000_000}},
		Datasets:   []string{"default"},
	}
	decision, err := engine.Admission(ctx, push)
	fmt.Println(decision.Action, decision.Transformation, decision.Dataset, err)

	push.Datasets = nil
	decision, err = engine.Admission(ctx, push)
	fmt.Println(decision.Action, decision.Reasons, err)
	// Output:
	// sanitize rotate default <nil>
	// quarantine [no clean dataset is configured: start with `serve --data PATH` or set `datasets:` in the configuration] <nil>
}
