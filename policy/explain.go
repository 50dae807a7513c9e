package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// failures is a tracer that keeps the last failure of every expression that did not hold: no more than the policy has expressions, however long it runs.
type failures struct {
	events int
	last   map[place]failure
}

type place struct {
	file     string
	row, col int
}

type failure struct {
	topdown.Event
	at int // number of the event
}

func (*failures) Enabled() bool { return true }

func (*failures) Config() topdown.TraceConfig { return topdown.TraceConfig{PlugLocalVars: true} }

func (f *failures) TraceEvent(e topdown.Event) {
	expr, ok := e.Node.(*ast.Expr)
	if e.Op != topdown.FailOp || !ok || e.Location == nil || e.Location.File == "" { // the query itself is in no file
		return
	}
	if _, every := expr.Terms.(*ast.Every); every {
		return // what fails is in its body
	}
	if f.last == nil {
		f.last = map[place]failure{}
	}
	f.events++
	f.last[place{e.Location.File, e.Location.Row, e.Location.Col}] = failure{e, f.events}
}

// inOrder are the failures as they came.
func (f *failures) inOrder() []failure {
	return slices.SortedFunc(maps.Values(f.last), func(a, b failure) int { return cmp.Compare(a.at, b.at) })
}

// String is the place and the expression, with what its variables stood for.
func (f failure) String() string {
	var text bytes.Buffer
	if err := topdown.PrettyEvent(&text, &f.Event, topdown.PrettyEventOpts{PrettyVars: true}); err != nil {
		text.Reset()
		text.Write(f.Location.Text)
	}
	return fmt.Sprintf("%s:%d:\n%s", f.Location.File, f.Location.Row, strings.TrimRight(text.String(), "\n"))
}

// printer writes what a policy prints, with its place.
type printer struct{ w io.Writer }

func (p printer) Print(c print.Context, message string) error {
	_, err := fmt.Fprintf(p.w, "%s:%d: %s\n", c.Location.File, c.Location.Row, message)
	return err
}
