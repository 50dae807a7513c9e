package sanitize

import (
	"context"
	"slices"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// mirrorImages is how many held-out images decide whether training mirrors its own. On images that it was trained on, a model that never saw
// them mirrored is better as they are (NAD's by 7 points), whatever they show.
const mirrorImages = 2000

// findMirror decides whether training mirrors half of the images: it does where the incoming model knows mirrored images as well. Photographs
// of objects gain by it, the more the fewer there are; digits and road signs would be told the wrong thing.
func (r *run) findMirror(ctx context.Context) (err error) {
	switch r.Mirror {
	case MirrorOn:
		r.mirror = true
	case MirrorAuto:
		if r.NoAugment {
			return nil
		}
		sample := r.held
		if sample.Len() > mirrorImages {
			sample = sample.Subset(mirrorImages, r.Seed)
		}
		r.mirror, err = knowsMirrored(ctx, r.original, r.pre, sample, r.ort())
	}
	return err
}

// knowsMirrored reports whether a classifier is about as accurate on mirrored images: within 10 points over all, and within 30 in each class of
// which there are enough images. Some classes may look alike mirrored and others not (an arrow to the left, the letter b).
func knowsMirrored(ctx context.Context, c *classifier.Classifier, p data.Preprocess, d *data.Dataset, run ort.Options) (bool, error) {
	f, err := train.NewForward(c, p.Scale, p.Shift, nil, []string{c.Logits}, run)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var hits [2][]int // of each class: as they are, mirrored
	total := make([]int, len(d.Classes))
	for i, images := range []*data.Dataset{d, d.Mirrored()} {
		predicted, err := predict(ctx, f, p, images, nil, func(int) {})
		if err != nil {
			return false, err
		}
		hits[i] = make([]int, len(d.Classes))
		for k, class := range predicted {
			_, label := d.At(k)
			hits[i][label] += count(class == label)
			total[label] += 1 - i
		}
	}
	lost, all := 0, 0
	for class, n := range total {
		fewer := hits[0][class] - hits[1][class]
		if n >= 20 && 10*fewer > 3*n {
			return false, nil
		}
		lost, all = lost+fewer, all+n
	}
	return 10*lost <= all, nil
}

// Mirror says whether training mirrors half of the images.
type Mirror string

// Values of Mirror.
const (
	MirrorAuto Mirror = "auto" // where the incoming model knows mirrored images as well
	MirrorOn   Mirror = "on"
	MirrorOff  Mirror = "off"
)

var mirrors = []Mirror{MirrorAuto, MirrorOn, MirrorOff}

func (m Mirror) valid() bool { return slices.Contains(mirrors, m) }
