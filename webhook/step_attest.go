package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"grindstone/attest"
	"grindstone/policy"
	"grindstone/registry"
)

// attest puts the released package into the registry by its digest, signs the attestation and attaches it. No tag leads there yet.
//
// A model that the policy admits unsanitized is released as it was pushed and without an attestation: there is nothing to attest,
// and whoever verifies refuses it.
func (p *Pipeline) attest(ctx context.Context, a *Admission) (State, error) {
	repository, admitted := a.Source.Repository, a.Decision.Action == policy.Admit
	replace := map[string]string{}
	if !admitted {
		if !p.outputThere(a) {
			return Sanitizing, nil // the scratch folder is gone: do it again
		}
		for _, f := range a.Changed {
			replace[f.Digest] = filepath.Join(p.outputDir(a.ID), f.Name)
		}
	}
	prepared, err := p.registry.Release(ctx, registry.Release{
		Repository: repository, Tag: a.tag(), SourceDigest: a.Source.Digest, Replace: replace,
	})
	if err != nil {
		return "", p.unreadable(a, err)
	}
	p.passing("package released")
	a.Released = &Release{Digest: prepared.Digest.String(), MediaType: prepared.MediaType, Size: prepared.Size}
	if admitted {
		return Releasing, nil
	}
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
	return Releasing, nil
}

// sign signs the attestation of both subjects: the released manifest and the sanitized file. It is kept in the scratch folder, so
// that a repeated step attaches the same attestation again and not a second one.
func (p *Pipeline) sign(ctx context.Context, a *Admission) (*attest.Attestation, error) {
	path := filepath.Join(p.scratch(a.ID), "attestation-"+strings.TrimPrefix(a.Released.Digest, "sha256:")+".json")
	var signed attest.Attestation
	data, err := os.ReadFile(path)
	if err == nil && json.Unmarshal(data, &signed) == nil {
		return &signed, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	subjects := []attest.Subject{
		{Name: p.uri(a.Source.Repository, a.Released.Digest), SHA256: strings.TrimPrefix(a.Released.Digest, "sha256:")},
		{Name: a.Source.Models[0].Name, SHA256: a.Report.Sanitized.SHA256},
	}
	fresh, err := attest.Sign(ctx, p.Key, subjects, p.predicate(a))
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

// uri names a package in an attestation.
func (p *Pipeline) uri(repository, digest string) string {
	return "oci://" + p.Host + "/" + repository + "@" + digest
}

// unreadable turns the registry's complaints about the package itself into a verdict; other errors stay.
func (p *Pipeline) unreadable(a *Admission, err error) error {
	if errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrPackage) || errors.Is(err, registry.ErrDigest) {
		p.Log.Error("the quarantined package cannot be used", "admission", a.ID, "error", err)
		return held(ReasonUnreadable, "the quarantined package cannot be read back; push it again")
	}
	return err
}
