package ort

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestMain loads the library in a process of its own where a test asks for it (see loadElsewhere): a process loads it only once.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_LOAD_AND_EXIT") == "" {
		os.Exit(m.Run())
	}
	info, err := Load()
	if err != nil {
		fmt.Println(err)
		fmt.Println("library:", errors.Is(err, ErrLibrary), "version:", errors.Is(err, ErrVersion))
		os.Exit(3)
	}
	fmt.Println(info.Path, info.Version)
}

// loadElsewhere runs Load in a new process with these settings of the environment, and returns what it says.
func loadElsewhere(t *testing.T, env ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append([]string{"TEST_LOAD_AND_EXIT=1"}, env...)
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		t.Fatal(err)
	}
	return string(out)
}

func loaded(t *testing.T) Info {
	t.Helper()
	info, err := Load()
	if err != nil {
		t.Fatalf("%v\n(run `make runtime` first)", err)
	}
	return info
}

func TestLoad(t *testing.T) {
	info := loaded(t)
	again := loaded(t)
	if !reflect.DeepEqual(info, again) || info.Path == "" || tooOld(info.Version) || len(info.Devices) == 0 {
		t.Errorf("%+v, then %+v", info, again)
	}
	if last := info.Providers[len(info.Providers)-1]; last != CPU {
		t.Errorf("providers %v", info.Providers)
	}
	for _, p := range Providers {
		if err := info.Missing[p]; (err == nil) != slices.Contains(info.Providers, p) || err != nil && !errors.Is(err, ErrProvider) {
			t.Errorf("providers %v, but of %s it says %v", info.Providers, p, err)
		}
	}
	t.Logf("%+v", info)
}

func TestLookup(t *testing.T) {
	real, err := filepath.Abs(loaded(t).Path)
	if err != nil {
		t.Fatal(err)
	}
	library := libraryName()
	link := func(dir, name string) string {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(real, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	versioned := library + ".1.27.0"
	if runtime.GOOS == "darwin" {
		versioned = "libonnxruntime.1.27.0.dylib"
	}
	named, cache := t.TempDir(), t.TempDir()
	want := link(named, versioned)
	folder := fmt.Sprintf("%s-%s-%s", Version, runtime.GOOS, runtime.GOARCH)
	cached := link(filepath.Join(cache, "onnxruntime", folder), library)
	withCUDA := link(filepath.Join(t.TempDir(), "onnxruntime", folder+"-cuda"), library)

	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"ORT_LIBRARY, a file":           {[]string{"ORT_LIBRARY=" + want, "GRINDSTONE_CACHE=" + cache}, want},
		"ORT_LIBRARY, a folder":         {[]string{"ORT_LIBRARY=" + named, "GRINDSTONE_CACHE=" + cache}, want},
		"cache folder":                  {[]string{"GRINDSTONE_CACHE=" + cache}, cached},
		"cache folder, CUDA build":      {[]string{"GRINDSTONE_CACHE=" + filepath.Dir(filepath.Dir(filepath.Dir(withCUDA)))}, withCUDA},
		"cache folder of the user":      {[]string{"XDG_CACHE_HOME=" + userCache(t, link)}, "grindstone"},
		"the loader (LD_LIBRARY_PATH)":  {[]string{"LD_LIBRARY_PATH=" + filepath.Dir(cached), "GRINDSTONE_CACHE=" + named}, library},
		"a file that is no library":     {[]string{"ORT_LIBRARY=" + os.Args[0]}, "ORT_LIBRARY=/path/to"},
		"a place that does not exist":   {[]string{"ORT_LIBRARY=/no/such/place"}, "/no/such/place: no such library"},
		"nothing anywhere: what to do":  {[]string{"GRINDSTONE_CACHE=" + named}, "make runtime"},
		"nothing anywhere: what failed": {[]string{"GRINDSTONE_CACHE=" + named}, "library: true version: false"},
	} {
		if runtime.GOOS == "darwin" && strings.Contains(name, "user") || strings.Contains(name, "loader") && runtime.GOOS != "linux" {
			continue
		}
		if got := loadElsewhere(t, c.env...); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
}

func userCache(t *testing.T, link func(dir, name string) string) string {
	root := t.TempDir()
	link(filepath.Join(root, "grindstone", "onnxruntime", fmt.Sprintf("%s-%s-%s", Version, runtime.GOOS, runtime.GOARCH)), libraryName())
	return root
}

// An old release is recognized before its API is used. The library here is as much of one as is looked at.
func TestOldLibrary(t *testing.T) {
	dir := t.TempDir()
	code := `
		static const char *release(void) { return "1.17.3"; }
		static const void *api(unsigned v) { return 0; }
		static struct { const void *(*api)(unsigned); const char *(*release)(void); } base = {api, release};
		const void *OrtGetApiBase(void) { return &base; }`
	source, library := filepath.Join(dir, "old.c"), filepath.Join(dir, libraryName())
	if err := os.WriteFile(source, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := loadElsewhere(t, "ORT_LIBRARY="+library)
	for _, want := range []string{ErrVersion.Error(), "it is release 1.17.3, 1.24 or newer is needed", "library: true version: true"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func TestTooOld(t *testing.T) {
	for release, want := range map[string]bool{
		"1.27.0": false, "1.24.0": false, "1.132.1": false, "2.0.0": false,
		"1.23.9": true, "1.9.0": true, "0.30.0": true, "": true, "nonsense": true,
	} {
		if got := tooOld(release); got != want {
			t.Errorf("tooOld(%q) = %v", release, got)
		}
	}
}

func TestScriptFetchesThisVersion(t *testing.T) {
	script, err := os.ReadFile("../../scripts/runtime.sh")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(script), "\nversion="+Version+" ") {
		t.Errorf("scripts/runtime.sh does not fetch version %s", Version)
	}
}

func TestProviders(t *testing.T) {
	info := loaded(t)
	// The probe's graph, on the provider that is always there.
	s := open(t, identityModel, Options{Provider: CPU})
	out := make([]*Array, 1)
	if err := s.Run(t.Context(), []*Array{{Shape: []int64{1}, F32: []float32{7}}}, out); err != nil || out[0].F32[0] != 7 {
		t.Errorf("%+v, %v", out[0], err)
	}
	cuda := info.Providers[0] == CUDA
	s, err := NewSession(identityModel, Options{Provider: CUDA})
	switch {
	case cuda && err != nil:
		t.Errorf("CUDA works, but not twice: %v", err)
	case !cuda && !errors.Is(err, ErrProvider):
		t.Errorf("without CUDA: %v, want ErrProvider", err)
	case err == nil:
		_ = s.Close()
	default:
		t.Log(err)
	}
	auto := open(t, identityModel, Options{Provider: Auto})
	if want := info.Providers[0]; auto.Provider() != want {
		t.Errorf("auto is %s, want %s", auto.Provider(), want)
	}
	if _, err := NewSession(identityModel, Options{Provider: "tpu"}); !errors.Is(err, ErrProvider) || !strings.Contains(err.Error(), "use auto or one of") {
		t.Errorf("unknown provider: %v", err)
	}
	if p, err := ParseProvider("CUDA"); p != CUDA || err != nil {
		t.Errorf("ParseProvider: %v, %v", p, err)
	}
}
