// Package attest signs what was done to a model and verifies it before the model is deployed.
//
// An attestation is an in-toto Statement v1 about a released OCI manifest and its ONNX file, with a predicate of type PredicateType,
// in a DSSE envelope, in a sigstore bundle v0.3 (https://github.com/sigstore/protobuf-specs). It is attached to the manifest
// twice: as an OCI referrer, and under the tag sha256-<hex>.att that older verifiers read.
package attest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"
)

// Media types.
const (
	BundleMediaType   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	EnvelopeMediaType = "application/vnd.dsse.envelope.v1+json"
	payloadType       = "application/vnd.in-toto+json" // of the DSSE envelope
)

// ErrSubject: an attestation was asked for, or offered, about something that it cannot be about.
var ErrSubject = errors.New("attestation subject")

// Attestation is a signed statement in both of its encodings; the signature is the same.
type Attestation struct {
	Bundle   []byte `json:"bundle"`   // sigstore bundle v0.3, JSON
	Envelope []byte `json:"envelope"` // DSSE envelope, JSON
}

// Sign states p about the subjects: the released manifest and each of its ONNX files, so that either alone can be verified. Times
// become UTC seconds. The new bundle has been verified with the key's public half when Sign returns. An invalid predicate is
// ErrPredicate, invalid subjects ErrSubject.
func Sign(ctx context.Context, k *Key, subjects []Subject, p Predicate) (*Attestation, error) {
	payload, err := newStatement(subjects, p)
	if err != nil {
		return nil, err
	}
	return signStatement(ctx, k, payload)
}

// signStatement signs a checked statement, once, and encodes the envelope twice.
func signStatement(ctx context.Context, k *Key, payload []byte) (*Attestation, error) {
	trusted, err := trust(k.Public())
	if err != nil {
		return nil, err
	}
	bundle, err := sign.Bundle(&sign.DSSEData{Data: payload, PayloadType: payloadType}, keypair{k}, sign.BundleOptions{Context: ctx, TrustedRoot: trusted})
	if err != nil {
		return nil, fmt.Errorf("sign the attestation: %w", err)
	}
	text, err := protojson.Marshal(bundle)
	if err != nil {
		return nil, err
	}
	signed := bundle.GetDsseEnvelope()
	envelope, err := json.Marshal(dsse.Envelope{
		PayloadType: signed.PayloadType,
		Payload:     base64.StdEncoding.EncodeToString(signed.Payload),
		Signatures:  []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(signed.Signatures[0].Sig)}},
	})
	if err != nil {
		return nil, err
	}
	return &Attestation{Bundle: text, Envelope: envelope}, nil
}

// statement reads back what was signed. It verifies nothing.
func (a *Attestation) statement() (*Statement, error) {
	var envelope dsse.Envelope
	if err := json.Unmarshal(a.Envelope, &envelope); err != nil {
		return nil, fmt.Errorf("attestation envelope: %w", err)
	}
	payload, err := envelope.DecodeB64Payload()
	if err != nil {
		return nil, fmt.Errorf("attestation envelope: %w", err)
	}
	return parseStatement(payload)
}

// about reports whether one of the subjects has the digest (hex).
func (s *Statement) about(sha256 string) bool {
	return slices.ContainsFunc(s.Subject, func(r ResourceDescriptor) bool { return r.Digest.SHA256 == sha256 })
}
