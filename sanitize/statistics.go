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
	var m moments
	if err := eachBatch(ctx, f, p, d, nil, func(_ int, v []*ort.Array) { m.add(v) }); err != nil {
		return nil, nil, err
	}
	mean, variance = m.statistics()
	return mean, variance, nil
}

// measureStatistics gives the BatchNormalizations that were trained the statistics of images augmented as in training (Wu and Johnson 2021, arXiv 2105.07576). The
// running ones are no measure: how closely they have followed is for the file's momentum to say, and with one near 1 (torchvision's MNASNet has 0.9997) they are
// still those of the incoming weights. Nor are images as they are: the network knows those that it was trained on.
func (r *run) measureStatistics(ctx context.Context) error {
	f, names, err := train.NewBatchMoments(r.c, r.pre.Scale, r.pre.Shift, r.values, r.ort())
	if err != nil {
		return err
	}
	defer f.Close()
	if len(names) == 0 {
		return nil
	}
	feed := r.feeder(ctx, data.FeedOptions{Batch: evalBatch, Steps: statisticsImages / evalBatch, Seed: r.Seed})
	defer feed.Close()
	var m moments
	size := evalBatch
	for m.images < statisticsImages {
		c, err := feed.Next()
		if err != nil {
			return err
		}
		if err := inPieces(ctx, f, c.Images, evalBatch, &size, func(_ int, v []*ort.Array) { m.add(v) }); err != nil {
			return err
		}
		feed.Recycle(c)
	}
	mean, variance := m.statistics()
	for i := range mean {
		r.values[names[2*i]], r.values[names[2*i+1]] = mean[i], variance[i]
	}
	return nil
}

// moments sums up what a graph of moments returns: mean and mean square of each value in turn, per image and channel.
type moments struct {
	sums   [][]float64
	images int
}

func (m *moments) add(v []*ort.Array) {
	for i, moment := range v {
		channels := int(moment.Shape[1])
		if len(m.sums) == i {
			m.sums = append(m.sums, make([]float64, channels))
		}
		for k, x := range moment.F32 {
			m.sums[i][k%channels] += float64(x)
		}
	}
	m.images += int(v[0].Shape[0])
}

// statistics are mean and variance of every channel of each value.
func (m *moments) statistics() (mean, variance [][]float32) {
	images := float64(m.images)
	for i := 0; i < len(m.sums); i += 2 {
		e, s := make([]float32, len(m.sums[i])), make([]float32, len(m.sums[i]))
		for k := range e {
			x := m.sums[i][k] / images
			e[k], s[k] = float32(x), float32(max(0, m.sums[i+1][k]/images-x*x))
		}
		mean, variance = append(mean, e), append(variance, s)
	}
	return mean, variance
}
