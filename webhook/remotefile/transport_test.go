package remotefile

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// slowServer answers after a while, with a body that pauses.
type slowServer struct{ answers, pauses time.Duration }

func (s slowServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	select {
	case <-time.After(s.answers):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	read, write := io.Pipe()
	go func() {
		for range 3 {
			select {
			case <-time.After(s.pauses):
			case <-r.Context().Done():
				write.CloseWithError(r.Context().Err())
				return
			}
			_, _ = io.WriteString(write, "part ")
		}
		write.Close()
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: read}, nil
}

// TestTransport: a server that answers, or sends, nothing for a minute is left. It has longer when it has to store what it was sent.
func TestTransport(t *testing.T) {
	for name, c := range map[string]struct {
		server slowServer
		sent   string
		stalls bool
	}{
		"steady":               {slowServer{50 * time.Second, 50 * time.Second}, "", false},
		"no answer":            {slowServer{2 * time.Minute, 0}, "", true},
		"a body that stops":    {slowServer{0, 2 * time.Minute}, "", true},
		"storing takes time":   {slowServer{10 * time.Minute, 0}, "content", false},
		"storing never ends":   {slowServer{time.Hour, 0}, "content", true},
		"a body after a pause": {slowServer{10 * time.Minute, 2 * time.Minute}, "content", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://r.test/", nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.sent != "" {
					r.Body = io.NopCloser(iotest.OneByteReader(strings.NewReader(c.sent)))
				}
				var text []byte
				answer, err := Transport{c.server}.RoundTrip(r)
				if err == nil {
					text, err = io.ReadAll(answer.Body)
					answer.Body.Close()
				}
				if stalled := errors.Is(err, errStalled); stalled != c.stalls || !stalled && (err != nil || !bytes.Equal(text, []byte("part part part "))) {
					t.Errorf("%q %v", text, err)
				}
			})
		})
	}
}
