package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"grindstone/webhook/queue"
)

// Check is one condition of readiness. Run returns why it does not hold, in words fit for clients.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// ownChecks are the server's conditions, before those it was given.
func (s *Server) ownChecks() []Check {
	return []Check{
		{"store", func(context.Context) error {
			if err := s.pipeline.store.Writable(); err != nil {
				s.log.Error("the admission store is not writable", "error", err)
				return errors.New("the admission store is not writable")
			}
			return nil
		}},
		{"policy", func(context.Context) error {
			if s.pipeline.Policy == nil || s.pipeline.Policy.Digest() == "" {
				return errors.New("no policy is loaded")
			}
			return nil
		}},
		{"key", func(context.Context) error {
			if s.pipeline.Key == nil {
				return errors.New("no signing key is loaded")
			}
			return nil
		}},
		{"queue", func(ctx context.Context) error { return checkQueue(ctx, s.pipeline.Queue, s.log) }},
	}
}

func checkQueue(ctx context.Context, q *queue.Queue, log *slog.Logger) error {
	if err := q.Check(ctx); err != nil {
		log.Error("the queue cannot be used", "error", err)
		return errors.New("the queue cannot be reached")
	}
	return nil
}

// checkTime is what each check may take.
const checkTime = 10 * time.Second

// checked is what came of a check.
type checked struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// examine runs the checks side by side, each with a time of its own: one that hangs takes none from the others.
func examine(ctx context.Context, checks []Check) []checked {
	results := make([]checked, len(checks))
	var group sync.WaitGroup
	for i, check := range checks {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTime)
			defer cancel()
			results[i] = checked{Name: check.Name, Ready: true}
			if err := check.Run(ctx); err != nil {
				results[i] = checked{Name: check.Name, Reason: err.Error()}
			}
		})
	}
	group.Wait()
	return results
}

// ready answers 200 when every check holds, else 503, with the reason of each that does not.
func (f *frontend) ready(c echo.Context) error {
	results := examine(c.Request().Context(), f.checks)
	ready := !slices.ContainsFunc(results, func(r checked) bool { return !r.Ready })
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	return c.JSON(status, struct {
		Ready  bool      `json:"ready"`
		Checks []checked `json:"checks"`
	}{ready, results})
}
