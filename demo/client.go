package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"

	"grindstone/attest"
	"grindstone/sanitize"
	"grindstone/webhook"
)

const (
	repositoryName = "models/classifier"
	tag            = "v1"
	artifactType   = "application/vnd.grindstone.model.v1"
	layerType      = "application/vnd.grindstone.onnx.layer.v1"
)

func (s *story) repository() (*remote.Repository, error) {
	r, err := remote.NewRepository(s.server.Address + "/" + repositoryName)
	if err == nil {
		r.PlainHTTP = true
	}
	return r, err
}

func (s *story) reference() string { return s.server.Address + "/" + repositoryName + ":" + tag }

// push is what `oras push` does.
func (s *story) push(ctx context.Context) error {
	store, err := file.New(filepath.Join(s.Dir, "push"))
	if err != nil {
		return err
	}
	defer store.Close()
	path, err := filepath.Abs(s.Model)
	if err != nil {
		return err
	}
	layer, err := store.Add(ctx, "model.onnx", layerType, path)
	if err != nil {
		return err
	}
	manifest, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, artifactType, oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		return err
	}
	if err := store.Tag(ctx, manifest, tag); err != nil {
		return err
	}
	repo, err := s.repository()
	if err != nil {
		return err
	}
	pushed, err := oras.Copy(ctx, store, tag, repo, tag, oras.DefaultCopyOptions)
	if err != nil {
		return fmt.Errorf("push: %w\n%s", err, s.server.tail())
	}
	s.outcome.SourceDigest = pushed.Digest.String()
	s.Say("The third party pushes the model: oras push %s model.onnx\n  accepted as %s", s.reference(), pushed.Digest)
	return nil
}

// hidden shows that nobody can pull what was pushed.
func (s *story) hidden(ctx context.Context) error {
	repo, err := s.repository()
	if err != nil {
		return err
	}
	_, _, err = repo.FetchReference(ctx, s.outcome.SourceDigest)
	if err == nil {
		return fmt.Errorf("%s can be pulled although it is in quarantine", s.outcome.SourceDigest)
	}
	s.Say("Pulling it is refused: %v", err)
	return nil
}

// follow waits for the admission's end and shows the sanitizer's progress.
func (s *story) follow(ctx context.Context) error {
	id, err := s.admission(ctx)
	if err != nil {
		return err
	}
	for { // a stream that breaks is taken up again
		final, err := s.stream(ctx, id)
		if err != nil {
			return err
		}
		if final {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	var a webhook.Admission
	if err := s.get(ctx, "/api/v1/admissions/"+id, &a); err != nil {
		return err
	}
	if a.State != webhook.Released {
		return fmt.Errorf("the model was not released: %s (%s): %s", a.State, a.Reason, a.Message)
	}
	s.outcome.ReleasedDigest = a.Released.Digest
	if a.Report != nil {
		s.outcome.Transformation = a.Report.Transformation
	}
	s.Say("Released as %s; sanitized by %s (%s).", a.Released.Digest, a.Report.Method, a.Report.Transformation)
	return nil
}

func (s *story) admission(ctx context.Context) (string, error) {
	var list struct {
		Admissions []webhook.Admission `json:"admissions"`
	}
	if err := s.get(ctx, "/api/v1/admissions", &list); err != nil {
		return "", err
	}
	for _, a := range list.Admissions {
		if a.Source.Digest == s.outcome.SourceDigest {
			return a.ID, nil
		}
	}
	return "", fmt.Errorf("the server knows no admission of %s", s.outcome.SourceDigest)
}

func (s *story) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.server.Address+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// stream reads server-sent events until the stream ends, and reports whether a final state was among them.
func (s *story) stream(ctx context.Context, id string) (final bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.server.Address+"/api/v1/admissions/"+id+"/events", nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	event, lines := "", bufio.NewScanner(resp.Body)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case key == "event":
			event = value
		case key == "data" && event == "state":
			var c webhook.Change
			if err := json.Unmarshal([]byte(value), &c); err != nil {
				return false, err
			}
			s.Say("  %-12s %s", c.State, c.Message)
			final = c.State.Final()
		case key == "data" && event == "progress":
			var p sanitize.Progress
			if err := json.Unmarshal([]byte(value), &p); err != nil {
				return false, err
			}
			if p.Steps > 0 {
				s.Progress(p.Phase, p.Step, p.Steps, fmt.Sprintf("%.0f images/s, %.0f s left", p.ImagesPerSecond, p.Remaining))
			}
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return final, nil
}

// pull is what `oras pull` does.
func (s *story) pull(ctx context.Context) error {
	repo, err := s.repository()
	if err != nil {
		return err
	}
	dir := filepath.Join(s.Dir, "pull")
	store, err := file.New(dir)
	if err != nil {
		return err
	}
	defer store.Close()
	got, err := oras.Copy(ctx, repo, tag, store, tag, oras.DefaultCopyOptions)
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	if got.Digest.String() != s.outcome.ReleasedDigest {
		return fmt.Errorf("the tag points at %s, released was %s", got.Digest, s.outcome.ReleasedDigest)
	}
	s.pulled = filepath.Join(dir, "model.onnx")
	s.Say("The deployer pulls the tag and gets %s.", got.Digest)
	return nil
}

// verify checks the attestation with the server's public key.
func (s *story) verify(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.server.Address+"/api/v1/key", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	pem, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "grindstone.pub"), pem, 0o644); err != nil {
		return err
	}
	public, err := attest.ParsePublicKey(pem)
	if err != nil {
		return err
	}
	result, err := attest.VerifyRef(ctx, s.reference(), public, attest.RefOptions{PlainHTTP: true, Anonymous: true})
	if err != nil {
		return err
	}
	s.outcome.Verified = result.OK()
	s.Say("The deployer verifies it: grindstone verify %s --key grindstone.pub", s.reference())
	for _, c := range result.Checks {
		verdict := "ok"
		if !c.Passed {
			verdict = "FAILED"
		}
		s.Say("  %-24s %-6s %s", c.Name, verdict, c.Detail)
	}
	return result.Err()
}
