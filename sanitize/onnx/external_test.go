package onnx

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// externalModel writes a model with two float weights "a" and "b" of three elements in one data file, and "c" inline.
func externalModel(t *testing.T, location string) (path string) {
	t.Helper()
	dir := t.TempDir()
	tensor := func(name, offset string) []byte {
		return msg(5, num(1, 3), num(2, 1), str(8, name), msg(13, str(1, "location"), str(2, location)), msg(13, str(1, "offset"), str(2, offset)),
			msg(13, str(1, "length"), str(2, "12")), num(14, 1))
	}
	data := graphOf(tensor("a", "4"), tensor("b", "16"), msg(5, num(1, 1), num(2, 1), str(8, "c"), msg(9, floats(7))))
	write(t, filepath.Join(dir, "m.onnx"), data)
	return filepath.Join(dir, "m.onnx")
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

var weightsFile = append(append([]byte("HEAD"), floats(1, 2, 3, 4, 5, 6)...), "TAIL"...)

func TestReadFileWithExternalData(t *testing.T) {
	path := externalModel(t, "data/w.bin")
	if _, err := ReadFile(path); !errors.Is(err, ErrExternal) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "data/w.bin") {
		t.Errorf("a missing data file gives %v", err)
	}
	data := filepath.Join(filepath.Dir(path), "data", "w.bin")
	write(t, data, weightsFile[:20])
	if _, err := ReadFile(path); !errors.Is(err, ErrExternal) || !strings.Contains(err.Error(), `tensor "b"`) {
		t.Errorf("a short data file gives %v", err)
	}
	write(t, data, weightsFile)
	m, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Graph.Initializer("b").Floats(); len(got) != 3 || got[0] != 4 || got[2] != 6 {
		t.Errorf("b is %v, want [4 5 6]", got)
	}
	if _, err := m.Rewrite(map[string]*Tensor{"b": NewFloat("", []int64{3}, []float32{0, 0, 0})}); !errors.Is(err, ErrExternal) {
		t.Errorf("Rewrite of a weight outside of the file gives %v", err)
	}
	if out, err := m.Rewrite(map[string]*Tensor{"c": NewFloat("", []int64{1}, []float32{8})}); err != nil || len(out) == 0 {
		t.Errorf("Rewrite of the inline weight: %v", err)
	}
}

