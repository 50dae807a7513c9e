package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ApprovedPredicateType is the URI of the predicate of a model that was released without sanitizing. It differs from PredicateType, so
// that no verifier that asks for sanitized models can take one for the other.
const ApprovedPredicateType = "https://grindstone.dev/approved-model/v1"

// Approved is the result that an Approval attests.
const Approved = "APPROVED"

// Who may approve a model, as Approver.Kind.
const (
	ByOperator = "operator" // a person, who gave a reason
	ByPolicy   = "policy"   // the policy's admission question answered admit
)

// Approval says who let a model pass as it was pushed, and why. It claims nothing about the model.
type Approval struct {
	SchemaVersion string         `json:"schemaVersion"` // as Version says
	Sanitized     bool           `json:"sanitized"`     // always false
	Approver      Approver       `json:"approver"`
	Reason        string         `json:"reason"`
	Source        ApprovedSource `json:"source"`
	Policy        Policy         `json:"policy"`   // that was in force
	Decision      Decision       `json:"decision"` // id of the approval, id of the admission decision if there was one, "APPROVED"
	Issuer        Sanitizer      `json:"issuer"`   // the program that released it
	ApprovedAt    time.Time      `json:"approvedAt"`
}

// Approver is who let the model pass.
type Approver struct {
	Kind     string `json:"kind"`               // ByOperator or ByPolicy
	Identity string `json:"identity,omitempty"` // of the operator
}

// ApprovedSource is the pushed package, which is also the released one.
type ApprovedSource struct {
	URI       string     `json:"uri"` // oci://host/repository@sha256:...
	Digest    Digest     `json:"digest"`
	MediaType string     `json:"mediaType"`
	Referrers []Referrer `json:"referrers,omitempty"`
}

// Version is the schema version that the approval's fields need.
func (a *Approval) Version() string {
	if len(a.Source.Referrers) > 0 {
		return SchemaVersionReferrers
	}
	return SchemaVersion
}

// SignApproval states a about the subjects: the released manifest and each of its ONNX files, if there are any. Errors are those of Sign.
func SignApproval(ctx context.Context, k *Key, subjects []Subject, a Approval) (*Attestation, error) {
	a.ApprovedAt = a.ApprovedAt.UTC().Truncate(time.Second)
	if err := a.Validate(); err != nil {
		return nil, err
	}
	payload, err := encodeStatement(subjects, ApprovedPredicateType, a)
	if err != nil {
		return nil, err
	}
	return signStatement(ctx, k, payload)
}

// ParseApproval reads an approval in its strict form, as ParsePredicate does.
func ParseApproval(data []byte) (*Approval, error) {
	var a Approval
	if err := unmarshalStrict(data, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPredicate, err)
	}
	if err := a.Validate(); err != nil {
		return nil, err
	}
	return &a, nil
}

// Validate reports everything that is missing or contradictory, as ErrPredicate.
func (a *Approval) Validate() error {
	var all []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			all = append(all, fmt.Errorf(format, args...))
		}
	}
	need(a.SchemaVersion == a.Version(), "schemaVersion is %q, want %s", a.SchemaVersion, a.Version())
	checkReferrers(a.Source.Referrers, need)
	need(!a.Sanitized, "sanitized is true: an approval is about a model that was not")
	need(a.Approver.Kind == ByOperator || a.Approver.Kind == ByPolicy, "approver.kind is %q, want %s or %s", a.Approver.Kind, ByOperator, ByPolicy)
	need(a.Approver.Kind != ByOperator || a.Approver.Identity != "", "approver.identity is missing")
	need(a.Reason != "", "reason is missing")
	need(a.Source.URI != "" && a.Source.MediaType != "", "source.uri or source.mediaType is missing")
	need(hexSHA256.MatchString(a.Source.Digest.SHA256), "source.digest is %q, want sha256 as 64 lower-case hex digits", a.Source.Digest.SHA256)
	need(a.Policy.URI != "" && hexSHA256.MatchString(a.Policy.Digest.SHA256), "policy.uri or policy.digest is missing")
	need(a.Decision.ID != "" && a.Decision.Result == Approved, "decision.id is missing or decision.result is %q, want %s", a.Decision.Result, Approved)
	need(a.Issuer.ID == SanitizerID && a.Issuer.Version.Grindstone != "", "issuer is %q %q, want %s and a version", a.Issuer.ID, a.Issuer.Version.Grindstone, SanitizerID)
	_, offset := a.ApprovedAt.Zone()
	need(!a.ApprovedAt.IsZero() && offset == 0, "approvedAt must be given, in UTC")
	if len(all) > 0 {
		return fmt.Errorf("%w: %w", ErrPredicate, errors.Join(all...))
	}
	return nil
}

// String says what an approval amounts to.
func (a *Approval) String() string {
	by := "the policy"
	if a.Approver.Kind == ByOperator {
		by = "operator " + a.Approver.Identity
	}
	return fmt.Sprintf("approved without sanitizing, by %s: %s", by, a.Reason)
}

// MarshalJSON writes the predicate that the statement has.
func (s Statement) MarshalJSON() ([]byte, error) {
	p := signedStatement{Type: s.Type, Subject: s.Subject, PredicateType: s.PredicateType, Predicate: s.Predicate}
	if s.Approval != nil {
		p.Predicate = s.Approval
	}
	return json.Marshal(p)
}

// created is when the statement's subject came to be what it is.
func (s *Statement) created() time.Time {
	if s.Approval != nil {
		return s.Approval.ApprovedAt
	}
	return s.Predicate.FinishedAt
}

// verifyApproval goes on where verify found an approval. Without AcceptApproved it never passes.
func (r *Result) verifyApproval(p *envelopePayload, wants []want) {
	approval, err := ParseApproval(p.Predicate)
	version := SchemaVersion
	if err == nil {
		version = approval.SchemaVersion
	}
	if !r.pass(CheckPredicate, err, "version %s", version) {
		return
	}
	r.Statement = &Statement{Type: p.Type, Subject: p.Subject, PredicateType: p.PredicateType, Approval: approval}
	r.checkSubjects(wants)
	r.pass(CheckDecision, nil, "%s, decision %s", Approved, approval.Decision.ID)
	r.pass(CheckSanitized, errors.New(approval.String()), "")
}

// approved reports whether all that keeps the result from being OK is that the model was approved without sanitizing.
func (r *Result) approved() bool {
	for _, c := range r.Checks {
		if c.Passed == (c.Name == CheckSanitized) {
			return false
		}
	}
	return r.Statement != nil && r.Statement.Approval != nil
}

// AcceptApproved lets a model pass that was approved without sanitizing, if every other check passed. The error is Err's.
func (r *Result) AcceptApproved() error {
	for i, c := range r.Checks {
		if c.Name == CheckSanitized && r.Statement != nil && r.Statement.Approval != nil {
			r.Checks[i].Passed = true
		}
	}
	return r.Err()
}
