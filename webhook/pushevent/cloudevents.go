package pushevent

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"
	"time"
)

// cloudEvent is an event of CloudEvents 1.0 in either mode of its HTTP binding.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Time        time.Time       `json:"time"`
	Operator    string          `json:"operator"` // Harbor's extension: who pushed
	Data        json.RawMessage `json:"data"`
	Data64      string          `json:"data_base64"`
}

// readCloudEvent reads the structured mode (one JSON object) or the binary mode (attributes in Ce- headers, data in the body).
func readCloudEvent(header http.Header, body []byte) (e cloudEvent, err error) {
	mediaType, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	switch {
	case mediaType == "application/cloudevents+json":
		err = decode(body, &e)
		if err == nil && e.Data64 != "" {
			e.Data, err = base64.StdEncoding.DecodeString(e.Data64)
		}
	case header.Get("Ce-Type") != "":
		e = cloudEvent{SpecVersion: header.Get("Ce-Specversion"), ID: header.Get("Ce-Id"), Source: header.Get("Ce-Source"), Type: header.Get("Ce-Type"), Data: body}
		if text := header.Get("Ce-Time"); text != "" {
			e.Time, err = time.Parse(time.RFC3339, text)
		}
	default:
		err = errors.New("it is no CloudEvent: neither the type application/cloudevents+json nor the header Ce-Type")
	}
	if err == nil && (e.SpecVersion != "1.0" || e.ID == "" || e.Source == "" || e.Type == "") {
		err = errors.New("a CloudEvent needs specversion 1.0, id, source and type")
	}
	return e, err
}

// zotData is the data of zot's events.
type zotData struct {
	Name      string // repository
	Reference string // tag or digest
	Digest    string
	Actor     struct{ Name string }
}

// CloudEvents reads events of the types that registries are known to send: Harbor's harbor.artifact.pushed, zot's, whose type ends with
// image.updated, and dev.grindstone.model.pushed.v1 with {"repository", "tag", "digest", "actor"} for everybody else. Other types are left out.
func CloudEvents(header http.Header, body []byte) ([]Pushed, error) {
	e, err := readCloudEvent(header, body)
	if err != nil {
		return check(nil, err)
	}
	p := Pushed{ID: e.Source + " " + e.ID, At: e.Time}
	switch {
	case e.Type == "harbor.artifact.pushed":
		var d harborData
		err = decode(e.Data, &d)
		p.Actor = e.Operator
		return check(d.pushed(p), err)
	case strings.HasSuffix(e.Type, "image.updated"):
		var d zotData
		err = decode(e.Data, &d)
		p.Repository, p.Actor = d.Name, d.Actor.Name
		p.reference(d.Reference)
		if d.Digest != "" {
			p.Digest = d.Digest
		}
		return check([]Pushed{p}, err)
	case e.Type == "dev.grindstone.model.pushed.v1":
		var d struct{ Repository, Tag, Digest, Actor string }
		err = decode(e.Data, &d)
		p.Repository, p.Tag, p.Digest, p.Actor = d.Repository, d.Tag, d.Digest, d.Actor
		return check([]Pushed{p}, err)
	}
	return nil, nil
}

// Zot reads zot's events, which are CloudEvents.
func Zot(header http.Header, body []byte) ([]Pushed, error) { return CloudEvents(header, body) }
