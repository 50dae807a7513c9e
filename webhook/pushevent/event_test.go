package pushevent

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	sum        = "sha256:" + strings.Repeat("ab", 32)
	sha        = strings.Repeat("5c", 20)
	fill       = strings.NewReplacer("SUM", sum, "COMMIT", sha)
	ceJSON     = http.Header{"Content-Type": {"application/cloudevents+json; charset=utf-8"}}
	zotHeaders = http.Header{
		"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"7"}, "Ce-Source": {"zotregistry.dev"},
		"Ce-Type": {"zotregistry.image.updated"}, "Ce-Time": {"2026-01-02T03:04:05Z"},
	}
	at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// examples are bodies with the documented fields of each source.
var examples = []struct {
	name, source string
	header       http.Header
	body         string
	want         []Pushed
}{
	{"distribution: a blob and a manifest", "distribution", nil, `{"events":[
		{"id":"b1","timestamp":"2026-01-02T03:04:05Z","action":"push","target":{"mediaType":"application/octet-stream","size":9,"digest":"SUM","length":9,"repository":"in/m","url":"http://r/v2/in/m/blobs/SUM"},"request":{"id":"r","addr":"a","host":"r:5000","method":"PUT","useragent":"oras"},"actor":{},"source":{"addr":"x:5000","instanceID":"i"}},
		{"id":"m1","timestamp":"2026-01-02T03:04:05Z","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":9,"digest":"SUM","length":9,"repository":"in/m","url":"http://r/v2/in/m/manifests/SUM","tag":"v1"},"request":{},"actor":{"name":"ada"},"source":{}},
		{"id":"p1","timestamp":"2026-01-02T03:04:05Z","action":"pull","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"SUM","repository":"in/m","tag":"v1"}}]}`,
		[]Pushed{{ID: "m1", Repository: "in/m", Tag: "v1", Digest: sum, Actor: "ada", At: at}}},
	{"harbor: a tag", "harbor", nil, `{"type":"PUSH_ARTIFACT","occur_at":1767323045,"operator":"ada","event_data":{"resources":[{"digest":"SUM","tag":"v1","resource_url":"h/in/m:v1"}],"repository":{"date_created":1,"name":"m","namespace":"in","repo_full_name":"in/m","repo_type":"private"}}}`,
		[]Pushed{{Repository: "in/m", Tag: "v1", Digest: sum, Actor: "ada", At: at}}},
	{"harbor: a digest as the tag", "harbor", nil, `{"type":"PUSH_ARTIFACT","event_data":{"resources":[{"digest":"SUM","tag":"SUM"}],"repository":{"repo_full_name":"in/m"}}}`,
		[]Pushed{{Repository: "in/m", Digest: sum}}},
	{"harbor: an operator with a long and odd name", "harbor", nil, `{"type":"PUSH_ARTIFACT","operator":"Zoë\u001b[2J` + strings.Repeat("x", 300) + `","event_data":{"resources":[{"digest":"SUM","tag":"v1"}],"repository":{"repo_full_name":"in/m"}}}`,
		[]Pushed{{Repository: "in/m", Tag: "v1", Digest: sum, Actor: "Zoë?[2J" + strings.Repeat("x", 193)}}},
	{"harbor: a pull", "harbor", nil, `{"type":"PULL_ARTIFACT","event_data":{}}`, nil},
	{"harbor as a CloudEvent", "cloudevents", ceJSON, `{"specversion":"1.0","id":"e1","source":"/projects/1/webhook/policies/2","type":"harbor.artifact.pushed","time":"2026-01-02T03:04:05Z","data":{"resources":[{"digest":"SUM","tag":"v1"}],"repository":{"repo_full_name":"in/m"}},"operator":"ada"}`,
		[]Pushed{{ID: "/projects/1/webhook/policies/2 e1", Repository: "in/m", Tag: "v1", Digest: sum, Actor: "ada", At: at}}},
	{"zot", "zot", zotHeaders, `{"name":"in/m","reference":"v1","digest":"SUM","mediaType":"application/vnd.oci.image.manifest.v1+json","manifest":"{}","actor":{"name":"ada"},"request":{"addr":"a","method":"PUT","useragent":"oras"}}`,
		[]Pushed{{ID: "zotregistry.dev 7", Repository: "in/m", Tag: "v1", Digest: sum, Actor: "ada", At: at}}},
	{"a CloudEvent of our own type, base64", "cloudevents", ceJSON, `{"specversion":"1.0","id":"1","source":"ci","type":"dev.grindstone.model.pushed.v1","data_base64":"eyJyZXBvc2l0b3J5IjoiaW4vbSIsInRhZyI6InYxIn0="}`,
		[]Pushed{{ID: "ci 1", Repository: "in/m", Tag: "v1"}}},
	{"a CloudEvent of another type", "cloudevents", ceJSON, `{"specversion":"1.0","id":"1","source":"ci","type":"weather.changed","data":{}}`, nil},
	{"acr", "acr", nil, `{"id":"a1","timestamp":"2026-01-02T03:04:05Z","action":"push","target":{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","size":9,"digest":"SUM","length":9,"repository":"in/m","tag":"v1"},"request":{"id":"r","host":"x.azurecr.io","method":"PUT","useragent":"docker"}}`,
		[]Pushed{{ID: "a1", Repository: "in/m", Tag: "v1", Digest: sum, At: at}}},
	{"acr: a ping", "acr", nil, `{"id":"a1","timestamp":"2026-01-02T03:04:05Z","action":"ping"}`, nil},
	{"quay", "quay", nil, `{"name":"m","repository":"in/m","namespace":"in","docker_url":"quay.io/in/m","homepage":"https://quay.io/repository/in/m","updated_tags":["latest","v1"]}`,
		[]Pushed{{Repository: "in/m", Tag: "latest"}, {Repository: "in/m", Tag: "v1"}}},
	// As MLflow 3.17 sends it.
	{"mlflow", "mlflow", http.Header{"X-Mlflow-Delivery-Id": {"d1"}}, `{"entity": "model_version", "action": "created", "timestamp": "2026-01-02T03:04:05.000000+00:00", "data": {"name": "classifier", "version": "12", "source": "models:/m-1", "run_id": "r", "tags": {}, "description": null}}`,
		[]Pushed{{ID: "d1", Repository: "classifier", Tag: "v12", At: at, Model: "classifier", Version: "12"}}},
	{"mlflow: a name that is no repository's", "mlflow", nil, `{"entity": "model_version", "action": "created", "data": {"name": "Mein Modell", "version": "1"}}`,
		[]Pushed{{Repository: "mein-modell-5b352703f2eb40f8", Tag: "v1", Model: "Mein Modell", Version: "1"}}},
	{"mlflow: an alias", "mlflow", nil, `{"entity": "model_version_alias", "action": "created", "timestamp": "2026-01-02T03:04:05.000000+00:00", "data": {"name": "classifier", "alias": "a", "version": "1"}}`, nil},
	{"hugging face: a commit on main and a tag", "huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"some-user/some-repo","id":"6366c000a2abcdf2fd69a080","private":false,
		"url":{"web":"https://evil.example/some-user/some-repo","api":"https://evil.example/api/models/some-user/some-repo"},"headSha":"COMMIT","tags":["license:other"],"owner":{"id":"61d2000c3c2083e1c08af22d"}},
		"updatedRefs":[{"ref":"refs/heads/main","oldSha":"ce9a4674fa833a68d5a73ec355f0ea95eedd60b7","newSha":"COMMIT"},{"ref":"refs/tags/test","oldSha":null,"newSha":"COMMIT"},
		{"ref":"refs/heads/gone","oldSha":"COMMIT","newSha":null}],"webhook":{"id":"6390e855e30d9209411de93b","version":3}}`,
		[]Pushed{{ID: sha, Repository: "some-user/some-repo", Tag: sha, Model: "some-user/some-repo", Version: sha, Ref: "refs/heads/main"},
			{ID: sha, Repository: "some-user/some-repo", Tag: sha, Model: "some-user/some-repo", Version: sha, Ref: "refs/tags/test"}}},
	{"hugging face: no owner, and a name that is no repository's", "huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"GPT2"},"updatedRefs":[{"ref":"refs/heads/a/b","newSha":"COMMIT"}]}`,
		[]Pushed{{ID: sha, Repository: "gpt2-4a74d39a92efdf9e", Tag: sha, Model: "GPT2", Version: sha, Ref: "refs/heads/a/b"}}},
	{"hugging face: a narrower scope", "huggingface", nil, `{"event":{"action":"update","scope":"repo.content.lfs"},"repo":{"type":"model","name":"a/m"},"updatedRefs":[{"ref":"refs/pr/1","newSha":"COMMIT"}]}`,
		[]Pushed{{ID: sha, Repository: "a/m", Tag: sha, Model: "a/m", Version: sha, Ref: "refs/pr/1"}}},
	{"hugging face: no refs", "huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"a/m"}}`, nil},
	{"hugging face: a dataset", "huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"dataset","name":"a/m"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"COMMIT"}]}`, nil},
	{"hugging face: settings", "huggingface", nil, `{"event":{"action":"update","scope":"repo.config"},"repo":{"type":"model","name":"a/m"},"updatedConfig":{"private":false}}`, nil},
	{"hugging face: a new repository", "huggingface", nil, `{"event":{"action":"create","scope":"repo"},"repo":{"type":"model","name":"a/m","headSha":"COMMIT"}}`, nil},
	{"hugging face: a pull request", "huggingface", nil, `{"event":{"action":"create","scope":"discussion"},"repo":{"type":"model","name":"openai-community/gpt2"},"discussion":{"num":19,"isPullRequest":true,"changes":{"base":"refs/heads/main"}},"webhook":{"version":3}}`, nil},
}

func TestParsers(t *testing.T) {
	for _, e := range examples {
		got, err := Parsers[e.source](e.header, []byte(fill.Replace(e.body)))
		for i := range got {
			if !got[i].At.IsZero() {
				got[i].At = got[i].At.UTC()
			}
		}
		if err != nil || !reflect.DeepEqual(got, e.want) {
			t.Errorf("%s: %+v, %v; want %+v", e.name, got, err, e.want)
		}
	}
}

func TestParsersRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		source string
		header http.Header
		body   string
	}{
		"no JSON":                          {"distribution", nil, `<html>`},
		"mlflow: no entity":                {"mlflow", nil, `{}`},
		"mlflow: no version":               {"mlflow", nil, `{"entity": "model_version", "action": "created", "data": {"name": "m"}}`},
		"mlflow: a path":                   {"mlflow", nil, `{"entity": "model_version", "action": "created", "data": {"name": "a/b", "version": "1"}}`},
		"mlflow: ../1":                     {"mlflow", nil, `{"entity": "model_version", "action": "created", "data": {"name": "m", "version": "../1"}}`},
		"another source":                   {"distribution", nil, `{"type":"PUSH_ARTIFACT"}`},
		"harbor without type":              {"harbor", nil, `{}`},
		"acr without action":               {"acr", nil, `[]`},
		"quay without tags":                {"quay", nil, `{"repository":"in/m"}`},
		"a path as repository":             {"quay", nil, `{"repository":"../../etc","updated_tags":["v1"]}`},
		"a URL as tag":                     {"quay", nil, `{"repository":"in/m","updated_tags":["v1@evil.example/x"]}`},
		"a broken digest":                  {"acr", nil, `{"action":"push","target":{"repository":"in/m","digest":"sha256:12"}}`},
		"neither tag":                      {"acr", nil, `{"action":"push","target":{"repository":"in/m"}}`},
		"no CloudEvent":                    {"cloudevents", http.Header{"Content-Type": {"application/json"}}, `{}`},
		"no id":                            {"cloudevents", ceJSON, `{"specversion":"1.0","source":"ci","type":"x"}`},
		"another version":                  {"cloudevents", ceJSON, `{"specversion":"0.3","id":"1","source":"ci","type":"x"}`},
		"bad base64":                       {"cloudevents", ceJSON, `{"specversion":"1.0","id":"1","source":"ci","type":"x","data_base64":"%"}`},
		"a bad time":                       {"zot", http.Header{"Ce-Type": {"image.updated"}, "Ce-Time": {"today"}}, `{}`},
		"control characters":               {"acr", nil, `{"id":"a\u001b[2J","action":"push","target":{"repository":"in/m","tag":"v1"}}`},
		"hugging face: no scope":           {"huggingface", nil, `{"event":{"action":"update"},"repo":{"type":"model","name":"a/m"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"COMMIT"}]}`},
		"hugging face: no name":            {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"COMMIT"}]}`},
		"hugging face: a path as name":     {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"../../etc"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"COMMIT"}]}`},
		"hugging face: dots":               {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"a/b..c"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"COMMIT"}]}`},
		"hugging face: three parts":        {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"a/b/c"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"COMMIT"}]}`},
		"hugging face: a query":            {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"a/b?x"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"COMMIT"}]}`},
		"hugging face: a branch as sha":    {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"a/m"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"main"}]}`},
		"hugging face: a path as sha":      {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"a/m"},"updatedRefs":[{"ref":"refs/heads/main","newSha":"../../../secrets"}]}`},
		"hugging face: an empty ref":       {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"a/m"},"updatedRefs":[{"newSha":"COMMIT"}]}`},
		"hugging face: a ref of line ends": {"huggingface", nil, `{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"a/m"},"updatedRefs":[{"ref":"a\nb","newSha":"COMMIT"}]}`},
		"too many":                         {"quay", nil, `{"repository":"in/m","updated_tags":["v1"` + strings.Repeat(`,"v1"`, maxEvents) + `]}`},
	} {
		if got, err := Parsers[c.source](c.header, []byte(fill.Replace(c.body))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Two registered models never share a repository, whatever they are called.
func TestModelRepository(t *testing.T) {
	owner := map[string]string{}
	for _, model := range []string{"m", "M", "m ", " m", "m-", "-", "_", "..", "Ä", "ä", "模型", "a.b", "a..b", strings.Repeat("x", 200), strings.Repeat("x", 201)} {
		for _, called := range []string{model, ModelRepository(model)} { // who calls his model as another is stored
			r := ModelRepository(called)
			if other, taken := owner[r]; taken && other != called || !name.MatchString(r) || len(r) > 128 {
				t.Errorf("%q is %q, as is %q", called, r, other)
			}
			owner[r] = called
		}
	}
}

// FuzzParsers gives every parser the same bytes: none panics, and what they let through could have been pushed.
func FuzzParsers(f *testing.F) {
	for _, e := range examples {
		header, err := json.Marshal(e.header)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.header.Get("Content-Type"), e.header.Get("Ce-Type"), []byte(fill.Replace(e.body)))
		f.Add("application/json", string(header), []byte(e.body))
	}
	f.Fuzz(func(t *testing.T, contentType, ceType string, body []byte) {
		header := http.Header{"Content-Type": {contentType}, "Ce-Type": {ceType}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"s"}}
		for source, parse := range Parsers {
			all, err := parse(header, body)
			if err != nil && !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %v", source, err)
			}
			for _, p := range all {
				if err != nil || source == "huggingface" && (!commit.MatchString(p.Version) || p.Ref == "" || strings.Contains(p.Model, "..")) || !name.MatchString(p.Repository) || p.Tag == "" && p.Digest == "" || strings.ContainsAny(p.Tag, "/@:") {
					t.Errorf("%s: %+v, %v", source, p, err)
				}
			}
		}
	})
}
