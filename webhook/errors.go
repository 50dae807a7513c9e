package webhook

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"
)

// httpError is an answer to a client. The cause is logged and never sent.
type httpError struct {
	Status  int
	Code    string // a constant in capitals, as in OCI errors
	Message string
	Cause   error
}

func (e *httpError) Error() string {
	s := fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *httpError) Unwrap() error { return e.Cause }

func notFound(format string, args ...any) error {
	return &httpError{Status: http.StatusNotFound, Code: "NOT_FOUND", Message: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return &httpError{Status: http.StatusBadRequest, Code: "BAD_REQUEST", Message: fmt.Sprintf(format, args...)}
}

// asHTTPError turns any error of a handler into an answer. What is not known to be fit for clients becomes a bare 500.
func asHTTPError(err error) *httpError {
	var e *httpError
	if errors.As(err, &e) {
		return e
	}
	var he *echo.HTTPError
	if errors.As(err, &he) && he.Code < http.StatusInternalServerError {
		codes := map[int]string{
			http.StatusNotFound: "NOT_FOUND", http.StatusMethodNotAllowed: "METHOD_NOT_ALLOWED",
			http.StatusRequestEntityTooLarge: "TOO_LARGE",
		}
		code, ok := codes[he.Code]
		if !ok {
			code = "BAD_REQUEST"
		}
		return &httpError{Status: he.Code, Code: code, Message: http.StatusText(he.Code), Cause: he.Internal}
	}
	return &httpError{Status: http.StatusInternalServerError, Code: "INTERNAL", Message: "internal error; the server's log has the cause", Cause: err}
}

// writeError is the one place where the server answers an error, in the shape of the OCI distribution specification.
func writeError(log *slog.Logger) echo.HTTPErrorHandler {
	return func(err error, c echo.Context) {
		e := asHTTPError(err)
		if e.Status >= http.StatusInternalServerError {
			log.Error("request failed", "request_id", requestID(c), "method", c.Request().Method, "path", c.Request().URL.Path, "error", e.Cause)
		}
		if c.Response().Committed {
			return
		}
		type item struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}
		_ = c.JSON(e.Status, map[string]any{"errors": []item{{e.Code, e.Message}}, "request_id": requestID(c)}) // a client that went away cannot be told
	}
}
