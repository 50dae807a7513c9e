package sanitize

import (
	"context"

	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// rangeImages are enough to know how far activations go; quantizers take a few hundred.
const rangeImages = 1000

// requantize rounds the trained weights of a quantized model to integers again, with scales for them and for the activations as they are
// now on clean images. The accuracy that is reported afterwards is that of the rounded model.
func (r *run) requantize(ctx context.Context) error {
	if r.unrounded == nil || r.report.Hyperparameters.Steps == 0 {
		return nil
	}
	sample := r.trainSet
	if sample.Len() > rangeImages {
		sample = sample.Subset(rangeImages, r.Seed)
	}
	names := r.unrounded.RoundedActivations()
	f, err := train.NewRanges(r.unrounded, r.pre.Scale, r.pre.Shift, r.values, names, r.ort())
	if err != nil {
		return err
	}
	defer f.Close()
	ranges := map[string][2]float32{}
	err = eachBatch(ctx, f, r.pre, sample, nil, func(first int, v []*ort.Array) {
		for i, name := range names {
			lo, hi := v[2*i].F32[0], v[2*i+1].F32[0]
			if first > 0 {
				lo, hi = min(lo, ranges[name][0]), max(hi, ranges[name][1])
			}
			ranges[name] = [2]float32{lo, hi}
		}
	})
	if err != nil {
		return err
	}
	r.integers, err = r.unrounded.Requantize(r.values, ranges)
	return err
}
