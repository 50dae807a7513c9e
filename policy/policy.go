// Package policy asks an OPA policy, in process, what to do with a pushed model and whether a sanitized one may be released.
//
// A policy is a directory of Rego v1 modules with a data.json or data.yaml; the embedded default is used where none is given.
// It answers two questions, each with one rule:
//
//	data.grindstone.admission.decision   {"action": "sanitize", "method": ..., "transformation": ..., "dataset": ..., "reasons": []}
//	data.grindstone.release.decision     {"release": true, "reasons": [], "claims": [...]}
//
// It may further define data.grindstone.settings.problems, a set of sentences about its own data, which must be empty.
// A question without a sound answer is an *Error, and the model stays in quarantine. Builtins that reach the network or the
// environment do not exist for a policy.
package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// DefaultTimeout bounds one decision.
const DefaultTimeout = 5 * time.Second

// Options configure New.
type Options struct {
	Dir     string         // the policy's directory; "": the embedded default
	Data    map[string]any // laid over the policy's data document: objects merged, all else replaced
	Timeout time.Duration  // of one decision; 0: DefaultTimeout
	Log     *slog.Logger   // receives every decision; nil: slog.Default()
	Debug   io.Writer      // receives what the policy prints, and what did not hold where it leaves a question undefined; nil: print does nothing
}

// Engine is a compiled policy. It may be used concurrently.
type Engine struct {
	admission, release rego.PreparedEvalQuery
	digest, uri        string
	packages, unread   []string
	timeout            time.Duration
	log                *slog.Logger
	debug              io.Writer
}

// New reads and compiles a policy. Errors are ErrLoad and name the file and line.
func New(ctx context.Context, o Options) (*Engine, error) {
	e, err := load(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLoad, err)
	}
	return e, nil
}

