package attest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func approval() Approval {
	return Approval{
		SchemaVersion: SchemaVersion,
		Approver:      Approver{Kind: ByOperator, Identity: "ada"},
		Reason:        "looked at by hand",
		Source: ApprovedSource{URI: "oci://registry.example/models/signs@sha256:" + sha("manifest"), Digest: Digest{sha("manifest")},
			MediaType: ocispec.MediaTypeImageManifest},
		Policy:     Policy{URI: "urn:grindstone:policy:default", Digest: Digest{sha("policy")}},
		Decision:   Decision{ID: "0199-approval", Result: Approved},
		Issuer:     Sanitizer{ID: SanitizerID, Version: Version{Grindstone: "0.1.0"}},
		ApprovedAt: time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("CET", 3600)),
	}
}

// TestApprovalIsNoSanitizing: an approval is signed and attached like any attestation, says what it is, and passes only where asked to.
func TestApprovalIsNoSanitizing(t *testing.T) {
	k := newKey(t)
	a, err := SignApproval(context.Background(), k, subjects, approval())
	if err != nil {
		t.Fatal(err)
	}
	r, err := VerifyBundle(a.Bundle, k.Public(), sha("manifest"))
	if !errors.Is(err, ErrVerification) || !strings.Contains(err.Error(), "approved without sanitizing, by operator ada: looked at by hand") {
		t.Errorf("an approval is verified as %v", err)
	}
	text, err := json.Marshal(r.Statement)
	if err != nil || !strings.Contains(string(text), `"predicateType":"`+ApprovedPredicateType+`"`) || !strings.Contains(string(text), `"sanitized":false`) ||
		strings.Contains(string(text), "transformation") {
		t.Errorf("the statement is printed as %s, %v", text, err)
	}
	if err := r.AcceptApproved(); err != nil {
		t.Errorf("accepted: %v", err)
	}

	// Nothing else is forgiven.
	r, _ = VerifyBundle(a.Bundle, k.Public(), sha("another manifest"))
	if err := r.AcceptApproved(); !errors.Is(err, ErrVerification) || !strings.Contains(err.Error(), CheckSubject) {
		t.Errorf("an approval of something else is accepted: %v", err)
	}
	r, _ = VerifyBundle(a.Bundle, newKey(t).Public(), sha("manifest"))
	if err := r.AcceptApproved(); !errors.Is(err, ErrVerification) {
		t.Errorf("an approval by another key is accepted: %v", err)
	}
	rejected := signed(t, k, func(p *Predicate) { p.Decision.Result = "FAILED" })
	r, _ = VerifyBundle(rejected.Bundle, k.Public(), sha("manifest"))
	if err := r.AcceptApproved(); !errors.Is(err, ErrVerification) {
		t.Errorf("a sanitized model that was not passed is accepted: %v", err)
	}

	referrer, legacy, err := a.Artifacts(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:" + "", Size: 1})
	if !errors.Is(err, ErrSubject) {
		t.Errorf("%v %v %v", referrer, legacy, err)
	}
	referrer, legacy, err = a.Artifacts(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("manifest"), Size: 1})
	if err != nil || !strings.Contains(string(referrer.Manifest), ApprovedPredicateType) || !strings.Contains(string(legacy.Manifest), ApprovedPredicateType) ||
		strings.Contains(string(referrer.Manifest)+string(legacy.Manifest), PredicateType) {
		t.Errorf("the artifacts say %s %s, %v", referrer.Manifest, legacy.Manifest, err)
	}
}

func TestApprovalsThatAreNotSigned(t *testing.T) {
	for name, change := range map[string]func(*Approval){
		"sanitized":   func(a *Approval) { a.Sanitized = true },
		"nobody":      func(a *Approval) { a.Approver.Identity = "" },
		"who":         func(a *Approval) { a.Approver.Kind = "friend" },
		"no reason":   func(a *Approval) { a.Reason = "" },
		"no source":   func(a *Approval) { a.Source.Digest.SHA256 = "" },
		"passed":      func(a *Approval) { a.Decision.Result = Passed },
		"no decision": func(a *Approval) { a.Decision.ID = "" },
		"no policy":   func(a *Approval) { a.Policy.Digest.SHA256 = "x" },
		"no time":     func(a *Approval) { a.ApprovedAt = time.Time{} },
		"no issuer":   func(a *Approval) { a.Issuer.Version.Grindstone = "" },
		"no version":  func(a *Approval) { a.SchemaVersion = "" },
	} {
		a := approval()
		change(&a)
		if _, err := SignApproval(context.Background(), newKey(t), subjects, a); !errors.Is(err, ErrPredicate) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseApproval([]byte(`{"schemaVersion":"1.0","transformation":{}}`)); !errors.Is(err, ErrPredicate) {
		t.Errorf("an unknown field: %v", err)
	}
}
