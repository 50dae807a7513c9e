package mlflow

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bucket is MLflow with files in a bucket: it fetches the whole file before it sends the first byte of it, and stores one before it answers.
type bucket time.Duration

func (b bucket) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	select {
	case <-time.After(time.Duration(b)):
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("content"))}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// TestSlowBucket: a large file takes MLflow minutes, of which nothing is seen here.
func TestSlowBucket(t *testing.T) {
	before := client.Transport
	defer func() { client.Transport = before }()
	for takes, want := range map[time.Duration]bool{10 * time.Minute: true, time.Hour: false} {
		synctest.Test(t, func(t *testing.T) {
			client.Transport = bucket(takes)
			s, got := &Server{URL: "http://mlflow.test"}, bytes.Buffer{}
			if err := s.Download(t.Context(), "1/r/artifacts/model.onnx", 100, &got); (err == nil) != want || want && got.String() != "content" {
				t.Errorf("a download that takes %v: %q %v", takes, got.String(), err)
			}
			if err := s.Upload(t.Context(), "1/r/artifacts/model.onnx", strings.NewReader("content"), 7); (err == nil) != want || !want && !strings.Contains(err.Error(), "nothing moved") {
				t.Errorf("an upload that takes %v: %v", takes, err)
			}
		})
	}
}
