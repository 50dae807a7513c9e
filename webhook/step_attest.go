package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"grindstone/attest"
	"grindstone/registry"
)

// attest puts the released package into the registry by its digest, signs the attestation and attaches it. No tag leads there yet.
//
// A model that the policy admits, or an operator approves, is released as it was pushed, with an attestation that says so: its
// predicate is of another type, and whoever verifies refuses it unless asked not to.
func (p *Pipeline) attest(ctx context.Context, a *Admission) (State, error) {
	repository := a.Source.Repository
	release := registry.Release{Repository: repository, Tag: a.tag(), SourceDigest: a.Source.Digest, Replace: map[string]string{}, SHA256: map[string]string{}}
	switch {
	case a.Unsanitized():
	case a.Twin != nil:
		release.Twin = &registry.Twin{Source: a.Twin.Source, Released: a.Twin.Released}
	default:
		if !p.outputThere(a) {
			a.forget()
			return Sanitizing, nil // the scratch folder is gone: do it again
		}
		for i, m := range a.Source.targets() { // one that stays as it is, with its weights in external data, takes its own place
			release.Replace[m.Digest], release.SHA256[m.Digest] = filepath.Join(p.outputDir(a.ID, i), m.Name), a.results()[i].Report.Sanitized.SHA256
		}
		for _, f := range a.Changed { // what was looked at is released, and nothing that was put in its place
			release.Replace[f.Digest], release.SHA256[f.Digest] = filepath.Join(p.outputDir(a.ID, f.Model), f.Name), f.SHA256
		}
	}
	prepared, err := p.registry.Release(ctx, release)
	if errors.Is(err, registry.ErrTwin) { // it was deleted meanwhile
		a.forget()
		return Sanitizing, nil
	} else if err != nil {
		return "", p.unreadable(a, err)
	}
	p.passing("package released")
	a.Released = &Release{Digest: prepared.Digest.String(), MediaType: prepared.MediaType, Size: prepared.Size}
	signed, err := p.sign(ctx, a)
	if err != nil {
		return "", err
	}
	referrer, legacy, err := signed.Artifacts(prepared.Descriptor)
	if err != nil {
		return "", err
	}
	for _, artifact := range []attest.Artifact{referrer, legacy} {
		blobs := map[string][]byte{}
		for d, content := range artifact.Blobs {
			blobs[d.String()] = content
		}
		err := p.registry.Attach(ctx, repository, registry.Artifact{
			MediaType: artifact.MediaType, Manifest: artifact.Manifest, Blobs: blobs, Tag: artifact.Tag,
		})
		if err != nil {
			return "", err
		}
		p.passing("attestation attached")
	}
	a.Released.Attestation = digest.FromBytes(referrer.Manifest).String()
	if err := p.pushBack(ctx, a); err != nil {
		return "", err
	}
	return Releasing, nil
}

// sign signs the attestation. It is kept in the scratch folder, so that a repeated step attaches the same attestation again and not a
// second one.
func (p *Pipeline) sign(ctx context.Context, a *Admission) (*attest.Attestation, error) {
	if err := os.MkdirAll(p.scratch(a.ID), 0o700); err != nil { // nothing was sanitized there, perhaps
		return nil, err
	}
	path := filepath.Join(p.scratch(a.ID), "attestation-"+strings.TrimPrefix(a.Released.Digest, "sha256:")+"-"+a.decidedBy()+".json")
	var signed attest.Attestation
	data, err := os.ReadFile(path)
	if err == nil && json.Unmarshal(data, &signed) == nil {
		return &signed, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fresh, err := p.attestation(ctx, a)
	if err != nil {
		return nil, err
	}
	if data, err = json.Marshal(fresh); err != nil {
		return nil, err
	}
	if err := writeFileAtomic(path, data); err != nil {
		return nil, err
	}
	p.passing("attestation signed")
	return fresh, nil
}

// decidedBy is the id of the decision that lets the model be released.
func (a *Admission) decidedBy() string {
	switch {
	case a.Approval != nil:
		return a.Approval.ID
	case a.Unsanitized():
		return a.Decision.ID
	}
	return a.Verdict.ID
}

// attestation is about the released manifest and its model files.
func (p *Pipeline) attestation(ctx context.Context, a *Admission) (*attest.Attestation, error) {
	subjects := []attest.Subject{{Name: p.uri(a.Source.Repository, a.Released.Digest), SHA256: strings.TrimPrefix(a.Released.Digest, "sha256:")}}
	if !a.Unsanitized() {
		for _, m := range a.Source.Models {
			for i, target := range a.Source.targets() {
				s := attest.Subject{Name: m.Name, SHA256: a.results()[i].Report.Sanitized.SHA256}
				if m.Digest == target.Digest && !slices.Contains(subjects, s) { // a layer may be there twice
					subjects = append(subjects, s)
				}
			}
		}
		return attest.Sign(ctx, p.Key, subjects, p.predicate(a))
	}
	for _, m := range a.Source.Models {
		if s := (attest.Subject{Name: m.Name, SHA256: m.sha256()}); !slices.Contains(subjects, s) {
			subjects = append(subjects, s)
		}
	}
	return attest.SignApproval(ctx, p.Key, subjects, p.approval(a))
}

// uri names a package in an attestation.
func (p *Pipeline) uri(repository, digest string) string {
	return "oci://" + p.Host + "/" + repository + "@" + digest
}

// unreadable turns the registry's complaints about the package itself into a verdict; other errors stay.
func (p *Pipeline) unreadable(a *Admission, err error) error {
	if e := (*registry.IndexError)(nil); errors.As(err, &e) {
		return held(ReasonNoModel, aboutIndex(e))
	}
	if errors.Is(err, registry.ErrReplaced) {
		p.Log.Error("what a sanitizer wrote has changed since", "admission", a.ID, "error", err)
		return held(ReasonInvalidOutput, "the sanitizer's output is not usable: it has changed after it was looked at")
	}
	if errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrPackage) || errors.Is(err, registry.ErrDigest) {
		p.Log.Error("the quarantined package cannot be used", "admission", a.ID, "error", err)
		return held(ReasonUnreadable, "the quarantined package cannot be read back; push it again")
	}
	return err
}
