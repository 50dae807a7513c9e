package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// StatementType is the in-toto Statement v1 (https://in-toto.io/Statement/v1).
const StatementType = "https://in-toto.io/Statement/v1"

// Subject is what an attestation is about: a manifest or a file.
type Subject struct {
	Name   string // file name or repository
	SHA256 string // hex
}

// Statement is an in-toto statement with one of our predicates.
type Statement struct {
	Type          string
	Subject       []ResourceDescriptor
	PredicateType string
	Predicate     Predicate // of PredicateType; else zero
	Approval      *Approval // of ApprovedPredicateType; else nil
}

// signedStatement is the JSON of a statement.
type signedStatement struct {
	Type          string               `json:"_type"`
	Subject       []ResourceDescriptor `json:"subject"`
	PredicateType string               `json:"predicateType"`
	Predicate     any                  `json:"predicate"`
}

// ResourceDescriptor names a subject.
type ResourceDescriptor struct {
	Name   string `json:"name"`
	Digest Digest `json:"digest"`
}

// Digest is a resource's digest.
type Digest struct {
	SHA256 string `json:"sha256"` // hex
}

var hexSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// newStatement encodes the statement that a model was sanitized.
func newStatement(subjects []Subject, p Predicate) ([]byte, error) {
	p = p.normal()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return encodeStatement(subjects, PredicateType, p)
}

// encodeStatement encodes a statement and has the in-toto library check it.
func encodeStatement(subjects []Subject, predicateType string, predicate any) ([]byte, error) {
	if err := checkSubjects(subjects); err != nil {
		return nil, err
	}
	s := signedStatement{Type: StatementType, PredicateType: predicateType, Predicate: predicate}
	for _, sub := range subjects {
		s.Subject = append(s.Subject, ResourceDescriptor{Name: sub.Name, Digest: Digest{SHA256: sub.SHA256}})
	}
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var checked intoto.Statement
	if err := protojson.Unmarshal(payload, &checked); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if err := checked.Validate(); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	return payload, nil
}

func checkSubjects(subjects []Subject) error {
	if len(subjects) == 0 {
		return fmt.Errorf("%w: there is none; give the manifest and its ONNX file", ErrSubject)
	}
	seen := map[Subject]bool{}
	for _, s := range subjects {
		switch {
		case s.Name == "":
			return fmt.Errorf("%w: sha256 %s has no name", ErrSubject, s.SHA256)
		case !hexSHA256.MatchString(s.SHA256):
			return fmt.Errorf("%w: %s has digest %q, want 64 lower-case hex digits", ErrSubject, s.Name, s.SHA256)
		case seen[s]:
			return fmt.Errorf("%w: %s is given twice", ErrSubject, s.Name)
		}
		seen[s] = true
	}
	return nil
}

// envelopePayload is a statement whose predicate has not been looked at.
type envelopePayload struct {
	Type          string               `json:"_type"`
	Subject       []ResourceDescriptor `json:"subject"`
	PredicateType string               `json:"predicateType"`
	Predicate     json.RawMessage      `json:"predicate"`
}

// parsePayload reads a statement but for its predicate.
func parsePayload(data []byte) (*envelopePayload, error) {
	var p envelopePayload
	if err := unmarshalStrict(data, &p); err != nil {
		return nil, fmt.Errorf("in-toto statement: %w", err)
	}
	if p.Type != StatementType {
		return nil, fmt.Errorf("in-toto statement: type is %q, want %s", p.Type, StatementType)
	}
	if len(p.Subject) == 0 {
		return nil, errors.New("in-toto statement: it has no subject")
	}
	for _, s := range p.Subject {
		if !hexSHA256.MatchString(s.Digest.SHA256) {
			return nil, fmt.Errorf("in-toto statement: subject %s has digest %q, want sha256 in hex", s.Name, s.Digest.SHA256)
		}
	}
	return &p, nil
}

// parseStatement reads a statement with one of our predicates.
func parseStatement(data []byte) (*Statement, error) {
	p, err := parsePayload(data)
	if err != nil {
		return nil, err
	}
	s := &Statement{Type: p.Type, Subject: p.Subject, PredicateType: p.PredicateType}
	switch p.PredicateType {
	case PredicateType:
		predicate, err := ParsePredicate(p.Predicate)
		if err != nil {
			return nil, err
		}
		s.Predicate = *predicate
	case ApprovedPredicateType:
		if s.Approval, err = ParseApproval(p.Predicate); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("predicate type is %q, want %s or %s", p.PredicateType, PredicateType, ApprovedPredicateType)
	}
	return s, nil
}
