package attest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations that verifiers look for.
const (
	annotationContent         = "dev.sigstore.bundle.content"
	annotationBundlePredicate = "dev.sigstore.bundle.predicateType"
	annotationSignature       = "dev.cosignproject.cosign/signature"
	annotationPredicate       = "predicateType"
)

// Artifact is an OCI manifest with its blobs, ready to be pushed beside its subject.
type Artifact struct {
	MediaType string                   // of the manifest
	Manifest  []byte                   // exactly as it is to be stored
	Blobs     map[digest.Digest][]byte // config and layer
	Tag       string                   // "" for a referrer, which is found by its subject; else sha256-<hex>.att
}

// Artifacts packs the attestation for the registry that holds its subject: once as a referrer with the bundle, once under the
// legacy tag with the bare envelope. The subject must be among those that were signed, else the error is ErrSubject. The same
// attestation gives the same bytes.
func (a *Attestation) Artifacts(subject ocispec.Descriptor) (referrer, legacy Artifact, err error) {
	statement, err := a.statement()
	if err != nil {
		return Artifact{}, Artifact{}, err
	}
	if subject.Digest.Validate() != nil || subject.Digest.Algorithm() != digest.SHA256 || !statement.about(subject.Digest.Encoded()) {
		return Artifact{}, Artifact{}, fmt.Errorf("%w: the attestation is not about %s", ErrSubject, subject.Digest)
	}
	created, predicateType := statement.created(), statement.PredicateType
	if referrer, err = a.referrer(subject, predicateType, created); err != nil {
		return Artifact{}, Artifact{}, err
	}
	legacy, err = a.legacy(subject, predicateType, created)
	return referrer, legacy, err
}

// referrer is the form of the OCI image spec 1.1, section "Guidelines for Artifact Usage".
func (a *Attestation) referrer(subject ocispec.Descriptor, predicateType string, created time.Time) (Artifact, error) {
	manifest := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: BundleMediaType,
		Config:       ocispec.DescriptorEmptyJSON,
		Layers:       []ocispec.Descriptor{{MediaType: BundleMediaType, Digest: digest.FromBytes(a.Bundle), Size: int64(len(a.Bundle))}},
		Subject:      &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{
			annotationContent:         "dsse-envelope",
			annotationBundlePredicate: predicateType,
			ocispec.AnnotationCreated: created.Format(time.RFC3339),
		},
	}
	return pack(manifest, "", ocispec.DescriptorEmptyJSON.Data, a.Bundle)
}

// legacy is the form of cosign's attestations by tag: an image whose layers are envelopes.
func (a *Attestation) legacy(subject ocispec.Descriptor, predicateType string, created time.Time) (Artifact, error) {
	layer := ocispec.Descriptor{
		MediaType: EnvelopeMediaType, Digest: digest.FromBytes(a.Envelope), Size: int64(len(a.Envelope)),
		Annotations: map[string]string{annotationSignature: "", annotationPredicate: predicateType},
	}
	config, err := json.Marshal(ocispec.Image{
		Created: &created,
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
		History: []ocispec.History{{Created: &created}},
	})
	if err != nil {
		return Artifact{}, err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    []ocispec.Descriptor{layer},
	}
	return pack(manifest, legacyTag(subject.Digest), config, a.Envelope)
}

func legacyTag(subject digest.Digest) string {
	return subject.Algorithm().String() + "-" + subject.Encoded() + ".att"
}

func pack(manifest ocispec.Manifest, tag string, blobs ...[]byte) (Artifact, error) {
	text, err := json.Marshal(manifest)
	if err != nil {
		return Artifact{}, err
	}
	a := Artifact{MediaType: manifest.MediaType, Manifest: text, Tag: tag, Blobs: map[digest.Digest][]byte{}}
	for _, b := range blobs {
		a.Blobs[digest.FromBytes(b)] = b
	}
	return a, nil
}
