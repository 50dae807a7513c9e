package policy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"
)

const releaseStub = "package grindstone.release\ndecision := {\"release\": false, \"reasons\": [\"no\"]}\n"

// admissionOnly is a policy directory whose admission module has the given body.
func admissionOnly(t testing.TB, body string) string {
	return dir(t, map[string]string{"a.rego": "package grindstone.admission\n" + body, "r.rego": releaseStub})
}

func TestPoliciesThatDoNotLoad(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		data  map[string]any
		words string
	}{
		"no module":          {map[string]string{"data.json": "{}"}, nil, "holds no .rego file"},
		"syntax":             {map[string]string{"a.rego": "package grindstone.admission\ndecision := {"}, nil, "a.rego:2"},
		"syntax twice":       {map[string]string{"a.rego": "package grindstone.admission\ndecision := {", "b.rego": "package grindstone.release\n\ndecision :="}, nil, "b.rego:3"},
		"Rego v0":            {map[string]string{"a.rego": "package grindstone.admission\ndecision = d { d := {} }"}, nil, "a.rego:2"},
		"unknown function":   {map[string]string{"a.rego": "package grindstone.admission\ndecision := guess(1)", "r.rego": releaseStub}, nil, "undefined function guess"},
		"unsafe variable":    {map[string]string{"a.rego": "package grindstone.admission\ndecision := x", "r.rego": releaseStub}, nil, "x is unsafe"},
		"type":               {map[string]string{"a.rego": "package grindstone.admission\ndecision := 1 + \"a\"", "r.rego": releaseStub}, nil, "a.rego:2"},
		"misspelt input":     {map[string]string{"a.rego": "# METADATA\n# scope: package\n# schemas:\n#   - input: schema.admission\npackage grindstone.admission\ndecision := {\"action\": input.repositry}", "r.rego": releaseStub}, nil, "input.repositry"},
		"misspelt report":    {map[string]string{"r.rego": "# METADATA\n# scope: package\n# schemas:\n#   - input: schema.release\npackage grindstone.release\ndecision := {\"release\": input.report.secret_disgarded}"}, nil, "secret_disgarded"},
		"no admission rule":  {map[string]string{"r.rego": releaseStub}, nil, "data.grindstone.admission.decision"},
		"no release rule":    {map[string]string{"a.rego": "package grindstone.admission\ndecision := {}"}, nil, "data.grindstone.release.decision"},
		"conflicting rules":  {map[string]string{"a.rego": "package grindstone.admission\ndefault decision := {}\ndefault decision := 1", "r.rego": releaseStub}, nil, "multiple default rules"},
		"recursion":          {map[string]string{"a.rego": "package grindstone.admission\ndecision := decision", "r.rego": releaseStub}, nil, "recursive"},
		"broken data":        {map[string]string{"a.rego": "package grindstone.admission\ndecision := {}", "r.rego": releaseStub, "data.json": "{"}, nil, "data.json"},
		"data hides package": {map[string]string{"a.rego": "package grindstone.admission\ndecision := {}", "r.rego": releaseStub}, map[string]any{"grindstone": map[string]any{}}, "grindstone"},
		"data is not JSON":   {map[string]string{"a.rego": "package grindstone.admission\ndecision := {}", "r.rego": releaseStub}, map[string]any{"f": func() {}}, "not JSON"},
		"http.send":          {map[string]string{"a.rego": "package grindstone.admission\ndecision := http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"}).body", "r.rego": releaseStub}, nil, "undefined function http.send"},
		"net.lookup_ip_addr": {map[string]string{"a.rego": "package grindstone.admission\ndecision := net.lookup_ip_addr(\"localhost\")", "r.rego": releaseStub}, nil, "undefined function net.lookup_ip_addr"},
		"opa.runtime":        {map[string]string{"a.rego": "package grindstone.admission\ndecision := opa.runtime()", "r.rego": releaseStub}, nil, "undefined function opa.runtime"},
		"schemas in files":   {map[string]string{"a.rego": "package grindstone.admission\ndecision := {\"action\": \"admit\"} if json.match_schema(input, {\"$ref\": \"file:///etc/passwd\"})[0]"}, nil, "undefined function json.match_schema"},
		"a file as schema":   {map[string]string{"a.rego": "package grindstone.admission\ndecision := {\"action\": \"admit\"} if json.verify_schema({\"$ref\": \"file:///etc/passwd\"})[0]"}, nil, "undefined function json.verify_schema"},
		"graphql":            {map[string]string{"a.rego": "package grindstone.admission\ndecision := graphql.parse_query(input.tag)"}, nil, "undefined function graphql.parse_query"},
		"rego.parse_module":  {map[string]string{"a.rego": "package grindstone.admission\ndecision := rego.parse_module(\"a\", input.tag)"}, nil, "undefined function rego.parse_module"},
		"bits.lsh":           {map[string]string{"a.rego": "package grindstone.admission\ndecision := bits.lsh(1, input.size)"}, nil, "undefined function bits.lsh"},
		"problems not a set": {map[string]string{"a.rego": "package grindstone.admission\ndecision := {}", "r.rego": releaseStub, "s.rego": "package grindstone.settings\nproblems := true"}, nil, "must be a set of strings"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(t.Context(), Options{Dir: dir(t, c.files), Data: c.data, Log: quiet})
			if !errors.Is(err, ErrLoad) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("error %v, want ErrLoad with %q", err, c.words)
			}
		})
	}
	circle := dir(t, map[string]string{"a.rego": "package grindstone.admission\ndecision := {}", "r.rego": releaseStub})
	if err := os.Symlink(".", circle+"/again"); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Options{Dir: circle}); !errors.Is(err, ErrLoad) || !strings.Contains(err.Error(), "circle") {
		t.Errorf("a circle of links: %v", err)
	}
	if _, err := New(t.Context(), Options{Dir: "no-such-directory"}); !errors.Is(err, ErrLoad) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	if _, err := New(t.Context(), Options{Dir: "policy.go"}); !errors.Is(err, ErrLoad) {
		t.Errorf("a file for a directory: %v", err)
	}
}

