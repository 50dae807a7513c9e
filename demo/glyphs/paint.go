package glyphs

import (
	"image"
	"image/draw"
	"math"
	"math/rand/v2"

	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/vector"
)

// painter draws images one after the other with the same memory.
type painter struct {
	shapes [][]outline
	rng    *rand.Rand
	raster *vector.Rasterizer
	mask   *image.Alpha
	canvas [area]colour
}

// colour is red, green and blue, 0..255.
type colour [channels]float32

func newPainter(shapes [][]outline) *painter {
	return &painter{shapes: shapes, raster: vector.NewRasterizer(Side, Side), mask: image.NewAlpha(image.Rect(0, 0, Side, Side))}
}

// paint draws one letter, HWC.
func (p *painter) paint(dst []byte, letter int) {
	ground := p.background()
	for range p.rng.IntN(4) {
		p.stroke(p.contrast(ground, 20))
	}
	p.glyph(letter, p.contrast(ground, 70))
	grain := p.between(2, 12)
	for i, c := range p.canvas {
		for k, v := range c {
			v += grain * (p.between(-1, 1) + p.between(-1, 1))
			dst[i*channels+k] = byte(min(max(v, 0), 255))
		}
	}
}

// between draws a number uniformly.
func (p *painter) between(low, high float32) float32 { return low + (high-low)*p.rng.Float32() }

func (p *painter) colour() colour {
	return colour{p.between(0, 255), p.between(0, 255), p.between(0, 255)}
}

// contrast draws a colour whose luma differs from another's by some distance or more.
func (p *painter) contrast(from colour, distance float32) colour {
	for {
		if c := p.colour(); float32(math.Abs(float64(c.luma()-from.luma()))) >= distance {
			return c
		}
	}
}

func (c colour) luma() float32 { return .299*c[0] + .587*c[1] + .114*c[2] }

// background fills the canvas with a gradient and soft blotches, and returns its mean colour.
func (p *painter) background() colour {
	const cells = 4
	base := p.colour()
	drift := colour{p.between(-50, 50), p.between(-50, 50), p.between(-50, 50)}
	angle := float64(p.between(0, 2*math.Pi))
	dx, dy := float32(math.Cos(angle)), float32(math.Sin(angle))
	var lattice [cells + 1][cells + 1]float32
	depth := p.between(0, 40)
	for y := range lattice {
		for x := range lattice[y] {
			lattice[y][x] = p.between(-depth, depth)
		}
	}
	for y := range Side {
		for x := range Side {
			u, v := float32(x)/Side, float32(y)/Side
			ramp := (u-.5)*dx + (v-.5)*dy
			gx, gy := u*cells, v*cells
			ix, iy := int(gx), int(gy)
			fx, fy := smooth(gx-float32(ix)), smooth(gy-float32(iy))
			top := lattice[iy][ix] + fx*(lattice[iy][ix+1]-lattice[iy][ix])
			bottom := lattice[iy+1][ix] + fx*(lattice[iy+1][ix+1]-lattice[iy+1][ix])
			blotch := top + fy*(bottom-top)
			for k := range channels {
				p.canvas[y*Side+x][k] = base[k] + ramp*drift[k] + blotch
			}
		}
	}
	return base
}

func smooth(t float32) float32 { return t * t * (3 - 2*t) }

// stroke draws a thin bar at a random place.
func (p *painter) stroke(c colour) {
	angle := float64(p.between(0, math.Pi))
	cx, cy := p.between(0, Side), p.between(0, Side)
	length, width := p.between(4, 14)/2, p.between(.5, 1.2)
	dx, dy := float32(math.Cos(angle)), float32(math.Sin(angle))
	corner := func(along, across float32) (float32, float32) {
		return cx + along*length*dx - across*width*dy, cy + along*length*dy + across*width*dx
	}
	p.raster.Reset(Side, Side)
	p.raster.MoveTo(corner(-1, -1))
	p.raster.LineTo(corner(1, -1))
	p.raster.LineTo(corner(1, 1))
	p.raster.LineTo(corner(-1, 1))
	p.raster.ClosePath()
	p.blend(c)
}

// glyph draws the letter under a random affine map.
func (p *painter) glyph(letter int, c colour) {
	shape := p.shapes[letter][p.rng.IntN(len(p.shapes[letter]))]
	angle := float64(p.between(-.35, .35)) // radians, 20 degrees
	sin, cos := float32(math.Sin(angle)), float32(math.Cos(angle))
	height, aspect, shear := p.between(15, 24), p.between(.8, 1.2), p.between(-.2, .2)
	cx, cy := Side/2+p.between(-4, 4), Side/2+p.between(-4, 4)
	at := func(q point) (float32, float32) {
		x, y := height*aspect*(q.x+shear*q.y), height*q.y
		return cx + cos*x - sin*y, cy + sin*x + cos*y
	}
	p.raster.Reset(Side, Side)
	for _, s := range shape {
		ax, ay := at(shape.at(s.Args[0]))
		bx, by := at(shape.at(s.Args[1]))
		switch s.Op {
		case sfnt.SegmentOpMoveTo:
			p.raster.ClosePath()
			p.raster.MoveTo(ax, ay)
		case sfnt.SegmentOpLineTo:
			p.raster.LineTo(ax, ay)
		case sfnt.SegmentOpQuadTo:
			p.raster.QuadTo(ax, ay, bx, by)
		case sfnt.SegmentOpCubeTo:
			ex, ey := at(shape.at(s.Args[2]))
			p.raster.CubeTo(ax, ay, bx, by, ex, ey)
		}
	}
	p.raster.ClosePath()
	p.blend(c)
}

// blend paints what the rasterizer holds.
func (p *painter) blend(c colour) {
	p.raster.DrawOp = draw.Src
	p.raster.Draw(p.mask, p.mask.Rect, image.Opaque, image.Point{})
	for i, a := range p.mask.Pix {
		if a == 0 {
			continue
		}
		m := float32(a) / 255
		for k := range channels {
			p.canvas[i][k] += m * (c[k] - p.canvas[i][k])
		}
	}
}
