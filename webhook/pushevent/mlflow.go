package pushevent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// MLflow reads the webhooks of MLflow's model registry. Versions of registered models that are created are pushes; other events are left out.
func MLflow(header http.Header, body []byte) ([]Pushed, error) {
	var e struct {
		Entity    string
		Action    string
		Timestamp time.Time
		Data      struct{ Name, Version string }
	}
	err := decode(body, &e)
	if err == nil && (e.Entity == "" || e.Action == "") {
		err = errors.New("it has no entity or no action")
	}
	if err != nil || e.Entity != "model_version" || e.Action != "created" {
		return check(nil, err)
	}
	if e.Data.Name == "" || len(e.Data.Name) > 256 || strings.ContainsAny(e.Data.Name, "/:") || !versionNumber.MatchString(e.Data.Version) {
		return check(nil, fmt.Errorf("%.60q version %.20q is no version of a registered model", e.Data.Name, e.Data.Version))
	}
	return check([]Pushed{{
		ID: header.Get("X-MLflow-Delivery-Id"), Repository: ModelRepository(e.Data.Name), Tag: "v" + e.Data.Version, At: e.Timestamp,
		Model: e.Data.Name, Version: e.Data.Version,
	}}, nil)
}

var (
	versionNumber = regexp.MustCompile(`^[1-9][0-9]{0,9}$`)
	component     = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)
	hashed        = regexp.MustCompile(`-[0-9a-f]{16}$`)
)

// ModelRepository is the name of a registered model as that of a repository: the same where the grammar allows it, else what is left of it with a hash
// behind it. Two models never share a repository.
func ModelRepository(model string) string {
	if component.MatchString(model) && len(model) <= 128 && !hashed.MatchString(model) {
		return model
	}
	kept := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(model))
	sum := sha256.Sum256([]byte(model))
	name := strings.Trim(kept[:min(len(kept), 64)], "-")
	if name == "" {
		name = "model"
	}
	return name + "-" + hex.EncodeToString(sum[:8])
}
