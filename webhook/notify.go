package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Target is who is told about admissions that have come to an end.
type Target struct {
	Name    string                       // in the delivery history
	URL     string                       // receives a POST
	Secret  string                       // signs it; "whsec_" and base64, or any text
	States  []State                      // final states to tell of; none: all
	Matches func(repository string) bool // nil: all
	Timeout time.Duration                // of one attempt; default 15 s
}

// wants reports whether the target is told of the state that the admission is in.
func (t *Target) wants(a *Admission) bool {
	return (len(t.States) == 0 || slices.Contains(t.States, a.State)) && (t.Matches == nil || t.Matches(a.Source.Repository))
}

// cloudEvent is an event in the structured mode of CloudEvents 1.0, JSON format (https://github.com/cloudevents/spec).
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"` // "1.0"
	ID              string    `json:"id"`          // admission and number of its change: the same for every delivery
	Source          string    `json:"source"`
	Type            string    `json:"type"`    // dev.grindstone.admission.STATE.v1
	Subject         string    `json:"subject"` // repository@digest of what was pushed
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            eventData `json:"data"`
}

const cloudEventsJSON = "application/cloudevents+json"

// eventData is what a target is told of an admission; the API has the rest.
type eventData struct {
	Admission   string   `json:"admission"`
	State       State    `json:"state"`
	Reason      Reason   `json:"reason,omitempty"`
	Message     string   `json:"message,omitempty"`
	Repository  string   `json:"repository"`
	Tags        []string `json:"tags"`
	Digest      string   `json:"digest"` // as it was pushed
	Identity    string   `json:"identity,omitempty"`
	Released    string   `json:"released_digest,omitempty"`
	Attestation string   `json:"attestation_digest,omitempty"`
	Sanitized   bool     `json:"sanitized"` // false also for what was approved without
}

// newEvent tells of the state that the admission has entered last.
func newEvent(host string, a *Admission) cloudEvent {
	e := cloudEvent{
		SpecVersion: "1.0", ID: fmt.Sprintf("%s.%d", a.ID, a.changes()), Source: "oci://" + host, Type: "dev.grindstone.admission." + string(a.State) + ".v1",
		Subject: a.Source.Repository + "@" + a.Source.Digest, Time: a.UpdatedAt, DataContentType: "application/json",
		Data: eventData{
			Admission: a.ID, State: a.State, Reason: a.Reason, Message: a.Message, Repository: a.Source.Repository, Tags: []string{},
			Digest: a.Source.Digest, Identity: a.Source.Identity,
		},
	}
	for _, t := range a.Tags {
		e.Data.Tags = append(e.Data.Tags, t.Name)
	}
	if a.State == Released {
		e.Data.Released, e.Data.Attestation, e.Data.Sanitized = a.Released.Digest, a.Released.Attestation, !a.Unsanitized()
	}
	return e
}

// sign sets the headers of Standard Webhooks (https://www.standardwebhooks.com): id, time and "v1," with the base64 of
// HMAC-SHA256(secret, "id.time.body").
func signWebhook(r *http.Request, secret, id string, at time.Time, body []byte) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", stamp)
	if secret != "" {
		r.Header.Set("Webhook-Signature", "v1,"+webhookMAC(webhookKey(secret), id, stamp, body))
	}
}

// webhookKey is the key of a secret as Standard Webhooks write it: whsec_ and base64, or the text itself.
func webhookKey(secret string) []byte {
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		if decoded, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			return decoded
		}
	}
	return []byte(secret)
}

// webhookMAC is the base64 of HMAC-SHA256(key, "id.timestamp.body").
func webhookMAC(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Delivery is the history of one event to one target.
type Delivery struct {
	ID        string          `json:"id"` // the event's id and the target's name
	Target    string          `json:"target"`
	Admission string          `json:"admission"`
	Event     json.RawMessage `json:"event"` // exactly what is sent
	State     string          `json:"state"` // one of the Delivery constants
	Attempts  []Attempt       `json:"attempts"`
	NextAt    time.Time       `json:"next_at,omitzero"` // pending only
	Tries     int             `json:"tries"`            // since the delivery was asked for, the first time or again
	CreatedAt time.Time       `json:"created_at"`
}

// The states of a delivery.
const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
	DeliveryFailed    = "failed" // given up; it can be asked for again
)

// Attempt is one try to deliver.
type Attempt struct {
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	Status  int       `json:"status,omitempty"` // of the answer
	Error   string    `json:"error,omitempty"`  // where there was none, or not the one hoped for
}

// attempted records an attempt and says what follows: done, another try after a pause, or giving up. A target that is gone for good
// (410) is not asked again.
func (d *Delivery) attempted(a Attempt, pauses []time.Duration, retryAfter time.Duration) {
	d.Attempts = append(d.Attempts, a)
	if over := len(d.Attempts) - maxAttemptsKept; over > 0 {
		d.Attempts = slices.Delete(d.Attempts, 0, over)
	}
	d.Tries++
	d.NextAt = time.Time{}
	switch {
	case a.Error == "":
		d.State = DeliveryDelivered
	case a.Status == http.StatusGone || d.Tries > len(pauses):
		d.State = DeliveryFailed
	default:
		d.State, d.NextAt = DeliveryPending, a.At.Add(max(pauses[d.Tries-1], retryAfter))
	}
}

const maxAttemptsKept = 50

// notifyPauses lie between the attempts of a delivery: half a day altogether.
var notifyPauses = []time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 4 * time.Hour,
}

// retryAfter reads the header of a 429 or 503 in seconds, at most an hour.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, time.Hour)
}

var errNoTarget = errors.New("the target is not configured any more")
