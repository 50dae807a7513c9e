package attest

import (
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"

	"grindstone/internal/logins"
	"grindstone/internal/loopback"
)

const (
	maxManifest   = 4 << 20 // bytes
	maxCandidates = 256     // attestations looked at among the referrers of a manifest, and behind its legacy tag
	maxReferrers  = 2048    // referrers looked at
)

// RefOptions tell how to reach the registry.
type RefOptions struct {
	PlainHTTP bool         // also for hosts other than loopback, where it is the default
	TLS       bool         // also for loopback
	Anonymous bool         // do not use the logins that Docker and Podman have stored
	Client    *http.Client // nil: one that retries
}

// VerifyRef verifies a model in a registry: [oci://]host/repository:tag or @sha256:.... It resolves the reference, looks for
// attestations among the manifest's referrers (API, then fallback tag) and then under the legacy tag, and takes the first that
// passes every check; the result tells the digest, by which the model should be pulled. The error is ErrVerification if none
// passes (the result is then that of the attestation that came furthest), or that of the registry.
func VerifyRef(ctx context.Context, ref string, pub crypto.PublicKey, o RefOptions) (*Result, error) {
	repo, err := repository(ref, o)
	if err != nil {
		return nil, err
	}
	subject, err := resolve(ctx, repo)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", ref, err)
	}
	var manifest ocispec.Manifest
	if err := fetchManifest(ctx, repo, subject, &manifest); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	search := &search{repo: repo, subject: subject, pub: pub, wants: wants(subject, &manifest)}
	if err := search.run(ctx); err != nil {
		return search.result(), fmt.Errorf("%s: look for attestations: %w", ref, err)
	}
	r := search.result()
	r.notChecked("layers: the verified manifest binds them by digest; they were not downloaded")
	if r.Statement != nil && !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Name == CheckModel }) {
		r.notChecked("model file digest: no layer of the manifest is a bare ONNX file named by sha256; the manifest's digest covers what it packs")
	}
	return r, r.Err()
}

// resolve asks what the reference stands for. Why there is nothing, a registry can say in a header alone: that a model is in quarantine, say.
func resolve(ctx context.Context, repo *remote.Repository) (ocispec.Descriptor, error) {
	var said []string
	repo.HandleWarning = func(w remote.Warning) { said = append(said, printable(w.Text)) }
	defer func() { repo.HandleWarning = nil }()
	subject, err := repo.Resolve(ctx, repo.Reference.Reference)
	if err != nil && len(said) > 0 {
		err = fmt.Errorf("%w; the registry says: %s", err, strings.Join(said, "; "))
	}
	return subject, err
}

// printable is a registry's text as a terminal may show it.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

func repository(ref string, o RefOptions) (*remote.Repository, error) {
	repo, err := remote.NewRepository(strings.TrimPrefix(ref, "oci://"))
	if err != nil {
		return nil, fmt.Errorf("%q is no reference of the form host/repository:tag: %w", ref, err)
	}
	if repo.Reference.Reference == "" {
		return nil, fmt.Errorf("%q names neither a tag nor a digest", ref)
	}
	repo.PlainHTTP = o.PlainHTTP || loopback.Addr(repo.Reference.Host()) && !o.TLS
	repo.MaxMetadataBytes, repo.ReferrerListMaxPages = maxManifest, maxReferrers
	client := &auth.Client{Client: o.Client, Cache: auth.NewCache()}
	if o.Client == nil {
		client.Client = retry.DefaultClient
	}
	if !o.Anonymous {
		store, err := logins.Stored()
		if err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
		client.Credential = credentials.Credential(store)
	}
	repo.Client = client
	return repo, nil
}

// wants lists what the statement must be about: the manifest and each of its ONNX layers. Of the other layers it may be about some: ONNX files that neither
// type nor name tells. A layer that is named by another digest than sha256 is bound by the manifest's.
func wants(subject ocispec.Descriptor, manifest *ocispec.Manifest) []want {
	all := []want{{CheckManifest, "the manifest", subject.Digest.Encoded(), true}}
	for _, layer := range manifest.Layers {
		if layer.Digest.Algorithm() == digest.SHA256 {
			name := strings.TrimSpace("layer " + layer.Annotations[ocispec.AnnotationTitle])
			all = append(all, want{CheckModel, name, layer.Digest.Encoded(), isONNX(layer)})
		}
	}
	return all
}

// annotationUnpack marks a layer that ORAS packed of a folder and that it unpacks when it is pulled.
const annotationUnpack = "io.deis.oras.content.unpack"

// isONNX tells a layer that is one bare ONNX file, by its type or name. There is no standard type (CNCF ModelPack names the file), and ORAS gives the type
// of a tar to every file that it is told no type for.
func isONNX(layer ocispec.Descriptor) bool {
	named := func(key string) bool { return strings.EqualFold(path.Ext(layer.Annotations[key]), ".onnx") }
	switch t := layer.MediaType; {
	case layer.Annotations[annotationUnpack] == "true":
		return false
	case t == ocispec.MediaTypeImageLayer:
		return named(ocispec.AnnotationTitle)
	case strings.Contains(t, "tar") || strings.Contains(t, "gzip") || strings.Contains(t, "zstd"):
		return false
	default:
		return strings.Contains(t, "onnx") || named(ocispec.AnnotationTitle) || named("org.cncf.model.filepath")
	}
}

// search tries attestations until one passes.
type search struct {
	repo    *remote.Repository
	subject ocispec.Descriptor
	pub     crypto.PublicKey
	wants   []want
	best    *Result
	seen    int // referrers
	tried   int // attestations
}

