package sanitize

import (
	"context"
	"math"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// recordFeatures returns the features of every image of a dataset, [images, width], by the model in evaluation mode on images that are
// not augmented (decision 3 of a faithful Feature Grinding).
func recordFeatures(ctx context.Context, c *classifier.Classifier, values map[string][]float32, p data.Preprocess, d *data.Dataset, run ort.Options) ([]float32, error) {
	f, err := train.NewForward(c, p.Scale, p.Shift, values, []string{c.Feature}, run)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	features := make([]float32, 0, d.Len()*c.FeatureWidth)
	err = eachBatch(ctx, f, p, d, nil, func(_ int, v []*ort.Array) { features = append(features, v[0].F32...) })
	return features, err
}

// meanDistance is L_f: the mean L2 distance between the rows of two [rows, width] matrices.
func meanDistance(a, b []float32, width int) float64 {
	if len(a) == 0 {
		return 0
	}
	sum := 0.0
	for r := 0; r < len(a); r += width {
		sum += math.Sqrt(squared(a[r:r+width], b[r:r+width]))
	}
	return sum * float64(width) / float64(len(a))
}

func squared(a, b []float32) float64 {
	s := 0.0
	for i, x := range a {
		d := float64(x) - float64(b[i])
		s += d * d
	}
	return s
}

// unreachable is the mean L2 norm of the targets' negative part: features that come out of a ReLU cannot get closer than that.
func unreachable(features, targets []float32, width int) float64 {
	for _, x := range features {
		if x < 0 {
			return 0
		}
	}
	below := make([]float32, len(targets))
	for i, x := range targets {
		below[i] = min(x, 0)
	}
	return meanDistance(below, make([]float32, len(below)), width)
}
