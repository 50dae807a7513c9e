package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/util"
)

// kind makes err an *Error of a kind; nil stays nil.
func kind(sentinel, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: sentinel, Cause: err}
}

// ask evaluates a prepared rule on an input and decodes its one value.
func ask[Rule any](ctx context.Context, e *Engine, query rego.PreparedEvalQuery, in any) (Rule, error) {
	var rule Rule
	value, err := e.value(ctx, query, in)
	if err != nil {
		return rule, err
	}
	return rule, kind(ErrInvalid, decode(value, &rule))
}

// value evaluates a prepared rule within the time limit. in may be nil.
func (e *Engine) value(ctx context.Context, query rego.PreparedEvalQuery, in any) (any, error) {
	var opts []rego.EvalOption
	if in != nil {
		if err := util.RoundTrip(&in); err != nil { // to maps and json.Number, by the types' JSON tags
			return nil, kind(ErrInput, err)
		}
		input, err := ast.InterfaceToValue(in)
		if err != nil {
			return nil, kind(ErrInput, err)
		}
		opts = append(opts, rego.EvalParsedInput(input))
	}
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	var failed failures
	if e.debug != nil {
		opts = append(opts, rego.EvalPrintHook(printer{e.debug}), rego.EvalQueryTracer(&failed), rego.EvalRuleIndexing(false))
	}
	results, err := evalWithin(ctx, query, opts)
	if err != nil {
		return nil, kind(classify(ctx, err), err)
	}
	if len(results) == 0 {
		for _, f := range failed.inOrder() {
			fmt.Fprintln(e.debug, f)
		}
		return nil, &Error{Kind: ErrUndefined}
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, &Error{Kind: ErrConflict}
	}
	return results[0].Expressions[0].Value, nil
}

// evalWithin evaluates until ctx ends, also what does not look whether it has: a builtin function at work on a large value, whose end nobody waits for.
func evalWithin(ctx context.Context, query rego.PreparedEvalQuery, opts []rego.EvalOption) (rego.ResultSet, error) {
	type outcome struct {
		results rego.ResultSet
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if r := recover(); r != nil {
				o = outcome{err: fmt.Errorf("a builtin function broke down: %v", r)}
			}
			done <- o
		}()
		o.results, o.err = query.Eval(ctx, opts...)
	}()
	select {
	case o := <-done:
		return o.results, o.err
	case <-ctx.Done():
	}
	select { // what does look has more to say
	case o := <-done:
		return o.results, o.err
	case <-time.After(time.Second):
		return nil, ctx.Err()
	}
}

func classify(ctx context.Context, err error) error {
	var failure *topdown.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ErrTimeout
	case errors.As(err, &failure) && failure.Code == topdown.ConflictErr:
		return ErrConflict
	default:
		return ErrEvaluation
	}
}
