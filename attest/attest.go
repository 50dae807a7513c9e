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
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
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

// signStatement signs a checked statement, once, encodes the envelope twice, and verifies the result. The bundle is put together here
// rather than by sigstore-go's sign package, which brings in the transparency log's key formats, OpenPGP among them.
func signStatement(ctx context.Context, k *Key, payload []byte) (*Attestation, error) {
	sig, err := k.sign(ctx, dsse.PAE(payloadType, payload))
	if err != nil {
		return nil, fmt.Errorf("sign the attestation: %w", err)
	}
	signed := &protobundle.Bundle{
		MediaType: BundleMediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: k.hint}},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: payloadType, Signatures: []*protodsse.Signature{{Sig: sig}},
		}},
	}
	checked, err := bundle.NewBundle(signed)
	if err != nil {
		return nil, fmt.Errorf("sign the attestation: %w", err)
	}
	if _, err := verifySignature(checked, k.Public()); err != nil {
		return nil, fmt.Errorf("the new attestation does not verify: %w", err)
	}
	text, err := protojson.Marshal(signed)
	if err != nil {
		return nil, err
	}
	if len(text) > maxBundle {
		return nil, fmt.Errorf("%w: with all of them the bundle has %d bytes, more than the %d that verifiers read", ErrSubject, len(text), maxBundle)
	}
	envelope, err := json.Marshal(dsse.Envelope{
		PayloadType: payloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}},
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
