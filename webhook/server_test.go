package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/retry"

	"grindstone/attest"
	"grindstone/internal/testprocess"
	"grindstone/policy"
	"grindstone/registry"
	"grindstone/webhook/pushevent"
	"grindstone/webhook/queue"
)

// testServer is the real server as a process: it says its address on standard output. At the point named by -stop it says so and
// waits to be killed.
func testServer(args []string) int {
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	dir := flags.String("dir", "", "")
	behaviour := flags.String("sanitizer", "ok", "")
	stop := flags.String("stop", "", "")
	data := flags.String("data", "/dev/null", "")
	policyDir := flags.String("policy", "", "")
	workers := flags.Int("workers", 1, "")
	notify := flags.String("notify", "", "")
	queueURL := flags.String("queue", "", "")
	queueListen := flags.String("queue-listen", "", "")
	events := flags.String("events", "", "")
	timeout := flags.Duration("timeout", time.Minute, "")
	atOnce := flags.Int("at-once", 0, "")
	keep := flags.Duration("keep", 0, "")
	eventTimeout := flags.Duration("event-timeout", 0, "")
	_ = flags.Parse(args)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "test server:", err)
		return 1
	}
	engine, err := policy.New(ctx, policy.Options{Dir: *policyDir, Log: log})
	if err != nil {
		return fail(err)
	}
	key, err := attest.LoadOrCreateKey(filepath.Join(*dir, "keys", "grindstone.key"), func() ([]byte, error) { return nil, nil })
	if err != nil {
		return fail(err)
	}
	datasets := map[string]string{}
	if *data != "" {
		datasets["default"] = *data
	}
	var targets []Target
	for i, u := range strings.Fields(*notify) {
		targets = append(targets, Target{Name: fmt.Sprint("t", i), URL: u, Secret: "whsec_" + base64.StdEncoding.EncodeToString([]byte(testSecret))})
	}
	jobs, err := queue.Open(ctx, queue.Config{
		URL: *queueURL, Dir: filepath.Join(*dir, "state", "queue"), Listen: *queueListen, Heartbeat: testHeartbeat, Log: log,
	})
	if err != nil {
		return fail(err)
	}
	defer jobs.Close()
	var sources []EventSource
	if *events != "" {
		for kind := range pushevent.Parsers {
			sources = append(sources, EventSource{
				Kind: kind, Registry: Remote{*events, true}, Secret: testSecret, Window: time.Hour, Timeout: *eventTimeout, Prefix: "events/" + kind + "/",
				Matches: func(name string) bool { return strings.HasPrefix(name, "in/") }, Release: Remote{*events, true}, To: "released/",
			})
		}
	}
	p, err := NewPipeline(PipelineConfig{
		Events:  sources,
		Ingest:  IngestConfig{AtOnce: *atOnce, Keep: *keep},
		Queue:   jobs,
		Targets: targets, NotifyPauses: []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond},
		Dir: *dir, Policy: engine, Key: key, Datasets: datasets, Host: "registry.test", Log: log, Version: attest.Version{Grindstone: "test"},
		Sanitizer: SanitizerConfig{Command: sanitizerCommand(*behaviour), Workers: *workers, Timeout: *timeout, Memory: 1 << 30},
	})
	if err != nil {
		return fail(err)
	}
	if *stop != "" {
		p.passing = func(point string) {
			if point == *stop {
				fmt.Println("AT", point)
				select {}
			}
		}
	}
	gateway, err := registry.New(registry.Config{
		Dir: filepath.Join(*dir, "registry"), Intercept: func(name string) bool { return !strings.HasPrefix(name, "open/") }, Admitter: p, Log: log,
	})
	if err != nil {
		return fail(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fail(err)
	}
	fmt.Println("LISTENS", l.Addr())
	if err := NewServer(ServerConfig{HTTPConfig: HTTPConfig{GracePeriod: 20 * time.Second}}, p, gateway, log).Serve(ctx, l); err != nil {
		return fail(err)
	}
	if err := gateway.Close(); err != nil {
		return fail(err)
	}
	return 0
}

// serverProcess is a running testServer.
type serverProcess struct {
	*testing.T
	*testprocess.Process
	dir, address string
	at           chan string // points reached
}

// startServer runs the server on dir until the test ends, and waits until it listens.
func startServer(t *testing.T, dir string, args ...string) *serverProcess {
	t.Helper()
	s := &serverProcess{T: t, dir: dir, at: make(chan string, 1)}
	s.Process = testprocess.Start(t, exec.Command(os.Args[0], append([]string{"server", "-dir", dir}, args...)...), func(line string) bool {
		if point, ok := strings.CutPrefix(line, "AT "); ok {
			s.at <- point
		}
		address, ok := strings.CutPrefix(line, "LISTENS ")
		if ok {
			s.address = address
		}
		return ok
	})
	s.get("/healthz", nil) // it answers when the pipeline is at work
	return s
}

// reach waits until the server is at the point of -stop.
func (s *serverProcess) reach() {
	s.Helper()
	select {
	case <-s.at:
	case <-s.Done():
		s.Fatal("the server ended")
	case <-time.After(60 * time.Second):
		s.Fatal("the point was not reached")
	}
}

func (s *serverProcess) get(path string, into any) int {
	s.Helper()
	return testprocess.Get(s.T, "http://"+s.address+path, into)
}

func (s *serverProcess) admissions(query string) []Admission {
	s.Helper()
	var answer struct {
		Admissions []Admission `json:"admissions"`
		Total      int         `json:"total"`
	}
	if status := s.get("/api/v1/admissions"+query, &answer); status != http.StatusOK {
		s.Fatalf("admissions%s: %d", query, status)
	}
	return answer.Admissions
}

