package registry

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
)

// maxInspections is how many packages are looked through at a time: each takes a processor, and the window of a zstd decoder.
const maxInspections = 4

// describe tells what a quarantined package holds. Everything that makes it unfit to be sanitized is a Problem and not
// an error.
func (g *Gateway) describe(ctx context.Context, repository string, d digest.Digest, m *manifest) (Push, []layerFile, error) {
	p := Push{
		Repository: repository, Digest: d.String(), MediaType: m.mediaType, ArtifactType: m.artifactType, Size: m.size(), Annotations: m.annotations,
	}
	if m.subject != nil {
		p.Subject = m.subject.Digest.String()
	}
	for _, d := range m.descriptors() {
		p.Blobs = append(p.Blobs, d.Digest.String())
	}
	select {
	case g.inspecting <- struct{}{}:
		defer func() { <-g.inspecting }()
	case <-ctx.Done():
		return Push{}, nil, ctx.Err()
	}
	open := func(d digest.Digest, read func(*os.File) error) error {
		f, err := os.Open(g.quarantine.blob(repository, d))
		if err != nil {
			return err
		}
		defer f.Close()
		err = read(f)
		if ctx.Err() != nil { // then the blob is not to blame
			return ctx.Err()
		}
		return err
	}
	var tars []digest.Digest // in the order in which they are extracted
	budget := g.limits.ArchiveBytes
	files, others, problems, err := m.files(once(func(d digest.Digest) (found finding, err error) {
		err = open(d, func(f *os.File) error {
			found, err = inspect(f, &budget)
			return err
		})
		if found.tar {
			tars = append(tars, d)
		}
		return found, err
	}), func(d digest.Digest) (inside []archived, err error) {
		err = open(d, func(f *os.File) error {
			inside, err = listArchive(withContext(ctx, f), g.limits.ArchiveBytes)
			return err
		})
		return inside, err
	})
	if err != nil {
		return Push{}, nil, err
	}
	problem, err := overlaid(files, tars, func(d digest.Digest, read func(archive io.Reader, budget int64) error) error {
		return open(d, func(f *os.File) error { return read(withContext(ctx, f), g.limits.ArchiveBytes) })
	})
	if err != nil {
		return Push{}, nil, err
	}
	if problem != "" {
		problems = append(problems, problem)
	}
	for _, f := range files {
		if f.model {
			if f.digest.Algorithm() != digest.SHA256 {
				if f.SHA256, err = g.quarantine.sha256(ctx, repository, f.digest); err != nil {
					return Push{}, nil, err
				}
				problems = append(problems, fmt.Sprintf("the model %s is named by its %s digest, and attestations are about sha256: push it as a layer named by that", f.Name, f.digest.Algorithm()))
			}
			p.Models = append(p.Models, f.File)
		}
	}
	if d.Algorithm() != digest.SHA256 {
		problems = append(problems, fmt.Sprintf("the package is named by its %s digest, and attestations are about sha256: push it by a tag, or by that", d.Algorithm()))
	}
	if p.OtherModels = others; len(p.Models) == 0 && len(others) == 0 && len(problems) == 0 {
		p.OtherModels = m.typedModels()
	}
	p.Problem = strings.Join(problems, "; ")
	return p, files, nil
}

// once remembers what was found in each blob: a package may have one many times.
func once(inspect func(digest.Digest) (finding, error)) func(digest.Digest) (finding, error) {
	type result struct {
		found finding
		err   error
	}
	known := map[digest.Digest]result{}
	return func(d digest.Digest) (finding, error) {
		r, ok := known[d]
		if !ok {
			r.found, r.err = inspect(d)
			known[d] = r
		}
		return r.found, r.err
	}
}
