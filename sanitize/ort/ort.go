// Package ort runs ONNX graphs with ONNX Runtime (https://onnxruntime.ai), on the CPU or what else the library knows. It is the only package that
// imports the Go binding, whose library is found and loaded at run time: see Load.
package ort

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Version is the release of ONNX Runtime that the project is built and tested with; `make runtime` fetches it.
const Version = "1.27.0"

// Oldest is the first release that offers the C API the binding is compiled for (ORT_API_VERSION 24).
const Oldest = "1.24"

const apiVersion = 24

// Provider names an execution provider: the hardware that a session's nodes run on.
type Provider string

// The providers. Auto is CUDA where it works, else CPU; the others are used where they are named and the library has them.
const (
	Auto     Provider = "auto"
	CPU      Provider = "cpu"
	CUDA     Provider = "cuda"
	TensorRT Provider = "tensorrt"
	ROCm     Provider = "rocm"
	MIGraphX Provider = "migraphx"
	OpenVINO Provider = "openvino"
	CoreML   Provider = "coreml"
)

// Providers lists them all, Auto apart; CPU is last.
var Providers = []Provider{CUDA, TensorRT, ROCm, MIGraphX, OpenVINO, CoreML, CPU}

// LibraryName is ONNX Runtime's own name of a provider.
func (p Provider) LibraryName() string {
	return map[Provider]string{CPU: "CPU", CUDA: "CUDA", TensorRT: "Tensorrt", ROCm: "ROCM", MIGraphX: "MIGraphX", OpenVINO: "OpenVINO", CoreML: "CoreML"}[p] + "ExecutionProvider"
}

// ParseProvider reads a provider's name; the empty string is Auto.
func ParseProvider(s string) (Provider, error) {
	p := Provider(strings.ToLower(s))
	if p == "" || p == Auto {
		return Auto, nil
	}
	if !slices.Contains(Providers, p) {
		return "", fmt.Errorf("provider %q is unknown: use %s or one of %q", s, Auto, Providers)
	}
	return p, nil
}

// Optimization is how far ONNX Runtime rewrites a graph before running it. The zero value is OptimizeAll.
type Optimization int

// The levels, as in https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html
const (
	OptimizeAll      Optimization = iota // everything, with hardware-dependent layouts
	OptimizeExtended                     // and fusions of several nodes
	OptimizeBasic                        // constant folding, removal of redundant nodes
	OptimizeNone                         // the graph as it is
)

// Options shape a session. The zero value is a session on all cores, with CUDA where it works.
type Options struct {
	Provider Provider     // "" is Auto
	Device   int          // CUDA device number
	Threads  int          // threads within one node; 0: one for each CPU that Go may use
	InterOp  int          // above 1: independent nodes run in parallel, on this many threads
	Optimize Optimization // graph rewriting
	TF32     bool         // CUDA: allow TensorFloat-32 in matrix products and convolutions (10-bit mantissa)
	Profile  string       // path prefix of a profile (Chrome trace JSON), written when the session is closed

	NoArena   bool // CPU: give memory back after every allocation instead of keeping it for the next run
	NoPattern bool // do not plan one block of memory for runs of equal shapes

	// Config holds further session options by their key in onnxruntime_session_options_config_keys.h. Beware of
	// session.set_denormal_as_zero: it changes the floating-point mode of the calling thread, which belongs to Go.
	Config map[string]string
}

// What can go wrong, to be told apart with errors.Is.
var (
	ErrLibrary   = errors.New("no usable ONNX Runtime library found")
	ErrVersion   = errors.New("the ONNX Runtime library is too old")
	ErrModel     = errors.New("ONNX Runtime refuses the model")
	ErrProvider  = errors.New("execution provider not available")
	ErrArray     = errors.New("array does not fit")
	ErrRun       = errors.New("ONNX Runtime failed")
	ErrMemory    = errors.New("out of memory") // of the device, or of what LimitMemory allows; comes with ErrRun or ErrModel
	ErrCancelled = errors.New("run cancelled") // comes with the context's cause
	ErrClosed    = errors.New("session is closed")
)

// LibraryError says which places were searched for the library and what was wrong with each. It is ErrLibrary and, when a library
// was there but too old, ErrVersion too.
type LibraryError struct {
	Tried []Attempt
}

// Attempt is one place that was looked in.
type Attempt struct {
	Place string // a file, or a folder without such a file
	Err   error
}

const howToInstall = `Install it in one of these ways:
  make runtime                       in a checkout of Grindstone: fetches release ` + Version + ` into the cache folder
  pip download onnxruntime==` + Version + `  or  npm pack onnxruntime-node@` + Version + `, unpack, and set ORT_LIBRARY to the library inside
  ORT_LIBRARY=/path/to/libonnxruntime.so (or .dylib, or their folder) for a library you have, release ` + Oldest + ` or newer`

func (e *LibraryError) Error() string {
	var b strings.Builder
	b.WriteString(ErrLibrary.Error())
	if e.tooOld() {
		b.Reset()
		b.WriteString(ErrVersion.Error())
	}
	b.WriteString(". Looked in:\n")
	for _, t := range e.Tried {
		fmt.Fprintf(&b, "  %s: %v\n", t.Place, t.Err)
	}
	b.WriteString(howToInstall)
	return b.String()
}

// Is makes the error ErrLibrary, and ErrVersion where that is the reason.
func (e *LibraryError) Is(target error) bool {
	return target == ErrLibrary || target == ErrVersion && e.tooOld()
}

func (e *LibraryError) tooOld() bool {
	for _, t := range e.Tried {
		if errors.Is(t.Err, ErrVersion) {
			return true
		}
	}
	return false
}
