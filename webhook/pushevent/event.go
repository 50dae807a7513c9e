// Package pushevent reads what registries that cannot be fronted tell about pushes: one parser a format, each of which takes bytes from
// the network and answers what was pushed.
package pushevent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
)

// Pushed is a manifest that was pushed to a registry.
type Pushed struct {
	ID         string    `json:"id,omitempty"`     // of the event at its source; "" if it has none
	Repository string    `json:"repository"`       // without the registry's host
	Tag        string    `json:"tag,omitempty"`    // "" for a push by digest
	Digest     string    `json:"digest,omitempty"` // "" if the source does not tell
	Actor      string    `json:"actor,omitempty"`  // who pushed, as far as the source tells
	At         time.Time `json:"at,omitzero"`      // when; zero if the source does not tell

	Model   string `json:"model,omitempty"`   // in a model registry: what it calls Repository
	Version string `json:"version,omitempty"` // and Tag
	Ref     string `json:"ref,omitempty"`     // in a Git repository: what points at Version now, as in refs/heads/main
}

// Parser reads a request's body. What is no push of a manifest is left out: a list may be empty. Errors are ErrFormat.
type Parser func(header http.Header, body []byte) ([]Pushed, error)

// ErrFormat says that a body is not what the source sends.
var ErrFormat = errors.New("not an event of this source")

// Parsers are the formats by the name of their source.
var Parsers = map[string]Parser{
	"distribution": Distribution,
	"harbor":       Harbor,
	"zot":          Zot,
	"acr":          ACR,
	"quay":         Quay,
	"cloudevents":  CloudEvents,
	"mlflow":       MLflow,
	"huggingface":  HuggingFace,
}

const maxEvents = 100 // of one request

// The grammar of the OCI distribution specification, sections "Pulling manifests" and "Definitions".
var (
	name      = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tag       = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	printable = regexp.MustCompile(`^[\x20-\x7e]{0,200}$`)
)

// check refuses what could not have been pushed.
func check(all []Pushed, err error) ([]Pushed, error) {
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(all) > maxEvents {
		return nil, fmt.Errorf("%w: %d events in one request, %d are taken", ErrFormat, len(all), maxEvents)
	}
	for i := range all {
		p := &all[i]
		p.Actor = printed(p.Actor)
		switch {
		case !name.MatchString(p.Repository) || len(p.Repository) > 255:
			return nil, fmt.Errorf("%w: %.60q is no name of a repository", ErrFormat, p.Repository)
		case p.Tag != "" && !tag.MatchString(p.Tag):
			return nil, fmt.Errorf("%w: %.60q is no tag", ErrFormat, p.Tag)
		case p.Digest != "" && digest.Digest(p.Digest).Validate() != nil:
			return nil, fmt.Errorf("%w: %.80q is no digest", ErrFormat, p.Digest)
		case p.Tag == "" && p.Digest == "":
			return nil, fmt.Errorf("%w: neither a tag nor a digest of %s was pushed", ErrFormat, p.Repository)
		case !printable.MatchString(p.ID):
			return nil, fmt.Errorf("%w: the event's id is not printable, or longer than 200 characters", ErrFormat)
		}
	}
	return all, nil
}

// printed is who pushed as it can be shown. Whoever has an odd name in a registry pushes all the same.
func printed(actor string) string {
	kept := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, actor)
	if runes := []rune(kept); len(runes) > 200 {
		kept = string(runes[:200])
	}
	return kept
}

// isManifest tells manifests from blobs and layers, whose pushes are told of, too.
func isManifest(mediaType string) bool {
	switch mediaType {
	case "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json":
		return true
	}
	return false
}

// reference puts a text that may be a tag or a digest where it belongs.
func (p *Pushed) reference(text string) {
	if strings.Contains(text, ":") {
		p.Digest = text
	} else {
		p.Tag = text
	}
}

func decode(body []byte, into any) error { return json.Unmarshal(body, into) }
