package sanitize

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"grindstone/sanitize/onnx"
)

// TestOutputIsCheckedFirst: what would keep the results from being written is said before a model is trained, as wrong usage.
func TestOutputIsCheckedFirst(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(o *Options)
		says   string
	}{
		"no folder for the model":      {func(o *Options) { o.Output = filepath.Join(filepath.Dir(o.Output), "nodir", "out.onnx") }, "make it first"},
		"a file for a folder":          {func(o *Options) { o.Output = filepath.Join(o.Model, "out.onnx") }, "make it first"},
		"a folder for the model":       {func(o *Options) { o.Output = filepath.Dir(o.Output) }, "name a file in it"},
		"no model but a device":        {func(o *Options) { o.Output = os.DevNull }, "no file that can be replaced"},
		"no folder for the report":     {func(o *Options) { o.Report = filepath.Join(filepath.Dir(o.Output), "nodir", "r.json") }, "--report"},
		"a folder for the report":      {func(o *Options) { o.Report = filepath.Dir(o.Output) }, "name a file in it"},
		"one file for both":            {func(o *Options) { o.Report = o.Output }, "the same file"},
		"external data and one folder": {func(o *Options) { moveOutside(t, o) }, "in another folder"},
	} {
		t.Run(name, func(t *testing.T) {
			o := toyOptions(t)
			tt.change(&o)
			var phases []string
			o.Progress = func(p Progress) { phases = append(phases, p.Phase) }
			_, err := Run(t.Context(), o)
			if !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want one with %q", err, tt.says)
			}
			if slices.Contains(phases, "preprocess") {
				t.Errorf("it went on: %v", phases)
			}
		})
	}
}

// moveOutside puts the toy's larger weights into a file beside the model.
func moveOutside(t *testing.T, o *Options) {
	t.Helper()
	m, err := onnx.Parse(toy.model)
	if err != nil {
		t.Fatal(err)
	}
	if o.Model, err = m.WriteOutside(filepath.Dir(o.Model)); err != nil {
		t.Fatal(err)
	}
}

// TestReport: the file holds the report that Run returns.
func TestReport(t *testing.T) {
	o := toyOptions(t)
	o.Report = filepath.Join(t.TempDir(), "report.json")
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(o.Report)
	if err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal(raw, &got); err != nil || !reflect.DeepEqual(&got, r) {
		t.Errorf("%v: %s", err, raw)
	}
}

// TestFailedWriting: a run that fails in its last phase leaves neither model nor report.
func TestFailedWriting(t *testing.T) {
	for name, spoiled := range map[string]func(o Options) string{
		"the report cannot be written": func(o Options) string { return o.Report },
		"the model cannot be written":  func(o Options) string { return o.Output },
	} {
		t.Run(name, func(t *testing.T) {
			o := toyOptions(t)
			o.Report = filepath.Join(filepath.Dir(o.Output), "report.json")
			inTheWay := filepath.Join(spoiled(o), "folder")
			o.Progress = func(p Progress) {
				if p.Phase == "write" {
					if err := os.MkdirAll(inTheWay, 0o700); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := Run(t.Context(), o); err == nil {
				t.Error("no error")
			}
			if err := os.RemoveAll(filepath.Dir(inTheWay)); err != nil {
				t.Fatal(err)
			}
			noOutput(t, o)
		})
	}
}

// TestExternalData: a model with external data is sanitized into another folder, with its files and a report.
func TestExternalData(t *testing.T) {
	o := toyOptions(t)
	moveOutside(t, &o)
	o.Output = filepath.Join(t.TempDir(), "out.onnx")
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	data := r.ExternalData
	if len(data) != 1 || data[0].Name != "weights.bin" || data[0].SourceSHA256 == data[0].SanitizedSHA256 {
		t.Errorf("external data %+v", data)
	}
	before, after := openModel(t, o.Model), openModel(t, o.Output)
	if slices.Equal(before.Constants["conv2.w"].Floats(), after.Constants["conv2.w"].Floats()) || r.After.CDA.Value < .9-slack {
		t.Errorf("the weights outside have not changed, or CDA %v", r.After.CDA)
	}
}
