package ort

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	binding "github.com/yalue/onnxruntime_go"
)

// Info describes the loaded library.
type Info struct {
	Path      string     // the library file, or the name the system's loader resolved
	Version   string     // its release
	Providers []Provider // those that work here; CPU is always last
	Devices   []string   // what they run on, for people to read

	Missing map[Provider]error // why the others do not work
}

var library struct {
	sync.Mutex
	loaded  bool
	limited bool // by LimitMemory
	info    Info
}

// Load finds and loads the ONNX Runtime library, once for the process; further calls return the same Info. A failed call can be
// repeated.
//
// The places, in this order: ORT_LIBRARY (a file or its folder; nothing else is tried when it is set), the executable's folder and
// the lib folder beside it, the cache folder (see CacheDir), the system's library folders, and whatever the system's loader knows
// (LD_LIBRARY_PATH, ld.so.conf). A library that cannot be loaded or is too old is passed over. Errors: *LibraryError.
func Load() (Info, error) {
	if err := load(); err != nil {
		return Info{}, err
	}
	info := library.info
	info.Missing = map[Provider]error{}
	for _, p := range Providers {
		if err := works(p); err != nil {
			info.Missing[p] = err
			continue
		}
		info.Providers = append(info.Providers, p)
		if p == CUDA {
			info.Devices = gpuNames()
		}
	}
	info.Devices = append(info.Devices, cpuName())
	return info, nil
}

func load() error {
	library.Lock()
	defer library.Unlock()
	if library.loaded {
		return nil
	}
	var failed LibraryError
	for _, place := range places() {
		for _, path := range place.candidates() {
			release, err := probe(path)
			if err == nil {
				err = start(path)
			}
			if err == nil {
				library.loaded = true
				library.info = Info{Path: path, Version: release}
				return nil
			}
			failed.Tried = append(failed.Tried, Attempt{path, err})
		}
		if len(place.candidates()) == 0 {
			failed.Tried = append(failed.Tried, Attempt{place.path, errors.New("no such library")})
		}
	}
	return &failed
}

// start initializes the binding's environment with the library at path. ONNX Runtime's own log is silenced: every error it logs
// is returned as well.
func start(path string) error {
	binding.SetSharedLibraryPath(path)
	if err := binding.InitializeEnvironment(binding.WithLogLevelFatal()); err != nil {
		return err
	}
	return binding.DisableTelemetry()
}

// CacheDir is the folder that `make runtime` puts the library into: onnxruntime/<version>-<os>-<arch> below GRINDSTONE_CACHE, or
// below grindstone in the user's cache folder; the build with CUDA goes to a folder of the same name with "-cuda" added, which is
// preferred. Empty when there is neither.
func CacheDir() string {
	root := os.Getenv("GRINDSTONE_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		root = filepath.Join(user, "grindstone")
	}
	return filepath.Join(root, "onnxruntime", fmt.Sprintf("%s-%s-%s", Version, runtime.GOOS, runtime.GOARCH))
}

// place is a file or folder to look in, or a bare name for the system's loader.
type place struct {
	path string
	bare bool
}

func places() []place {
	if path := os.Getenv("ORT_LIBRARY"); path != "" {
		return []place{{path: path}}
	}
	var list []place
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dir := filepath.Dir(exe)
		list = append(list, place{path: dir}, place{path: filepath.Join(dir, "..", "lib")})
	}
	if dir := CacheDir(); dir != "" {
		list = append(list, place{path: dir + "-cuda"}, place{path: dir})
	}
	for _, dir := range systemDirs() {
		list = append(list, place{path: dir})
	}
	return append(list, place{path: libraryName(), bare: true})
}

func systemDirs() []string {
	if runtime.GOOS == "darwin" {
		return []string{"/opt/homebrew/lib", "/usr/local/lib"}
	}
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return []string{"/usr/local/lib", "/opt/onnxruntime/lib", "/usr/lib/" + triplet, "/usr/lib64", "/usr/lib"}
}

func libraryName() string {
	if runtime.GOOS == "darwin" {
		return "libonnxruntime.dylib"
	}
	return "libonnxruntime.so"
}

// candidates lists the library files of a place, the plain name first, then versioned names, newest first.
func (p place) candidates() []string {
	if p.bare {
		return []string{p.path}
	}
	info, err := os.Stat(p.path)
	if err != nil {
		return nil
	}
	if !info.IsDir() {
		return []string{p.path}
	}
	pattern := libraryName() + ".*"
	if runtime.GOOS == "darwin" {
		pattern = "libonnxruntime.*.dylib"
	}
	found, _ := filepath.Glob(filepath.Join(escapeGlob(p.path), pattern))
	slices.Sort(found)
	slices.Reverse(found)
	plain := filepath.Join(p.path, libraryName())
	if _, err := os.Stat(plain); err == nil {
		found = append([]string{plain}, found...)
	}
	return found
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}
