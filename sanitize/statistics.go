package sanitize

import (
	"context"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// statisticsImages are enough to know the mean and the variance of a channel.
const statisticsImages = 2000

// layerStatistics measures mean and variance of every channel of the layers' outputs on clean images.
func layerStatistics(ctx context.Context, c *classifier.Classifier, layers []classifier.Foldable, p data.Preprocess, d *data.Dataset, run ort.Options) (mean, variance [][]float32, err error) {
	f, err := train.NewMoments(c, p.Scale, p.Shift, layers, run)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return channelStatistics(ctx, f, p, d)
}

// measureStatistics gives the BatchNormalizations that were trained the statistics of clean images. The running ones are no measure: how closely they have
// followed is for the file's momentum to say, and with one near 1 (torchvision's MNASNet has 0.9997) they are still those of the incoming weights.
func (r *run) measureStatistics(ctx context.Context) error {
	f, names, err := train.NewBatchMoments(r.c, r.pre.Scale, r.pre.Shift, r.values, r.ort())
	if err != nil {
		return err
	}
	defer f.Close()
	if len(names) == 0 {
		return nil
	}
	n := min(r.trainSet.Len(), statisticsImages)
	if n > evalBatch {
		n -= n % evalBatch // a last batch of few images would be normalized by them
	}
	mean, variance, err := channelStatistics(ctx, f, r.pre, r.trainSet.Subset(n, r.Seed).Shuffled(r.Seed))
	if err != nil {
		return err
	}
	for i := range mean {
		r.values[names[2*i]], r.values[names[2*i+1]] = mean[i], variance[i]
	}
	return nil
}

// channelStatistics is mean and variance of every channel over a dataset, by a graph of moments.
func channelStatistics(ctx context.Context, f *train.Forward, p data.Preprocess, d *data.Dataset) (mean, variance [][]float32, err error) {
	var sums [][]float64 // mean and mean square of each value in turn
	err = eachBatch(ctx, f, p, d, nil, func(_ int, v []*ort.Array) {
		for i, moment := range v {
			channels := int(moment.Shape[1])
			if len(sums) == i {
				sums = append(sums, make([]float64, channels))
			}
			for k, x := range moment.F32 {
				sums[i][k%channels] += float64(x)
			}
		}
	})
	if err != nil {
		return nil, nil, err
	}
	images := float64(d.Len())
	for i := 0; i < len(sums); i += 2 {
		m, s := make([]float32, len(sums[i])), make([]float32, len(sums[i]))
		for k := range m {
			e := sums[i][k] / images
			m[k], s[k] = float32(e), float32(max(0, sums[i+1][k]/images-e*e))
		}
		mean, variance = append(mean, m), append(variance, s)
	}
	return mean, variance, nil
}
