package grad_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

var update = flag.Bool("update", false, "write docs/operators.md")

// TestOperatorsDocument: docs/operators.md says what the code does.
func TestOperatorsDocument(t *testing.T) {
	const path = "../../docs/operators.md"
	want := operatorsDocument()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/operators.md is not what the code says; go generate ./sanitize/grad writes it anew")
	}
}

func operatorsDocument() string {
	upgrades := onnx.Upgrades()
	var rows, without []string
	rules, spelled, flat := 0, 0, 0
	for _, op := range onnx.Operators() {
		rule, ok := grad.Rules[op]
		upgrade, upgraded := upgrades[op]
		versions := onnx.Versions(op)
		newer := !slices.ContainsFunc(versions, func(v int64) bool { return v <= onnx.Opset })
		gradient := ""
		switch {
		case ok && rule.Backward != nil:
			gradient = "rule"
			rules++
		case ok:
			gradient = "zero"
			flat++
		case upgraded && (newer || slices.Contains([]string{"Dropout", "Scatter", "SequenceAt", "SplitToSequence", "Upsample"}, op)):
			gradient = "by its parts"
			spelled++
		default:
			without = append(without, op)
			continue
		}
		notes := slices.DeleteFunc([]string{upgrade, rule.Note}, func(s string) bool { return s == "" })
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |", op, strings.ReplaceAll(strings.Trim(fmt.Sprint(versions), "[]"), " ", ", "), gradient, strings.Join(notes, "; ")))
	}
	return fmt.Sprintf(`# Operators

Written by `+"`go generate ./sanitize/grad`"+` from the table of gradient rules and from the normalizer; do not edit.

Models of opset 7 to %d are brought to opset %d, at which gradients are taken. %d operators of the ONNX standard have a rule; %d later or retired
ones are spelled out in operators that have one; %d are piecewise constant: their gradient is zero wherever it exists, and training does not pass
through them. Versions are those of the standard from opset 7 on, all of which are read.

An operator without a rule is an obstacle only between a weight that is trained and the class scores; `+"`grindstone inspect`"+` names every such
node, and `+"`--freeze-below NODE`"+` leaves the part of the network below it as it is.

| operator | versions | gradient | notes |
|---|---|---|---|
%s

Of ONNX Runtime's own operators (com.microsoft), those that its optimizer leaves in the models it saves are spelled out: %s. What it saves for one kind of
processor (level "all": com.microsoft.nchwc) is not trained; save at level "extended".

Without a rule: %s.
`, onnx.Newest, onnx.Opset, rules, spelled, flat, strings.Join(rows, "\n"), strings.Join(onnx.Contributed(), ", "), strings.Join(without, ", "))
}
