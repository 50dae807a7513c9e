package webhook

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// Check is one condition of readiness. Run returns why it does not hold, in words fit for clients.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// checks are the server's own conditions, before those it was given.
func (s *Server) checks() []Check {
	return append([]Check{
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
		{"queue", func(ctx context.Context) error {
			if err := s.pipeline.Queue.Check(ctx); err != nil {
				s.log.Error("the queue cannot be used", "error", err)
				return errors.New("the queue cannot be reached")
			}
			return nil
		}},
		{"shutdown", func(context.Context) error {
			if s.stopping.Load() {
				return errors.New("the server is shutting down")
			}
			return nil
		}},
	}, s.config.Checks...)
}

// ready answers 200 when every check holds, else 503, with the reason of each that does not.
func (s *Server) ready(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 10*time.Second)
	defer cancel()
	type result struct {
		Name   string `json:"name"`
		Ready  bool   `json:"ready"`
		Reason string `json:"reason,omitempty"`
	}
	answer := struct {
		Ready  bool     `json:"ready"`
		Checks []result `json:"checks"`
	}{Ready: true}
	for _, check := range s.checks() {
		r := result{Name: check.Name, Ready: true}
		if err := check.Run(ctx); err != nil {
			r.Ready, r.Reason, answer.Ready = false, err.Error(), false
		}
		answer.Checks = append(answer.Checks, r)
	}
	status := http.StatusOK
	if !answer.Ready {
		status = http.StatusServiceUnavailable
	}
	return c.JSON(status, answer)
}