var (
	errDone    = errors.New("done")
	errTooMany = fmt.Errorf("there are more than %d attestations, or %d referrers, and none of those that were looked at passes", maxCandidates, maxReferrers)
)

func (s *search) run(ctx context.Context) error {
	err := s.referrers(ctx)
	if lacksReferrers(err) {
		if err = s.repo.SetReferrersCapability(false); err == nil {
			err = s.referrers(ctx)
		}
	}
	if err == nil || errors.Is(err, errTooMany) { // whoever may push can attach any number; the tag is not his
		s.tried = 0
		err = cmp.Or(s.unreadable(ctx, "tag "+legacyTag(s.subject.Digest), s.legacy(ctx)), err)
	}
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

func (s *search) referrers(ctx context.Context) error {
	err := s.repo.Referrers(ctx, s.subject, "", func(page []ocispec.Descriptor) error {
		if s.seen += len(page); s.seen > maxReferrers {
			return errTooMany
		}
		for _, d := range page {
			if err := s.unreadable(ctx, "referrer "+d.Digest.String(), s.referrer(ctx, d)); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errdef.ErrTooManyPages) {
		return errTooMany
	}
	return err
}

// lacksReferrers tells registries that do not know the referrers API but do not answer 404, as the distribution spec has it.
func lacksReferrers(err error) bool {
	var answer *errcode.ErrorResponse
	return errors.As(err, &answer) && slices.Contains([]int{http.StatusMethodNotAllowed, http.StatusNotImplemented}, answer.StatusCode)
}

// unreadable makes an attestation that cannot be read one that fails: it must not hide a good one beside it.
func (s *search) unreadable(ctx context.Context, source string, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, errDone) || errors.Is(err, errTooMany) {
		return err
	}
	r := &Result{Digest: s.subject.Digest.String(), Source: source}
	r.pass(CheckFormat, err, "")
	s.keep(r)
	return nil
}

// keep remembers the result that came furthest. An approval that is sound in all else is further than anything that failed: the caller may accept it.
func (s *search) keep(r *Result) {
	if s.best == nil || r.OK() || !s.best.approved() && (r.approved() || len(r.Checks) > len(s.best.Checks)) {
		s.best = r
	}
}

// result is the best there is. Without any attestation it says where one was looked for.
func (s *search) result() *Result {
	if s.best != nil {
		return s.best
	}
	r := &Result{Digest: s.subject.Digest.String()}
	r.pass(CheckFound, fmt.Errorf("no referrer with a sigstore bundle, and no tag %s", legacyTag(s.subject.Digest)), "")
	return r
}

// referrer looks at one referrer's layers; registries differ in what they say about its artifact type.
func (s *search) referrer(ctx context.Context, d ocispec.Descriptor) error {
	if d.MediaType != ocispec.MediaTypeImageManifest {
		return nil
	}
	var manifest ocispec.Manifest
	if err := fetchManifest(ctx, s.repo, d, &manifest); err != nil {
		return err
	}
	if manifest.Subject == nil || manifest.Subject.Digest != s.subject.Digest {
		return nil
	}
	return s.layers(ctx, manifest, BundleMediaType, "referrer "+d.Digest.String(), (*Result).parseBundle)
}

// legacy looks at the layers behind the tag sha256-<hex>.att.
func (s *search) legacy(ctx context.Context) error {
	tag := legacyTag(s.subject.Digest)
	d, err := s.repo.Resolve(ctx, tag)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := fetchManifest(ctx, s.repo, d, &manifest); err != nil {
		return err
	}
	return s.layers(ctx, manifest, EnvelopeMediaType, "tag "+tag, func(r *Result, text []byte) (*bundle.Bundle, bool) {
		return r.parseEnvelope(text, s.pub)
	})
}

func (s *search) layers(ctx context.Context, manifest ocispec.Manifest, mediaType, source string, parse func(*Result, []byte) (*bundle.Bundle, bool)) error {
	for _, layer := range manifest.Layers {
		if layer.MediaType != mediaType {
			continue
		}
		if s.tried++; s.tried > maxCandidates {
			return errTooMany
		}
		text, err := fetch(ctx, s.repo.Blobs(), layer, maxBundle)
		if err != nil {
			return err
		}
		r := &Result{Digest: s.subject.Digest.String(), Source: source}
		if b, ok := parse(r, text); ok {
			r.verify(b, s.pub, s.wants)
		}
		if s.keep(r); r.OK() {
			return errDone
		}
	}
	return nil
}

func fetchManifest(ctx context.Context, repo *remote.Repository, d ocispec.Descriptor, out *ocispec.Manifest) error {
	switch d.MediaType {
	case ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json":
	default:
		return fmt.Errorf("%s is of type %q: only a single manifest can be verified", d.Digest, d.MediaType)
	}
	text, err := fetch(ctx, repo.Manifests(), d, maxManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if out.MediaType != "" && out.MediaType != d.MediaType {
		return fmt.Errorf("manifest %s: the registry calls it %q, it calls itself %q", d.Digest, d.MediaType, out.MediaType)
	}
	return nil
}

type fetcher interface {
	Fetch(ctx context.Context, target ocispec.Descriptor) (io.ReadCloser, error)
}

// fetch reads content of a limited size and checks it against its digest.
func fetch(ctx context.Context, from fetcher, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d allowed", d.Digest, d.Size, limit)
	}
	reader, err := from.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	return content.ReadAll(reader, d)
}
