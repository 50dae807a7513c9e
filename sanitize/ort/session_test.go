package ort

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"grindstone/sanitize/onnx"
)

func TestEveryElementType(t *testing.T) {
	samples := []Array{
		{F32: []float32{1.5, -2}}, {F64: []float64{1.5, -2}},
		{I64: []int64{1, -2}}, {I32: []int32{1, -2}}, {I16: []int16{1, -2}}, {I8: []int8{1, -2}},
		{U64: []uint64{1, 1 << 63}}, {U32: []uint32{1, 1 << 31}}, {U16: []uint16{1, 1 << 15}}, {U8: []uint8{1, 255}},
		{Bool: []bool{true, false}}, {F16: []uint16{0x3c00, 0xc000}}, {BF16: []uint16{0x3f80, 0xc000}},
	}
	if len(samples) != len(elements) {
		t.Fatalf("%d samples for %d element types", len(samples), len(elements))
	}
	for _, in := range samples {
		in.Shape = []int64{2}
		t.Run(typeName(in.Type()), func(t *testing.T) {
			for name, shape := range map[string][]int64{"fixed": {2}, "dynamic": {-1}} {
				s := open(t, unary(t, "Identity", in.Type(), shape, shape), Options{})
				// Written in place.
				given := Array{Shape: []int64{2}}
				elementOf(in.Type()).make(&given)
				if err := s.Run(t.Context(), []*Array{&in}, []*Array{&given}); err != nil || !reflect.DeepEqual(in, given) {
					t.Errorf("%s, in place: %+v, %v; want %+v", name, given, err, in)
				}
				// Allocated.
				out := make([]*Array, 1)
				err := s.Run(t.Context(), []*Array{&in}, out)
				if is16 := in.F16 != nil || in.BF16 != nil; is16 && name == "dynamic" {
					if !errors.Is(err, ErrRun) {
						t.Errorf("%s, allocated: error %v, want ErrRun", name, err)
					}
				} else if err != nil || !reflect.DeepEqual(in, *out[0]) {
					t.Errorf("%s, allocated: %+v, %v; want %+v", name, out[0], err, in)
				}
			}
		})
	}
}

