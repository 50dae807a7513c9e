package registry

import (
	"testing"

	"grindstone/internal/testregistry"
)

// backends are the registries that stand behind the gateway in tests: a name and what starts one and returns its URL, "" for the
// embedded store.
var backends = []struct {
	name  string
	start func(*testing.T) string
}{
	{"embedded", func(*testing.T) string { return "" }},
	{"distribution", func(t *testing.T) string { return testregistry.Distribution(t, "") }},
	{"olareg", testregistry.Olareg},
}

// eachBackend runs a test in front of every backend.
func eachBackend(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			test(t, serveWith(t, Config{Dir: t.TempDir(), Upstream: Upstream{URL: b.start(t), PassThrough: false}}))
		})
	}
}

// A registry that listens at a socket gets releases too.
func TestUpstreamAtASocket(t *testing.T) {
	up := Upstream{URL: testregistry.DistributionSocket(t)}
	testReleaseKeepsEverythingButTheModel(t, serveWith(t, Config{Dir: t.TempDir(), Upstream: up}))
}

func TestUpstreamURL(t *testing.T) {
	for url, good := range map[string]bool{
		"http://localhost:5000":            true,
		"https://registry.example.com":     true,
		"https://registry.example.com/":    true,
		"unix:///run/registry.sock":        true,
		"":                                 false,
		"registry.example.com:5000":        false,
		"ftp://registry.example.com":       false,
		"https://":                         false,
		"https://registry.example.com/v2/": false,
		"https://me@registry.example.com":  false,
		"https://registry.example.com?a=b": false,
		"https://registry.example.com#a":   false,
		"unix://run/registry.sock":         false,
		"unix://":                          false,
		"unix:run/registry.sock":           false,
		"unix:///run/registry.sock?a=b":    false,
	} {
		if err := CheckURL(url); (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
	}
}
