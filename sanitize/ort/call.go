package ort

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"

	binding "github.com/yalue/onnxruntime_go"
	"google.golang.org/protobuf/encoding/protowire"
)

// call holds what one run hands to ONNX Runtime. Native tensors point into Go slices, which stay pinned until release.
type call struct {
	pin     runtime.Pinner
	in, out []binding.Value
}

func (c *call) release() {
	c.free(c.in)
	c.free(c.out)
	c.pin.Unpin()
}

func (c *call) free(values []binding.Value) {
	for i, v := range values {
		if !absent(v) {
			_ = v.Destroy()
		}
		values[i] = nil
	}
}

func (c *call) inputs(s *Session, in []*Array) error {
	if s.filler != nil {
		in = []*Array{s.filler}
	}
	ports := s.fed()
	c.in = make([]binding.Value, len(in))
	for i, a := range in {
		if a == nil {
			return fmt.Errorf("%w: %s: no data", ErrArray, ports[i])
		}
		if err := a.check(ports[i]); err != nil {
			return err
		}
		v, err := a.element().value(a, &c.pin)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrArray, ports[i], err)
		}
		c.in[i] = v
	}
	return nil
}

// outputs wraps the arrays to write into, and leaves nil what ONNX Runtime is to allocate.
func (c *call) outputs(s *Session, out []*Array) error {
	c.out = make([]binding.Value, len(out))
	for i, a := range out {
		port := s.out[i]
		if a == nil || a.Type() == 0 {
			if a = preallocated(port); a == nil {
				continue
			}
			if out[i] == nil {
				out[i] = a
			} else {
				*out[i] = *a
				a = out[i]
			}
		}
		if err := a.check(port); err != nil {
			return err
		}
		v, err := a.element().value(a, &c.pin)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrArray, port, err)
		}
		c.out[i] = v
	}
	return nil
}

// preallocated makes the array for an output that the binding cannot allocate itself (a scalar; 16-bit floating point), nil for all
// others. 16-bit outputs of unknown shape remain nil and fail after the run.
func preallocated(p Port) *Array {
	e := elementOf(p.Type)
	isHalf := p.Type == 10 || p.Type == 16
	if e == nil || p.Shape == nil || len(p.Shape) > 0 && !isHalf || slices.Min(append([]int64{0}, p.Shape...)) < 0 {
		return nil
	}
	a := &Array{Shape: slices.Clone(p.Shape)}
	e.make(a)
	return a
}

// run executes the graph and stops it when ctx ends.
func (c *call) run(ctx context.Context, s *Session) error {
	opts, err := binding.NewRunOptions()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRun, err)
	}
	defer opts.Destroy()
	terminated := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = opts.Terminate()
		close(terminated)
	})
	err = s.native.RunWithOptions(c.in, c.out, opts)
	if !stop() {
		<-terminated // opts is in use until then
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrCancelled, context.Cause(ctx))
	}
	if err != nil {
		return failure(ErrRun, err)
	}
	return nil
}

// unknownScalar tells which output the binding could not allocate because it is a scalar; -1 when err is something else.
func (c *call) unknownScalar(err error) int {
	if errors.Is(err, binding.ZeroShapeLengthError) {
		return slices.IndexFunc(c.out, absent) // those before it were allocated, those after it were not looked at
	}
	return -1
}

// absent tells whether there is no value; after a failure the binding leaves nil pointers of a concrete type.
func absent(v binding.Value) bool { return v == nil || reflect.ValueOf(v).IsNil() }

func (c *call) collect(s *Session, out []*Array) error {
	for i, v := range c.out {
		if out[i] == nil {
			out[i] = &Array{}
		}
		a := out[i]
		if _, ok := v.(*binding.CustomDataTensor); ok && a.Type() != 0 {
			continue // written in place
		}
		if !slices.ContainsFunc(elements, func(e element) bool { return e.take(a, v) }) {
			return fmt.Errorf("%w: output %s: a value of this kind cannot be returned; give an array of the result's shape", ErrRun, s.out[i])
		}
	}
	return nil
}

// fed lists what is really fed: the inputs, or the one that addInput added.
func (s *Session) fed() []Port {
	if s.filler != nil {
		return []Port{{Name: fillerName, Type: 1, Shape: []int64{1}}}
	}
	return s.in
}

const fillerName = "grindstone.unused"

// addInput gives a graph without inputs one that nothing reads, for the binding cannot run a graph without inputs. Protocol buffers
// merge a message field that occurs twice, so that a second graph field with just this input is enough.
func addInput(model []byte) []byte {
	nest := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	float1 := []byte{0x08, 1, 0x12, 4, 0x0a, 2, 0x08, 1} // elem_type 1, shape {dim {dim_value 1}}
	input := append(nest(1, []byte(fillerName)), nest(2, nest(1, float1))...)
	return append(slices.Clone(model), nest(7, nest(11, input))...)
}
