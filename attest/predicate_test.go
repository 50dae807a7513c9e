package attest

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// allowed is every field of the predicate. A field is added here only after making sure that it cannot tell anything about the
// transformation's secret: neither its values, nor a digest of them, nor the state of the generator that drew it.
var allowed = strings.Fields(`
schemaVersion
sanitizer.id sanitizer.version.grindstone sanitizer.version.commit
source.uri source.digest.sha256 source.mediaType source.annotations.onnxSha256
source.referrers.digest.sha256 source.referrers.mediaType source.referrers.artifactType
transformation.method transformation.type transformation.secretDisclosed transformation.secretDiscarded
training.hyperparameters.epochs training.hyperparameters.grindEpochs training.hyperparameters.steps training.hyperparameters.grindSteps
training.hyperparameters.batchSize training.hyperparameters.optimizer training.hyperparameters.schedule training.hyperparameters.learningRate
training.hyperparameters.momentum training.hyperparameters.weightDecay training.hyperparameters.alphaGrind training.hyperparameters.alphaRestore
training.datasets.name training.datasets.digest.sha256
training.datasets.annotations.samples training.datasets.annotations.heldOut training.datasets.annotations.classes
runtime.engine runtime.version runtime.executionProvider runtime.device
metrics.dataset.digest.sha256
metrics.before.accuracy metrics.before.correct metrics.before.samples metrics.before.low metrics.before.high
metrics.after.accuracy metrics.after.correct metrics.after.samples metrics.after.low metrics.after.high
metrics.claims.metric metrics.claims.comparator metrics.claims.threshold metrics.claims.value metrics.claims.passed
policy.uri policy.digest.sha256
decision.id decision.admissionId decision.result
startedAt finishedAt
`)

func TestPredicateHasNoRoomForTheSecret(t *testing.T) {
	fromType := typeLeaves(t, reflect.TypeFor[Predicate](), "")
	p := severalModels()
	p.Source.Referrers = []Referrer{{Digest{sha("a referrer")}, "media type", "artifact type"}}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	fromJSON := jsonLeaves(value, "")
	want := slices.Clone(allowed)
	for _, name := range allowed { // each further model says the same of itself
		if top, _, _ := strings.Cut(name, "."); slices.Contains([]string{"transformation", "training", "runtime", "metrics", "decision", "startedAt", "finishedAt"}, top) {
			want = append(want, "furtherModels."+name)
		}
	}
	want = append(want, "furtherModels.name", "furtherModels.source.onnxSha256")
	slices.Sort(want)
	for name, got := range map[string][]string{"type": fromType, "JSON": fromJSON} {
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("the predicate's %s has fields %q, allowed are %q", name, got, want)
		}
	}
}

// typeLeaves lists JSON names to scalars. Types that could hold anything are refused.
func typeLeaves(t *testing.T, typ reflect.Type, path string) []string {
	switch typ.Kind() {
	case reflect.Slice:
		if typ.Elem().Kind() != reflect.Struct {
			t.Errorf("%s is a %s: lists of scalars could hold a permutation", path, typ)
		}
		return typeLeaves(t, typ.Elem(), path)
	case reflect.Struct:
		if typ.String() == "time.Time" {
			return []string{path}
		}
		var all []string
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			all = append(all, typeLeaves(t, typ.Field(i).Type, strings.TrimPrefix(path+"."+name, "."))...)
		}
		return all
	case reflect.Map, reflect.Interface, reflect.Pointer, reflect.Array, reflect.Func:
		t.Errorf("%s is a %s, which could hold anything", path, typ)
	}
	return []string{path}
}

func jsonLeaves(value any, path string) []string {
	var all []string
	switch v := value.(type) {
	case map[string]any:
		for name, below := range v {
			all = append(all, jsonLeaves(below, strings.TrimPrefix(path+"."+name, "."))...)
		}
	case []any:
		for _, below := range v {
			all = append(all, jsonLeaves(below, path)...)
		}
	default:
		all = []string{path}
	}
	return all
}

