package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const testSecret = "a secret that both sides know"

// receiver is a target of notifications: it keeps what it gets and answers what it is told to.
type receiver struct {
	*testing.T
	*httptest.Server
	mu       sync.Mutex
	statuses []int // of the next answers; then 200
	got      []received
}

type received struct {
	id     string
	status int
	event  cloudEvent
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	r := &receiver{T: t, statuses: statuses}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// ServeHTTP checks the signature as the specification of Standard Webhooks describes it.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	mac := hmac.New(sha256.New, []byte(testSecret))
	fmt.Fprintf(mac, "%s.%s.%s", q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp"), body)
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); q.Header.Get("webhook-signature") != want {
		r.Errorf("the signature is %q, want %q", q.Header.Get("webhook-signature"), want)
	}
	one := received{id: q.Header.Get("webhook-id"), status: http.StatusOK}
	if err := json.Unmarshal(body, &one.event); err != nil || q.Header.Get("Content-Type") != "application/cloudevents+json" {
		r.Errorf("%s is no CloudEvent: %s %v", q.Header.Get("Content-Type"), body, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.statuses) > 0 {
		one.status, r.statuses = r.statuses[0], r.statuses[1:]
	}
	r.got = append(r.got, one)
	if one.status == http.StatusFound {
		w.Header().Set("Location", r.URL+"/elsewhere")
	}
	w.WriteHeader(one.status)
}

// wait waits until n requests have come, and returns them.
func (r *receiver) wait(n int) []received {
	r.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r.mu.Lock()
		got := slices.Clone(r.got)
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		if time.Now().After(deadline) {
			r.Fatalf("%d notifications came: %+v", len(got), got)
		}
	}
}

func (s *serverProcess) deliveries(query string) []Delivery {
	s.Helper()
	var list struct{ Deliveries []Delivery }
	if status := s.get("/api/v1/notifications"+query, &list); status != http.StatusOK {
		s.Fatalf("notifications: %d", status)
	}
	return list.Deliveries
}

func TestNotifications(t *testing.T) {
	good, bad := newReceiver(t), newReceiver(t, 500, 429, 302)
	s := startServer(t, t.TempDir(), "-notify", good.URL+" "+bad.URL)
	s.pushModel("models/a", "v1", "a")
	a := s.settle()[0]
	e := good.wait(1)[0].event
	if e.SpecVersion != "1.0" || e.Type != "dev.grindstone.admission.released.v1" || e.Source != "oci://registry.test" || e.Subject != "models/a@"+a.Source.Digest ||
		e.Data.Admission != a.ID || e.Data.Released != a.Released.Digest || !e.Data.Sanitized || e.Data.Tags[0] != "v1" || e.DataContentType != "application/json" {
		t.Errorf("%+v", e)
	}
	// The other target gets the same event, under the same id in every attempt, until it takes it.
	all := bad.wait(4)
	for _, one := range all {
		if one.event.ID != e.ID || one.id != all[0].id {
			t.Errorf("%+v", all)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); len(s.deliveries("?state=delivered")) < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s.deliveries(""))
		}
	}
	d := s.deliveries("?target=t1")[0]
	var statuses []int
	for _, attempt := range d.Attempts {
		statuses = append(statuses, attempt.Status)
	}
	if !slices.Equal(statuses, []int{500, 429, 302, 200}) || d.Admission != a.ID {
		t.Errorf("history %+v", d)
	}
	// Again, because somebody asks.
	if status, text := s.post("/api/v1/notifications/"+d.ID+"/redeliver", ""); status != http.StatusAccepted {
		t.Errorf("%d %s", status, text)
	}
	if again := bad.wait(5)[4]; again.event.ID != e.ID {
		t.Errorf("%+v", again)
	}
	if status, _ := s.post("/api/v1/notifications/nothing/redeliver", ""); status != http.StatusNotFound {
		t.Errorf("an unknown delivery: %d", status)
	}
	// Every final state.
	if _, err := s.push("models/b", "v1", map[string][]byte{"model.pt": []byte("of another format")}); err != nil {
		t.Fatal(err)
	}
	held := s.settle()[0]
	if e := good.wait(2)[1].event; e.Data.State != Held || e.Data.Reason != ReasonUnsupported || e.Data.Released != "" || e.Data.Sanitized {
		t.Errorf("%+v", e)
	}
	s.post("/api/v1/admissions/"+held.ID+"/reject", `{"reason": "x"}`)
	if e := good.wait(3)[2].event; e.Data.State != Denied || e.Data.Reason != ReasonRejected || e.ID == good.got[1].event.ID {
		t.Errorf("%+v", e)
	}
	for deadline := time.Now().Add(10 * time.Second); s.admission(held.ID).Unsent; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the admission's notifications are still to be made")
		}
	}
}

