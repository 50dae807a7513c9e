package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	binding "github.com/yalue/onnxruntime_go"
)

// works tells, once for the process and provider, whether a provider can be used: it runs a one-node graph on it. A provider's library may
// load where no driver or no device is.
func works(p Provider) error {
	if p == CPU {
		return nil
	}
	tried.Lock()
	defer tried.Unlock()
	err, known := tried.errors[p]
	if !known {
		err = try(p)
		tried.errors[p] = err
	}
	return err
}

var tried = struct {
	sync.Mutex
	errors map[Provider]error
}{errors: map[Provider]error{}}

func try(p Provider) error {
	s, err := newSession(source{model: identityModel}, Options{Provider: p, Threads: 1})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Run(context.Background(), []*Array{{Shape: []int64{1}, F32: []float32{1}}}, make([]*Array, 1)); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProvider, p, err)
	}
	return nil
}

// identityModel is Y = Identity(X) for float X [1], IR 8, opset 17.
var identityModel = []byte("\x08\x08" + // ir_version
	"\x3a\x37" + "\x0a\x10\x0a\x01X\x12\x01Y\x22\x08Identity" + "\x12\x01g" + // graph: node, name
	"\x5a\x0f\x0a\x01X\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01" + // input
	"\x62\x0f\x0a\x01Y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01" + // output
	"\x42\x02\x10\x11") // opset_import

// Resolve turns the asked provider into the one that sessions use, and loads the library. Errors: ErrProvider, *LibraryError.
func Resolve(p Provider) (Provider, error) {
	p, err := ParseProvider(string(p))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrProvider, err)
	}
	if err := load(); err != nil {
		return "", err
	}
	switch {
	case p != Auto:
		return p, works(p)
	case works(CUDA) == nil:
		return CUDA, nil
	}
	return CPU, nil
}

// appendProvider puts a provider in front of the CPU, which runs what it does not know.
func appendProvider(so *binding.SessionOptions, opt Options) (err error) {
	switch opt.Provider {
	case CPU:
		return nil
	case CUDA:
		return appendCUDA(so, opt)
	case TensorRT:
		var to *binding.TensorRTProviderOptions
		if to, err = binding.NewTensorRTProviderOptions(); err == nil {
			defer to.Destroy()
			err = errors.Join(to.Update(map[string]string{"device_id": strconv.Itoa(opt.Device)}), so.AppendExecutionProviderTensorRT(to))
		}
	case OpenVINO:
		err = so.AppendExecutionProviderOpenVINO(nil)
	case CoreML:
		err = so.AppendExecutionProviderCoreMLV2(nil)
	default:
		err = so.AppendExecutionProvider(strings.TrimSuffix(opt.Provider.LibraryName(), "ExecutionProvider"), nil)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProvider, opt.Provider, err)
	}
	return nil
}

// cudaOptions are the provider's settings: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
// Copies run in the default stream because Loop bodies keep their state on the device.
func cudaOptions(opt Options) map[string]string {
	tf32 := "0"
	if opt.TF32 {
		tf32 = "1"
	}
	return map[string]string{
		"device_id":                 strconv.Itoa(opt.Device),
		"use_tf32":                  tf32,
		"cudnn_conv_algo_search":    "HEURISTIC",
		"arena_extend_strategy":     "kSameAsRequested",
		"do_copy_in_default_stream": "1",
	}
}

func appendCUDA(so *binding.SessionOptions, opt Options) error {
	co, err := binding.NewCUDAProviderOptions()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProvider, CUDA, err)
	}
	defer co.Destroy()
	if err := co.Update(cudaOptions(opt)); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProvider, CUDA, err)
	}
	if err := so.AppendExecutionProviderCUDA(co); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProvider, CUDA, err)
	}
	return nil
}

// gpuNames lists the NVIDIA devices that the driver shows to this process.
func gpuNames() []string {
	var names []string
	files, _ := filepath.Glob("/proc/driver/nvidia/gpus/*/information")
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for line := range strings.Lines(string(text)) {
			if model, ok := strings.CutPrefix(line, "Model:"); ok {
				names = append(names, strings.TrimSpace(model))
			}
		}
	}
	if names != nil {
		return names
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=name", "--format=csv,noheader").Output()
	if err != nil {
		return []string{"CUDA device"}
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func cpuName() string {
	model := runtime.GOARCH
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			model = strings.TrimLeft(strings.TrimSpace(name), ": \t")
			break
		}
	}
	return fmt.Sprintf("%s, %d threads", model, runtime.GOMAXPROCS(0))
}
