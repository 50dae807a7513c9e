package train_test

import (
	"context"
	"testing"

	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// TestGraph runs the training step as a file of its own, whose state begins as the classifier's, and as the trainer runs it: one step at
// the same images ends in the same losses and the same state. Without momentum before it, and with g = gradient + decay*p, the step is
// p - rate*(1+momentum)*g, so the update tells the gradient as well.
func TestGraph(t *testing.T) {
	for name, plain := range map[string]bool{"plain layout": true, "fast layout": false} {
		t.Run(name, func(t *testing.T) {
			c := smallNet(t)
			o := train.StepOptions{Batch: 6, Scale: []float32{1. / 64, 1. / 128, 1. / 32}, Shift: []float32{-0.5, 0.25, 0}, Feature: true, Momentum: 0.875, WeightDecay: 1. / 64, PlainLayout: plain}
			s, err := train.BuildStep(c, o)
			if err != nil {
				t.Fatal(err)
			}
			in := batchOf(t, c, s, o.Batch, []float32{0.75}, []float32{0.125})
			clear(in[1].F32)
			if err := train.Fill(in[0].F32, s.Parameters, train.Values(c)); err != nil {
				t.Fatal(err)
			}
			if err := train.Fill(in[2].F32, s.Statistics, train.Values(c)); err != nil {
				t.Fatal(err)
			}
			want := run(t, session(t, s), in)

			m, err := train.BuildGraph(c, o)
			if err != nil {
				t.Fatal(err)
			}
			if m.Doc == "" {
				t.Error("no documentation")
			}
			raw, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			r, err := ort.NewSession(raw, ort.Options{Provider: ort.CPU})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			images := &ort.Array{Shape: c.ImageShape(int64(o.Batch)), F32: make([]float32, len(in[3].U8))}
			for i, v := range in[3].U8 {
				k := i / (c.Height * c.Width) % c.Channels
				images.F32[i] = float32(v)*o.Scale[k] + o.Shift[k]
			}
			feed := []*ort.Array{images}
			for _, a := range in[4:] {
				feed = append(feed, &ort.Array{Shape: a.Shape[1:], I64: a.I64, F32: a.F32})
			}
			out := make([]*ort.Array, len(m.Graph.Outputs))
			if err := r.Run(context.Background(), feed, out); err != nil {
				t.Fatal(err)
			}
			got := map[string][]float32{}
			for i, o := range m.Graph.Outputs {
				got[o.Name] = out[i].F32
			}
			for i, name := range []string{"loss", "feature_loss", "task_loss", "accuracy"} {
				if d := difference(got[name], want[3][i:i+1]); d > 1e-6 {
					t.Errorf("%s is %v, want %v", name, got[name], want[3][i])
				}
			}
			check := func(what string, got, want []float32) {
				if d := difference(got, want); d > 1e-5 {
					t.Errorf("%s: off by %.2g of the largest", what, d)
				}
			}
			for _, slot := range s.Parameters {
				check(slot.Name, got[slot.Name+"/next"], slotOf(slot, want[0]))
				check(slot.Name+"/momentum", got[slot.Name+"/momentum/next"], slotOf(slot, want[1]))
				before := c.Constants[slot.Name].Floats()
				step := make([]float32, slot.Size)
				for i, g := range got[slot.Name+"/gradient"] {
					step[i] = before[i] - in[7].F32[0]*(1+o.Momentum)*(g+o.WeightDecay*before[i])
				}
				check(slot.Name+"/gradient", step, got[slot.Name+"/next"])
			}
			for _, slot := range s.Statistics {
				check(slot.Name, got[slot.Name+"/next"], slotOf(slot, want[2]))
			}
		})
	}
}

// slotOf is a tensor in a flat vector; smallNet has no weights in another order.
func slotOf(s train.Slot, flat []float32) []float32 { return flat[s.Offset : s.Offset+s.Size] }