func TestArithmetic(t *testing.T) {
	model := marshal(t, onnx.Graph{
		Nodes:        []*onnx.Node{node("MatMul", []string{"A", "B"}, []string{"P"}), node("Add", []string{"P", "C"}, []string{"Y"})},
		Inputs:       []*onnx.Value{value("A", 1, []int64{-1, 3}), value("B", 1, []int64{3, 2})},
		Outputs:      []*onnx.Value{value("Y", 1, []int64{-1, 2}), value("P", 1, nil)},
		Initializers: []*onnx.Tensor{onnx.NewFloat("C", []int64{2}, []float32{10, 20})},
	})
	s := open(t, model, Options{})
	if in := s.Inputs(); len(in) != 2 || in[0].Name != "A" || in[0].Type != 1 || !reflect.DeepEqual(in[0].Shape, []int64{-1, 3}) {
		t.Errorf("inputs %v", in)
	}
	if out := s.Outputs(); len(out) != 2 || out[1].Name != "P" || out[1].Shape != nil {
		t.Errorf("outputs %v", out)
	}
	a := &Array{Shape: []int64{1, 3}, F32: []float32{1, 2, 3}}
	b := &Array{Shape: []int64{3, 2}, F32: []float32{1, 2, 3, 4, 5, 6}}
	kept := []float32{0, 0}
	out := []*Array{{Shape: []int64{1, 2}, F32: kept}, {}}
	place := out[1]
	for range 3 {
		if err := s.Run(t.Context(), []*Array{a, b}, out); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(kept, []float32{32, 48}) || &out[0].F32[0] != &kept[0] {
		t.Errorf("in place: %v, slice %v", out[0], kept)
	}
	if out[1] != place || !reflect.DeepEqual(place.F32, []float32{22, 28}) || !reflect.DeepEqual(place.Shape, []int64{1, 2}) {
		t.Errorf("allocated: %v", out[1])
	}
}

func TestScalarsAndEmptyArrays(t *testing.T) {
	three := &Array{Shape: []int64{3}, F32: []float32{1, 2, 4}}
	keep := onnx.I("keepdims", 0)
	for name, declared := range map[string][]int64{"declared": {}, "unknown": nil} {
		s := open(t, unary(t, "ReduceSum", 1, []int64{3}, declared, keep), Options{})
		for range 2 {
			out := make([]*Array, 1)
			if err := s.Run(t.Context(), []*Array{three}, out); err != nil {
				t.Fatal(name, err)
			}
			if len(out[0].Shape) != 0 || !reflect.DeepEqual(out[0].F32, []float32{7}) {
				t.Errorf("%s scalar: %+v", name, out[0])
			}
		}
		given := []float32{0}
		if err := s.Run(t.Context(), []*Array{three}, []*Array{{Shape: []int64{}, F32: given}}); err != nil || given[0] != 7 {
			t.Errorf("%s scalar in place: %v, %v", name, given, err)
		}
	}
	s := open(t, unary(t, "Neg", 1, []int64{}, []int64{}), Options{})
	out := make([]*Array, 1)
	if err := s.Run(t.Context(), []*Array{{Shape: []int64{}, F32: []float32{3}}}, out); err != nil || out[0].F32[0] != -3 {
		t.Errorf("scalar input: %+v, %v", out[0], err)
	}
	s = open(t, unary(t, "Neg", 1, []int64{-1, 2}, []int64{-1, 2}), Options{})
	out = make([]*Array, 1)
	if err := s.Run(t.Context(), []*Array{{Shape: []int64{0, 2}, F32: []float32{}}}, out); err != nil || out[0].Len() != 0 || out[0].F32 == nil {
		t.Errorf("empty array: %+v, %v", out[0], err)
	}
}

func TestTwoUnknownScalars(t *testing.T) {
	keep := onnx.I("keepdims", 0)
	s := open(t, marshal(t, onnx.Graph{
		Nodes: []*onnx.Node{
			node("ReduceSum", []string{"X"}, []string{"S"}, keep),
			node("Neg", []string{"X"}, []string{"N"}),
			node("ReduceMax", []string{"X"}, []string{"M"}, keep),
		},
		Inputs:  []*onnx.Value{value("X", 1, []int64{2})},
		Outputs: []*onnx.Value{value("S", 1, nil), value("N", 1, nil), value("M", 1, nil)},
	}), Options{})
	out := make([]*Array, 3)
	if err := s.Run(t.Context(), []*Array{{Shape: []int64{2}, F32: []float32{3, 5}}}, out); err != nil {
		t.Fatal(err)
	}
	if out[0].F32[0] != 8 || out[1].F32[1] != -5 || out[2].F32[0] != 5 {
		t.Errorf("%+v %+v %+v", out[0], out[1], out[2])
	}
}

func TestGraphWithoutInputs(t *testing.T) {
	s := open(t, marshal(t, onnx.Graph{
		Nodes:        []*onnx.Node{node("Neg", []string{"C"}, []string{"Y"})},
		Inputs:       []*onnx.Value{value("C", 1, []int64{2})}, // an input with an initializer is none to feed
		Outputs:      []*onnx.Value{value("Y", 1, []int64{2})},
		Initializers: []*onnx.Tensor{onnx.NewFloat("C", []int64{2}, []float32{1, -2})},
	}), Options{})
	out := make([]*Array, 1)
	if err := s.Run(t.Context(), nil, out); err != nil || len(s.Inputs()) != 0 || !reflect.DeepEqual(out[0].F32, []float32{-1, 2}) {
		t.Errorf("%+v, inputs %v, %v", out[0], s.Inputs(), err)
	}
}

func TestWrongArrays(t *testing.T) {
	s := open(t, unary(t, "Neg", 1, []int64{-1, 2}, []int64{-1, 2}), Options{})
	good := func() *Array { return &Array{Shape: []int64{1, 2}, F32: []float32{1, 2}} }
	for name, c := range map[string]struct {
		in, out []*Array
		says    string
	}{
		"count":        {[]*Array{}, make([]*Array, 1), "0 inputs"},
		"nil":          {[]*Array{nil}, make([]*Array, 1), `"X" (float [-1 2]): no data`},
		"no data":      {[]*Array{{Shape: []int64{1, 2}}}, make([]*Array, 1), "no data"},
		"two slices":   {[]*Array{{Shape: []int64{1, 2}, F32: []float32{1, 2}, U8: []byte{1}}}, make([]*Array, 1), "more than one"},
		"type":         {[]*Array{{Shape: []int64{1, 2}, F64: []float64{1, 2}}}, make([]*Array, 1), "the array is double"},
		"length":       {[]*Array{{Shape: []int64{2, 2}, F32: []float32{1, 2}}}, make([]*Array, 1), "does not hold 2"},
		"overflow":     {[]*Array{{Shape: []int64{1 << 62, 4}, F32: []float32{}}}, make([]*Array, 1), "does not hold 0"},
		"negative":     {[]*Array{{Shape: []int64{-1, -2}, F32: []float32{1, 2}}}, make([]*Array, 1), "does not hold 2"},
		"shape":        {[]*Array{{Shape: []int64{2, 1}, F32: []float32{1, 2}}}, make([]*Array, 1), "shape is [2 1]"},
		"rank":         {[]*Array{{Shape: []int64{2}, F32: []float32{1, 2}}}, make([]*Array, 1), "shape is [2]"},
		"output shape": {[]*Array{good()}, []*Array{{Shape: []int64{2, 2}, F32: make([]float32, 4)}}, "failed"},
		"output type":  {[]*Array{good()}, []*Array{{Shape: []int64{1, 2}, U8: make([]byte, 2)}}, "the array is uint8"},
	} {
		err := s.Run(t.Context(), c.in, c.out)
		if err == nil || !strings.Contains(err.Error(), c.says) || !errors.Is(err, ErrArray) && !errors.Is(err, ErrRun) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.says)
		}
	}
	if err := s.Run(t.Context(), []*Array{good()}, make([]*Array, 1)); err != nil {
		t.Errorf("after the errors: %v", err)
	}
}

