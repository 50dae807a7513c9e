package webhook

import (
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"grindstone/webhook/pushevent"
)

const (
	maxEventBody    = 1 << 20 // bytes
	signatureWindow = 5 * time.Minute
)

// exceptEvents leaves the push events out of the logins: their Authorization header is the source's secret.
func exceptEvents(login echo.MiddlewareFunc) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		withLogin := login(next)
		return func(c echo.Context) error {
			if c.Path() == eventsRoute && c.Request().Method == http.MethodPost {
				return next(c)
			}
			return withLogin(c)
		}
	}
}

// eventsRoute takes push events.
const eventsRoute = "/api/v1/events/:source"

// receiveEvents takes the push events of the source that the URL names. They are on the disk when it answers 202.
func (s *Server) receiveEvents(c echo.Context) error {
	kind := c.Param("source")
	n := slices.IndexFunc(s.pipeline.Events, func(e EventSource) bool { return e.Kind == kind })
	if n < 0 {
		return notFound("no source of push events %q is configured", printable(kind, 40))
	}
	source, r := s.pipeline.Events[n], c.Request()
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, maxEventBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return &httpError{Status: http.StatusRequestEntityTooLarge, Code: "TOO_LARGE", Message: "the body of an event is limited to 1 MiB"}
	} else if err != nil {
		return badRequest("the body cannot be read")
	}
	if !source.authentic(r, body, time.Now()) {
		return &httpError{Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Message: "the request does not show the source's secret, or its signature is wrong or old"}
	}
	events, err := pushevent.Parsers[kind](r.Header, body)
	if err != nil {
		return badRequest("%s", printable(err.Error(), 300))
	}
	if len(events) == 0 {
		s.log.Info("a push event is ignored", "source", kind, "why", "it tells of no push of a model")
	}
	var fresh []pushevent.Pushed
	for _, e := range events {
		switch age := time.Since(e.At); {
		case !e.At.IsZero() && age < -signatureWindow:
			return badRequest("the event is of %s, in the future: the clocks differ", e.At.UTC().Format(time.RFC3339))
		case !e.At.IsZero() && age > source.Window: // no error: CNCF distribution would send it again for ever, and none of those after it
			s.log.Warn("a push event is too old and is ignored", "source", kind, "repository", e.Repository, "tag", e.Tag, "digest", e.Digest, "at", e.At, "window", source.Window)
		default:
			fresh = append(fresh, e)
		}
	}
	taken, err := s.pipeline.ingester.take(source, fresh)
	if errors.Is(err, errManyEvents) {
		return &httpError{Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Message: err.Error() + "; send it again later"}
	} else if err != nil {
		return err
	}
	return c.JSON(http.StatusAccepted, map[string]int{"events": len(events), "taken": taken})
}

// authentic reports whether a request shows the source's secret: as a signature of Standard Webhooks, where there is one, which is the only way for
// MLflow; as X-Webhook-Secret, the only way for Hugging Face; as a bearer token, the password of Basic, or the whole Authorization header; for Quay,
// which can send none of them, as the query's token. Secrets are compared in constant time.
func (e EventSource) authentic(r *http.Request, body []byte, now time.Time) bool {
	switch e.Kind {
	case "mlflow": // it can do nothing but sign
		return signed(r, "X-Mlflow-", "X-Mlflow-Delivery-Id", []byte(e.Secret), body, now)
	case "huggingface": // it can do nothing but show it
		return same(r.Header.Get("X-Webhook-Secret"), e.Secret)
	}
	if r.Header.Get("Webhook-Signature") != "" {
		return signed(r, "Webhook-", "Webhook-Id", webhookKey(e.Secret), body, now)
	}
	authorization := r.Header.Get("Authorization")
	if _, password, ok := r.BasicAuth(); ok {
		return same(password, e.Secret)
	}
	ok := same(authorization, e.Secret)
	if token, found := strings.CutPrefix(authorization, "Bearer "); found {
		ok = same(token, e.Secret) || ok
	}
	if e.Kind == "quay" {
		ok = same(r.URL.Query().Get("token"), e.Secret) || ok
	}
	return ok
}

// signed checks the signature of a request over id, time and body, whose headers have the prefix, and that it is not old.
func signed(r *http.Request, prefix, idHeader string, key, body []byte, now time.Time) bool {
	id, stamp := r.Header.Get(idHeader), r.Header.Get(prefix+"Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if age := now.Sub(time.Unix(seconds, 0)); err != nil || id == "" || age > signatureWindow || age < -signatureWindow {
		return false
	}
	want, ok := "v1,"+webhookMAC(key, id, stamp, body), false
	for given := range strings.FieldsSeq(r.Header.Get(prefix + "Signature")) {
		ok = same(given, want) || ok
	}
	return ok
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// listIngestions answers the events that are not through.
func (s *Server) listIngestions(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"events": s.pipeline.ingester.list()})
}
