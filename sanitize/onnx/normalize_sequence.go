package onnx

import (
	"errors"
	"fmt"
	"math"
)

func (u *upgrade) splitToSequence(n *Node) (*Node, error) {
	u.sequences[n.Output(0)] = n
	return n, nil
}

// sequenceAt: PyTorch's exporter, without optimization, splits tensors into sequences and takes tensors out of them. One that is taken by a
// constant is a Slice of what was split; the SplitToSequence stays, and is dropped with all else that nothing reads.
func (u *upgrade) sequenceAt(n *Node) (*Node, error) {
	at, split := u.initializer(n.Input(1)), u.sequences[n.Input(0)]
	if at == nil || at.Len() != 1 || split == nil {
		return nil, errors.New("only what SplitToSequence makes, at a constant position, is supported")
	}
	i, axis, x := at.Ints()[0], split.Int("axis", 0), split.Inputs[0]
	if split.Input(1) == "" && split.Int("keepdims", 1) == 0 {
		return n.last("Gather", []string{x, u.constant(n, "at", func(name string) *Tensor { return NewInt64(name, nil, []int64{i}) })}, I("axis", axis))
	}
	from, to := i, i+1 // parts of length 1, where no length is given
	if name := split.Input(1); name != "" {
		t := u.initializer(name)
		if t == nil {
			return nil, fmt.Errorf("lengths %q are not constant", name)
		}
		switch sizes := t.Ints(); {
		case len(t.Shape) == 0 && i >= 0 && len(sizes) == 1:
			from, to = i*sizes[0], (i+1)*sizes[0]
		case len(t.Shape) == 1 && i >= -int64(len(sizes)) && i < int64(len(sizes)):
			if i < 0 {
				i += int64(len(sizes))
			}
			from = 0
			for _, size := range sizes[:i] {
				from += size
			}
			to = from + sizes[i]
		default:
			return nil, fmt.Errorf("position %d of lengths %v", i, sizes)
		}
	} else if i == -1 {
		to = math.MaxInt64
	}
	return n.last("Slice", []string{x, u.ints(n, "from", []int64{from}), u.ints(n, "to", []int64{to}), u.ints(n, "axis", []int64{axis})})
}
