package onnx

import (
	"errors"
	"math"
	"slices"
	"testing"
)

// Every half-precision number survives widening and rounding, and rounding goes to the nearest, ties to even.
func TestHalf(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		if f := fromHalf(h); f == f && toHalf(f) != h {
			t.Fatalf("float16 %#04x = %g comes back as %#04x", h, f, toHalf(f))
		} else if f != f && fromHalf(toHalf(f)) == fromHalf(toHalf(f)) {
			t.Fatalf("float16 NaN %#04x comes back as a number", h)
		}
		if f := fromBrain(h); f == f && toBrain(f) != h {
			t.Fatalf("bfloat16 %#04x = %g comes back as %#04x", h, f, toBrain(f))
		}
	}
	for _, c := range []struct {
		f    float32
		want float32
	}{
		{1, 1}, {65504, 65504}, {65519, 65504}, {65520, float32(math.Inf(1))}, {-1e9, float32(math.Inf(-1))},
		{1 + 1.0/2048, 1}, {1 + 3.0/2048, 1 + 2.0/1024}, {1 + 1.1/2048, 1 + 1.0/1024}, // ties to even, above a tie
		{1.0 / (1 << 24), 1.0 / (1 << 24)}, {0.5 / (1 << 24), 0}, {1.5 / (1 << 24), 2.0 / (1 << 24)}, // subnormals
		{6.1035156e-5, 6.1035156e-5}, {6.1e-5, 1023.0 / (1 << 24)},
	} {
		if got := fromHalf(toHalf(c.f)); got != c.want {
			t.Errorf("float16 of %g is %g, want %g", c.f, got, c.want)
		}
	}
	if got := fromBrain(toBrain(1 + 1.0/256)); got != 1 {
		t.Errorf("bfloat16 of 1+1/256 is %g, want 1", got)
	}
	if got := fromBrain(toBrain(1 + 3.0/256)); got != 1+2.0/128 {
		t.Errorf("bfloat16 of 1+3/256 is %g, want 1+2/128", got)
	}
}

func TestTensorConvert(t *testing.T) {
	v := []float32{0.5, -2, 1024}
	w := NewFloat("w", []int64{3}, v)
	for _, to := range []DataType{Float, Double, Float16, BFloat16} {
		c, err := w.Convert(to)
		if err != nil || c.Type != to || int64(len(c.Raw)) != 3*to.Size() || !slices.Equal(c.Floats(), v) {
			t.Errorf("converted to %v: %v (%v)", to, c.Floats(), err)
		}
	}
	large := NewFloat("w", nil, []float32{1e6})
	if _, err := large.Convert(Float16); !errors.Is(err, ErrMismatch) {
		t.Errorf("1e6 as float16 gives %v", err)
	}
	if _, err := w.Convert(Int64); !errors.Is(err, ErrMismatch) {
		t.Errorf("float as int64 gives %v", err)
	}
	if w.Ints() != nil {
		t.Error("a float tensor has integers")
	}
	if got := NewInt64("", nil, []int64{-3}); got.Len() != 1 || got.Floats()[0] != -3 {
		t.Errorf("int64 scalar -3 is %v", got.Floats())
	}
}
