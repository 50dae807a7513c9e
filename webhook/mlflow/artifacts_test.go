package mlflow

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestArtifactFolder(t *testing.T) {
	for uri, want := range map[string]string{
		"mlflow-artifacts:/0/models/m-1/artifacts":       "0/models/m-1/artifacts",
		"mlflow-artifacts://host:5000/1/r/artifacts/m/":  "1/r/artifacts/m",
		"mlflow-artifacts:/":                             "",
		"mlflow-artifacts:/1/../../etc":                  "",
		"mlflow-artifacts:/1/%2e%2e/%2e%2e/etc":          "",
		"s3://bucket/model":                              "",
		"file:///etc":                                    "",
		"/etc":                                           "",
		"http://169.254.169.254/latest":                  "",
		"dbfs:/models":                                   "",
		"mlflow-artifacts:/1/r/artifacts/a%00b":          "",
		"mlflow-artifacts:/1/r/artifacts/a%20folder/x.y": "1/r/artifacts/a folder/x.y",
	} {
		got, err := artifactFolder(uri)
		if got != want || (want == "") != errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %q, %v; want %q", uri, got, err, want)
		}
	}
}

func TestSafe(t *testing.T) {
	for name, want := range map[string]bool{
		"model.onnx": true, "a/b": true, "ünï code": true, "..": false, "a/../b": false, "/a": false, "a//b": false, "": false, ".": false, `a\b`: false, "c:x": false, "a\nb": false,
	} {
		if safe(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// A transfer that stands still ends its context, and one that moves does not.
func TestStall(t *testing.T) {
	ctx, watched := whileMoving(t.Context())
	defer watched.stop()
	if text, err := io.ReadAll(watched.reader(iotest.OneByteReader(strings.NewReader("content")))); string(text) != "content" || err != nil || ctx.Err() != nil {
		t.Errorf("%q %v %v", text, err, ctx.Err())
	}
	watched.timer.Reset(0)
	<-ctx.Done()
}
