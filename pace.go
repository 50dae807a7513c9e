package main

import (
	"fmt"
	"io"
	"time"
)

// paceEvery is how much time there is between two lines of a pace, and before the first: what is done by then needs none.
const paceEvery = 5 * time.Second

// pace says now and then how far something is that takes long.
type pace struct {
	w     io.Writer
	what  string
	begin time.Time
	said  time.Duration // since the begin, at the line before
}

func (p *pace) tell(done, all int) {
	took := time.Since(p.begin)
	if took-p.said < paceEvery || done == 0 {
		return
	}
	p.said = took
	left := time.Duration(float64(took) / float64(done) * float64(all-done))
	fmt.Fprintf(p.w, "%d of %d %s, %s left\n", done, all, p.what, left.Round(time.Second))
}
