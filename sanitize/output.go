package sanitize

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"grindstone/sanitize/onnx"
)

// checkOutput says before all work what would keep its results from being written.
func (o *Options) checkOutput() error {
	if o.Report != "" && filepath.Clean(o.Report) == filepath.Clean(o.Output) {
		return fmt.Errorf("%w: -o and --report name the same file %s", ErrOptions, o.Output)
	}
	for _, in := range []string{o.Model, o.Data, o.HeldOut} {
		if sameFile(o.Report, in) {
			return fmt.Errorf("%w: --report %s would overwrite %s, which the run reads; name another file", ErrOptions, o.Report, in)
		}
		if in != o.Model && sameFile(o.Output, in) {
			return fmt.Errorf("%w: -o %s would overwrite the dataset; name another file", ErrOptions, o.Output)
		}
	}
	if info, err := os.Stat(o.Output); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return fmt.Errorf("%w: -o %s: it is no file that can be replaced; name another", ErrOptions, o.Output)
	}
	if err := checkPlace("-o", o.Output); err != nil {
		return err
	}
	if isSpecial(o.Report) {
		return nil
	}
	return checkPlace("--report", o.Report)
}

// checkPlace tries whether a file of that name can be made.
func checkPlace(flag, path string) error {
	if path == "" {
		return nil
	}
	refuse := func(why string, a ...any) error {
		return fmt.Errorf("%w: %s %s: "+why, append([]any{ErrOptions, flag, path}, a...)...)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return refuse("it is a folder; name a file in it")
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return refuse("there is no folder %s; make it first", dir)
	}
	probe, err := os.CreateTemp(dir, ".grindstone-*")
	if err != nil {
		return refuse("nothing can be written there: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// sameFile reports whether two paths lead to one file that is there.
func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && !one.IsDir() && os.SameFile(one, other)
}

// isSpecial reports whether a report goes to a pipe or a device, such as /dev/stdout, which is there and is not to be removed.
func isSpecial(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && !info.Mode().IsRegular() && !info.IsDir()
}

// checkFolder: external data files keep their names beside the new model, so that they need another folder than the old ones.
func (r *run) checkFolder(m *onnx.Model) error {
	from, err := os.Stat(filepath.Dir(r.Model))
	if err != nil || r.Output == "" || m.Size().Outside == 0 {
		return err
	}
	if to, err := os.Stat(filepath.Dir(r.Output)); err != nil || os.SameFile(from, to) {
		return fmt.Errorf("%w: -o %s: the model has external data, whose files would be overwritten there; name a file in another folder", ErrOptions, r.Output)
	}
	return nil
}

// write puts the new weights into the bytes of the incoming model. The report is written before the model appears: a failed run leaves neither.
func (r *run) write(context.Context) error {
	r.Progress(Progress{Phase: "write", Message: r.Output})
	if r.Output == "" {
		return r.finish()
	}
	err := onnx.RewriteFile(r.Model, r.Output, r.changedWeights(), func(model []byte, data []onnx.DataFile) error {
		r.report.Sanitized = infoOf(r.Output, model)
		for _, f := range data {
			r.report.ExternalData = append(r.report.ExternalData, DataFile{f.Path, f.Size, hex.EncodeToString(f.Was[:]), hex.EncodeToString(f.Is[:])})
		}
		return r.finish()
	})
	if written := !r.report.FinishedAt.IsZero(); err != nil && written && r.Report != "" && !isSpecial(r.Report) {
		_ = os.Remove(r.Report)
	}
	return err
}

// changedWeights are those that training left otherwise than they were. One that the file does not hold is an error of RewriteFile.
func (r *run) changedWeights() map[string]*onnx.Tensor {
	weights := map[string]*onnx.Tensor{}
	maps.Copy(weights, r.integers)
	for name, v := range r.values {
		if r.original.Integers(name) {
			continue
		}
		if t := r.original.Constants[name]; !slices.Equal(v, t.Floats()) {
			weights[name] = onnx.NewFloat(name, t.Shape, v)
		}
	}
	return weights
}

// finish completes the report and writes it, if that is asked for.
func (r *run) finish() error {
	_, r.report.Memory.Peak = Resident()
	r.report.FinishedAt = time.Now().UTC()
	r.report.Seconds = r.report.FinishedAt.Sub(r.report.StartedAt).Seconds()
	if r.Report == "" {
		return nil
	}
	b, err := json.MarshalIndent(r.report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(r.Report, append(b, '\n'), 0o644)
}

func fileInfo(path string) (FileInfo, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return FileInfo{}, err
	}
	return infoOf(path, b), nil
}

func infoOf(path string, content []byte) FileInfo {
	sum := sha256.Sum256(content)
	return FileInfo{Name: filepath.Base(path), SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content))}
}
