package webhook

import (
	"context"
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
	maxEventBody    = 1 << 20          // bytes
	eventBodyTime   = 10 * time.Second // for it to come: it is in memory before it is known to be the source's
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
	unauthorized := &httpError{Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Message: "the request does not show the source's secret, or its signature is wrong or old"}
	if !source.announced(r, time.Now()) {
		return unauthorized
	}
	body, err := io.ReadAll(inTime{http.MaxBytesReader(c.Response(), r.Body, maxEventBody), time.Now().Add(eventBodyTime)})
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return &httpError{Status: http.StatusRequestEntityTooLarge, Code: "TOO_LARGE", Message: "the body of an event is limited to 1 MiB"}
	} else if err != nil {
		return badRequest("the body cannot be read")
	}
	if !source.authentic(r, body, time.Now()) {
		return unauthorized
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

// inTime reads what comes before a point in time.
type inTime struct {
	io.Reader
	until time.Time
}

func (r inTime) Read(p []byte) (int, error) {
	if time.Now().After(r.until) {
		return 0, context.DeadlineExceeded
	}
	return r.Reader.Read(p)
}

// authentic reports whether a request shows the source's secret: as a signature of Standard Webhooks, where there is one, which is the only way for
// MLflow; as X-Webhook-Secret, the only way for Hugging Face; as a bearer token, the password of Basic, or the whole Authorization header; for Quay,
// which can send none of them, as the query's token. Secrets are compared in constant time.
func (e EventSource) authentic(r *http.Request, body []byte, now time.Time) bool {
	if s, ok := e.signature(r); ok {
		return s.fresh(now) && s.of(body)
	}
	return e.shown(r)
}

// announced reports whether a request can be authentic, as far as its head tells. The bodies of others are not read.
func (e EventSource) announced(r *http.Request, now time.Time) bool {
	if s, ok := e.signature(r); ok {
		return s.fresh(now)
	}
	return e.shown(r)
}

// shown reports whether the head of a request has the secret itself.
func (e EventSource) shown(r *http.Request) bool {
	if e.Kind == "huggingface" { // it can do nothing but show it so
		return same(r.Header.Get("X-Webhook-Secret"), e.Secret)
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

// signature is what a request is signed with, over its id, time and body.
type signature struct {
	id, stamp, given string
	key              []byte
}

// signature reads that of a request which has to be signed, or is.
func (e EventSource) signature(r *http.Request) (s signature, ok bool) {
	h := r.Header
	switch {
	case e.Kind == "mlflow": // it can do nothing but sign
		return signature{h.Get("X-Mlflow-Delivery-Id"), h.Get("X-Mlflow-Timestamp"), h.Get("X-Mlflow-Signature"), []byte(e.Secret)}, true
	case e.Kind != "huggingface" && h.Get("Webhook-Signature") != "":
		return signature{h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), h.Get("Webhook-Signature"), webhookKey(e.Secret)}, true
	}
	return s, false
}

// fresh reports whether the signature has an id, by which duplicates are known, and is not old.
func (s signature) fresh(now time.Time) bool {
	seconds, err := strconv.ParseInt(s.stamp, 10, 64)
	age := now.Sub(time.Unix(seconds, 0))
	return err == nil && s.id != "" && age <= signatureWindow && age >= -signatureWindow
}

// of checks the signature.
func (s signature) of(body []byte) bool {
	want, ok := "v1,"+webhookMAC(s.key, s.id, s.stamp, body), false
	for given := range strings.FieldsSeq(s.given) {
		ok = same(given, want) || ok
	}
	return ok
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// listIngestions answers the events that are not through.
func (s *Server) listIngestions(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"events": s.pipeline.ingester.list()})
}
