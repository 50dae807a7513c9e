package ort_test

import (
	"context"
	"fmt"
	"log"

	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

func Example() {
	b := onnx.NewBuilder()
	b.Input("x", onnx.Float, -1)
	b.Named("y", "Mul", []string{"x", b.Float(2)})
	b.Output("y", onnx.Float, -1)
	model, err := b.Model(17).Marshal()
	if err != nil {
		log.Fatal(err)
	}

	s, err := ort.NewSession(model, ort.Options{Provider: ort.CPU})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	x := &ort.Array{Shape: []int64{3}, F32: []float32{1, 2, 3}}
	y := make([]*ort.Array, 1)
	if err := s.Run(context.Background(), []*ort.Array{x}, y); err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Inputs()[0], y[0].F32)
	// Output: "x" (float [-1]) [2 4 6]
}
