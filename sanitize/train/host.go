package train

import (
	"context"
	"slices"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/ort"
)

// host trains in main memory: the runtime does a Pass for each micro-batch, and the update is done here, in place.
type host struct {
	*ort.Session
	o       StepOptions
	parts   int // micro-batches a step
	threads int

	state      *state
	statistics [2][]float32 // that one pass leaves to the next
	parameters []*ort.Array // each in its place in the state
	gradient   []float32    // of the micro-batches so far; stays zero where the loss does not depend on a parameter
	gradients  []*ort.Array // that a pass writes, in their places in gradient
	further    []float32    // the gradient of a further micro-batch
	furthers   []*ort.Array
}

func newHost(c *classifier.Classifier, o StepOptions, run ort.Options) (engine, error) {
	pass, parts, err := BuildPass(c, o)
	if err != nil {
		return nil, err
	}
	session, err := ort.NewModelSession(pass.Model, run)
	if err != nil {
		return nil, err
	}
	h := &host{Session: session, o: o, parts: parts, threads: ort.Threads(run.Threads), state: newState(pass.Parameters, pass.Statistics)}
	for i := range h.statistics {
		h.statistics[i] = make([]float32, len(h.state.statistics))
	}
	for _, s := range pass.Parameters {
		h.parameters = append(h.parameters, &ort.Array{Shape: s.stored(), F32: s.in(h.state.parameters)})
	}
	places := func(flat []float32) (all []*ort.Array) {
		for _, s := range pass.Gradients {
			all = append(all, vector(s.in(flat)))
		}
		return all
	}
	h.gradient = make([]float32, len(h.state.parameters))
	h.gradients = places(h.gradient)
	if parts > 1 {
		h.further = make([]float32, len(h.gradient))
		h.furthers = places(h.further)
	}
	return h, nil
}

func (h *host) now() *state { return h.state }

func (h *host) steps(ctx context.Context, feed []*ort.Array, metrics *ort.Array) (int, error) {
	k := int(metrics.Shape[0])
	for i := range k {
		one := make([]*ort.Array, len(feed))
		for j, a := range feed {
			one[j] = at(a, i)
		}
		if err := h.step(ctx, one, at(metrics, i).F32); err != nil {
			return i, err
		}
	}
	return k, nil
}

// step does one: feed and metrics are those of Step without the axis of steps.
func (h *host) step(ctx context.Context, feed []*ort.Array, metrics []float32) error {
	images, labels, targets, alpha, rate := feed[0], feed[1], feed[2], feed[3], feed[4].F32[0]
	micro, statistics := h.o.Batch/h.parts, h.state.statistics
	clear(metrics)
	for part := range h.parts {
		from, to := part*micro, (part+1)*micro
		in := slices.Concat(h.parameters, []*ort.Array{vector(statistics), span(images, from, to), span(labels, from, to), span(targets, from, to), alpha})
		statistics = h.statistics[part%2]
		m, gradients := make([]float32, len(metrics)), h.gradients
		if part > 0 {
			gradients = h.furthers
		}
		if err := h.Run(ctx, in, append([]*ort.Array{vector(statistics), vector(m)}, gradients...)); err != nil {
			return err
		}
		if part > 0 {
			h.add()
		}
		for i, v := range m {
			metrics[i] += v / float32(h.parts)
		}
	}
	h.update(rate)
	copy(h.state.statistics, statistics)
	return nil
}
