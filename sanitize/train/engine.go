package train

import (
	"context"
	"errors"
	"slices"

	"grindstone/sanitize/ort"
)

// engine holds the state of training and moves it.
type engine interface {
	// steps does a chunk of steps and returns how many it has done; after an error the state is what these have left. Feed is what Step's graph
	// reads beside the state, metrics what it writes.
	steps(ctx context.Context, feed []*ort.Array, metrics *ort.Array) (int, error)
	now() *state
	Provider() ort.Provider
	Close() error
}

// state is what training moves: flat vectors, and what is where in them.
type state struct {
	parameters, momentum, statistics []float32
	slots, statisticsSlots           []Slot
}

func newState(parameters, statistics []Slot) *state {
	p := length(parameters)
	return &state{make([]float32, p), make([]float32, p), make([]float32, length(statistics)), parameters, statistics}
}

// arrays are the vectors as a Step's graph takes them.
func (s *state) arrays() []*ort.Array {
	return []*ort.Array{vector(s.parameters), vector(s.momentum), vector(s.statistics)}
}

func vector(v []float32) *ort.Array { return &ort.Array{Shape: []int64{int64(len(v))}, F32: v} }

// reset starts at the given weights, with no momentum.
func (s *state) reset(values map[string][]float32) error {
	clear(s.momentum)
	return errors.Join(Fill(s.parameters, s.slots, values), Fill(s.statistics, s.statisticsSlots, values))
}

// take copies another state, whose order may be another one.
func (s *state) take(from *state) error {
	return errors.Join(
		Fill(s.parameters, s.slots, read(from.parameters, from.slots)),
		Fill(s.momentum, s.slots, read(from.momentum, from.slots)),
		Fill(s.statistics, s.statisticsSlots, read(from.statistics, from.statisticsSlots)))
}

// span is the part [from, to) of an array along its first axis, in the same memory.
func span(a *ort.Array, from, to int) *ort.Array {
	r := &ort.Array{Shape: slices.Clone(a.Shape)}
	r.Shape[0] = int64(to - from)
	n := 1
	for _, d := range a.Shape[1:] {
		n *= int(d)
	}
	switch from, to = from*n, to*n; {
	case a.F32 != nil:
		r.F32 = a.F32[from:to]
	case a.I64 != nil:
		r.I64 = a.I64[from:to]
	case a.U8 != nil:
		r.U8 = a.U8[from:to]
	}
	return r
}

// at is the element of an array along its first axis, without that axis.
func at(a *ort.Array, i int) *ort.Array {
	r := span(a, i, i+1)
	r.Shape = r.Shape[1:]
	return r
}