func TestReadFileStaysInItsFolder(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	write(t, outside, weightsFile)
	path := externalModel(t, "w.bin")
	link := filepath.Join(filepath.Dir(path), "w.bin")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if m, err := ReadFile(path); m != nil || !errors.Is(err, ErrExternal) {
		t.Errorf("a link out of the folder gives %v", err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(filepath.Dir(path), "real.bin"), weightsFile)
	if err := os.Symlink("real.bin", link); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); err != nil {
		t.Errorf("a link inside the folder: %v", err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(link, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); !errors.Is(err, ErrExternal) {
		t.Errorf("a pipe gives %v", err)
	}
	if _, err := ReadFile(filepath.Dir(path)); !errors.Is(err, ErrNotModel) {
		t.Errorf("a folder gives %v", err)
	}
}

// anyModel has no objection to what RewriteFile made.
func anyModel([]byte, []DataFile) error { return nil }

func TestRewriteFile(t *testing.T) {
	src := externalModel(t, "data/w.bin")
	write(t, filepath.Join(filepath.Dir(src), "data", "w.bin"), weightsFile)
	dst := filepath.Join(t.TempDir(), "new.onnx")
	var copied []DataFile
	if err := RewriteFile(src, dst, map[string]*Tensor{
		"b": NewDouble("", []int64{3}, []float64{-4, -5, -6}), "c": NewFloat("", []int64{1}, []float32{8}),
	}, func(_ []byte, data []DataFile) error {
		copied = data
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	m, err := ReadFile(dst)
	if err != nil {
		t.Fatal(err)
	}
	got := append(append(m.Graph.Initializer("a").Floats(), m.Graph.Initializer("b").Floats()...), m.Graph.Initializer("c").Floats()...)
	if !bytes.Equal(floats(got...), floats(1, 2, 3, -4, -5, -6, 8)) {
		t.Errorf("weights %v", got)
	}
	side, err := os.ReadFile(filepath.Join(filepath.Dir(dst), "data", "w.bin"))
	if err != nil || !bytes.HasPrefix(side, weightsFile[:16]) || !bytes.HasSuffix(side, []byte("TAIL")) || len(side) != len(weightsFile) {
		t.Errorf("the rest of the data file changed: %q (%v)", side, err)
	}
	if want := []DataFile{{"data/w.bin", int64(len(side)), sha256.Sum256(weightsFile), sha256.Sum256(side)}}; !slices.Equal(copied, want) {
		t.Errorf("told of %v, want %v", copied, want)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dst), "*.partial")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	same := filepath.Join(filepath.Dir(src), "other.onnx")
	if err := RewriteFile(src, same, nil, anyModel); !errors.Is(err, ErrExternal) {
		t.Errorf("rewriting beside the original gives %v", err)
	}
	if _, err := os.Stat(same); !errors.Is(err, os.ErrNotExist) {
		t.Error("the refused model file was written")
	}
	if err := RewriteFile(src, filepath.Join(t.TempDir(), "x", "y.onnx"), nil, anyModel); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing target folder gives %v", err)
	}
	if err := RewriteFile(src, filepath.Join(t.TempDir(), "new.onnx"), nil, anyModel); err != nil {
		t.Error(err)
	}
}

// TestRewriteFileIsWholeOrNothing: what an earlier run has left in the way is replaced, and not written to; an objection, or another run that takes the place,
// leaves nothing.
func TestRewriteFileIsWholeOrNothing(t *testing.T) {
	src := externalModel(t, "w.bin")
	write(t, filepath.Join(filepath.Dir(src), "w.bin"), weightsFile)
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	dst := filepath.Join(dir, "new.onnx")
	write(t, elsewhere, []byte("mine"))
	write(t, filepath.Join(dir, "w.bin.partial"), []byte("left"))
	if err := os.Symlink(elsewhere, dst+".partial"); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if err := RewriteFile(src, dst, nil, func([]byte, []DataFile) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("an objection gives %v", err)
	}
	others := func([]byte, []DataFile) error {
		return errors.Join(os.Remove(dst+".partial"), os.WriteFile(dst+".partial", []byte("of another run"), 0o600))
	}
	if err := RewriteFile(src, dst, nil, others); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("another run's file gives %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 || left[0] != dst+".partial" {
		t.Errorf("left behind: %v, where only the other run's file should be", left)
	}
	if err := RewriteFile(src, dst, nil, anyModel); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{elsewhere: "mine", filepath.Join(dir, "w.bin"): string(weightsFile)} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if _, err := ReadFile(dst); err != nil {
		t.Error(err)
	}
}

func TestRewriteFileRefusesSharedData(t *testing.T) {
	dir := t.TempDir()
	tensor := func(name, offset string) []byte {
		return msg(5, num(1, 3), num(2, 1), str(8, name), msg(13, str(1, "location"), str(2, "w.bin")), msg(13, str(1, "offset"), str(2, offset)), num(14, 1))
	}
	src := filepath.Join(dir, "m.onnx")
	write(t, src, graphOf(tensor("a", "0"), tensor("b", "8")))
	write(t, filepath.Join(dir, "w.bin"), floats(1, 2, 3, 4, 5))
	err := RewriteFile(src, filepath.Join(t.TempDir(), "m.onnx"), map[string]*Tensor{"a": NewFloat("", []int64{3}, []float32{0, 0, 0})}, anyModel)
	if !errors.Is(err, ErrExternal) || !strings.Contains(err.Error(), "share") {
		t.Errorf("got %v", err)
	}
}
