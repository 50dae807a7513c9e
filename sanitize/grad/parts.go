package grad

import (
	"cmp"
	"slices"

	"grindstone/sanitize/onnx"
)

// part is the gradient of a value between two positions of one axis; elsewhere it is zero.
type part struct {
	axis        int
	first, last int64 // last is the one behind
	g           string
}

// returnPart accumulates a part of a value's gradient, in the plain layout; pads is what surrounds it. Parts along one axis wait for each
// other: a value that is cut up (queries, keys and values of an attention layer, the halves of a shuffled block) has its gradient put together
// by one Concat, in place of a padded and added tensor for each part.
func (t *Tape) returnPart(value, g string, pads []int64) {
	if !t.needs[value] {
		return
	}
	shape := t.shapes[value]
	cut := -1
	for a := range shape {
		if pads[a] != 0 || pads[len(shape)+a] != 0 {
			if cut >= 0 {
				cut = -1
				break
			}
			cut = a
		}
	}
	if cut < 0 || t.native[value] != Plain {
		t.accumulate(value, t.pad(g, pads...), Plain)
		return
	}
	t.parts[value] = append(t.parts[value], part{cut, pads[cut], shape[cut] - pads[len(shape)+cut], g})
}

// gradient returns the whole gradient of a value, in its native layout, once all its readers have been passed; "" if it has none.
func (t *Tape) gradient(value string) string {
	parts := t.parts[value]
	if parts == nil {
		return t.grads[value]
	}
	delete(t.parts, value)
	shape := t.shapes[value]
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(a.axis, b.axis), cmp.Compare(a.first, b.first)) })
	names, next := []string{}, int64(0)
	for _, p := range parts {
		if p.axis == parts[0].axis && p.first == next {
			names, next = append(names, p.g), p.last
		}
	}
	if len(names) == len(parts) && next == shape[parts[0].axis] {
		t.accumulate(value, t.B.Op("Concat", names, onnx.I("axis", int64(parts[0].axis))), Plain)
		return t.grads[value]
	}
	for _, p := range parts {
		pads := make([]int64, 2*len(shape))
		pads[p.axis], pads[len(shape)+p.axis] = p.first, shape[p.axis]-p.last
		t.accumulate(value, t.pad(p.g, pads...), Plain)
	}
	return t.grads[value]
}
