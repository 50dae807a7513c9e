package ort

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/onnx"
)

// growing is Y = Softmax(X * X + X), where X has n floats: a node's output is 4n bytes.
func growing(t testing.TB, n int64) []byte {
	t.Helper()
	b := onnx.NewBuilder()
	b.Input("X", onnx.Float, 1, n)
	square := b.Named("square", "Mul", []string{"X", "X"})
	b.Named("sum", "Add", []string{square, "X"})
	b.Output(b.Named("Y", "Softmax", []string{"sum"}), onnx.Float, 1, n)
	m := b.Model(17)
	for _, node := range m.Graph.Nodes {
		node.Name = "node " + node.Outputs[0]
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func runGrowing(t testing.TB, s *Session, n int64) error {
	t.Helper()
	return s.Run(t.Context(), []*Array{{Shape: []int64{1, n}, F32: make([]float32, n)}}, make([]*Array, 1))
}

// TestLimitMemory: an allocation beyond the limit fails and says so, the session works on with what fits, and without a limit all is as before.
func TestLimitMemory(t *testing.T) {
	const n = 16 << 20 // 64 MiB a value
	t.Cleanup(func() {
		if err := LimitMemory(0); err != nil {
			t.Error(err)
		}
	})
	model := growing(t, n)
	open := func() *Session {
		s, err := NewSession(model, Options{Provider: CPU})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	for range 2 { // limits follow one another
		if err := LimitMemory(32 << 20); err != nil {
			t.Fatal(err)
		}
		tight := open()
		if err := runGrowing(t, tight, n); !errors.Is(err, ErrMemory) || !errors.Is(err, ErrRun) {
			t.Errorf("64 MiB where 32 are allowed: %v", err)
		}
		if err := LimitMemory(256 << 20); err != nil {
			t.Fatal(err)
		}
		if err := runGrowing(t, open(), n); err != nil {
			t.Errorf("64 MiB where 256 are allowed: %v", err)
		}
		if err := runGrowing(t, tight, n); !errors.Is(err, ErrMemory) {
			t.Errorf("a session keeps the limit that it was made with: %v", err)
		}
	}
	if err := LimitMemory(0); err != nil {
		t.Fatal(err)
	}
	if err := runGrowing(t, open(), n); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

func TestFailure(t *testing.T) {
	for text, memory := range map[string]bool{
		"Non-zero status code returned while running Conv node: Failed to allocate memory for requested buffer of size 4194304": true,
		"Available memory of 0 is smaller than requested bytes of 67108864":                                                     true,
		"std::bad_alloc": true,
		"CUDA failure 2: out of memory ; GPU=0 ; hostname=gpu ; expr=cudaMalloc((void**)&p, size);": true,
		"CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED":                                              true,
		"The input tensor cannot be reshaped to the requested shape":                                false,
		"Gather indices out of bounds":                                                              false,
	} {
		cause := errors.New(text)
		err := failure(ErrRun, cause)
		if errors.Is(err, ErrMemory) != memory || !errors.Is(err, ErrRun) || !errors.Is(err, cause) {
			t.Errorf("%v", err)
		}
	}
}

// TestInferOutputs: what the runtime says of a model before it runs is what comes out.
func TestInferOutputs(t *testing.T) {
	ports, err := InferOutputs(growing(t, 10))
	if err != nil {
		t.Fatal(err)
	}
	if len(ports) != 1 || ports[0].Name != "Y" || ports[0].Type != 1 || !slices.Equal(ports[0].Shape, []int64{1, 10}) || ports[0].Bytes() != 40 {
		t.Errorf("%+v", ports)
	}
	if n := (Port{Type: 1, Shape: []int64{-1, 3}}).Bytes(); n != 0 {
		t.Errorf("%d bytes of an unknown shape", n)
	}
	if _, err := InferOutputs([]byte("no model")); !errors.Is(err, ErrModel) {
		t.Errorf("no model: %v", err)
	}
}

// TestPlacement: each node that was run, once, with the provider it ran on.
func TestPlacement(t *testing.T) {
	in := []*Array{{Shape: []int64{1, 10}, F32: make([]float32, 10)}}
	got, err := Placement(t.Context(), growing(t, 10), in, Options{Provider: CPU, Optimize: OptimizeNone})
	if err != nil {
		t.Fatal(err)
	}
	var want []Placed
	for _, name := range []string{"square:Mul", "sum:Add", "Y:Softmax"} {
		node, op, _ := strings.Cut(name, ":")
		want = append(want, Placed{Node: "node " + node, Op: op, Provider: "CPUExecutionProvider"})
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	for _, p := range Providers {
		if works(p) == nil {
			continue
		}
		if _, err := Placement(t.Context(), growing(t, 10), in, Options{Provider: p}); !errors.Is(err, ErrProvider) {
			t.Errorf("%s, which is not there: %v", p, err)
		}
	}
	// What a device leaves to the CPU stands in a profile beside what it runs, and so does each copy.
	got, err = readPlacement([]byte(`[{"cat":"Session","name":"model_run"},
		{"cat":"Node","name":"a_kernel_time","args":{"op_name":"Conv","provider":"CUDAExecutionProvider"}},
		{"cat":"Node","name":"a_fence_before","args":{"op_name":"Conv"}},
		{"cat":"Node","name":"b_kernel_time","args":{"op_name":"MemcpyToHost","provider":"CUDAExecutionProvider"}},
		{"cat":"Node","name":"c_kernel_time","args":{"op_name":"Celu","provider":"CPUExecutionProvider"}},
		{"cat":"Node","name":"c_kernel_time","args":{"op_name":"Celu","provider":"CPUExecutionProvider"}}]`))
	if err != nil || len(got) != 3 || got[2] != (Placed{"c", "Celu", "CPUExecutionProvider"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := readPlacement([]byte("{")); !errors.Is(err, ErrRun) {
		t.Errorf("a broken profile: %v", err)
	}
}
