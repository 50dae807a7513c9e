package ort

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	binding "github.com/yalue/onnxruntime_go"
)

// Session is a graph, ready to run. Runs of one session follow one another: a second caller waits.
type Session struct {
	mu       sync.Mutex
	native   *binding.DynamicAdvancedSession // nil once closed
	in, out  []Port
	filler   *Array // the input of a graph that has none of its own
	provider Provider
}

// source is where a model comes from: bytes, or a file, beside which external data are looked for.
type source struct {
	model []byte
	path  string
}

// NewSession prepares a serialized ModelProto. Errors: *LibraryError, ErrProvider, ErrModel.
func NewSession(model []byte, opt Options) (*Session, error) {
	return openSession(source{model: model}, opt)
}

// NewSessionFile prepares a model file, whose external data are read from its folder. Errors: those of NewSession, and of reading.
func NewSessionFile(path string, opt Options) (*Session, error) {
	model, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := openSession(source{model: model, path: path}, opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func openSession(src source, opt Options) (*Session, error) {
	var err error
	if opt.Provider, err = Resolve(opt.Provider); err != nil {
		return nil, err
	}
	return newSession(src, opt)
}

// newSession expects the library to be loaded and the provider to be resolved.
func newSession(src source, opt Options) (*Session, error) {
	in, out, err := readPorts(src.model)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModel, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: the graph has no outputs", ErrModel)
	}
	s := &Session{in: in, out: out, provider: opt.Provider}
	if len(in) == 0 {
		src.model, src.path = addInput(src.model), ""
		s.filler = &Array{Shape: []int64{1}, F32: []float32{0}}
	}
	so, err := sessionOptions(opt)
	if err != nil {
		return nil, err
	}
	defer so.Destroy()
	if src.path != "" {
		s.native, err = binding.NewDynamicAdvancedSession(src.path, names(s.fed()), names(out), so)
	} else {
		s.native, err = binding.NewDynamicAdvancedSessionWithONNXData(src.model, names(s.fed()), names(out), so)
	}
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", opt.Provider, failure(ErrModel, err))
	}
	runtime.AddCleanup(s, func(native *binding.DynamicAdvancedSession) { _ = native.Destroy() }, s.native)
	return s, nil
}

func names(ports []Port) []string {
	list := make([]string, len(ports))
	for i, p := range ports {
		list[i] = p.Name
	}
	return list
}

// Threads are n, or, if that is not positive, as many as this process may run at once.
func Threads(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// sessionOptions translates Options; the caller destroys the result.
func sessionOptions(opt Options) (*binding.SessionOptions, error) {
	so, err := binding.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		so.SetIntraOpNumThreads(Threads(opt.Threads)),
		so.SetCpuMemArena(!opt.NoArena),
		so.SetMemPattern(!opt.NoPattern),
	)
	if opt.InterOp > 1 {
		err = errors.Join(err, so.SetExecutionMode(binding.ExecutionModeParallel), so.SetInterOpNumThreads(opt.InterOp))
	}
	level := binding.GraphOptimizationLevel(binding.GraphOptimizationLevelEnableAll)
	switch opt.Optimize {
	case OptimizeExtended:
		level = binding.GraphOptimizationLevelEnableExtended
	case OptimizeBasic:
		level = binding.GraphOptimizationLevelEnableBasic
	case OptimizeNone:
		level = binding.GraphOptimizationLevelDisableAll
	}
	err = errors.Join(err, so.SetGraphOptimizationLevel(level))
	if memoryLimited() {
		err = errors.Join(err, so.AddSessionConfigEntry("session.use_env_allocators", "1"))
	}
	for key, value := range opt.Config {
		err = errors.Join(err, so.AddSessionConfigEntry(key, value))
	}
	if opt.Profile != "" {
		err = errors.Join(err, so.EnableProfiling(opt.Profile))
	}
	if err == nil {
		err = appendProvider(so, opt)
	}
	if err != nil {
		_ = so.Destroy()
		return nil, err
	}
	return so, nil
}

// Inputs lists the inputs to feed, in the order that Run takes them.
func (s *Session) Inputs() []Port { return slices.Clone(s.in) }

// Outputs lists the outputs, in the order that Run fills them.
func (s *Session) Outputs() []Port { return slices.Clone(s.out) }

// Provider is what the session runs on. Nodes that it does not know run on the CPU.
func (s *Session) Provider() Provider { return s.provider }

// Close frees the session, after a run that is under way. It can be called again.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.native == nil {
		return nil
	}
	native := s.native
	s.native = nil
	return native.Destroy()
}

// Run computes the outputs from the inputs, both in the session's order. An output that is nil, or an Array without data, is
// allocated and filled in; one with data is written in place and must have the shape of the result. Outputs must not share memory
// with inputs. When ctx ends, the run stops at the next node (of an inner graph as well). The outputs are undefined after an error.
// Errors: ErrArray, ErrRun, ErrCancelled with the context's cause, ErrClosed.
func (s *Session) Run(ctx context.Context, in, out []*Array) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.native == nil {
		return ErrClosed
	}
	if len(in) != len(s.in) || len(out) != len(s.out) {
		return fmt.Errorf("%w: %d inputs and %d outputs given, the model has %d and %d", ErrArray, len(in), len(out), len(s.in), len(s.out))
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrCancelled, context.Cause(ctx))
	}
	var c call
	defer c.release()
	if err := c.inputs(s, in); err != nil {
		return err
	}
	if err := c.outputs(s, out); err != nil {
		return err
	}
	err := c.run(ctx, s)
	for i := c.unknownScalar(err); i >= 0 && s.out[i].Shape == nil; i = c.unknownScalar(err) {
		// The binding cannot allocate a scalar, and the model did not say that this output is one. Now it is known.
		s.out[i].Shape = []int64{}
		c.free(c.out)
		if err = c.outputs(s, out); err == nil {
			err = c.run(ctx, s)
		}
	}
	if err != nil {
		return err
	}
	return c.collect(s, out)
}
