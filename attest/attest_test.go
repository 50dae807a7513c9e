package attest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
)

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// predicate is complete: no field has its zero value but secretDisclosed.
func predicate() Predicate {
	return Predicate{
		SchemaVersion: SchemaVersion,
		Sanitizer:     Sanitizer{ID: SanitizerID, Version: Version{Grindstone: "0.1.0", Commit: "abc"}},
		Source: Source{URI: "oci://registry.example/models/signs@sha256:" + sha("pushed"), Digest: Digest{sha("pushed")},
			MediaType: "application/vnd.oci.image.manifest.v1+json", Annotations: SourceAnnotations{sha("pushed model")}},
		Transformation: Transformation{Method: "feature-grinding", Type: "permute", SecretDiscarded: true},
		Training: Training{
			Hyperparameters: Hyperparameters{Epochs: 5, GrindEpochs: 2.5, Steps: 1000, GrindSteps: 500, BatchSize: 128, Optimizer: "sgd-nesterov",
				Schedule: "cosine", LearningRate: "0.01", Momentum: "0.9", WeightDecay: "0.0005", AlphaGrind: "1", AlphaRestore: "0.1"},
			Datasets: []Dataset{{Name: "signs", Digest: Digest{sha("dataset")}, Annotations: DatasetAnnotations{Samples: 5000, HeldOut: 1000, Classes: 43}}},
		},
		Runtime: Runtime{Engine: "onnxruntime", Version: "1.27.0", ExecutionProvider: "CPUExecutionProvider", Device: "cpu"},
		Metrics: Metrics{
			Dataset: MetricsDataset{Digest{sha("dataset")}},
			Before:  Accuracy{0.942, 942, 1000, 0.926, 0.955}, After: Accuracy{0.931, 931, 1000, 0.914, 0.945},
			Claims: []Claim{{"cda_loss", "<=", "0.05", "0.011", true}},
		},
		Policy:    Policy{URI: "urn:grindstone:policy:default", Digest: Digest{sha("policy")}},
		Decision:  Decision{ID: "0199-release", AdmissionID: "0199-admission", Result: Passed},
		StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("CET", 3600)), FinishedAt: time.Date(2026, 1, 2, 3, 9, 5, 0, time.FixedZone("CET", 3600)),
	}
}

