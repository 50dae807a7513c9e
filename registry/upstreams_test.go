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
