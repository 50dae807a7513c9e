package attest

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

const maxBundle = 4 << 20 // bytes

// want is a digest that must be a subject, or may be one, and the check's name.
type want struct {
	check, name, sha256 string
	must                bool // else there is no check unless it is a subject
}

// VerifyBundle verifies a sigstore bundle (JSON) with a public key and that it is about a digest ("sha256:..." or hex). The error is
// ErrVerification unless every check passed; the result is there in either case.
func VerifyBundle(text []byte, pub crypto.PublicKey, wantSHA256 string) (*Result, error) {
	hexDigest := strings.TrimPrefix(wantSHA256, "sha256:")
	r := &Result{Digest: "sha256:" + hexDigest}
	if !hexSHA256.MatchString(hexDigest) {
		r.pass(CheckSubject, fmt.Errorf("%q is not a SHA-256 digest", wantSHA256), "")
		return r, r.Err()
	}
	if b, ok := r.parseBundle(text); ok {
		r.verify(b, pub, []want{{CheckSubject, "the attestation", hexDigest, true}})
	}
	return r, r.Err()
}

// VerifyFile verifies a bare ONNX file against a bundle file. The error is ErrVerification unless every check passed, or that of
// reading the files.
func VerifyFile(ctx context.Context, modelPath, bundlePath string, pub crypto.PublicKey) (*Result, error) {
	text, err := readLimited(bundlePath)
	if err != nil {
		return nil, err
	}
	sum, err := fileSHA256(ctx, modelPath)
	if err != nil {
		return nil, err
	}
	r := &Result{Digest: "sha256:" + sum, Source: bundlePath}
	if b, ok := r.parseBundle(text); ok {
		r.verify(b, pub, []want{{CheckModel, modelPath, sum, true}})
	}
	r.notChecked("external data: files that the model may refer to beside it are not covered; verify the package in the registry for those")
	return r, r.Err()
}

func (r *Result) parseBundle(text []byte) (*bundle.Bundle, bool) {
	var b bundle.Bundle
	err := func() error {
		if len(text) > maxBundle {
			return fmt.Errorf("the bundle is larger than %d bytes", maxBundle)
		}
		if err := b.UnmarshalJSON(text); err != nil {
			return err
		}
		if b.MediaType != BundleMediaType {
			return fmt.Errorf("media type is %q, want %s", b.MediaType, BundleMediaType)
		}
		if b.GetDsseEnvelope() == nil {
			return errors.New("the bundle signs a message; an attestation is a DSSE envelope")
		}
		return nil
	}()
	return &b, r.pass(CheckFormat, err, "sigstore bundle v0.3")
}

// parseEnvelope makes a bundle of a bare envelope, to be verified with a key.
func (r *Result) parseEnvelope(text []byte, pub crypto.PublicKey) (*bundle.Bundle, bool) {
	b, err := func() (*bundle.Bundle, error) {
		var e dsse.Envelope
		if err := unmarshalStrict(text, &e); err != nil {
			return nil, err
		}
		payload, err := e.DecodeB64Payload()
		if err != nil {
			return nil, err
		}
		wrapped := &protodsse.Envelope{Payload: payload, PayloadType: e.PayloadType}
		for _, s := range e.Signatures {
			sig, err := base64.StdEncoding.DecodeString(s.Sig)
			if err != nil {
				return nil, fmt.Errorf("signature: %w", err)
			}
			wrapped.Signatures = append(wrapped.Signatures, &protodsse.Signature{Sig: sig, Keyid: s.KeyID})
		}
		hint, err := keyHint(pub)
		if err != nil {
			return nil, err
		}
		return bundle.NewBundle(&protobundle.Bundle{
			MediaType: BundleMediaType,
			Content:   &protobundle.Bundle_DsseEnvelope{DsseEnvelope: wrapped},
			VerificationMaterial: &protobundle.VerificationMaterial{
				Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: hint}},
			},
		})
	}()
	return b, r.pass(CheckFormat, err, "bare DSSE envelope")
}

