package registry

import (
	_ "crypto/sha512" // digests may be sha512
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's manifests, which image-spec does not name.
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// manifest is a parsed OCI image manifest or index, or its Docker equivalent.
type manifest struct {
	raw          []byte
	mediaType    string
	artifactType string // as in referrers
	index        bool
	config       *ocispec.Descriptor  // nil in an index
	layers       []ocispec.Descriptor // in an index: the manifests
	subject      *ocispec.Descriptor
	annotations  map[string]string
}

var (
	manifestMembers   = []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"}
	descriptorMembers = []string{"mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"}
)

// parseManifest reads a manifest that was sent with the given Content-Type, which may be empty. It refuses whatever two
// clients could understand differently, because the model that is sanitized must be the model that is later pulled.
// Errors are sentences for the client.
func parseManifest(contentType string, raw []byte) (*manifest, error) {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, errors.New("the manifest is not JSON")
	}
	top := members(raw, root(raw))
	if top == nil {
		return nil, errors.New("the manifest is not a JSON object")
	}
	if err := unambiguous(top, manifestMembers...); err != nil {
		return nil, fmt.Errorf("the manifest is ambiguous: %w", err)
	}
	for _, t := range top {
		var err error
		switch t.name {
		case "layers", "manifests":
			for _, d := range elements(raw, t.value) {
				err = errors.Join(err, unambiguousDescriptor(raw, d))
			}
		case "config", "subject":
			err = unambiguousDescriptor(raw, t.value)
		case "annotations":
			err = unambiguous(members(raw, t.value))
		}
		if err != nil {
			return nil, fmt.Errorf("the manifest is ambiguous: in %q: %w", t.name, err)
		}
	}

	var doc struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		ArtifactType  string               `json:"artifactType"`
		Config        *ocispec.Descriptor  `json:"config"`
		Layers        []ocispec.Descriptor `json:"layers"`
		Manifests     []ocispec.Descriptor `json:"manifests"`
		Subject       *ocispec.Descriptor  `json:"subject"`
		Annotations   map[string]string    `json:"annotations"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, errors.New("a member of the manifest has the wrong type")
	}
	m := &manifest{
		raw: raw, artifactType: doc.ArtifactType, config: doc.Config, layers: doc.Layers, subject: doc.Subject, annotations: doc.Annotations,
	}
	var err error
	if m.mediaType, err = manifestType(contentType, doc.MediaType, doc.Manifests != nil); err != nil {
		return nil, err
	}
	switch m.mediaType {
	case ocispec.MediaTypeImageIndex, mediaTypeDockerList:
		m.index, m.layers = true, doc.Manifests
		if doc.Config != nil || doc.Layers != nil {
			return nil, errors.New("an index must have neither config nor layers")
		}
	default:
		if doc.Manifests != nil {
			return nil, errors.New("an image manifest must not have manifests")
		}
		if doc.Config == nil {
			return nil, errors.New("an image manifest must have a config")
		}
		if m.artifactType == "" {
			m.artifactType = doc.Config.MediaType
		}
	}
	if len(m.artifactType) > maxMediaType {
		return nil, fmt.Errorf("the artifactType is longer than %d bytes", maxMediaType)
	}
	if doc.SchemaVersion != 2 {
		return nil, fmt.Errorf("schemaVersion is %d: only 2 is supported", doc.SchemaVersion)
	}
	for _, d := range m.descriptors() {
		if err := validDescriptor(d); err != nil {
			return nil, err
		}
	}
	if m.subject != nil {
		if err := validDescriptor(*m.subject); err != nil {
			return nil, fmt.Errorf("subject: %w", err)
		}
	}
	return m, nil
}

func unambiguousDescriptor(raw []byte, d span) error {
	ms := members(raw, d)
	if err := unambiguous(ms, descriptorMembers...); err != nil {
		return err
	}
	if a, ok := lookup(ms, "annotations"); ok {
		return unambiguous(members(raw, a))
	}
	return nil
}

// manifestType settles the type from the Content-Type header and the mediaType member, which must agree.
func manifestType(contentType, member string, hasManifests bool) (string, error) {
	if contentType != "" {
		t, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return "", errors.New("the Content-Type is malformed")
		}
		if member != "" && member != t {
			return "", fmt.Errorf("the Content-Type %s contradicts the mediaType %s", t, member)
		}
		member = t
	}
	switch {
	case member == "" && hasManifests:
		member = ocispec.MediaTypeImageIndex
	case member == "":
		member = ocispec.MediaTypeImageManifest
	}
	switch member {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, mediaTypeDockerManifest, mediaTypeDockerList:
		return member, nil
	}
	return "", fmt.Errorf("manifests of type %s are not supported", member)
}

const maxMediaType = 127 + 1 + 127 // bytes: type/subtype (RFC 6838, section 4.2)

func validDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("a descriptor has an invalid digest %q", d.Digest)
	}
	if a := d.Digest.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("%s: only sha256 and sha512 digests are supported", d.Digest)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s has the negative size %d", d.Digest, d.Size)
	}
	if d.MediaType == "" {
		return fmt.Errorf("%s has no mediaType", d.Digest)
	}
	if len(d.MediaType) > maxMediaType {
		return fmt.Errorf("%s has a mediaType longer than %d bytes", d.Digest, maxMediaType)
	}
	if len(d.Data) > 0 && (int64(len(d.Data)) != d.Size || d.Digest.Algorithm().FromBytes(d.Data) != d.Digest) {
		return fmt.Errorf("%s: the embedded data is not what the digest and size say", d.Digest)
	}
	return nil
}

// descriptors returns all content of the package: config and layers, or the manifests of an index.
func (m *manifest) descriptors() []ocispec.Descriptor {
	if m.config == nil {
		return m.layers
	}
	return append([]ocispec.Descriptor{*m.config}, m.layers...)
}

// distinct returns the digests of descriptors, each once: a manifest has room for the same layer tens of thousands of times.
func distinct(ds []ocispec.Descriptor) []digest.Digest {
	var all []digest.Digest
	seen := map[digest.Digest]bool{}
	for _, d := range ds {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			all = append(all, d.Digest)
		}
	}
	return all
}

// size returns the bytes of the manifest and of all that it refers to.
func (m *manifest) size() int64 {
	n := int64(len(m.raw))
	for _, d := range m.descriptors() {
		n += d.Size
	}
	return n
}
