package mlflow

import (
	"errors"
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