func TestCancel(t *testing.T) {
	for name, opt := range map[string]Options{"sequential": {}, "parallel": {InterOp: 2}} {
		s := open(t, endless(t), opt)
		x := []*Array{{Shape: []int64{64}, F32: make([]float32, 64)}}
		cause := errors.New("the operator said stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(200*time.Millisecond, func() { cancel(cause) })
		defer timer.Stop()
		start := time.Now()
		err := s.Run(ctx, x, make([]*Array, 1))
		if !errors.Is(err, ErrCancelled) || !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: stopped after %v", name, took)
		}
		if err := s.Run(ctx, x, make([]*Array, 1)); !errors.Is(err, ErrCancelled) {
			t.Errorf("%s: a context that has ended: %v", name, err)
		}
	}
}

func TestCloseWaitsForTheRun(t *testing.T) {
	s := open(t, endless(t), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	done := make(chan error)
	go func() {
		done <- s.Run(ctx, []*Array{{Shape: []int64{64}, F32: make([]float32, 64)}}, make([]*Array, 1))
	}()
	time.Sleep(50 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrCancelled) && !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := s.Run(t.Context(), nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
}

// Memory that ONNX Runtime points into must survive collections during a run.
func TestGarbageCollectionDuringRuns(t *testing.T) {
	s := open(t, unary(t, "Neg", 1, []int64{-1}, []int64{-1}), Options{})
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	for i := range 200 {
		n := 1 + i*37
		in, out := make([]float32, n), []*Array{{Shape: []int64{int64(n)}, F32: make([]float32, n)}}
		for j := range in {
			in[j] = float32(j + i)
		}
		if err := s.Run(t.Context(), []*Array{{Shape: []int64{int64(n)}, F32: in}}, out); err != nil {
			t.Fatal(err)
		}
		for j, v := range out[0].F32 {
			if v != -float32(j+i) {
				t.Fatalf("run %d: element %d is %v", i, j, v)
			}
		}
	}
}

func TestRefusedModels(t *testing.T) {
	good := unary(t, "Neg", 1, []int64{2}, []int64{2})
	for name, model := range map[string][]byte{
		"empty":         {},
		"text":          []byte("this is no model at all"),
		"cut short":     good[:len(good)-9],
		"no outputs":    marshal(t, onnx.Graph{Nodes: []*onnx.Node{node("Neg", []string{"X"}, []string{"Y"})}, Inputs: []*onnx.Value{value("X", 1, nil)}}),
		"unknown op":    unary(t, "Frobnicate", 1, []int64{2}, []int64{2}),
		"type mismatch": unary(t, "Not", 1, []int64{2}, []int64{2}),
	} {
		if s, err := NewSession(model, Options{Provider: CPU}); !errors.Is(err, ErrModel) {
			t.Errorf("%s: %v, %v; want ErrModel", name, s, err)
		}
	}
}

func TestOptions(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "profile")
	for _, opt := range []Options{
		{Threads: 1, InterOp: 2, Optimize: OptimizeNone, NoArena: true, NoPattern: true},
		{Optimize: OptimizeBasic, Config: map[string]string{"session.intra_op.allow_spinning": "0"}},
		{Optimize: OptimizeExtended, Profile: prefix},
		{Provider: Auto},
	} {
		s := open(t, unary(t, "Neg", 1, []int64{1}, []int64{1}), opt)
		out := make([]*Array, 1)
		if err := s.Run(t.Context(), []*Array{{Shape: []int64{1}, F32: []float32{2}}}, out); err != nil || out[0].F32[0] != -2 {
			t.Errorf("%+v: %+v, %v", opt, out[0], err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if p := s.Provider(); p != CPU && p != CUDA {
			t.Errorf("provider %q", p)
		}
	}
	if files, _ := filepath.Glob(prefix + "*.json"); len(files) != 1 {
		t.Errorf("profiles: %v", files)
	}
}

func TestExternalData(t *testing.T) {
	dir := t.TempDir()
	weight := &onnx.Tensor{Name: "W", Type: onnx.Float, Shape: []int64{2}, External: &onnx.External{Location: "weights.bin", Offset: 4, Length: 8}}
	model := marshal(t, onnx.Graph{
		Nodes:        []*onnx.Node{node("Mul", []string{"X", "W"}, []string{"Y"})},
		Inputs:       []*onnx.Value{value("X", 1, []int64{2})},
		Outputs:      []*onnx.Value{value("Y", 1, []int64{2})},
		Initializers: []*onnx.Tensor{weight},
	})
	path := filepath.Join(dir, "m.onnx")
	data := []byte{9, 9, 9, 9, 0, 0, 0x40, 0x40, 0, 0, 0xa0, 0x40} // 3, 5
	if err := errors.Join(os.WriteFile(path, model, 0o600), os.WriteFile(filepath.Join(dir, "weights.bin"), data, 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := NewSessionFile(path, Options{Provider: CPU})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := make([]*Array, 1)
	if err := s.Run(t.Context(), []*Array{{Shape: []int64{2}, F32: []float32{1, 2}}}, out); err != nil || !reflect.DeepEqual(out[0].F32, []float32{3, 10}) {
		t.Errorf("%+v, %v", out[0], err)
	}
	if _, err := NewSessionFile(filepath.Join(dir, "absent.onnx"), Options{Provider: CPU}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}
