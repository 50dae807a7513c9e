package sanitize

import (
	"context"
	"fmt"
	"slices"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/data"
	"grindstone/sanitize/ort"
)

// probeImages is how many clean images choose the preprocessing.
const probeImages = 500

// CheckPreprocess reports a preprocessing that suits no model, whatever its number of channels.
func CheckPreprocess(name string) error {
	if name == "" || name == "auto" {
		return nil
	}
	_, first := data.ParsePreprocess(name, data.NCHW, 1, 1, 3)
	for _, channels := range []int{1, 4} {
		if _, err := data.ParsePreprocess(name, data.NCHW, 1, 1, channels); first == nil || err == nil {
			return nil
		}
	}
	return first
}

// keepsBytes reports whether a preprocessing makes bytes of bytes.
func keepsBytes(p data.Preprocess) bool {
	for k, scale := range p.Scale {
		if low, high := p.Shift[k], 255*scale+p.Shift[k]; min(low, high) != 0 || max(low, high) != 255 {
			return false
		}
	}
	return true
}

// FindPreprocess returns the preprocessing of that name or, for "" and "auto", the common candidate under which the model classifies
// clean images best. A model that takes bytes gets bytes.
func FindPreprocess(ctx context.Context, c *classifier.Classifier, name string, d *data.Dataset, run ort.Options) (data.Preprocess, Preprocessing, error) {
	candidates := data.Candidates(data.Layout(c.Layout), c.Height, c.Width, c.Channels)
	if name != "" && name != "auto" {
		p, err := data.ParsePreprocess(name, data.Layout(c.Layout), c.Height, c.Width, c.Channels)
		if err == nil && c.Bytes && !keepsBytes(p) {
			err = fmt.Errorf("preprocessing %q: %w: the model takes bytes; leave it out, or take bytes or bytes-bgr", name, data.ErrOption)
		}
		return p, Preprocessing{Name: name, Layout: string(c.Layout), From: "flag"}, err
	}
	if c.Bytes {
		candidates = slices.DeleteFunc(candidates, func(p data.Preprocess) bool { return !keepsBytes(p) })
	}
	probe := d
	if d.Len() > probeImages {
		probe = d.Subset(probeImages, 1)
	}
	var best, next Rate
	var p, second data.Preprocess
	for i, candidate := range candidates {
		e, err := Evaluate(ctx, c, nil, candidate, probe, nil, run)
		if err != nil {
			return data.Preprocess{}, Preprocessing{}, fmt.Errorf("preprocessing %s: %w", candidate.Name, err)
		}
		switch {
		case i == 0 || e.CDA.Value > best.Value:
			p, second, best, next = candidate, p, e.CDA, best
		case second.Name == "" || e.CDA.Value > next.Value:
			second, next = candidate, e.CDA
		}
	}
	info := Preprocessing{Name: p.Name, Layout: string(c.Layout), From: "auto", Margin: best.Value - next.Value}
	if next.Value >= best.Low {
		info.Rival = second.Name
	}
	return p, info, nil
}
