package train_test

import (
	"fmt"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/train"
)

// TestEngines: training in main memory, with the update in Go, and by the whole step's graph, as on a device, is the same.
func TestEngines(t *testing.T) {
	for name, tt := range map[string]struct {
		c     *classifier.Classifier
		d     *data.Dataset
		batch int
	}{
		"BatchNormalization": {smallNet(t), smallData(t, 48), 12},
		"other layouts":      {plainNet(t), plainData(t, 96), 48},
	} {
		for _, micro := range []int{0, 4} {
			t.Run(fmt.Sprintf("%s, micro-batches of %d", name, micro), func(t *testing.T) {
				targets := make([]float32, tt.d.Len()*tt.c.FeatureWidth)
				for i := range targets {
					targets[i] = float32(i%5) / 5
				}
				plan := train.Plan{Steps: 8, GrindSteps: 4, Rate: 0.05, AlphaGrind: 0.8, AlphaRestore: 0.2}
				train1 := func(device bool) (*train.Trainer, []train.Metrics) {
					tr := microTrainer(t, tt.c, tt.batch, micro, 0.9)
					if device {
						if err := train.OnDevice(tr); err != nil {
							t.Fatal(err)
						}
					}
					all, err := fit(t.Context(), t, tr, tt.c, tt.d, targets, plan, tt.batch, 4, nothing)
					if err != nil {
						t.Fatal(err)
					}
					return tr, all
				}
				host, got := train1(false)
				device, want := train1(true)
				for i, m := range want {
					if d := difference([]float64{got[i].Loss, got[i].Feature, got[i].Task, got[i].Accuracy}, []float64{m.Loss, m.Feature, m.Task, m.Accuracy}); d > 1e-5 {
						t.Errorf("step %d: %+v, on a device %+v", i, got[i], m)
					}
				}
				for name, v := range device.Values() {
					if d := difference(host.Values()[name], v); d > 1e-5 {
						t.Errorf("%s differs by %.2g of the largest", name, d)
					}
				}
			})
		}
	}
}
