package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"

	"grindstone/sanitize/ort"
	"grindstone/webhook"
)

// needRuntime skips the test where there is no ONNX Runtime library.
func needRuntime(t *testing.T) {
	t.Helper()
	if _, err := ort.Load(); err != nil {
		t.Skipf("no ONNX Runtime library: %v", err)
	}
}

// layerFile is one layer of a package that is pushed.
type layerFile struct {
	name, mediaType string
	content         []byte
}

// orasRepository is a repository of the server, for oras-go.
func (s *server) orasRepository(name string) *remote.Repository {
	s.Helper()
	repo, err := remote.NewRepository(s.address + "/" + name)
	if err != nil {
		s.Fatal(err)
	}
	repo.PlainHTTP = true
	return repo
}

// pushORAS pushes files as one package, as `oras push` does: the first is the config.
func (s *server) pushORAS(repository, tag string, annotations map[string]string, files ...layerFile) ocispec.Descriptor {
	s.Helper()
	store := memory.New()
	var pushed []ocispec.Descriptor
	for _, f := range files {
		d, err := oras.PushBytes(s.Context(), store, f.mediaType, f.content)
		if err != nil {
			s.Fatal(err)
		}
		if f.name != "" {
			d.Annotations = map[string]string{ocispec.AnnotationTitle: f.name}
		}
		pushed = append(pushed, d)
	}
	manifest, err := oras.PackManifest(s.Context(), store, oras.PackManifestVersion1_1, "application/vnd.test.model",
		oras.PackManifestOptions{ConfigDescriptor: &pushed[0], Layers: pushed[1:], ManifestAnnotations: annotations})
	if err != nil {
		s.Fatal(err)
	}
	if err := store.Tag(s.Context(), manifest, tag); err != nil {
		s.Fatal(err)
	}
	if _, err := oras.Copy(s.Context(), store, tag, s.orasRepository(repository), tag, oras.DefaultCopyOptions); err != nil {
		s.Fatal(err)
	}
	return manifest
}

// pushCrane pushes files as one package with go-containerregistry and returns its digest.
func (s *server) pushCrane(repository, tag string, files ...layerFile) string {
	s.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, f := range files {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:       static.NewLayer(f.content, types.MediaType(f.mediaType)),
			MediaType:   types.MediaType(f.mediaType),
			Annotations: map[string]string{ocispec.AnnotationTitle: f.name},
		})
		if err != nil {
			s.Fatal(err)
		}
	}
	if err := crane.Push(img, s.address+"/"+repository+":"+tag, crane.Insecure); err != nil {
		s.Fatal(err)
	}
	return digestOf(s.T, img)
}

func digestOf(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// admission is the newest admission of the repository.
func (s *server) admission(repository string) webhook.Admission {
	s.Helper()
	var list struct{ Admissions []webhook.Admission }
	if status := s.get("/api/v1/admissions?repository="+repository, &list); status != http.StatusOK || len(list.Admissions) == 0 {
		s.Fatalf("admissions of %s: %d, %+v", repository, status, list)
	}
	return list.Admissions[0]
}

// await waits for the end of the repository's newest admission.
func (s *server) await(repository string, limit time.Duration) webhook.Admission {
	s.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		a := s.admission(repository)
		if a.State.Final() {
			return a
		}
		if time.Now().After(deadline) {
			s.Fatalf("%s: no end within %v: %+v", repository, limit, a)
		}
	}
}

// follow reads the admission's events until found says that it was waiting for this one. Fails where the stream ends before.
func (s *server) follow(id string, found func(event string, data []byte) bool) {
	s.Helper()
	resp, err := http.Get("http://" + s.address + "/api/v1/admissions/" + id + "/events")
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	event := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		switch key, value, _ := strings.Cut(lines.Text(), ": "); key {
		case "event":
			event = value
		case "data":
			if found(event, []byte(value)) {
				return
			}
		}
	}
	s.Fatalf("the events of %s ended: %+v", id, s.admission(""))
}

// kill is kill -9.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	err := <-s.ended
	s.ended <- err
}

// children lists the processes that the server started and that still run, with their command lines.
func (s *server) children() map[int]string {
	s.Helper()
	return childrenOf(s.T, s.cmd.Process.Pid)
}

func childrenOf(t *testing.T, parent int) map[int]string {
	t.Helper()
	found := map[int]string{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range stats {
		pid, _ := strconv.Atoi(path.Base(path.Dir(stat)))
		if parentOf(pid) == parent {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			found[pid] = strings.ReplaceAll(string(line), "\x00", " ")
		}
	}
	return found
}

// parentOf reads the process's parent, 0 when it is gone or a zombie.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // after the command's name
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[0] == "Z" {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// peakMemory is the most that the server has held in memory so far, in bytes.
func (s *server) peakMemory() int64 {
	s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.Skipf("no process status here: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				s.Fatal(err)
			}
			return kib << 10
		}
	}
	s.Fatalf("no VmHWM in\n%s", status)
	return 0
}

// subsetTar copies the first images of every class (those numbered below perClass) of tar.gz archives into one new tar.gz.
func subsetTar(t *testing.T, to string, perClass map[string]int) {
	t.Helper()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(out)
	w := tar.NewWriter(z)
	for from, n := range perClass {
		if err := copyImages(w, from, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}

func copyImages(w *tar.Writer, from string, below int) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		number, err := strconv.Atoi(strings.TrimSuffix(path.Base(h.Name), path.Ext(h.Name)))
		if err != nil || number >= below || h.Typeflag != tar.TypeReg {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: h.Name, Mode: 0o644, Size: h.Size}); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}
