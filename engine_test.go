package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize"
	"grindstone/sanitize/ort"
)

// command runs a command line in this process and returns what it prints. What would confine the process needs --sandbox off.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return typed(t, "", args...)
}

// typed is command with what is typed into it.
func typed(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	root := newRootCommand()
	var out bytes.Buffer
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	root.SetContext(t.Context())
	err := root.Execute()
	return out.String(), err
}

// TestInspectPlacement: the nodes of a step by provider; a provider that is not there is an error.
func TestInspectPlacement(t *testing.T) {
	model := shared.Path(t, "models", "vnncomp-cifar_base_kw.onnx")
	out, err := command(t, "inspect", model, "--sandbox", "off", "--provider", "cpu", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Placement placement }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	p := got.Placement
	if p.Provider != ort.CPU || p.Nodes < 50 || p.By["CPUExecutionProvider"] != p.Nodes || len(p.OnCPU) != p.Nodes || p.Copies != 0 {
		t.Errorf("%s: %d nodes, %v, %d of them on the CPU, %d copies", p.Provider, p.Nodes, p.By, len(p.OnCPU), p.Copies)
	}
	info, err := ort.Load()
	if err != nil {
		t.Fatal(err)
	}
	for p := range info.Missing {
		if out, err := command(t, "inspect", model, "--sandbox", "off", "--provider", string(p)); err == nil || !strings.Contains(err.Error(), string(p)) {
			t.Errorf("%s, which this library does not have: %v\n%s", p, err, out)
		}
	}
	if _, err := command(t, "inspect", model, "--sandbox", "off", "--provider", "abacus"); err == nil || !strings.Contains(err.Error(), "abacus") {
		t.Errorf("an unknown provider: %v", err)
	}
}

// TestPlacementOfADevice: what is left to the CPU is listed by operator, copies are counted.
func TestPlacementOfADevice(t *testing.T) {
	p := countPlacement(ort.CUDA, []ort.Placed{
		{Node: "conv_1", Op: "Conv", Provider: "CUDAExecutionProvider"},
		{Node: "gather_1", Op: "Gather", Provider: "CPUExecutionProvider"},
		{Node: "celu_1", Op: "Celu", Provider: "CPUExecutionProvider"},
		{Node: "gather_2", Op: "Gather", Provider: "CPUExecutionProvider"},
		{Node: "Memcpy", Op: "MemcpyFromHost", Provider: "CUDAExecutionProvider"},
	})
	var out bytes.Buffer
	in := &inspection{Placement: p}
	in.print(&out)
	for _, want := range []string{
		"5 nodes of a training step: 3 on CPUExecutionProvider, 2 on CUDAExecutionProvider", "1 of them copy between the device and main memory",
		"on the CPU: 1 Celu (celu_1)", "on the CPU: 2 Gather (gather_1, gather_2)",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

// TestBenchStep: what a timing says about itself.
func TestBenchStep(t *testing.T) {
	model := shared.Path(t, "models", "vnncomp-cifar_base_kw.onnx")
	for _, micro := range []string{"0", "8"} {
		out, err := command(t, "bench", "step", "--model", model, "--batch", "16", "--micro-batch", micro, "--samples", "3", "--provider", "cpu", "--threads", "1", "--json")
		if err != nil {
			t.Fatal(err)
		}
		var got stepTiming
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		if got.MedianSeconds <= 0 || got.MinSeconds > got.MedianSeconds || got.MedianSeconds > got.MaxSeconds || got.FeedingShare < 0 || got.FeedingShare >= 1 || got.BuildSeconds <= 0 || got.Provider != "cpu" {
			t.Errorf("%+v", got)
		}
	}
	if _, err := command(t, "bench", "step", "--model", model, "--batch", "16", "--micro-batch", "5"); err == nil {
		t.Error("16 images cannot be split into micro-batches of 5")
	}
}

// TestBenchStepFlags: what cannot be measured is wrong usage, before a model is read.
func TestBenchStepFlags(t *testing.T) {
	for _, tt := range []struct{ flag, value, says string }{
		{"--samples", "0", "--samples"}, {"--samples", "-1", "--samples"}, {"--batch", "0", "--batch"}, {"--batch", "-4", "--batch"}, {"--batch", "1", "--batch"},
		{"--micro-batch", "5", "--micro-batch"}, {"--micro-batch", "-2", "--micro-batch"}, {"--profile", "nodir/x", "no folder nodir"},
	} {
		if _, err := command(t, "bench", "step", "--model", "nowhere.onnx", tt.flag, tt.value); err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s %s: %v", tt.flag, tt.value, err)
		}
	}
}

// TestOutOfMemoryExit: memory that does not suffice has an exit code of its own, also where it failed in preparing a model.
func TestOutOfMemoryExit(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("%w: 3 MiB", sanitize.ErrMemoryLimit), fmt.Errorf("training step 3: %w: %w", ort.ErrRun, ort.ErrMemory), fmt.Errorf("%w: %w", ort.ErrModel, ort.ErrMemory),
	} {
		if code := exitCode(err); code != exitMemory {
			t.Errorf("%v: exit code %d", err, code)
		}
	}
}

// TestSanitizeMemoryFlags: what cannot be meant is an error before anything is read.
func TestSanitizeMemoryFlags(t *testing.T) {
	for flag, value := range map[string]string{"--memory-limit": "much", "--micro-batch": "5", "--precision": "half"} {
		if _, err := command(t, "sanitize", "nowhere.onnx", "--sandbox", "off", "-o", "out.onnx", "--data", "nowhere", flag, value); err == nil || !strings.Contains(err.Error(), value) {
			t.Errorf("%s %s: %v", flag, value, err)
		}
	}
}