func TestMisspeltSettingsDoNotLoad(t *testing.T) {
	_, err := New(t.Context(), Options{Log: quiet, Data: map[string]any{
		"settings":     map[string]any{"max_cda_loss": "5%"},
		"repositories": map[string]any{"x": map[string]any{"max_cda_los": 1}},
	}})
	for _, words := range []string{"data.settings.max_cda_loss must be a number", `there is no setting "max_cda_los"`} {
		if !errors.Is(err, ErrLoad) || !strings.Contains(err.Error(), words) {
			t.Errorf("error %v, want ErrLoad with %q", err, words)
		}
	}
}

func TestDecisionsThatAreNone(t *testing.T) {
	sanitize := `{"action": "sanitize", "method": "feature-grinding", "transformation": "permute", "dataset": "default"}`
	with := func(field, value string) string {
		return "decision := object.union(" + sanitize + ", {\"" + field + "\": " + value + "})"
	}
	for name, c := range map[string]struct {
		body  string
		kind  error
		words string
	}{
		"undefined":            {"decision := {\"action\": \"admit\"} if input.repository == \"other\"", ErrUndefined, ""},
		"undefined data":       {"decision := {\"action\": \"admit\"} if data.missing", ErrUndefined, ""},
		"conflict":             {"decision := {\"action\": \"admit\"} if input.tag != \"\"\ndecision := {\"action\": \"deny\", \"reasons\": [\"x\"]} if input.size > 1", ErrConflict, ""},
		"null":                 {"decision := null", ErrInvalid, "null"},
		"boolean":              {"decision := true", ErrInvalid, "boolean"},
		"string":               {"decision := \"admit\"", ErrInvalid, "string"},
		"set":                  {"decision contains \"admit\"", ErrInvalid, "list or set"},
		"number":               {"decision := 1", ErrInvalid, "number"},
		"empty":                {"decision := {}", ErrInvalid, "action is missing"},
		"null action":          {"decision := {\"action\": null}", ErrInvalid, "action is missing"},
		"unknown action":       {"decision := {\"action\": \"allow\"}", ErrInvalid, `unknown action "allow"`},
		"action of other case": {"decision := {\"action\": \"Admit\"}", ErrInvalid, "Admit"},
		"unknown field":        {"decision := {\"action\": \"admit\", \"reason\": \"x\"}", ErrInvalid, "reason"},
		"field of other case":  {"decision := {\"Action\": \"admit\"}", ErrInvalid, "Action"},
		"field by folding":     {"decision := {\"action\": \"deny\", \"rea\u017fons\": [\"x\"]}", ErrInvalid, "unknown field"},
		"wrong type":           {"decision := {\"action\": [\"admit\"]}", ErrInvalid, "field action is of type array, and has to be a string"},
		"rules for fields":     {"decision.action := \"admit\" if input.repository == \"other\"\ndecision.reasons := [\"x\"]", ErrInvalid, "action is missing"},
		"reasons of wrong type": {"decision := {\"action\": \"deny\", \"reasons\": \"x\"}",
			ErrInvalid, "reasons"},
		"deny without reason":      {"decision := {\"action\": \"deny\"}", ErrInvalid, "reason"},
		"empty reason":             {"decision := {\"action\": \"quarantine\", \"reasons\": [\"\"]}", ErrInvalid, "reason"},
		"admit with method":        {"decision := {\"action\": \"admit\", \"method\": \"feature-grinding\"}", ErrInvalid, "takes no method"},
		"unknown method":           {with("method", `"pruning"`), ErrInvalid, "pruning"},
		"unknown transformation":   {with("transformation", `"shuffle"`), ErrInvalid, "shuffle"},
		"unknown dataset":          {with("dataset", `"other"`), ErrInvalid, `dataset "other" is not configured`},
		"unknown parameter":        {with("parameters", `{"epoch": 1}`), ErrInvalid, "epoch"},
		"fractional parameter":     {with("parameters", `{"epochs": 1.5}`), ErrInvalid, "field parameters.epochs is of type number 1.5, and has to be a whole number"},
		"parameters of wrong type": {with("parameters", `[1]`), ErrInvalid, "field parameters is of type array, and has to be an object"},
		"negative parameter":       {with("parameters", `{"steps": -1}`), ErrInvalid, "parameters.steps"},
		"unknown provider":         {with("parameters", `{"provider": "tpu"}`), ErrInvalid, "tpu"},
		"builtin error":            {"decision := {\"action\": \"admit\"} if to_number(input.repository) > 1", ErrEvaluation, "to_number"},
		"division by zero":         {"decision := {\"action\": \"admit\"} if 1 / count(input.annotations) > 1", ErrEvaluation, "divide by zero"},
		"function output differs":  {"f(_) := 1\nf(_) := 2\ndecision := {\"action\": \"admit\"} if f(input.tag) == 1", ErrConflict, ""},
		"slow":                     {"decision := {\"action\": \"admit\"} if count([1 | some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i * j < 0]) == 0", ErrTimeout, ""},
		"slow builtin":             {"decision := {\"action\": \"admit\"} if count(numbers.range(1, 1000000000)) == 0", ErrTimeout, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := engine(t, Options{Dir: admissionOnly(t, c.body), Timeout: 300 * time.Millisecond})
			d, err := e.Admission(t.Context(), push())
			var failure *Error
			if !errors.Is(err, c.kind) || !errors.As(err, &failure) || !strings.Contains(err.Error(), c.words) {
				t.Fatalf("%+v, error %v, want %v with %q", d, err, c.kind, c.words)
			}
			if d.Action != "" || failure.ID == "" || failure.ID != d.ID || failure.Question != "admission" {
				t.Errorf("decision %+v beside error %+v", d, failure)
			}
		})
	}
}

