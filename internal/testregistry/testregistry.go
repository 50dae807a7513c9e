// Package testregistry starts registries that other people wrote, for tests that put a gateway in front of them.
package testregistry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"

	"grindstone/internal/testprocess"
)

// distributionVersion is the release of CNCF distribution that tests run as a process.
const distributionVersion = "v3.1.2"

// FreePort returns a loopback address that nobody listens on now.
func FreePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// DistributionCommand returns what runs CNCF distribution at an address, host and port or the path of a socket, with its files in dir, as often as it is
// called. more is YAML.
func DistributionCommand(t *testing.T, address, dir, more string) func() *exec.Cmd {
	t.Helper()
	path := Program(t, "github.com/distribution/distribution/v3/cmd/registry", distributionVersion)
	file := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nhttp: {net: %s, addr: %q, secret: for-tests}\n"+
		"storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}, maintenance: {uploadpurging: {enabled: false}}}\n%s", network(address), address, dir, more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() *exec.Cmd {
		cmd := exec.Command(path, "serve", file)
		cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
		return cmd
	}
}

// Distribution runs CNCF distribution on an empty folder until the test ends and returns its URL. more is YAML.
func Distribution(t *testing.T, more string) string {
	t.Helper()
	address := FreePort(t)
	distribution(t, address, more)
	return "http://" + address
}

// DistributionSocket runs CNCF distribution at a Unix socket on an empty folder until the test ends, and returns the socket's URL.
func DistributionSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "") // the path of a socket has 108 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	address := filepath.Join(dir, "registry.sock")
	distribution(t, address, "")
	return "unix://" + address
}

func distribution(t *testing.T, address, more string) {
	t.Helper()
	testprocess.Start(t, DistributionCommand(t, address, t.TempDir(), more)(), nil)
	wait(t, address)
}

// Olareg serves olareg from memory, within this process, and returns its URL.
func Olareg(t *testing.T) string {
	t.Helper()
	yes := true
	registry := olareg.New(config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem},
		API:     config.ConfigAPI{DeleteEnabled: &yes, Blob: config.ConfigAPIBlob{DeleteEnabled: &yes}, Referrer: config.ConfigAPIReferrer{Enabled: &yes}},
	})
	h := httptest.NewServer(registry)
	t.Cleanup(func() {
		h.Close()
		registry.Close()
	})
	return h.URL
}

// network is the kind of an address.
func network(address string) string {
	if filepath.IsAbs(address) {
		return "unix"
	}
	return "tcp"
}

// wait waits until a registry answers at an address.
func wait(t *testing.T, address string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network(address), address)
	}}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err == nil {
			answer.Body.Close()
			return
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s does not answer", address)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Switch stands before a registry and lets it be away for a while.
type Switch struct {
	URL    string
	status atomic.Int64
}

// NewSwitch serves on loopback what the registry at url serves.
func NewSwitch(t *testing.T, to string) *Switch {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	s := &Switch{}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Host = p.In.Host // it writes its Locations for this one
	}}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch status := int(s.status.Load()); status {
		case 0:
			proxy.ServeHTTP(w, r)
		case -1:
			panic(http.ErrAbortHandler)
		default:
			http.Error(w, http.StatusText(status), status)
		}
	}))
	t.Cleanup(h.Close)
	s.URL = h.URL
	return s
}

// Answer has every request answered with a status; 0 lets the registry answer, -1 cuts the connection.
func (s *Switch) Answer(status int) { s.status.Store(int64(status)) }
