package attest

import (
	"errors"
	"fmt"
	"strings"
)

// ErrVerification: at least one check of an attestation failed. Nothing of the model may be trusted then.
var ErrVerification = errors.New("attestation not verified")

// Result says what was verified, check by check, and what was not looked at.
type Result struct {
	Digest     string     `json:"digest"`              // what the attestation must be about: sha256:...
	Source     string     `json:"source,omitempty"`    // where the attestation was found
	Statement  *Statement `json:"statement,omitempty"` // nil unless the signature holds and the statement is well formed
	Checks     []Check    `json:"checks"`
	NotChecked []string   `json:"not_checked"`
}

// Check is one test.
type Check struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail"` // what was found, or what is wrong
}

// The checks, in order.
const (
	CheckFormat        = "bundle format"
	CheckSignature     = "envelope signature"
	CheckStatement     = "in-toto statement"
	CheckPredicateType = "predicate type"
	CheckPredicate     = "predicate schema"
	CheckSubject       = "subject digest"
	CheckManifest      = "subject manifest digest"
	CheckModel         = "model file digest"
	CheckDecision      = "decision result"
	CheckClaims        = "policy claims"
	CheckSanitized     = "sanitized"
	CheckFound         = "attestation found"
)

// OK reports whether there were checks and all passed.
func (r *Result) OK() bool {
	for _, c := range r.Checks {
		if !c.Passed {
			return false
		}
	}
	return len(r.Checks) > 0 && r.Statement != nil
}

// Err is nil if OK, else an ErrVerification that names the failed checks.
func (r *Result) Err() error {
	if r.OK() {
		return nil
	}
	var failed []string
	for _, c := range r.Checks {
		if !c.Passed {
			failed = append(failed, c.Name+": "+c.Detail)
		}
	}
	return fmt.Errorf("%w: %s: %s", ErrVerification, r.Digest, strings.Join(failed, "; "))
}

// pass records a check: failed with err, or passed with the detail. It returns whether it passed.
func (r *Result) pass(name string, err error, format string, args ...any) bool {
	c := Check{Name: name, Passed: err == nil, Detail: fmt.Sprintf(format, args...)}
	if err != nil {
		c.Detail = err.Error()
	}
	r.Checks = append(r.Checks, c)
	return err == nil
}

func (r *Result) notChecked(format string, args ...any) {
	r.NotChecked = append(r.NotChecked, fmt.Sprintf(format, args...))
}
