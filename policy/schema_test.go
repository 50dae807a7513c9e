package policy

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The schemas are written by hand; these tests hold them against the types that they describe.

func schema(t *testing.T, name string) map[string]any {
	t.Helper()
	text, err := schemaFiles.ReadFile("schema/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// paths lists every property of a schema, "a.b", through arrays.
func paths(s map[string]any, prefix string) []string {
	if items, ok := s["items"].(map[string]any); ok {
		return paths(items, prefix)
	}
	var all []string
	properties, _ := s["properties"].(map[string]any)
	for name, below := range properties {
		all = append(all, prefix+name)
		all = append(all, paths(below.(map[string]any), prefix+name+".")...)
	}
	slices.Sort(all)
	return all
}

// typePaths lists every JSON field of a type in the same way.
func typePaths(typ reflect.Type, prefix string) []string {
	for typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	var all []string
	if typ.Kind() != reflect.Struct || typ.PkgPath() == "time" {
		return all
	}
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		all = append(all, prefix+name)
		all = append(all, typePaths(typ.Field(i).Type, prefix+name+".")...)
	}
	slices.Sort(all)
	return all
}

func TestSchemasMatchTypes(t *testing.T) {
	for name, value := range map[string]any{"admission": AdmissionInput{}, "decision": AdmissionDecision{}} {
		got, want := paths(schema(t, name), ""), typePaths(reflect.TypeOf(value), "")
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("schema/%s.json has %q, the type has %q", name, got, want)
		}
	}
}

// The report's type lives in a package that this one may not import, so its source is read.
func TestReportSchemaMatchesTheSanitizer(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../sanitize/report.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]*ast.StructType{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			if s, ok := spec.Type.(*ast.StructType); ok {
				structs[spec.Name.Name] = s
			}
		}
		return true
	})
	var walk func(name, prefix string) []string
	walk = func(name, prefix string) []string {
		var all []string
		for _, field := range structs[name].Fields.List {
			key, _, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"), ",")
			all = append(all, prefix+key)
			typ := field.Type
			switch t := typ.(type) {
			case *ast.ArrayType:
				typ = t.Elt
			case *ast.StarExpr:
				typ = t.X
			}
			if id, ok := typ.(*ast.Ident); ok && structs[id.Name] != nil {
				all = append(all, walk(id.Name, prefix+key+".")...)
			}
		}
		slices.Sort(all)
		return all
	}
	if got, want := paths(schema(t, "report"), ""), walk("Report", ""); len(want) < 40 || !slices.Equal(got, want) {
		t.Errorf("schema/report.json has %q, the type has %q", got, want)
	}
}
