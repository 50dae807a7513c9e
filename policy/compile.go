package policy

import (
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

//go:embed schema/*.json
var schemaFiles embed.FS

// capabilities are OPA's without what reaches the network or the process's environment: a decision depends on input and data
// alone. Schemas may not be fetched either, nor read from files, as those may that a rule validates with. Nor is there what ends the process on texts or numbers that a pusher can choose: the parsers of GraphQL and
// Rego, which have no end of their stack, and the shift by any number of bits.
func capabilities() *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion()
	gone := []string{"http.send", "opa.runtime", "json.match_schema", "json.verify_schema", "rego.parse_module", "bits.lsh"}
	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		return slices.Contains(gone, b.Name) || strings.HasPrefix(b.Name, "net.") || strings.HasPrefix(b.Name, "graphql.")
	})
	caps.AllowNet = []string{}
	return caps
}

// schemas returns what a module's METADATA may refer to: schema.admission and schema.release.
func schemas() (*ast.SchemaSet, error) {
	part := map[string]any{}
	for _, name := range []string{"admission", "decision", "report"} {
		text, err := schemaFiles.ReadFile("schema/" + name + ".json")
		if err != nil {
			return nil, err
		}
		var schema any
		if err := json.Unmarshal(text, &schema); err != nil {
			return nil, fmt.Errorf("schema/%s.json: %w", name, err)
		}
		part[name] = schema
	}
	set := ast.NewSchemaSet()
	set.Put(ast.MustParseRef("schema.admission"), part["admission"])
	set.Put(ast.MustParseRef("schema.release"), map[string]any{"type": "object", "properties": part, "additionalProperties": false})
	return set, nil
}

// compiler returns an empty strict Rego v1 compiler: unused variables and imports and unknown input fields are errors.
func compiler() (*ast.Compiler, error) {
	set, err := schemas()
	if err != nil {
		return nil, err
	}
	return ast.NewCompiler().
		WithCapabilities(capabilities()).
		WithDefaultRegoVersion(ast.RegoV1).
		WithSchemas(set).
		WithUseTypeCheckAnnotations(true).
		WithStrict(true), nil
}
