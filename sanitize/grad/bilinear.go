package grad

// matrix is a dense row-major matrix.
type matrix struct {
	rows, cols int64
	v          []float64
}

func newMatrix(rows, cols int64) matrix { return matrix{rows, cols, make([]float64, rows*cols)} }

func (m matrix) at(i, j int64) *float64 { return &m.v[i*m.cols+j] }

func (m matrix) transposed() matrix {
	t := newMatrix(m.cols, m.rows)
	for i := range m.rows {
		for j := range m.cols {
			*t.at(j, i) = *m.at(i, j)
		}
	}
	return t
}

// kron is the Kronecker product.
func kron(a, b matrix) matrix {
	k := newMatrix(a.rows*b.rows, a.cols*b.cols)
	for i := range a.rows {
		for j := range a.cols {
			for p := range b.rows {
				for q := range b.cols {
					*k.at(i*b.rows+p, j*b.cols+q) = *a.at(i, j) * *b.at(p, q)
				}
			}
		}
	}
	return k
}

// bilinear computes a one-dimensional convolution of a whole image side with a kernel of three: y = a((g w) . (b x)), tile by tile.
// b is [products*tiles, in], g [products, 3], a [out, products*tiles]; product p of tile i stands at p*tiles+i.
type bilinear struct {
	products, tiles int64
	a, b, g         matrix
}

// tile is the number of outputs that one tile computes: F(4, 3) of Lavin and Gray 2016 takes 6 products for what takes 12.
const tile = 4

// bilinearOf builds the algorithm for one direction of a convolution. At stride 2 the outer taps read the odd input positions, as an
// F(4, 2) on them, and the middle tap the even ones, as plain products.
func bilinearOf(c convGeometry, direction int) bilinear {
	in, out, before, stride := c.in[direction], c.out[direction], c.before[direction], c.stride[direction]
	tiles := (out + tile - 1) / tile
	taps := int64(3)
	extra := int64(0)
	if stride == 2 {
		taps, extra = 2, tile
	}
	ta, tb, tg := toomCook(tile, taps)
	m := bilinear{products: tb.rows + extra, tiles: tiles}
	m.a, m.b, m.g = newMatrix(out, m.products*tiles), newMatrix(m.products*tiles, in), newMatrix(m.products, 3)
	put := func(product, t, position int64, v float64) {
		if position -= before; position >= 0 && position < in { // outside is padding: zero
			*m.b.at(product*tiles+t, position) = v
		}
	}
	for p := range tb.rows {
		for k := range taps {
			*m.g.at(p, k*stride) = *tg.at(p, k) // at stride 2: taps 0 and 2
		}
		for t := range tiles {
			for u := range tb.cols {
				put(p, t, stride*(t*tile+u), *tb.at(p, u))
			}
			for i := range min(tile, out-t*tile) {
				*m.a.at(t*tile+i, p*tiles+t) = *ta.at(i, p)
			}
		}
	}
	for i := range extra { // the middle tap
		p := tb.rows + i
		*m.g.at(p, 1) = 1
		for t := range tiles {
			if o := t*tile + i; o < out {
				put(p, t, 2*o+1, 1)
				*m.a.at(o, p*tiles+t) = 1
			}
		}
	}
	return m
}

// toomCook returns the matrices of F(m, r): m outputs of a filter of r taps from m+r-1 products, y = a((g w) . (b x)). It is the
// transposed Toom-Cook polynomial product at the points 0, 1, -1, 2, -2 and infinity. Factors are moved from b to g, which leaves
// whole numbers in b.
func toomCook(m, r int64) (a, b, g matrix) {
	n := m + r - 1
	points := []float64{0, 1, -1, 2, -2}[:n-1]
	vandermonde := func(cols int64) matrix {
		v := newMatrix(n, cols)
		for i, p := range points {
			x := 1.0
			for j := range cols {
				*v.at(int64(i), j) = x
				x *= p
			}
		}
		*v.at(n-1, cols-1) = 1 // infinity: the leading coefficient
		return v
	}
	a, g = vandermonde(m).transposed(), vandermonde(r)
	b = inverse(vandermonde(n)).transposed()
	for i, p := range points {
		f := 1.0
		for j, q := range points {
			if j != i {
				f *= p - q
			}
		}
		for j := range n {
			*b.at(int64(i), j) *= f
		}
		for j := range r {
			*g.at(int64(i), j) /= f
		}
	}
	return a, b, g
}

// inverse by Gauss-Jordan elimination with pivoting; for the small, regular matrices above.
func inverse(m matrix) matrix {
	n := m.rows
	w := newMatrix(n, 2*n)
	for i := range n {
		for j := range n {
			*w.at(i, j) = *m.at(i, j)
		}
		*w.at(i, n+i) = 1
	}
	for k := range n {
		pivot := k
		for i := k; i < n; i++ {
			if abs(*w.at(i, k)) > abs(*w.at(pivot, k)) {
				pivot = i
			}
		}
		for j := range 2 * n {
			*w.at(k, j), *w.at(pivot, j) = *w.at(pivot, j), *w.at(k, j)
		}
		d := *w.at(k, k)
		for j := range 2 * n {
			*w.at(k, j) /= d
		}
		for i := range n {
			if f := *w.at(i, k); i != k && f != 0 {
				for j := range 2 * n {
					*w.at(i, j) -= f * *w.at(k, j)
				}
			}
		}
	}
	inv := newMatrix(n, n)
	for i := range n {
		for j := range n {
			*inv.at(i, j) = *w.at(i, n+j)
		}
	}
	return inv
}

func abs(x float64) float64 { return max(x, -x) }