func load(ctx context.Context, o Options) (*Engine, error) {
	src, err := read(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := src.overlay(o.Data); err != nil {
		return nil, err
	}
	e := &Engine{uri: src.uri, packages: src.packages(), unread: src.unread, timeout: o.Timeout, log: o.Log, debug: o.Debug}
	if e.timeout <= 0 {
		e.timeout = DefaultTimeout
	}
	if e.log == nil {
		e.log = slog.Default()
	}
	if e.digest, err = src.digest(); err != nil {
		return nil, err
	}
	c, err := compiler()
	if err != nil {
		return nil, err
	}
	if c.WithEnablePrintStatements(o.Debug != nil).Compile(src.modules); c.Failed() {
		return nil, c.Errors
	}
	store := inmem.NewFromObject(src.data)
	if err := e.checkData(ctx, c, store); err != nil {
		return nil, err
	}
	if e.admission, err = prepare(ctx, c, store, "data.grindstone.admission.decision"); err != nil {
		return nil, err
	}
	e.release, err = prepare(ctx, c, store, "data.grindstone.release.decision")
	return e, err
}

func prepare(ctx context.Context, c *ast.Compiler, store storage.Store, rule string) (rego.PreparedEvalQuery, error) {
	if len(c.GetRules(ast.MustParseRef(rule))) == 0 { // also rules for single fields of it
		return rego.PreparedEvalQuery{}, fmt.Errorf("the policy has no rule %s", rule)
	}
	return rego.New(
		rego.Query(rule), rego.Compiler(c), rego.Store(store), rego.Capabilities(capabilities()),
		rego.SetRegoVersion(ast.RegoV1), rego.StrictBuiltinErrors(true),
	).PrepareForEval(ctx)
}

// checkData asks the policy what is wrong with its data, if it has an opinion.
func (e *Engine) checkData(ctx context.Context, c *ast.Compiler, store storage.Store) error {
	const rule = "data.grindstone.settings.problems"
	if len(c.GetRulesForVirtualDocument(ast.MustParseRef(rule))) == 0 {
		return nil
	}
	query, err := prepare(ctx, c, store, rule)
	if err != nil {
		return err
	}
	value, err := e.value(ctx, query, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", rule, err)
	}
	problems, ok := value.([]any)
	if !ok {
		return fmt.Errorf("%s must be a set of strings", rule)
	}
	var all []error
	for _, p := range problems {
		all = append(all, fmt.Errorf("%v", p))
	}
	return errors.Join(all...)
}

// Digest identifies the policy with its data: "sha256:...".
func (e *Engine) Digest() string { return e.digest }

// Packages are the names of the policy's packages, sorted.
func (e *Engine) Packages() []string { return slices.Clone(e.packages) }

// Unread are JSON and YAML files in the policy's directory that are no part of it, since they are not named data.
func (e *Engine) Unread() []string { return slices.Clone(e.unread) }

// URI says where the policy came from: urn:grindstone:policy:default or a file URL.
func (e *Engine) URI() string { return e.uri }

// Admission decides about a push. An error is an *Error; the decision is then the zero value but for its ID.
func (e *Engine) Admission(ctx context.Context, in AdmissionInput) (AdmissionDecision, error) {
	in = in.normal()
	d, began := AdmissionDecision{ID: newID(), PolicyDigest: e.digest}, time.Now()
	rule, err := ask[admissionRule](ctx, e, e.admission, in)
	if err == nil {
		rule.Reasons = sentences(rule.Reasons)
		err = kind(ErrInvalid, rule.check(in.Datasets))
	}
	attrs := []any{"question", "admission", "id", d.ID, "repository", in.Repository, "digest", in.Digest, "policy", e.digest, "took", time.Since(began)}
	if err != nil {
		return AdmissionDecision{ID: d.ID}, e.undecided(ctx, d.ID, "admission", err, attrs)
	}
	d.Action, d.Method, d.Transformation, d.Dataset = rule.Action, rule.Method, rule.Transformation, rule.Dataset
	d.Parameters, d.Reasons = rule.Parameters, rule.Reasons
	e.log.InfoContext(ctx, "policy decision", append(attrs, "action", string(d.Action), "transformation", d.Transformation, "dataset", d.Dataset, "reasons", strings.Join(d.Reasons, "; "))...)
	return d, nil
}

// Release decides about a sanitized model. An error is an *Error; the decision is then the zero value but for its ID.
func (e *Engine) Release(ctx context.Context, in ReleaseInput) (ReleaseDecision, error) {
	in = in.normal()
	d, began := ReleaseDecision{ID: newID(), PolicyDigest: e.digest}, time.Now()
	var rule releaseRule
	err := kind(ErrInput, in.checkReport())
	if err == nil {
		rule, err = ask[releaseRule](ctx, e, e.release, in)
	}
	if err == nil {
		rule.Reasons = sentences(rule.Reasons)
		err = kind(ErrInvalid, rule.check())
	}
	attrs := []any{"question", "release", "id", d.ID, "admission", in.Decision.ID, "repository", in.Admission.Repository, "digest", in.Admission.Digest, "policy", e.digest, "took", time.Since(began)}
	if err != nil {
		return ReleaseDecision{ID: d.ID}, e.undecided(ctx, d.ID, "release", err, attrs)
	}
	d.Release, d.Reasons, d.Claims = rule.Release, rule.Reasons, append([]Claim{}, rule.Claims...)
	e.log.InfoContext(ctx, "policy decision", append(attrs, "release", d.Release, "reasons", strings.Join(d.Reasons, "; "))...)
	return d, nil
}

// undecided logs and completes the error of a question.
func (e *Engine) undecided(ctx context.Context, id, question string, err error, attrs []any) error {
	var failure *Error
	if !errors.As(err, &failure) {
		failure = &Error{Kind: ErrEvaluation, Cause: err}
	}
	failure.ID, failure.Question = id, question
	e.log.WarnContext(ctx, "policy decided nothing", append(attrs, "error", failure.Error())...)
	return failure
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }
