package mlflow

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestRegister: a version that was made is found again by its files. One of the same run and tags whose files lie elsewhere is somebody else's.
func TestRegister(t *testing.T) {
	run := Run{ID: "r1", ArtifactURI: "mlflow-artifacts:/1/r1/artifacts"}
	tags := []keyValue{{"grindstone.source.version", "1"}}
	var there []map[string]any
	made := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := map[string]any{"model_versions": there}
		if r.Method == http.MethodPost {
			made++
			answer = map[string]any{"model_version": map[string]any{"version": "9"}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	for _, c := range []struct {
		source, want string
		made         int
	}{
		{"mlflow-artifacts:/7/evil/artifacts/model", "9", 1},
		{run.ArtifactURI + "/model", "2", 0},
	} {
		there, made = []map[string]any{{"name": "m", "version": "2", "run_id": run.ID, "source": c.source, "tags": tags}}, 0
		got, err := (&Server{URL: server.URL}).Register(t.Context(), Version{Model: "m", Run: run, Folder: "model", Tags: map[string]string{"grindstone.source.version": "1"}}, "grindstone.source.version")
		if err != nil || got != c.want || made != c.made {
			t.Errorf("%s: version %s, %d made, %v", c.source, got, made, err)
		}
	}
}