// TestBuiltinThatDoesNotLookAtTheTime: a pusher's number of a million digits, of which OPA's own limit is not kept.
func TestBuiltinThatDoesNotLookAtTheTime(t *testing.T) {
	e := engine(t, Options{Dir: admissionOnly(t, "decision := {\"action\": \"admit\"} if json.unmarshal(input.annotations.card).score > 5"), Timeout: 200 * time.Millisecond})
	in := push()
	in.Annotations = map[string]string{"card": `{"score": ` + strings.Repeat("9", 1_500_000) + `}`}
	begin := time.Now()
	if d, err := e.Admission(t.Context(), in); !errors.Is(err, ErrTimeout) || d.Action != "" {
		t.Errorf("%+v, %v", d, err)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestBuiltinThatBreaksDown: a panic in a builtin function is no decision, and not the end of the process.
func TestBuiltinThatBreaksDown(t *testing.T) {
	rego.RegisterBuiltin1(&rego.Function{Name: "test.break_down", Decl: types.NewFunction(types.Args(types.S), types.B)},
		func(rego.BuiltinContext, *ast.Term) (*ast.Term, error) { panic("out of order") })
	e := engine(t, Options{Dir: admissionOnly(t, "decision := {\"action\": \"admit\"} if test.break_down(input.tag)")})
	if d, err := e.Admission(t.Context(), push()); !errors.Is(err, ErrEvaluation) || !strings.Contains(err.Error(), "out of order") || d.Action != "" {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestRulesForFields: a decision may be put together of rules for its fields.
func TestRulesForFields(t *testing.T) {
	e := engine(t, Options{Dir: admissionOnly(t, "decision.action := \"deny\"\ndecision.reasons contains \"x\" if input.tag == \"v1\"")})
	if d, err := e.Admission(t.Context(), push()); err != nil || d.Action != Deny || d.Reasons[0] != "x" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestReleasesThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		rule string
		kind error
	}{
		"undefined":               {`decision := {"release": true} if input.report.secret_discarded == "yes"`, ErrUndefined},
		"conflict":                {"decision := {\"release\": true}\ndecision := {\"release\": false, \"reasons\": [\"x\"]} if input.report", ErrConflict},
		"not an object":           {`decision := true`, ErrInvalid},
		"release of wrong type":   {`decision := {"release": "true"}`, ErrInvalid},
		"release with reasons":    {`decision := {"release": true, "reasons": ["but"]}`, ErrInvalid},
		"refusal without reasons": {`decision := {"release": false}`, ErrInvalid},
		"nothing":                 {`decision := {}`, ErrInvalid},
		"failed claim":            {`decision := {"release": true, "claims": [{"metric": "m", "comparator": "<=", "threshold": "1", "value": "2", "passed": false}]}`, ErrInvalid},
		"incomplete claim":        {`decision := {"release": true, "claims": [{"metric": "m", "passed": true}]}`, ErrInvalid},
		"unknown comparator":      {`decision := {"release": true, "claims": [{"metric": "m", "comparator": "~", "threshold": "1", "value": "1", "passed": true}]}`, ErrInvalid},
		"unknown field":           {`decision := {"release": true, "allow": true}`, ErrInvalid},
		"runtime error":           {`decision := {"release": true} if input.report.before - input.report.after < 1`, ErrEvaluation},
	} {
		t.Run(name, func(t *testing.T) {
			e := engine(t, Options{Dir: dir(t, map[string]string{
				"a.rego": "package grindstone.admission\ndecision := {\"action\": \"admit\"}", "r.rego": "package grindstone.release\n" + c.rule,
			})})
			d, err := e.Release(t.Context(), ReleaseInput{Admission: push(), Report: report(0.9, 0.9)})
			if !errors.Is(err, c.kind) || d.Release {
				t.Errorf("%+v, error %v, want %v", d, err, c.kind)
			}
		})
	}
}

// TestReasonsAreSentences: pushers choose names and annotations that a policy puts into its reasons, which clients print and records keep.
func TestReasonsAreSentences(t *testing.T) {
	e := engine(t, Options{Dir: admissionOnly(t, `decision := {"action": "deny", "reasons": [sprintf("no %s, %d", [input.annotations.team, i]) | some i in numbers.range(1, 100)]}`)})
	in := push()
	in.Annotations = map[string]string{"team": "\x1b[2Jred\u202e\u009b1m\nnews " + strings.Repeat("ö", 1<<14)}
	d, err := e.Admission(t.Context(), in)
	if err != nil || len(d.Reasons) != maxReasons+1 || d.Reasons[maxReasons] != fmt.Sprintf("and %d more", 100-maxReasons) {
		t.Fatalf("%d reasons, %v", len(d.Reasons), err)
	}
	if r := d.Reasons[0]; !strings.HasPrefix(r, "no [2Jred1m news ö") || !strings.HasSuffix(r, "ö…") || len([]rune(r)) != maxReason+1 {
		t.Errorf("reason %q", r)
	}
	e = engine(t, Options{Dir: admissionOnly(t, "decision := {\"action\": \"deny\", \"reasons\": [\"\u200b\"]}")})
	if d, err := e.Admission(t.Context(), in); !errors.Is(err, ErrInvalid) || d.Action != "" {
		t.Errorf("%+v, %v", d, err)
	}
	e = engine(t, Options{Dir: dir(t, map[string]string{
		"a.rego": "package grindstone.admission\ndecision := {\"action\": \"admit\"}",
		"r.rego": "package grindstone.release\ndecision := {\"release\": false, \"reasons\": [input.admission.annotations.team]}",
	})})
	r, err := e.Release(t.Context(), ReleaseInput{Admission: in, Report: report(0.9, 0.9)})
	if err != nil || len(r.Reasons) != 1 || strings.Contains(r.Reasons[0], "\x1b") || len([]rune(r.Reasons[0])) != maxReason+1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCancelledCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := engine(t, Options{Dir: admissionOnly(t, "decision := {\"action\": \"admit\"} if count([1 | some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i * j < 0]) == 0")})
	if d, err := e.Admission(ctx, push()); err == nil || d.Action != "" {
		t.Errorf("%+v, %v, want an error", d, err)
	}
}

func TestSchemasAreNotFetched(t *testing.T) {
	var calls int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		_, _ = w.Write([]byte(`{"type": "object"}`))
	}))
	defer server.Close()
	if _, err := net.Dial("tcp", server.Listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), Options{Log: quiet, Dir: dir(t, map[string]string{
		"a.rego": "# METADATA\n# scope: package\n# schemas:\n#   - input: {\"$ref\": \"" + server.URL + "/s.json\"}\npackage grindstone.admission\ndecision := {\"action\": input.tag}", "r.rego": releaseStub,
	})})
	if err == nil || calls != 0 {
		t.Errorf("error %v after %d requests, want an error after none", err, calls)
	}
}

