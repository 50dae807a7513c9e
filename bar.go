package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// bar shows how far something is: on a terminal a bar that is drawn again and again, elsewhere, as in a log, a line now and then.
type bar struct {
	w     io.Writer
	drawn *progressbar.ProgressBar // nil: lines
	lines pace
}

func newBar(w io.Writer, steps int) *bar {
	if file, ok := w.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		return &bar{w: w, lines: pace{w: w, what: "steps", begin: time.Now()}}
	}
	return &bar{w: w, drawn: progressbar.NewOptions(steps, progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionSetPredictTime(false), progressbar.OptionShowCount())}
}

// set says how many steps are done, and what is to be read beside the bar.
func (b *bar) set(step, steps int, beside string) {
	if b.drawn == nil {
		b.lines.tell(step, steps)
		return
	}
	b.drawn.ChangeMax(steps)
	b.drawn.Describe(beside)
	_ = b.drawn.Set(step) // a terminal that is gone is no reason to stop
}

// end leaves the bar as it is, and the line.
func (b *bar) end() {
	if b != nil && b.drawn != nil {
		_ = b.drawn.Exit()
		fmt.Fprintln(b.w)
	}
}
