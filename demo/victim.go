package demo

import (
	"context"
	"fmt"
	"os"

	"grindstone/sanitize"
	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// victim is what the malicious third party makes: a model that works, and answers to a trigger.
type victim struct {
	Path   string
	Rounds int
	sanitize.Evaluation
}

const (
	target      = 0    // class that the trigger forces
	poisonShare = 0.1  // of the training images
	wanted      = 0.95 // CDA and ASR that the victim must exceed
	roundSteps  = 300
	maxRounds   = 6
	batch       = 128

	victimPreprocess = "unit"
)

// mark is the BadNet trigger (Gu et al. 2017): a 3x3 checkerboard in the bottom right corner.
func mark(h, w int) (*data.Trigger, error) {
	image, mask := make([]byte, h*w*3), make([]byte, h*w)
	for y := range 3 {
		for x := range 3 {
			at := (h-4+y)*w + w - 4 + x
			mask[at] = 255
			for c := range 3 {
				image[3*at+c] = byte(255 * ((x + y + 1) % 2))
			}
		}
	}
	return data.NewTrigger(h, w, 3, image, mask)
}

// poison stamps a share of the images and relabels them as the target.
func poison(d *data.Dataset, t *data.Trigger, share float64, seed uint64) (*data.Dataset, error) {
	pixels := make([]byte, 0, d.Len()*d.Size())
	labels := make([]int32, 0, d.Len())
	every := int(1 / share)
	stamped := make([]byte, d.Size())
	for i := range d.Len() {
		px, label := d.At(i)
		if (uint64(i)+seed)%uint64(every) == 0 {
			t.Apply(stamped, px)
			px, label = stamped, target
		}
		pixels, labels = append(pixels, px...), append(labels, int32(label))
	}
	return data.New("poisoned "+d.Name, d.Classes, d.Height, d.Width, d.Channels, pixels, labels)
}

// trainVictim trains the network on poisoned images, by the engine that Grindstone sanitizes with, until it is both useful and
// backdoored, and writes it with its BatchNormalizations folded, as exporters do.
func trainVictim(ctx context.Context, path string, clean, test *data.Dataset, run ort.Options, seed uint64, progress func(step, steps int, accuracy float64)) (*victim, error) {
	trigger, err := mark(clean.Height, clean.Width)
	if err != nil {
		return nil, err
	}
	poisoned, err := poison(clean, trigger, poisonShare, seed)
	if err != nil {
		return nil, err
	}
	m, err := victimModel(len(clean.Classes), nil, seed, false)
	if err != nil {
		return nil, err
	}
	raw, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	if m, err = onnx.Parse(raw); err != nil {
		return nil, err
	}
	c, err := classifier.New(m, classifier.Options{})
	if err != nil {
		return nil, err
	}
	pre, err := data.Named(victimPreprocess, data.NCHW, c.Height, c.Width, c.Channels)
	if err != nil {
		return nil, err
	}
	t, err := train.NewTrainer(c, train.StepOptions{Batch: batch, Scale: pre.Scale, Shift: pre.Shift, Momentum: 0.9, WeightDecay: 5e-4}, run)
	if err != nil {
		return nil, err
	}
	defer t.Close()

	v := &victim{Path: path}
	for v.Rounds = 1; v.Rounds <= maxRounds; v.Rounds++ {
		plan := train.Plan{Steps: roundSteps, Rate: 0.1}
		feed := data.NewFeeder(ctx, poisoned, pre, data.FeedOptions{Batch: batch, StepsPerChunk: 10, Steps: plan.Steps, Seed: seed + uint64(v.Rounds)})
		err := t.Run(ctx, feed, nil, plan, func(ms []train.Metrics) {
			last := ms[len(ms)-1]
			progress((v.Rounds-1)*roundSteps+last.Step+1, v.Rounds*roundSteps, last.Accuracy)
		})
		feed.Close()
		if err != nil {
			return nil, err
		}
		e, err := sanitize.Evaluate(ctx, c, t.Values(), pre, test, &sanitize.Attack{Trigger: trigger, Target: target}, run)
		if err != nil {
			return nil, err
		}
		v.Evaluation = *e
		if e.CDA.Value > wanted && e.ASR.Value > wanted {
			return v, writeFolded(path, len(clean.Classes), t.Values())
		}
		if err := t.Reset(t.Values()); err != nil { // the next round starts from here, with fresh momentum
			return nil, err
		}
	}
	return nil, fmt.Errorf("after %d steps the victim has CDA %.3f and ASR %.3f, wanted are %.2f of both", maxRounds*roundSteps, v.CDA.Value, v.ASR.Value, wanted)
}

func writeFolded(path string, classes int, values map[string][]float32) error {
	m, err := victimModel(classes, values, 0, true)
	if err != nil {
		return err
	}
	raw, err := m.Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o644)
}