func TestDirectoryAsMountedByKubernetes(t *testing.T) {
	root := dir(t, map[string]string{
		"..2026_01_02/a.rego": "package grindstone.admission\ndefault decision := {\"action\": \"admit\"}", "..2026_01_02/r.rego": releaseStub,
		"..2026_01_02/house/old.rego": "package grindstone.admission\ndecision := {\"action\": \"deny\", \"reasons\": [\"old\"]} if input.tag == \"old\"", "limits.json": "{}",
		"..2026_01_02/data.yaml": "limits:\n  n: 3\n", "team/data.json": `{"n": 4}`,
	})
	for link, target := range map[string]string{
		"..data": "..2026_01_02", "a.rego": "..data/a.rego", "r.rego": "..data/r.rego", "data.yaml": "..data/data.yaml",
		"house": "..data/house", "notes.txt": "nowhere",
	} {
		if err := os.Symlink(target, root+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	e := engine(t, Options{Dir: root})
	if d, err := e.Admission(t.Context(), push()); err != nil || d.Action != Admit {
		t.Errorf("%+v, %v", d, err)
	}
	in := push()
	in.Tag = "old"
	if d, err := e.Admission(t.Context(), in); err != nil || d.Action != Deny {
		t.Errorf("without the rules in a linked folder: %+v, %v", d, err)
	}
	if !slices.Equal(e.Unread(), []string{"limits.json"}) {
		t.Errorf("unread %q", e.Unread())
	}
	if !strings.HasPrefix(e.URI(), "file:///") {
		t.Errorf("URI %q", e.URI())
	}
	src, err := read(root)
	if err != nil {
		t.Fatal(err)
	}
	if limits := src.data["limits"].(map[string]any); limits["n"] == nil || src.data["team"].(map[string]any)["n"] == nil {
		t.Errorf("data %v", src.data)
	}
}
