package sanitize

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"grindstone/internal/shared"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

var cpu = ort.Options{Provider: ort.CPU}

// images are 500 test images of a reference dataset, read once.
func images(t testing.TB, name string, side, channels int) *data.Dataset {
	t.Helper()
	path := shared.Path(t, "data", name, "test.tar.gz")
	cached.Lock()
	defer cached.Unlock()
	if cached.sets[name] == nil {
		d, err := data.Open(t.Context(), path, data.Options{Height: side, Width: side, Channels: channels, Limit: 500, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		cached.sets[name] = d
	}
	return cached.sets[name]
}

var cached = struct {
	sync.Mutex
	sets map[string]*data.Dataset
}{sets: map[string]*data.Dataset{}}

func openModel(t testing.TB, path string) *classifier.Classifier {
	t.Helper()
	m, err := onnx.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := classifier.New(m, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// gridTrigger is the mark of NAD's BadNet victim, as its publisher describes it: 3x3 pixels in the bottom right corner.
func gridTrigger(t testing.TB) *data.Trigger {
	t.Helper()
	mark, mask := make([]byte, 32*32*3), make([]byte, 32*32)
	white := [3][3]byte{{1, 0, 1}, {0, 1, 0}, {1, 0, 0}} // from the corner to the left and up
	for up := range 3 {
		for left := range 3 {
			at := (31-up)*32 + 31 - left
			mask[at] = 255
			for k := range 3 {
				mark[3*at+k] = 255 * white[up][left]
			}
		}
	}
	trigger, err := data.NewTrigger(32, 32, 3, mark, mask)
	if err != nil {
		t.Fatal(err)
	}
	return trigger
}

const gridTarget = 5

// TestPreprocessingOfThirdPartyModels: auto finds the preprocessing of each, and under it the accuracy is about the published
// one.
func TestPreprocessingOfThirdPartyModels(t *testing.T) {
	for _, tt := range []struct {
		file  string
		names []string // some preprocessings are too close to tell apart
		cda   float64
		rival bool // which is said
	}{
		{"nad-wrn16-badnet.onnx", []string{"unit"}, .762, false},
		{"vnncomp-resnet_2b.onnx", []string{"cifar10"}, .66, true},
		{"vnncomp-cifar_base_kw.onnx", []string{"imagenet-225", "imagenet"}, .61, true},
		{"vnncomp-cifar10_medium_nhwc.onnx", []string{"unit"}, .68, false},
		{"cntk-mnist.onnx", []string{"bytes", "unit"}, .988, true},
	} {
		t.Run(tt.file, func(t *testing.T) {
			d, grey := "cifar10", tt.file == "cntk-mnist.onnx"
			side, channels := 32, 3
			if grey {
				d, side, channels = "mnist", 28, 1
			}
			c := openModel(t, shared.Path(t, "models", tt.file))
			all := images(t, d, side, channels)
			p, info, err := FindPreprocess(t.Context(), c, "auto", all.Subset(200, 2), cpu)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(tt.names, p.Name) || info.Name != p.Name || info.From != "auto" || info.Layout != string(c.Layout) || info.Margin < 0 || info.Margin > 1 {
				t.Errorf("found %+v", info)
			}
			if (info.Rival != "") != tt.rival || info.Rival == info.Name {
				t.Errorf("another one is as good: %q, %+v", info.Rival, info)
			}
			e, err := Evaluate(t.Context(), c, nil, p, all, nil, cpu)
			if err != nil {
				t.Fatal(err)
			}
			if e.CDA.Low-.02 > tt.cda || e.CDA.High+.02 < tt.cda || e.CDA.Count != all.Len() {
				t.Errorf("CDA %v, published %.3f", e.CDA, tt.cda)
			}
			if e.ASR != nil || e.ARR != nil || e.Floor != nil {
				t.Errorf("attack rates without an attack: %+v", e)
			}
		})
	}
}

func TestPreprocessByName(t *testing.T) {
	c := openModel(t, shared.Path(t, "models", "nad-wrn16-badnet.onnx"))
	p, info, err := FindPreprocess(t.Context(), c, "cifar10-bgr", nil, cpu)
	if err != nil || p.Name != "cifar10-bgr" || info.From != "flag" || info.Margin != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if _, _, err := FindPreprocess(t.Context(), c, "mnist", nil, cpu); err == nil {
		t.Error("a preprocessing of grey images was taken for colour")
	}

	c.Bytes = true // a model that takes bytes cannot be given anything else
	if _, _, err := FindPreprocess(t.Context(), c, "unit", nil, cpu); !errors.Is(err, data.ErrOption) {
		t.Errorf("a range of 0 to 1 for bytes: %v", err)
	}
	if p, _, err := FindPreprocess(t.Context(), c, "bytes-bgr", nil, cpu); err != nil || p.Name != "bytes-bgr" {
		t.Errorf("%s, %v", p.Name, err)
	}
	if p, _, err := FindPreprocess(t.Context(), c, "auto", images(t, "cifar10", 32, 3).Subset(20, 1), cpu); err != nil || !strings.HasPrefix(p.Name, "bytes") {
		t.Errorf("%s, %v", p.Name, err)
	}
}

// TestEvaluateKnownBackdoors: the rates of a published backdoored model, and of its publisher's repair.
func TestEvaluateKnownBackdoors(t *testing.T) {
	d := images(t, "cifar10", 32, 3)
	attack := &Attack{Trigger: gridTrigger(t), Target: gridTarget}
	others := 0
	for i := range d.Len() {
		if _, label := d.At(i); label != gridTarget {
			others++
		}
	}
	for _, tt := range []struct {
		file     string
		asr, arr float64 // published, over 2,000 images
	}{
		{"nad-wrn16-badnet.onnx", 1, 0}, {"nad-wrn16-teacher.onnx", .036, .780}, {"nad-wrn16-erased.onnx", .068, .726},
	} {
		c := openModel(t, shared.Path(t, "models", tt.file))
		e, err := Evaluate(t.Context(), c, nil, unitOf(t, 32), d, attack, cpu)
		if err != nil {
			t.Fatal(err)
		}
		if e.ASR.Count != others || e.ARR.Count != others || e.Floor.Count != others || e.CDA.Count != d.Len() {
			t.Errorf("%s: counts %+v; images of the target class do not count", tt.file, e)
		}
		within := func(r *Rate, want float64) bool { return r.Low-.005 <= want && want <= r.High+.005 }
		if !within(e.ASR, tt.asr) || !within(e.ARR, tt.arr) || e.Floor.Value > .1 {
			t.Errorf("%s: ASR %v, ARR %v, floor %v", tt.file, e.ASR, e.ARR, e.Floor)
		}
		if tt.asr == 1 && (e.ASR.Value < .99 || e.ARR.Value > .01) {
			t.Errorf("the backdoor has an ASR of %v and an ARR of %v", e.ASR, e.ARR)
		}
	}
}
