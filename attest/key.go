package attest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// ErrKey: a key cannot be read, decrypted or used.
var ErrKey = errors.New("signing key")

// Key signs attestations: ECDSA on P-256 with SHA-256.
type Key struct {
	signer signature.SignerVerifier
	public *ecdsa.PublicKey
	pem    []byte
	hint   string
}

// NewKey makes a Key of any sigstore signer over ECDSA P-256, which may keep the private half elsewhere (a KMS).
func NewKey(signer signature.SignerVerifier) (*Key, error) {
	public, err := signer.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("%w: public half: %w", ErrKey, err)
	}
	ec, ok := public.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: it is of type %T; only ECDSA on the curve P-256 is supported", ErrKey, public)
	}
	text, err := cryptoutils.MarshalPublicKeyToPEM(ec)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	hint, err := keyHint(ec)
	if err != nil {
		return nil, err
	}
	return &Key{signer: signer, public: ec, pem: text, hint: hint}, nil
}

// Public is the public half.
func (k *Key) Public() crypto.PublicKey { return k.public }

// PublicPEM is the public half as PEM ("PUBLIC KEY"), what verifiers are given.
func (k *Key) PublicPEM() []byte { return bytes.Clone(k.pem) }

// Hint names the key in bundles: base64 of the SHA-256 of the public half's DER form.
func (k *Key) Hint() string { return k.hint }

// ParsePublicKey reads a public key in PEM.
func ParsePublicKey(text []byte) (crypto.PublicKey, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: not a public key in PEM: %w", ErrKey, err)
	}
	return public, nil
}

// ReadPublicKey reads a public key from a PEM file.
func ReadPublicKey(path string) (crypto.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	public, err := ParsePublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return public, nil
}

// keyHint is sigstore's name of a key.
func keyHint(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("%w: public half: %w", ErrKey, err)
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

// sign returns the signature of data: ASN.1 DER over its SHA-256.
func (k *Key) sign(ctx context.Context, data []byte) ([]byte, error) {
	sig, err := k.signer.SignMessage(bytes.NewReader(data), options.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return sig, nil
}