// Removing any required field, or changing a type, must be noticed by the parser itself, signature or not.
func TestParsePredicateIsStrict(t *testing.T) {
	text, err := json.Marshal(predicate().normal())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePredicate(text); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2]string{
		"text for a number": {`"steps":1000`, `"steps":"1000"`},
		"fraction":          {`"steps":1000`, `"steps":1000.5`},
		"too large":         {`"steps":1000`, `"steps":10000000000000000000`},
		"number for text":   {`"learningRate":"0.01"`, `"learningRate":0.01`},
		"object for a list": {`"claims":[`, `"claims":{},"x":[`},
		"null list":         {`"datasets":[{`, `"datasets":null,"x":[{`},
		"list for object":   {`"decision":{`, `"decision":[],"x":{`},
		"unknown below":     {`"method":`, `"permutation":[2,0,1],"method":`},
		"folded name":       {`"sanitizer"`, `"ſanitizer"`},
		"no claims":         {`"claims":`, `"Claims":`},
	} {
		changed := strings.Replace(string(text), c[0], c[1], 1)
		if changed == string(text) {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := ParsePredicate([]byte(changed)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := ParsePredicate([]byte(strings.Repeat("[", 10000))); err == nil {
		t.Error("deep nesting was accepted")
	}
}

func FuzzParsePredicate(f *testing.F) {
	text, err := json.Marshal(predicate().normal())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"schemaVersion":"1.0","schemaVersion":"1.0"}`))
	f.Add([]byte(`{"training":{"datasets":[null]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePredicate(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParsePredicate(again)
		if err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("read back: %v\n%+v\n%+v", err, p, q)
		}
	})
}

func FuzzVerifyBundle(f *testing.F) {
	k := newKey(f)
	good := signed(f, k, nil)
	f.Add(good.Bundle)
	f.Add(good.Envelope)
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{},"verificationMaterial":{"publicKey":{}}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"signatures":[null]},"verificationMaterial":{"certificate":{"rawBytes":"AA=="}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := VerifyBundle(data, k.Public(), sha("manifest"))
		if (err == nil) != r.OK() {
			t.Fatalf("error %v, result %+v", err, r)
		}
		if err == nil && r.Statement.Predicate.Decision.ID != "0199-release" {
			t.Fatalf("a forged statement passed: %+v", r.Statement)
		}
		envelope := &Result{}
		if b, ok := envelope.parseEnvelope(data, k.Public()); ok {
			envelope.verify(b, k.Public(), []want{{CheckManifest, "the manifest", sha("manifest"), true}})
			if envelope.OK() && envelope.Statement.Predicate.Decision.ID != "0199-release" {
				t.Fatalf("a forged envelope passed: %+v", envelope.Statement)
			}
		}
	})
}

// severalModels is a predicate about a package of two models.
func severalModels() Predicate {
	p := predicate()
	p.SchemaVersion = SchemaVersionSeveral
	p.FurtherModels = []FurtherModel{{
		Name: "b.onnx", Source: SourceAnnotations{ONNXSHA256: sha("b")}, Transformation: p.Transformation, Training: p.Training, Runtime: p.Runtime,
		Metrics: p.Metrics, Decision: p.Decision, StartedAt: p.StartedAt, FinishedAt: p.FinishedAt,
	}}
	return p
}

