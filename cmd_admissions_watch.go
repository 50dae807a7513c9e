package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"grindstone/webhook"
)

func newAdmissionsWatch(client *apiClient) *cobra.Command {
	var filter admissionFilter
	watch := watcher{client: client}
	cmd := &cobra.Command{
		Use:   "watch [ID]",
		Short: "Follow one admission to its end, or the changes of all until interrupted",
		Long: `Follow one admission to its end, or the changes of all until interrupted. A server that goes away is asked again for a while (--retry-for), and
nothing that happened meanwhile is missed.

Exit codes of "watch ID": 0 the model was released, 1 it is held or denied, or the server is gone, 130 interrupted.`,
		Example: `  grindstone admissions watch
  grindstone admissions watch --repository models/resnet
  grindstone admissions watch 0199c2f4-8d1e && oras pull registry.example.com/models/resnet:v1    # once it is released`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			watch.out = cmd.OutOrStdout()
			if len(args) == 1 {
				return watch.one(cmd.Context(), args[0])
			}
			return watch.all(cmd.Context(), filter.query())
		},
	}
	filter.flags(cmd)
	cmd.Flags().BoolVar(&watch.json, "json", false, "print JSON lines")
	cmd.Flags().DurationVar(&watch.patience, "retry-for", 2*time.Minute, "how long to try again when the server goes away")
	return cmd
}

// watcher follows admissions over the API.
type watcher struct {
	client   *apiClient
	out      io.Writer
	json     bool
	patience time.Duration
	lost     time.Time // since when the server does not answer; zero while it does
}

// again waits, and reports whether the server is to be asked again after err. A server that has never answered is not, nor what another try would not mend.
func (w *watcher) again(ctx context.Context, err error) bool {
	if answer := (*apiError)(nil); errors.As(err, &answer) && answer.status < http.StatusInternalServerError || ctx.Err() != nil {
		return false
	}
	if w.lost.IsZero() {
		w.lost = time.Now()
	}
	if time.Since(w.lost) > w.patience {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(min(time.Second, w.patience/4)):
		return true
	}
}

// one prints the events of an admission until its end. Without a release it is an error: scripts wait for one.
func (w *watcher) one(ctx context.Context, id string) error {
	s := stream{watcher: w, path: "/api/v1/admissions/" + url.PathEscape(id) + "/events"}
	err := s.follow(ctx)
	for err != nil && s.last != "" && w.again(ctx, err) {
		err = s.follow(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && s.last != "":
		return fmt.Errorf("the admission was not followed to its end, it was %s: %w", s.state, err)
	case err != nil:
		return err
	case s.state != webhook.Released:
		return &exitError{code: exitFailure} // its state was printed
	}
	return nil
}

// stream is an admission's events, as far as they have come.
type stream struct {
	*watcher
	path  string
	last  string // id of the event that came last
	state webhook.State
}

var errBrokenOff = errors.New("the server broke the stream of events off")

// follow prints the events after the last one until a final state. An error is that the stream did not come so far.
func (s *stream) follow(ctx context.Context) error {
	r, err := s.client.request(ctx, http.MethodGet, s.path, nil, nil)
	if err != nil {
		return err
	}
	if s.last != "" {
		r.Header.Set("Last-Event-ID", s.last)
	}
	answer, err := s.client.send(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNoContent {
		return nil // the end was seen
	}
	event := map[string]string{} // its fields
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		s.lost = time.Time{}
		key, value, _ := strings.Cut(lines.Text(), ": ")
		if event[key] = value; key != "" || event["id"] == "" {
			continue
		}
		if err := s.event(event["event"], event["data"]); err != nil { // whole only now
			return err
		}
		s.last = event["id"]
		clear(event)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if !s.state.Final() {
		return errBrokenOff
	}
	return nil
}

// event prints an event's data.
func (s *stream) event(name, data string) error {
	var line string
	var err error
	if name == "state" {
		var c webhook.Change
		err = json.Unmarshal([]byte(data), &c)
		s.state = c.State
		line = fmt.Sprintf("%s %s", c.At.Format(time.RFC3339), strings.Join(strings.Fields(fmt.Sprintf("%s %s %s", c.State, c.Reason, c.Message)), " "))
	} else {
		var p struct {
			Phase          string
			Step, Steps    int
			Message, Error string
		}
		err = json.Unmarshal([]byte(data), &p)
		line = "  " + p.Phase
		if p.Steps > 0 {
			line += fmt.Sprintf(" %d/%d", p.Step, p.Steps)
		}
		line = strings.TrimRight(line+" "+p.Message+p.Error, " ")
	}
	if err != nil {
		return err
	}
	if s.json {
		line = data
	}
	_, err = fmt.Fprintln(s.out, line)
	return err
}

// all asks for the list again and again and prints what changed since.
func (w *watcher) all(ctx context.Context, query url.Values) error {
	seen, answered := map[string]time.Time{}, false
	query.Set("limit", "1000")
	for tick := time.NewTicker(time.Second); ; {
		var list admissionList
		if err := w.client.get(ctx, "/api/v1/admissions", query, &list); err != nil {
			if answered && w.again(ctx, err) {
				continue
			}
			return err
		}
		answered, w.lost = true, time.Time{}
		for i := len(list.Admissions) - 1; i >= 0; i-- {
			a := list.Admissions[i]
			if seen[a.ID].Equal(a.UpdatedAt) {
				continue
			}
			seen[a.ID] = a.UpdatedAt
			if err := w.changed(a); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// changed prints an admission that has changed.
func (w *watcher) changed(a webhook.View) error {
	if w.json {
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w.out, string(line))
		return err
	}
	name := a.Source.Repository
	if tag := newestTag(a); tag != "" {
		name += ":" + tag
	}
	_, err := fmt.Fprintf(w.out, "%s %s %s %s\n", a.UpdatedAt.Format(time.RFC3339), a.ID, name, strings.Join(strings.Fields(stateWord(a)+" "+string(a.Reason)), " "))
	return err
}