// settle waits until all admissions are final, and returns them, newest first.
func (s *serverProcess) settle() []Admission {
	s.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		list, open := s.admissions(""), 0
		for _, a := range list {
			if !a.State.Final() {
				open++
			}
		}
		if len(list) > 0 && open == 0 {
			return list
		}
	}
	s.Fatalf("admissions do not come to an end: %+v", s.admissions(""))
	return nil
}

func (s *serverProcess) repository(name string) *remote.Repository {
	s.Helper()
	repo, err := remote.NewRepository(s.address + "/" + name)
	if err != nil {
		s.Fatal(err)
	}
	repo.PlainHTTP = true
	repo.Client = &http.Client{Transport: &retry.Transport{Policy: func() retry.Policy {
		return &retry.GenericPolicy{Retryable: func(*http.Response, error) (bool, error) { return false, nil }}
	}}}
	return repo
}

// testModel returns a small ONNX file: a graph of a name, with an IR version and an opset.
func testModel(name string) []byte {
	graph := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), name)
	opset := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 17)
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 8)
	b = protowire.AppendBytes(protowire.AppendTag(b, 7, protowire.BytesType), graph)
	return protowire.AppendBytes(protowire.AppendTag(b, 8, protowire.BytesType), opset)
}

// push pushes files by name as one package, as `oras push` does.
func (s *serverProcess) push(repository, tag string, files map[string][]byte) (ocispec.Descriptor, error) {
	s.Helper()
	return s.pushAnnotated(repository, tag, files, nil)
}

// pushAnnotated pushes files with further annotations of the manifest.
func (s *serverProcess) pushAnnotated(repository, tag string, files map[string][]byte, annotations map[string]string) (ocispec.Descriptor, error) {
	s.Helper()
	ctx, store := s.Context(), memory.New()
	var layers []ocispec.Descriptor
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := files[name]
		d := content.NewDescriptorFromBytes("application/octet-stream", file)
		if err := store.Push(ctx, d, bytes.NewReader(file)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
			s.Fatal(err)
		}
		d.Annotations = map[string]string{ocispec.AnnotationTitle: name}
		layers = append(layers, d)
	}
	all := map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"}
	maps.Copy(all, annotations)
	d, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, "application/vnd.test.model", oras.PackManifestOptions{
		Layers: layers, ManifestAnnotations: all,
	})
	if err != nil {
		s.Fatal(err)
	}
	if err := store.Tag(ctx, d, tag); err != nil {
		s.Fatal(err)
	}
	_, err = oras.Copy(ctx, store, tag, s.repository(repository), tag, oras.DefaultCopyOptions)
	return d, err
}

// pushModel pushes a package of one model, which the name makes unlike others.
func (s *serverProcess) pushModel(repository, tag, name string) ocispec.Descriptor {
	s.Helper()
	d, err := s.push(repository, tag, map[string][]byte{"model.onnx": testModel(name)})
	if err != nil {
		s.Fatal(err)
	}
	return d
}

// pull returns the manifest's digest and the model behind a reference.
func (s *serverProcess) pull(repository, reference string) (string, []byte, error) {
	s.Helper()
	repo := s.repository(repository)
	d, text, err := oras.FetchBytes(s.Context(), repo, reference, oras.DefaultFetchBytesOptions)
	if err != nil {
		return "", nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		s.Fatal(err)
	}
	_, model, err := oras.FetchBytes(s.Context(), repo.Blobs(), m.Layers[0].Digest.String(), oras.DefaultFetchBytesOptions)
	return d.Digest.String(), model, err
}

// checkReleased checks that the tag answers with the sanitized model and that its one attestation verifies.
func (s *serverProcess) checkReleased(repository, tag, name string, a Admission) {
	s.Helper()
	if a.State != Released || a.Released == nil {
		s.Errorf("admission is %s (%s: %s)", a.State, a.Reason, a.Message)
		return
	}
	digest, model, err := s.pull(repository, tag)
	if err != nil || digest != a.Released.Digest || string(model) != string(testModel(name))+"sanitized" {
		s.Errorf("tag %s answers %s %q, %v; released is %s", tag, digest, model, err, a.Released.Digest)
	}
	if _, _, err := s.pull(repository, a.Source.Digest); err == nil {
		s.Error("the pushed model can be pulled by its digest")
	}
	public := s.public()
	result, err := attest.VerifyRef(s.Context(), s.address+"/"+repository+":"+tag, public, attest.RefOptions{Anonymous: true})
	if err != nil {
		s.Errorf("verify: %v", err)
	} else if p := result.Statement.Predicate; p.Source.Digest.SHA256 != strings.TrimPrefix(a.Source.Digest, "sha256:") ||
		p.Decision.ID != a.Verdict.ID || p.Source.URI != "oci://registry.test/"+repository+"@"+a.Source.Digest {
		s.Errorf("the attestation speaks of something else: %+v", p)
	}
	referrers := 0
	subject := ocispec.Descriptor{MediaType: a.Released.MediaType, Digest: digestOf(a.Released.Digest), Size: a.Released.Size}
	err = s.repository(repository).Referrers(s.Context(), subject, "", func(page []ocispec.Descriptor) error {
		referrers += len(page)
		return nil
	})
	if err != nil || referrers != 1 {
		s.Errorf("%d referrers, %v; want the attestation alone", referrers, err)
	}
	s.checkCleaned(a)
}

// checkCleaned waits for the scratch folder to go: that happens after the end is recorded.
func (s *serverProcess) checkCleaned(a Admission) {
	s.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(s.dir, "work", a.ID)); err != nil {
			return
		}
	}
	s.Error("the scratch folder is still there")
}
