package mlflow

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"grindstone/webhook/remotefile"
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
		if got != want || (want == "") != errors.Is(err, remotefile.ErrUnsupported) {
			t.Errorf("%s: %q, %v; want %q", uri, got, err, want)
		}
	}
}

// TestEndlessFolders: a server whose folders hold nothing but folders is not asked for all of them.
func TestEndlessFolders(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked++; {
		case asked > 2*maxFiles: // it is enough
			http.Error(w, "", http.StatusInternalServerError)
		case strings.Count(r.URL.Query().Get("path"), "/") > 12:
			_, _ = io.WriteString(w, `{"files": []}`)
		default:
			_, _ = io.WriteString(w, `{"files": [{"path": "a", "is_dir": true}, {"path": "b", "is_dir": true}]}`)
		}
	}))
	defer server.Close()
	if _, err := (&Server{URL: server.URL}).Files(t.Context(), "1/r/artifacts"); !errors.Is(err, remotefile.ErrUnsupported) || asked > maxFiles+1 {
		t.Errorf("%d requests, %v", asked, err)
	}
}