// TestNotificationIsGivenUp after the last pause, and at once where the target is gone for good.
func TestNotificationIsGivenUp(t *testing.T) {
	never, gone := newReceiver(t, 500, 500, 500, 500, 500, 500), newReceiver(t, 410)
	s := startServer(t, t.TempDir(), "-data", "", "-notify", never.URL+" "+gone.URL+" http://127.0.0.1:1/token-in-the-url")
	s.pushModel("models/a", "v1", "a")
	s.settle()
	for deadline := time.Now().Add(20 * time.Second); len(s.deliveries("?state=failed")) < 3; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s.deliveries(""))
		}
	}
	for target, want := range map[string]int{"t0": 4, "t1": 1, "t2": 4} {
		if d := s.deliveries("?target=" + target)[0]; len(d.Attempts) != want || strings.Contains(d.Attempts[0].Error, "token-in-the-url") {
			t.Errorf("%s: %+v", target, d)
		}
	}
	for query, want := range map[string]int{"?state=lost": 400, "?nothing=1": 400, "?limit=-1": 400, "/nothing": 404} {
		if status := s.get("/api/v1/notifications"+query, nil); status != want {
			t.Errorf("%s is answered %d", query, status)
		}
	}
}

// TestNotificationSurvivesAKill kills the server between the final state and its notifications, and while a delivery fails.
func TestNotificationSurvivesAKill(t *testing.T) {
	dir, target := t.TempDir(), newReceiver(t)
	s := startServer(t, dir, "-notify", target.URL, "-stop", "final state recorded")
	s.pushModel("models/a", "v1", "a")
	s.reach()
	s.Kill()
	if len(target.got) != 0 {
		t.Fatal("it was told before the server stopped")
	}
	s = startServer(t, dir, "-notify", target.URL)
	if e := target.wait(1)[0].event; e.Data.State != Released {
		t.Errorf("%+v", e)
	}
	for deadline := time.Now().Add(10 * time.Second); len(s.deliveries("?state=delivered")) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the delivery is not recorded")
		}
	}
	s.Kill()
	target.mu.Lock()
	target.statuses = []int{500}
	target.mu.Unlock()
	s = startServer(t, dir, "-notify", target.URL)
	s.pushModel("models/b", "v1", "b")
	target.wait(2)
	s.Kill() // the second attempt is due in 50 ms
	startServer(t, dir, "-notify", target.URL)
	ids := map[string]bool{}
	for _, one := range target.wait(3) {
		ids[one.event.ID] = true
	}
	if len(ids) != 2 {
		t.Errorf("events %v", ids)
	}
}

