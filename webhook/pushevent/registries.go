package pushevent

import (
	"errors"
	"net/http"
	"time"
)

// Distribution reads the notifications of CNCF distribution: application/vnd.docker.distribution.events.v2+json (and v1).
func Distribution(_ http.Header, body []byte) ([]Pushed, error) {
	var envelope struct {
		Events []struct {
			ID        string
			Timestamp time.Time
			Action    string
			Target    struct{ MediaType, Digest, Repository, Tag string }
			Actor     struct{ Name string }
		}
	}
	err := decode(body, &envelope)
	if err == nil && envelope.Events == nil {
		err = errors.New("there is no list of events")
	}
	var all []Pushed
	for _, e := range envelope.Events {
		if e.Action == "push" && isManifest(e.Target.MediaType) {
			all = append(all, Pushed{ID: e.ID, Repository: e.Target.Repository, Tag: e.Target.Tag, Digest: e.Target.Digest, Actor: e.Actor.Name, At: e.Timestamp})
		}
	}
	return check(all, err)
}

// harborData is the event_data of Harbor's default format, and the data of its CloudEvents.
type harborData struct {
	Resources []struct{ Digest, Tag string }
	Repo      struct {
		FullName string `json:"repo_full_name"`
	} `json:"repository"`
}

func (d harborData) pushed(p Pushed) (all []Pushed) {
	for _, r := range d.Resources {
		one := p
		one.Repository = d.Repo.FullName
		one.reference(r.Tag) // which may hold a digest
		if r.Digest != "" {
			one.Digest = r.Digest
		}
		all = append(all, one)
	}
	return all
}

// Harbor reads the webhooks of Harbor in its default format.
func Harbor(_ http.Header, body []byte) ([]Pushed, error) {
	var e struct {
		Type     string
		OccurAt  int64 `json:"occur_at"` // Unix seconds
		Operator string
		Data     harborData `json:"event_data"`
	}
	err := decode(body, &e)
	if err == nil && e.Type == "" {
		err = errors.New("it has no type")
	}
	if err != nil || e.Type != "PUSH_ARTIFACT" {
		return check(nil, err)
	}
	p := Pushed{Actor: e.Operator}
	if e.OccurAt > 0 {
		p.At = time.Unix(e.OccurAt, 0)
	}
	return check(e.Data.pushed(p), nil)
}

// ACR reads the webhooks of Azure Container Registry.
func ACR(_ http.Header, body []byte) ([]Pushed, error) {
	var e struct {
		ID        string
		Timestamp time.Time
		Action    string
		Target    struct{ MediaType, Digest, Repository, Tag string }
	}
	err := decode(body, &e)
	if err == nil && e.Action == "" {
		err = errors.New("it has no action")
	}
	if err != nil || e.Action != "push" {
		return check(nil, err)
	}
	return check([]Pushed{{ID: e.ID, Repository: e.Target.Repository, Tag: e.Target.Tag, Digest: e.Target.Digest, At: e.Timestamp}}, nil)
}

// Quay reads the repository_push notification of Quay, which has no digest.
func Quay(_ http.Header, body []byte) ([]Pushed, error) {
	var e struct {
		Repository  string
		UpdatedTags []string `json:"updated_tags"`
	}
	err := decode(body, &e)
	if err == nil && e.UpdatedTags == nil {
		err = errors.New("there is no list of updated tags")
	}
	var all []Pushed
	for _, t := range e.UpdatedTags {
		all = append(all, Pushed{Repository: e.Repository, Tag: t})
	}
	return check(all, err)
}