// What is said of a further model counts as what is said of the first.
func TestFurtherModelsCount(t *testing.T) {
	k := newKey(t)
	subjects := []Subject{{"package", sha("manifest")}, {"a.onnx", sha("a, sanitized")}, {"b.onnx", sha("b, sanitized")}}
	for name, c := range map[string]struct {
		change  func(*Predicate, *FurtherModel)
		invalid string // what Sign says
		check   string // that fails
	}{
		"as it is":       {func(*Predicate, *FurtherModel) {}, "", ""},
		"version of one": {func(p *Predicate, _ *FurtherModel) { p.SchemaVersion = SchemaVersion }, "schemaVersion", ""},
		"version of two": {func(p *Predicate, _ *FurtherModel) { p.FurtherModels = nil }, "schemaVersion", ""},
		"secret kept":    {func(_ *Predicate, m *FurtherModel) { m.Transformation.SecretDiscarded = false }, "furtherModels[0].transformation.secretDiscarded", ""},
		"no source":      {func(_ *Predicate, m *FurtherModel) { m.Source.ONNXSHA256 = "" }, "furtherModels[0].source.onnxSha256", ""},
		"without a name": {func(_ *Predicate, m *FurtherModel) { m.Name = "" }, "furtherModels[0].name", ""},
		"a claim that failed": {func(_ *Predicate, m *FurtherModel) {
			m.Metrics.Claims = []Claim{{Metric: "cda_loss", Comparator: "<=", Threshold: "0.05", Value: "0.5"}}
		}, "", CheckClaims},
		"not passed": {func(_ *Predicate, m *FurtherModel) { m.Decision.Result = "FAILED" }, "", CheckDecision},
	} {
		t.Run(name, func(t *testing.T) {
			p := severalModels()
			c.change(&p, &p.FurtherModels[0])
			a, err := Sign(t.Context(), k, subjects, p)
			if c.invalid != "" {
				if !errors.Is(err, ErrPredicate) || !strings.Contains(err.Error(), c.invalid) {
					t.Errorf("%v, want ErrPredicate about %s", err, c.invalid)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r, err := VerifyBundle(a.Bundle, k.Public(), sha("b, sanitized"))
			if (err == nil) != (c.check == "") || c.check != "" && !strings.Contains(err.Error(), c.check) {
				t.Errorf("%v, %+v", err, r.Checks)
			}
		})
	}
}

// A predicate and an approval list what was attached to the pushed package, under a version of their own.
func TestReferrersAreListed(t *testing.T) {
	k := newKey(t)
	subjects := []Subject{{"package", sha("manifest")}}
	good := []Referrer{{Digest{sha("a referrer")}, "application/vnd.oci.image.manifest.v1+json", "application/vnd.example.sbom"}}
	for name, c := range map[string]struct {
		version   string
		referrers []Referrer
		invalid   string
	}{
		"as it is":       {SchemaVersionReferrers, good, ""},
		"older version":  {SchemaVersion, good, "schemaVersion"},
		"without any":    {SchemaVersionReferrers, nil, "schemaVersion"},
		"no digest":      {SchemaVersionReferrers, []Referrer{{MediaType: "a/b"}}, "source.referrers[0].digest"},
		"no media type":  {SchemaVersionReferrers, []Referrer{good[0], {Digest: good[0].Digest}}, "source.referrers[1].mediaType"},
		"another digest": {SchemaVersionReferrers, []Referrer{{Digest{"sha512:00"}, "a/b", ""}}, "source.referrers[0].digest"},
	} {
		p, a := predicate(), approval()
		p.SchemaVersion, p.Source.Referrers = c.version, c.referrers
		a.SchemaVersion, a.Source.Referrers = c.version, c.referrers
		signed, err := Sign(t.Context(), k, subjects, p)
		_, approved := SignApproval(t.Context(), k, subjects, a)
		for kind, err := range map[string]error{"predicate": err, "approval": approved} {
			if (err != nil) != (c.invalid != "") || err != nil && (!errors.Is(err, ErrPredicate) || !strings.Contains(err.Error(), c.invalid)) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
		}
		if err != nil {
			continue
		}
		r, err := VerifyBundle(signed.Bundle, k.Public(), sha("manifest"))
		if err != nil || !slices.Equal(r.Statement.Predicate.Source.Referrers, good) {
			t.Errorf("%s: verified as %+v, %v", name, r, err)
		}
	}
	several := severalModels()
	several.SchemaVersion, several.Source.Referrers = SchemaVersionReferrers, good
	several = several.normal()
	if err := several.Validate(); err != nil {
		t.Error(err)
	}
}
