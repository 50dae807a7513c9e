package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

const heartbeat = 15 * time.Second

// followAdmission answers the admission's progress as server-sent events until a final state: "state" with a Change as data, and
// "progress" with a sanitize.Progress. A client that was cut off sends the id of its last event as Last-Event-ID and misses no
// change. After the change to a final state the stream ends; a client that comes back then is answered 204, which tells browsers
// to stop.
func (s *Server) followAdmission(c echo.Context) error {
	a, err := s.admission(c)
	if err != nil {
		return err
	}
	var change, line int
	if last := c.Request().Header.Get("Last-Event-ID"); last != "" {
		if n, err := fmt.Sscanf(last, "%d.%d", &change, &line); n != 2 || err != nil {
			return badRequest("Last-Event-ID must be an id of this stream, as in 3.17")
		}
	}
	if a.State.Final() && change >= a.changes() {
		return c.NoContent(http.StatusNoContent)
	}
	w := c.Response()
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the stream may outlive the limit of a request
	w.Header().Set(echo.HeaderContentType, "text/event-stream")
	w.Header().Set(echo.HeaderCacheControl, "no-cache")
	w.Header().Set("X-Accel-Buffering", "no") // proxies: pass on at once
	w.WriteHeader(http.StatusOK)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		lines, next, ended := s.pipeline.feeds.watch(a.ID)
		a, _ = s.pipeline.store.Get(a.ID)
		for _, e := range eventsAfter(a, lines, change, line) {
			if err := writeEvent(w, e); err != nil {
				return nil // the client went away
			}
			change, line = e.Change, e.Line
		}
		w.Flush()
		if a.State.Final() || ended {
			return nil
		}
		select {
		case <-c.Request().Context().Done():
			return nil
		case <-next:
		case <-beat.C:
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return nil
			}
		}
	}
}

func writeEvent(w http.ResponseWriter, e Event) error {
	name, value := "progress", any(e.Progress)
	if e.State != nil {
		name, value = "state", e.State
	}
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", e.ID(), name, data)
	return err
}