func TestDeliveryPauses(t *testing.T) {
	d, now := Delivery{State: DeliveryPending}, time.Now()
	pauses := []time.Duration{time.Second, time.Minute}
	d.attempted(Attempt{At: now, Status: 429, Error: "busy"}, pauses, 10*time.Second)
	if d.State != DeliveryPending || !d.NextAt.Equal(now.Add(10*time.Second)) {
		t.Errorf("Retry-After is not respected: %+v", d)
	}
	d.attempted(Attempt{At: now, Error: "no route"}, pauses, 0)
	if d.State != DeliveryPending || !d.NextAt.Equal(now.Add(time.Minute)) {
		t.Errorf("%+v", d)
	}
	d.attempted(Attempt{At: now, Error: "no route"}, pauses, 0)
	if d.State != DeliveryFailed || !d.NextAt.IsZero() || len(d.Attempts) != 3 {
		t.Errorf("%+v", d)
	}
	for text, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "99999999": time.Hour, "soon": 0} {
		if got := retryAfter(http.Header{"Retry-After": {text}}); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestDeliveryHistoryIsBounded keeps the newest of what came to an end and all that is pending.
func TestDeliveryHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	n, err := newNotifier(dir, "h", []Target{{Name: "a"}}, nil, newMetrics(&Pipeline{backlog: newBacklog()}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for i := range 40 {
		state := DeliveryDelivered
		if i < 5 {
			state = DeliveryPending
		}
		if err := n.put(&Delivery{ID: fmt.Sprint("d", i), Target: "a", State: state, Event: []byte("{}"), CreatedAt: begin.Add(time.Duration(i))}); err != nil {
			t.Fatal(err)
		}
	}
	n.keep = 20
	if err := n.put(&Delivery{ID: "last", Target: "a", State: DeliveryDelivered, Event: []byte("{}"), CreatedAt: begin.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if _, oldest := n.get("d5"); err != nil || len(files) != 25 || oldest {
		t.Errorf("%d files, %v", len(files), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "broken.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := newNotifier(dir, "h", nil, nil, n.metrics, n.log)
	if err != nil || len(again.list(func(*Delivery) bool { return true })) != 25 {
		t.Errorf("read again: %v", err)
	}
	if _, err := again.redeliver("d1"); !errors.Is(err, errNoTarget) {
		t.Errorf("a target that is gone: %v", err)
	}
}

// TestStopDuringADelivery: a server ends while a target does not answer, and the next one makes the delivery.
func TestStopDuringADelivery(t *testing.T) {
	dir, target, got := t.TempDir(), newReceiver(t), make(chan struct{}, 10)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- struct{}{}
		<-r.Context().Done()
	}))
	defer slow.Close()
	s := startServer(t, dir, "-notify", slow.URL)
	s.pushModel("models/a", "v1", "a")
	<-got
	begun := time.Now()
	if err := s.Stop(); err != nil || time.Since(begun) > 10*time.Second {
		t.Fatalf("it ended after %v with %v", time.Since(begun), err)
	}
	s = startServer(t, dir, "-notify", target.URL)
	target.wait(1)
	for deadline := time.Now().Add(10 * time.Second); len(s.deliveries("?state=delivered")) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the delivery is not recorded")
		}
	}
}

// TestRedeliveryDuringADelivery: a delivery that is asked for again while it is being sent is sent again.
func TestRedeliveryDuringADelivery(t *testing.T) {
	got, answer := make(chan struct{}, 10), make(chan struct{})
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- struct{}{}
		<-answer
	}))
	defer target.Close()
	s := startServer(t, t.TempDir(), "-notify", target.URL)
	s.pushModel("models/a", "v1", "a")
	<-got
	id := s.deliveries("")[0].ID
	if status, text := s.post("/api/v1/notifications/"+id+"/redeliver", ""); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	close(answer)
	select {
	case <-got:
	case <-time.After(10 * time.Second):
		t.Fatalf("it was not sent again: %+v", s.deliveries(""))
	}
	var d Delivery
	for deadline := time.Now().Add(10 * time.Second); d.State != DeliveryDelivered || len(d.Attempts) != 2; time.Sleep(10 * time.Millisecond) {
		if d = s.deliveries("")[0]; time.Now().After(deadline) {
			t.Fatalf("%+v", d)
		}
	}
}
