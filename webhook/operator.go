package webhook

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"grindstone/internal/loopback"
)

// Operators tells who makes a request to the API, and whether they have the operator's role: who may approve, reject and retry
// admissions, deliver notifications again and collect garbage.
type Operators interface {
	// Operator returns the identity of who makes the request. An error that is ErrUnauthenticated asks for credentials; any other
	// refuses, and its text is told to the client.
	Operator(r *http.Request) (identity string, err error)
}

// ErrUnauthenticated says that a request needs credentials, and has none or wrong ones.
var ErrUnauthenticated = errors.New("credentials are needed")

// LoopbackOperators lets whoever is on this machine operate, and nobody else: the default while no logins are configured. A request
// that a proxy passed on, or that was sent to another name (DNS rebinding), is not from this machine.
type LoopbackOperators struct{}

// Operator implements Operators.
func (LoopbackOperators) Operator(r *http.Request) (string, error) {
	for _, passedOn := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(passedOn) != "" {
			return "", errNotLoopback
		}
	}
	if !loopback.Addr(r.RemoteAddr) || !loopback.Addr(r.Host) {
		return "", errNotLoopback
	}
	return "loopback", nil
}

var errNotLoopback = errors.New("without logins, only a client on the server's own machine may operate, by its loopback address")

const keyOperator = "operator" // of the echo context

// operatorOnly lets operators through, with their identity in the context. What a browser sends for another site is refused.
func (s *Server) operatorOnly(next echo.HandlerFunc) echo.HandlerFunc {
	sameOrigin := http.NewCrossOriginProtection()
	return func(c echo.Context) error {
		if err := sameOrigin.Check(c.Request()); err != nil {
			return &httpError{Status: http.StatusForbidden, Code: "DENIED", Message: "a page of another site may not operate", Cause: err}
		}
		identity, err := s.operators.Operator(c.Request())
		switch {
		case errors.Is(err, ErrUnauthenticated):
			return &httpError{Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Message: err.Error()}
		case err != nil:
			return &httpError{Status: http.StatusForbidden, Code: "DENIED", Message: err.Error()}
		}
		c.Set(keyOperator, identity)
		return next(c)
	}
}

func operator(c echo.Context) string {
	identity, _ := c.Get(keyOperator).(string)
	return identity
}
