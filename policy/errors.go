package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Why there is no decision. Every one of them means that the model stays in quarantine.
var (
	// ErrLoad: the policy or its data cannot be read, parsed or compiled, or the policy refuses its data.
	ErrLoad = errors.New("the policy cannot be used")
	// ErrInput: the question's input cannot be encoded.
	ErrInput = errors.New("the policy's input is invalid")
	// ErrUndefined: no rule of the policy applies to the input.
	ErrUndefined = errors.New("the policy leaves the decision undefined")
	// ErrConflict: rules of the policy disagree.
	ErrConflict = errors.New("rules of the policy conflict")
	// ErrInvalid: the decision has a wrong type, an unknown field or action, or contradicts itself.
	ErrInvalid = errors.New("the policy's decision is invalid")
	// ErrEvaluation: the policy failed while it ran.
	ErrEvaluation = errors.New("the policy failed")
	// ErrTimeout: the policy did not decide in time.
	ErrTimeout = errors.New("the policy took too long")
)

// Error says why a question got no decision.
type Error struct {
	ID       string // the decision's id, as logged
	Question string // "admission" or "release"
	Kind     error  // one of the sentinels above
	Cause    error  // nil where Kind says it all
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("%s decision %s: %v", e.Question, e.ID, e.Kind)
	}
	return fmt.Sprintf("%s decision %s: %v: %v", e.Question, e.ID, e.Kind, e.Cause)
}

// Unwrap lets errors.Is find both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// Problem is one thing that keeps a policy from being used.
type Problem struct {
	File    string `json:"file,omitempty"` // in the policy's directory
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"` // may have several lines
}

// Problems takes an ErrLoad apart.
func Problems(err error) []Problem {
	var errs ast.Errors
	if !errors.As(err, &errs) {
		return []Problem{{Message: strings.TrimPrefix(err.Error(), ErrLoad.Error()+": ")}}
	}
	var all []Problem
	for _, e := range errs {
		p := Problem{Message: e.Code + ": " + e.Message}
		if e.Location != nil {
			p.File, p.Line = e.Location.File, e.Location.Row
		}
		if e.Details != nil {
			p.Message = strings.Join(append([]string{p.Message}, e.Details.Lines()...), "\n")
		}
		all = append(all, p)
	}
	return all
}
