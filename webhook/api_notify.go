package webhook

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// listDeliveries answers {"deliveries": [...], "total": N}, newest first. The query parameters target, state and admission keep those
// that match; limit and offset page through them.
func (s *Server) listDeliveries(c echo.Context) error {
	known := []string{"target", "state", "admission", "limit", "offset"}
	for name := range c.QueryParams() {
		if !slices.Contains(known, name) {
			return badRequest("unknown query parameter %q; known are %s", printable(name, 40), strings.Join(known, ", "))
		}
	}
	state, states := c.QueryParam("state"), []string{DeliveryPending, DeliveryDelivered, DeliveryFailed}
	if state != "" && !slices.Contains(states, state) {
		return badRequest("unknown state %q; the states are %s", printable(state, 40), strings.Join(states, ", "))
	}
	limit, err := natural(c, "limit", defaultListed, maxListed)
	if err != nil {
		return err
	}
	offset, err := natural(c, "offset", 0, 1<<31)
	if err != nil {
		return err
	}
	target, admission := c.QueryParam("target"), c.QueryParam("admission")
	list := s.pipeline.notifier.list(func(d *Delivery) bool {
		return (target == "" || d.Target == target) && (state == "" || d.State == state) && (admission == "" || d.Admission == admission)
	})
	total := len(list)
	list = list[min(offset, total):]
	return c.JSON(http.StatusOK, map[string]any{"deliveries": list[:min(limit, len(list))], "total": total})
}

func (s *Server) getDelivery(c echo.Context) error {
	d, ok := s.pipeline.notifier.get(c.Param("id"))
	if !ok {
		return notFound("there is no delivery %q", printable(c.Param("id"), 120))
	}
	return c.JSON(http.StatusOK, d)
}

// redeliver sends a delivery's event again.
func (s *Server) redeliver(c echo.Context) error {
	d, err := s.pipeline.notifier.redeliver(c.Param("id"))
	switch {
	case errors.Is(err, ErrNotFound):
		return notFound("there is no delivery %q", printable(c.Param("id"), 120))
	case errors.Is(err, errNoTarget):
		return &httpError{Status: http.StatusConflict, Code: "CONFLICT", Message: err.Error()}
	case err != nil:
		return err
	}
	s.log.Info("notification asked for again", "operator", operator(c), "delivery", d.ID)
	return c.JSON(http.StatusAccepted, d)
}