// verify checks a parsed bundle. The statement is looked at only after its signature.
func (r *Result) verify(b *bundle.Bundle, pub crypto.PublicKey, wants []want) {
	r.noteUnverified(b)
	payload, err := verifySignature(b, pub)
	if !r.pass(CheckSignature, err, "the given key signed it") {
		return
	}
	statement, err := parsePayload(payload)
	if !r.pass(CheckStatement, err, StatementType) {
		return
	}
	if statement.PredicateType != PredicateType && statement.PredicateType != ApprovedPredicateType {
		err = fmt.Errorf("%q, want %s", statement.PredicateType, PredicateType)
	}
	if !r.pass(CheckPredicateType, err, "%s", statement.PredicateType) {
		return
	}
	if statement.PredicateType == ApprovedPredicateType {
		r.verifyApproval(statement, wants)
		return
	}
	predicate, err := ParsePredicate(statement.Predicate)
	version := SchemaVersion
	if err == nil {
		version = predicate.SchemaVersion
	}
	if !r.pass(CheckPredicate, err, "version %s", version) {
		return
	}
	r.Statement = &Statement{Type: statement.Type, Subject: statement.Subject, PredicateType: statement.PredicateType, Predicate: *predicate}
	r.checkSubjects(wants)
	r.checkVerdict(predicate)
}

func (r *Result) checkSubjects(wants []want) {
	for _, w := range wants {
		about, err := r.Statement.about(w.sha256), error(nil)
		if !about && !w.must {
			continue
		}
		if !about {
			err = fmt.Errorf("%s has sha256:%s, and the statement is not about it", w.name, w.sha256)
		}
		r.pass(w.check, err, "%s has sha256:%s", w.name, w.sha256)
	}
}

func (r *Result) checkVerdict(p *Predicate) {
	var decided, claimed error
	var ids []string
	claims := 0
	for _, m := range p.models() {
		if m.Decision.Result != Passed {
			decided = errors.Join(decided, fmt.Errorf("%q, want %s", m.Decision.Result, Passed))
		}
		ids = append(ids, m.Decision.ID)
		claims += len(m.Metrics.Claims)
		for _, c := range m.Metrics.Claims {
			if !c.Passed {
				claimed = errors.Join(claimed, fmt.Errorf("%s: %s is not %s %s", c.Metric, c.Value, c.Comparator, c.Threshold))
			}
		}
	}
	r.pass(CheckDecision, decided, "%s, decision %s", Passed, strings.Join(ids, ", "))
	r.pass(CheckClaims, claimed, "%d passed when the model was released", claims)
}

// noteUnverified says what a verification with a key alone leaves open.
func (r *Result) noteUnverified(b *bundle.Bundle) {
	material := b.GetVerificationMaterial()
	r.notChecked("transparency log: no entry is required; the bundle holds %d, none was verified", len(material.GetTlogEntries()))
	r.notChecked("timestamp: none is required; the bundle holds %d, none was verified; startedAt and finishedAt are the signer's word", len(material.GetTimestampVerificationData().GetRfc3161Timestamps()))
	r.notChecked("certificate identity: the key alone says who signed; whether it has been revoked is not known")
	r.notChecked("metrics: they are the signer's measurements; the model was not run")
}

// verifySignature has sigstore-go verify the envelope's one signature, and returns the payload.
func verifySignature(b *bundle.Bundle, pub crypto.PublicKey) ([]byte, error) {
	trusted, err := trust(pub)
	if err != nil {
		return nil, err
	}
	verifier, err := verify.NewVerifier(trusted, verify.WithNoObserverTimestamps())
	if err != nil {
		return nil, err
	}
	if _, err := verifier.Verify(b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey())); err != nil { // subjects are checked one by one
		return nil, err
	}
	envelope := b.GetDsseEnvelope()
	if envelope.GetPayloadType() != payloadType {
		return nil, fmt.Errorf("payload type is %q, want %s", envelope.GetPayloadType(), payloadType)
	}
	return envelope.GetPayload(), nil
}

// trust is sigstore-go's trusted material with one key and nothing else. A bundle that names another key is refused.
func trust(pub crypto.PublicKey) (root.TrustedMaterial, error) {
	if pub == nil {
		return nil, fmt.Errorf("%w: no public key was given", ErrKey)
	}
	verifier, err := signature.LoadVerifier(pub, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: public key of type %T: %w", ErrKey, pub, err)
	}
	hint, err := keyHint(pub)
	if err != nil {
		return nil, err
	}
	return root.NewTrustedPublicKeyMaterial(func(named string) (root.TimeConstrainedVerifier, error) {
		if named != hint {
			return nil, fmt.Errorf("the bundle names key %q, the given key is %q", named, hint)
		}
		return always{verifier}, nil
	}), nil
}

// always is a key without a period of validity.
type always struct{ signature.Verifier }

func (always) ValidAtTime(time.Time) bool { return true }

func readLimited(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxBundle+1))
}

// fileSHA256 hashes a file of any size; ctx stops it.
func fileSHA256(ctx context.Context, path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		switch _, err := io.CopyN(h, file, 8<<20); {
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
}
