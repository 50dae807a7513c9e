package integration

import (
	"encoding/xml"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"grindstone/internal/testregistry"
)

// The OCI distribution-spec's own conformance suite is run against the real server as a program: `make test-conformance`.

const (
	suite        = "github.com/opencontainers/distribution-spec/conformance"
	suiteVersion = "v0.0.0-20260831232431-97274622c111"
)

// needPrograms skips the test unless programs of other people were asked for: building them takes minutes the first time.
func needPrograms(t *testing.T) {
	t.Helper()
	if os.Getenv("GRINDSTONE_PROGRAMS") == "" {
		t.Skip("builds and runs programs of other people: make test-clients, make test-conformance")
	}
}

// conform runs the suite on two repositories of a registry, with more settings of the suite. It returns the failures, by the name of the
// test, and how many tests passed.
func conform(t *testing.T, registry, first, second string, settings ...string) (failed map[string]string, passed int) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), testregistry.Program(t, suite, suiteVersion))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+strings.TrimPrefix(registry, "http://"), "OCI_TLS=disabled", "OCI_REPO1="+first, "OCI_REPO2="+second, "OCI_RESULTS_DIR="+dir)
	cmd.Env = append(cmd.Env, settings...)
	out, _ := cmd.CombinedOutput() // it fails when a test does
	text, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
	if err != nil {
		t.Fatalf("the suite did not end: %v\n%s", err, out)
	}
	var report struct {
		Suites []struct {
			Cases []struct {
				Name   string `xml:"name,attr"`
				Status string `xml:"status,attr"`
				Out    string `xml:"system-out"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	failed = map[string]string{}
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			switch c.Status {
			case "passed":
				passed++
			case "skipped", "disabled":
			default:
				failed[strings.TrimPrefix(c.Name, "OCI Conformance Test/")] = c.Out
			}
		}
	}
	if passed+len(failed) < 300 {
		t.Fatalf("the suite ran %d tests only:\n%s", passed+len(failed), out)
	}
	return failed, passed
}

// TestConformance runs the whole suite on a repository that is not intercepted: pull, push, content discovery and content management, and
// what the next version of the specification adds. In front of a registry that fails some of it itself, no other test may fail.
func TestConformance(t *testing.T) {
	needPrograms(t)
	next := "OCI_VERSION=dev"
	t.Run("embedded", func(t *testing.T) {
		s := startServer(t, "--config", tinyConfig(t, ""))
		checkConforms(t, s, nil, next)
	})
	for name, upstream := range map[string]func(*testing.T) string{
		"olareg":       testregistry.Olareg,
		"distribution": func(t *testing.T) string { return testregistry.Distribution(t, "") },
	} {
		t.Run("upstream "+name, func(t *testing.T) {
			behind := upstream(t)
			own, passed := conform(t, behind, "direct/one", "direct/two")
			t.Logf("%s alone: %d passed, %d failed", name, passed, len(own))
			s := startServer(t, "--config", tinyConfig(t, "upstream: {url: \""+behind+"\"}\n"))
			checkConforms(t, s, own)
		})
	}
}

type difference struct {
	test  *regexp.Regexp
	about string
}

// differences are what the suite finds of a repository that is intercepted, by the names of its tests, and which line of docs/clients.md explains it.
var differences = []difference{
	{regexp.MustCompile(`^non-distributable-layers/`), "layers that are elsewhere"},
	{regexp.MustCompile(`^(sha512|data-sha512)/.*(manifest|tag)`), "manifests named by sha512"},
	{regexp.MustCompile(`^(index|nested-index|empty-index|artifact-index|index-with-subject|custom-fields)/.*(manifest|tag)`), "indexes"},
	{regexp.MustCompile(`/blob-[a-z-]+$`), "blobs before their package"},
}

// TestConformanceIntercepted runs the suite on a repository that is intercepted, and finds the differences that are explained and no others.
func TestConformanceIntercepted(t *testing.T) {
	needPrograms(t)
	s := startServer(t, "--config", tinyConfig(t, ""))
	failed, passed := conform(t, s.address, "models/one", "models/two")
	explained := readFile(t, filepath.Join(root, "docs", "clients.md"))
	found := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		i := slices.IndexFunc(differences, func(d difference) bool { return d.test.MatchString(name) })
		if i < 0 {
			t.Errorf("%s: %s", name, failed[name])
			continue
		}
		found[differences[i].about]++
	}
	for _, d := range differences {
		if found[d.about] == 0 || !strings.Contains(explained, "| "+d.about+" |") {
			t.Errorf("%s: %d tests, and docs/clients.md explains it: %t", d.about, found[d.about], strings.Contains(explained, "| "+d.about+" |"))
		}
	}
	t.Logf("%d passed, %d failed: %v", passed, len(failed), found)
}

// checkConforms fails the test for every test of the suite that fails, except those that are known to.
func checkConforms(t *testing.T, s *server, known map[string]string, settings ...string) {
	t.Helper()
	failed, passed := conform(t, s.address, "public/one", "public/two", settings...)
	t.Logf("through the gateway: %d passed, %d failed", passed, len(failed))
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if _, ok := known[name]; !ok {
			t.Errorf("%s: %s", name, failed[name])
		}
	}
}