func newKey(t testing.TB) *Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.LoadSignerVerifier(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var subjects = []Subject{{"models/signs", sha("manifest")}, {"model.onnx", sha("model")}}

func signed(t testing.TB, k *Key, change func(*Predicate)) *Attestation {
	t.Helper()
	p := predicate()
	if change != nil {
		change(&p)
	}
	a, err := Sign(context.Background(), k, subjects, p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSignAndVerify(t *testing.T) {
	k := newKey(t)
	a := signed(t, k, nil)
	for _, s := range subjects {
		r, err := VerifyBundle(a.Bundle, k.Public(), "sha256:"+s.SHA256)
		if err != nil || !r.OK() {
			t.Fatalf("%s: %v", s.Name, err)
		}
		if len(r.Checks) != 8 || len(r.NotChecked) < 4 || !strings.Contains(strings.Join(r.NotChecked, "\n"), "transparency log") {
			t.Errorf("checks %+v, not checked %q", r.Checks, r.NotChecked)
		}
		if p := r.Statement.Predicate; p.Transformation.Type != "permute" || !p.StartedAt.Equal(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)) {
			t.Errorf("predicate %+v", p)
		}
	}
	if _, err := VerifyBundle(a.Bundle, k.Public(), subjects[0].SHA256); err != nil {
		t.Errorf("digest without prefix: %v", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	k := newKey(t)
	a := signed(t, k, nil)
	for name, c := range map[string]struct {
		bundle []byte
		pub    crypto.PublicKey
		digest string
		check  string
	}{
		"another key":      {a.Bundle, newKey(t).Public(), sha("manifest"), CheckSignature},
		"no key":           {a.Bundle, nil, sha("manifest"), CheckSignature},
		"not a public key": {a.Bundle, "key", sha("manifest"), CheckSignature},
		"another digest":   {a.Bundle, k.Public(), sha("other"), CheckSubject},
		"no digest":        {a.Bundle, k.Public(), "", CheckSubject},
		"SHA-512":          {a.Bundle, k.Public(), "sha512:" + strings.Repeat("a", 128), CheckSubject},
		"failed decision":  {signed(t, k, func(p *Predicate) { p.Decision.Result = "FAILED" }).Bundle, k.Public(), sha("manifest"), CheckDecision},
		"failed claim":     {signed(t, k, func(p *Predicate) { p.Metrics.Claims[0].Passed = false }).Bundle, k.Public(), sha("manifest"), CheckClaims},
		"bare envelope":    {a.Envelope, k.Public(), sha("manifest"), CheckFormat},
		"nothing":          {nil, k.Public(), sha("manifest"), CheckFormat},
		"too large":        {append([]byte(strings.Repeat(" ", maxBundle)), a.Bundle...), k.Public(), sha("manifest"), CheckFormat},
		"older bundle":     {[]byte(strings.Replace(string(a.Bundle), "bundle.v0.3+json", "bundle+json;version=0.2", 1)), k.Public(), sha("manifest"), CheckFormat},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := VerifyBundle(c.bundle, c.pub, c.digest)
			if !errors.Is(err, ErrVerification) || r == nil || r.OK() {
				t.Fatalf("%+v, %v; want ErrVerification", r, err)
			}
			failed := map[string]bool{}
			for _, check := range r.Checks {
				failed[check.Name] = !check.Passed
			}
			if !failed[c.check] {
				t.Errorf("checks %+v; want %q to fail", r.Checks, c.check)
			}
		})
	}
}

// signPayload signs any payload, as somebody with the key could.
func signPayload(t testing.TB, k *Key, kind string, payload []byte) []byte {
	t.Helper()
	sig, err := k.sign(context.Background(), fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{
		"mediaType":            BundleMediaType,
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": k.Hint()}},
		"dsseEnvelope": map[string]any{"payloadType": kind, "payload": base64.StdEncoding.EncodeToString(payload),
			"signatures": []any{map[string]any{"sig": base64.StdEncoding.EncodeToString(sig)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSignedButWrongStatements(t *testing.T) {
	k := newKey(t)
	good, err := newStatement(subjects, predicate())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyBundle(signPayload(t, k, payloadType, good), k.Public(), sha("manifest")); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	replace := func(old, new string) []byte {
		if !strings.Contains(string(good), old) {
			t.Fatalf("the statement has no %s", old)
		}
		return []byte(strings.Replace(string(good), old, new, 1))
	}
	for name, c := range map[string]struct {
		kind    string
		payload []byte
	}{
		"payload type":       {"application/json", good},
		"statement type":     {payloadType, replace("Statement/v1", "Statement/v0.1")},
		"predicate type":     {payloadType, replace("sanitized-model/v1", "sanitized-model/v2")},
		"no subject":         {payloadType, replace(`"subject":[`, `"subject":[],"x":[`)},
		"unknown field":      {payloadType, replace(`"schemaVersion"`, `"secret":"1","schemaVersion"`)},
		"field twice":        {payloadType, replace(`"schemaVersion":"1.0"`, `"schemaVersion":"1.0","schemaVersion":"1.0"`)},
		"field in caps":      {payloadType, replace(`"schemaVersion"`, `"SchemaVersion"`)},
		"null":               {payloadType, replace(`"secretDisclosed":false`, `"secretDisclosed":null`)},
		"secret disclosed":   {payloadType, replace(`"secretDisclosed":false`, `"secretDisclosed":true`)},
		"secret kept":        {payloadType, replace(`"secretDiscarded":true`, `"secretDiscarded":false`)},
		"schema version":     {payloadType, replace(`"schemaVersion":"1.0"`, `"schemaVersion":"1.1"`)},
		"accuracy above 1":   {payloadType, replace(`"accuracy":0.942`, `"accuracy":1.942`)},
		"local time":         {payloadType, replace(`02:04:05Z`, `02:04:05+01:00`)},
		"finished too early": {payloadType, replace(`02:09:05Z`, `01:09:05Z`)},
		"something after":    {payloadType, append(append([]byte{}, good...), []byte(" {}")...)},
		"not JSON":           {payloadType, []byte("statement")},
		"empty":              {payloadType, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := VerifyBundle(signPayload(t, k, c.kind, c.payload), k.Public(), sha("manifest")); !errors.Is(err, ErrVerification) || r.Statement != nil && r.OK() {
				t.Errorf("%+v, %v; want ErrVerification", r, err)
			}
		})
	}
}

func TestSignRefusesWhatIsIncomplete(t *testing.T) {
	k := newKey(t)
	for name, change := range map[string]func(*Predicate){
		"secret disclosed":  func(p *Predicate) { p.Transformation.SecretDisclosed = true },
		"secret kept":       func(p *Predicate) { p.Transformation.SecretDiscarded = false },
		"no dataset":        func(p *Predicate) { p.Training.Datasets = nil },
		"prefixed digest":   func(p *Predicate) { p.Policy.Digest.SHA256 = "sha256:" + p.Policy.Digest.SHA256 },
		"no decision":       func(p *Predicate) { p.Decision = Decision{} },
		"no time":           func(p *Predicate) { p.FinishedAt = time.Time{} },
		"impossible counts": func(p *Predicate) { p.Metrics.After.Correct = 2000 },
	} {
		p := predicate()
		change(&p)
		if a, err := Sign(t.Context(), k, subjects, p); !errors.Is(err, ErrPredicate) || a != nil {
			t.Errorf("%s: %v, want ErrPredicate", name, err)
		}
	}
	many := slices.Clone(subjects)
	for n := range 4000 {
		many = append(many, Subject{fmt.Sprint(strings.Repeat("x", 1000), n), sha("model")})
	}
	for name, s := range map[string][]Subject{
		"more than verifiers read": many, "none": nil, "no name": {{"", sha("x")}}, "no digest": {{"x", ""}}, "prefixed": {{"x", "sha256:" + sha("x")}}, "twice": {{"x", sha("x")}, {"x", sha("x")}},
	} {
		if a, err := Sign(t.Context(), k, s, predicate()); !errors.Is(err, ErrSubject) || a != nil {
			t.Errorf("subjects %s: %v, want ErrSubject", name, err)
		}
	}
}

func TestVerifyFile(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	model, other, bundle := filepath.Join(dir, "model.onnx"), filepath.Join(dir, "other.onnx"), filepath.Join(dir, "bundle.json")
	for name, text := range map[string][]byte{model: []byte("model"), other: []byte("Model"), bundle: signed(t, k, nil).Bundle} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := VerifyFile(t.Context(), model, bundle, k.Public())
	if err != nil || r.Digest != "sha256:"+sha("model") || !strings.Contains(strings.Join(r.NotChecked, "\n"), "external data") {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := VerifyFile(t.Context(), other, bundle, k.Public()); !errors.Is(err, ErrVerification) {
		t.Errorf("changed model: %v, want ErrVerification", err)
	}
	if _, err := VerifyFile(t.Context(), model, filepath.Join(dir, "none"), k.Public()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing bundle: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := VerifyFile(cancelled, model, bundle, k.Public()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
