package train

import (
	"fmt"
	"slices"
)

// Slot is a tensor's place in a flat vector.
type Slot struct {
	Name   string
	Shape  []int64
	Offset int
	Size   int

	taps bool // a convolution weight kept as grad.Taps: [R, S, K, C]
}

func appendSlot(slots []Slot, name string, shape []int64) []Slot {
	if slices.ContainsFunc(slots, func(o Slot) bool { return o.Name == name }) {
		return slots
	}
	size := 1
	for _, d := range shape {
		size *= int(d)
	}
	return append(slots, Slot{Name: name, Shape: shape, Offset: int(length(slots)), Size: size})
}

// aligned are the same tensors, each at the beginning of a cache line of 64 bytes, where kernels read them fastest.
func aligned(slots []Slot) []Slot {
	const line = 16 // elements
	var placed []Slot
	for _, s := range slots {
		s.Offset = int(length(placed)+line-1) / line * line
		placed = append(placed, s)
	}
	return placed
}

func length(slots []Slot) int64 {
	if len(slots) == 0 {
		return 0
	}
	last := slots[len(slots)-1]
	return int64(last.Offset + last.Size)
}

// Fill writes tensors into a flat vector.
func Fill(flat []float32, slots []Slot, values map[string][]float32) error {
	for _, s := range slots {
		if s.Name == "" {
			continue
		}
		v := values[s.Name]
		if len(v) != s.Size {
			return fmt.Errorf("tensor %q has %d elements, its slot %d", s.Name, len(v), s.Size)
		}
		s.write(flat, v)
	}
	return nil
}

// read takes the tensors out of a flat vector.
func read(flat []float32, slots []Slot) map[string][]float32 {
	values := map[string][]float32{}
	for _, s := range slots {
		if s.Name != "" {
			values[s.Name] = s.read(flat)
		}
	}
	return values
}

// stored is the shape in which the flat vector keeps the tensor.
func (s Slot) stored() []int64 {
	if s.taps {
		return []int64{s.Shape[2], s.Shape[3], s.Shape[0], s.Shape[1]}
	}
	return s.Shape
}

// in is the tensor's part of the flat vector.
func (s Slot) in(flat []float32) []float32 { return flat[s.Offset : s.Offset+s.Size : s.Offset+s.Size] }

// write puts a tensor into the flat vector.
func (s Slot) write(flat, v []float32) {
	s.each(func(at, i int) { flat[at] = v[i] })
}

// read takes the tensor out of the flat vector.
func (s Slot) read(flat []float32) []float32 {
	v := make([]float32, s.Size)
	s.each(func(at, i int) { v[i] = flat[at] })
	return v
}

// each pairs every position in the flat vector with the element of the tensor that stands there.
func (s Slot) each(pair func(at, element int)) {
	if !s.taps {
		for i := range s.Size {
			pair(s.Offset+i, i)
		}
		return
	}
	outer, taps := int(s.Shape[0]*s.Shape[1]), int(s.Shape[2]*s.Shape[3])
	for kc := range outer {
		for rs := range taps {
			pair(s.Offset+rs*outer+kc, kc*taps+rs)
		}
	}
}
