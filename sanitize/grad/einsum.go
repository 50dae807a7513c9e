package grad

import (
	"slices"
	"strings"

	"grindstone/sanitize/onnx"
)

// einsumGrad: the gradient of an operand is the Einsum of dy with the other operands. Indices that occur in the operand alone were summed
// over, so that its gradient is the same all along them; an index that the operand has twice stands for its diagonal.
func einsumGrad(t *Tape, n *onnx.Node, dy []string) []string {
	terms, output := t.einsumTerms(n)
	sizes := map[rune]int64{}
	for i, term := range terms {
		for k, l := range term {
			sizes[l] = max(sizes[l], t.Shape(n.Inputs[i])[k])
		}
	}
	g := make([]string, len(n.Inputs))
	for i, term := range terms {
		g[i] = t.lazy(n, i, func() string {
			in, left := []string{dy[0]}, []string{string(output)}
			for j := range terms {
				if j != i {
					x, letters := t.withoutOnes(n.Inputs[j], terms[j], sizes)
					in, left = append(in, x), append(left, letters)
				}
			}
			// Of the operand's indices, those that are known from elsewhere and that it does not broadcast.
			shape := t.Shape(n.Inputs[i])
			var right []rune
			aligned := make([]int64, len(term)) // of the result, with size 1 for all others
			for k, l := range term {
				aligned[k] = 1
				if shape[k] == sizes[l] && !slices.Contains(right, l) && strings.ContainsRune(strings.Join(left, ""), l) {
					right = append(right, l)
					aligned[k] = shape[k]
				}
			}
			d := t.B.Op("Einsum", in, onnx.S("equation", strings.Join(left, ",")+"->"+string(right)))
			d = t.expand(t.reshape(d, aligned...), shape...)
			for k, l := range term {
				if first := slices.Index(term, l); first < k {
					d = t.mul(d, t.diagonal(shape, first, k))
				}
			}
			return d
		})
	}
	return g
}

// einsumTerms returns the indices of a node's operands and output, one letter each, those of ellipses included.
func (t *Tape) einsumTerms(n *onnx.Node) (terms [][]rune, output []rune) {
	equation := strings.ReplaceAll(n.String("equation", ""), " ", "")
	left, right, explicit := strings.Cut(equation, "->")
	const all = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	free := []rune(strings.Map(func(l rune) rune {
		if strings.ContainsRune(equation, l) {
			return -1
		}
		return l
	}, all))
	widest, count := 0, map[rune]int{}
	for i, term := range strings.Split(left, ",") {
		dots := 0
		if strings.Contains(term, "...") {
			dots = len(t.Shape(n.Inputs[i])) - (len(term) - 3)
			widest = max(widest, dots)
		}
		letters := slices.Clone(free[:dots]) // ellipses are aligned at their ends
		slices.Reverse(letters)
		terms = append(terms, []rune(strings.Replace(term, "...", string(letters), 1)))
		for _, l := range strings.Replace(term, "...", "", 1) {
			count[l]++
		}
	}
	dots := slices.Clone(free[:widest])
	slices.Reverse(dots)
	if explicit {
		return terms, []rune(strings.Replace(right, "...", string(dots), 1))
	}
	output = dots // then the letters that occur once, in alphabetical order
	var once []rune
	for l, k := range count {
		if k == 1 {
			once = append(once, l)
		}
	}
	slices.Sort(once)
	return terms, append(output, once...)
}

// withoutOnes drops the axes along which an operand is broadcast.
func (t *Tape) withoutOnes(value string, term []rune, sizes map[rune]int64) (x, letters string) {
	shape := t.Shape(value)
	var keep []rune
	var to []int64
	for k, l := range term {
		if shape[k] == sizes[l] {
			keep, to = append(keep, l), append(to, shape[k])
		}
	}
	if len(keep) == len(term) {
		return t.Ref(value), string(term)
	}
	return t.reshape(t.Ref(value), to...), string(keep)
}

// diagonal is 1 where two axes of a shape have the same index, with size 1 along all others.
func (t *Tape) diagonal(shape []int64, a, b int) string {
	to := make([]int64, len(shape))
	for i := range to {
		to[i] = 1
	}
	to[a], to[b] = shape[a], shape[b]
	return t.reshape(t.eye(shape[a]), to...)
}
