package ort

import (
	"context"
	"slices"
	"sync"

	"grindstone/sanitize/onnx"
)

// Block is the number of channels in a block of the CPU provider's NCHWc operators: 8 or 16, as the processor's vector registers have it; 0 where
// the library has none of these operators for the processor. It is found out by running one of them.
var Block = sync.OnceValue(func() int64 {
	const most = 64
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, 1, most, 1, 2)
	b.Output(b.Own(onnx.NCHWc, "ReorderInput", []string{"x"}), onnx.Float, 1, most, 1, 2)
	s, err := NewModelSession(b.Model(onnx.Opset), Options{Provider: CPU, Threads: 1})
	if err != nil {
		return 0
	}
	defer s.Close()
	x := make([]float32, 2*most) // the position of an element
	for i := range x {
		x[i] = float32(i % 2)
	}
	out := make([]*Array, 1)
	if err := s.Run(context.Background(), []*Array{{Shape: []int64{1, most, 1, 2}, F32: x}}, out); err != nil {
		return 0
	}
	return int64(max(0, slices.Index(out[0].F32, 1))) // a block's channels at the first position come before the second
})
