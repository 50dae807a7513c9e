package webhook

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

// operatorRoutes are the requests that change something or show what only operators may see.
func (s *Server) operatorRoutes() {
	post := func(path string, h echo.HandlerFunc) {
		s.echo.POST(path, h, middleware.BodyLimit("64K"), s.operatorOnly)
	}
	post("/api/v1/admissions/:id/approve", s.operate(OperationApprove))
	post("/api/v1/admissions/:id/reject", s.operate(OperationReject))
	post("/api/v1/admissions/:id/retry", s.operate(OperationRetry))
	post("/api/v1/gc", s.collectGarbage)
	post("/api/v1/notifications/:id/redeliver", s.redeliver)
	s.echo.POST(eventsRoute, s.receiveEvents) // shows a secret of its own
	s.echo.GET("/api/v1/events", s.listIngestions, s.operatorOnly)
	s.echo.GET("/api/v1/notifications", s.listDeliveries, s.operatorOnly)
	s.echo.GET("/api/v1/notifications/:id", s.getDelivery, s.operatorOnly)
}

const maxReason = 500 // runes

// operate carries out what {"reason": "..."} asks for and answers the record.
func (s *Server) operate(action string) echo.HandlerFunc {
	return func(c echo.Context) error {
		var body struct {
			Reason string `json:"reason"`
		}
		if err := readJSON(c, &body); err != nil {
			return err
		}
		a, err := s.admission(c)
		if err != nil {
			return err
		}
		if err := s.mayOperate(c, a); err != nil {
			return err
		}
		reason := printable(body.Reason, maxReason+1)
		if len([]rune(reason)) > maxReason {
			return badRequest("the reason is longer than %d characters", maxReason)
		}
		a, err = s.pipeline.Operate(c.Request().Context(), a.ID, action, operator(c), reason)
		switch {
		case errors.Is(err, ErrReason):
			return badRequest(`%v: send {"reason": "..."}`, err)
		case errors.Is(err, ErrConflict):
			return &httpError{Status: http.StatusConflict, Code: "CONFLICT", Message: err.Error()}
		case err != nil:
			return err
		}
		return c.JSON(http.StatusOK, s.view(a))
	}
}

// Collection is the answer to a request to collect garbage.
type Collection struct {
	Garbage []Garbage `json:"garbage"`
	Bytes   int64     `json:"bytes"`
	Removed bool      `json:"removed"` // false: they were only looked for
}

// NewCollection sums up what was found or removed.
func NewCollection(garbage []Garbage, removed bool) Collection {
	c := Collection{Garbage: append([]Garbage{}, garbage...), Removed: removed}
	for _, g := range garbage {
		c.Bytes += g.Bytes
	}
	return c
}

// collectGarbage answers what is left behind and not changed for "older_than" (default 24h), and removes it if asked to.
func (s *Server) collectGarbage(c echo.Context) error {
	var body struct {
		OlderThan string `json:"older_than"`
		Remove    bool   `json:"remove"`
	}
	if err := readJSON(c, &body); err != nil {
		return err
	}
	older := 24 * time.Hour
	if body.OlderThan != "" {
		var err error
		if older, err = time.ParseDuration(body.OlderThan); err != nil || older < 0 {
			return badRequest("older_than: %q is no duration such as 24h", printable(body.OlderThan, 40))
		}
	}
	ctx, p := c.Request().Context(), s.pipeline
	found, err := findGarbage(ctx, p.Dir, p.store, p.broken, older)
	if err == nil && body.Remove {
		found, err = removeGarbage(ctx, p.Dir, found, s.gateway, p.unlessInWork)
		s.log.Info("garbage collected", "operator", operator(c), "removed", len(found))
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, NewCollection(found, body.Remove))
}

// readJSON reads the request's body: one JSON object with known fields, or nothing.
func readJSON(c echo.Context, into any) error {
	r := c.Request()
	if r.ContentLength == 0 {
		return nil
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var he *echo.HTTPError
		if errors.As(err, &he) { // over the limit
			return err
		}
		return badRequest("the body is not the JSON object that was expected: %v", printable(err.Error(), 200))
	}
	if d.More() {
		return badRequest("there is something after the JSON object")
	}
	return nil
}

// getLog answers the lines of an admission's log, a JSON object each.
func (s *Server) getLog(c echo.Context) error {
	a, err := s.admission(c)
	if err != nil {
		return err
	}
	lines, err := s.pipeline.logOf(a)
	if err != nil {
		return err
	}
	w := c.Response()
	w.Header().Set(echo.HeaderContentType, "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	encode := json.NewEncoder(w)
	for _, line := range lines {
		if err := encode.Encode(line); err != nil {
			return nil // the client went away
		}
	}
	return nil
}
