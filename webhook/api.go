package webhook

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"grindstone/registry"
)

const (
	defaultListed = 100
	maxListed     = 1000
)

// listAdmissions answers {"admissions": [...], "total": N}, newest first. The query parameters state, reason, repository, tag,
// digest (of the source or the released manifest) keep those that match; limit and offset page through them.
func (s *Server) listAdmissions(c echo.Context) error {
	known := []string{"state", "reason", "repository", "tag", "digest", "limit", "offset"}
	for name := range c.QueryParams() {
		if !slices.Contains(known, name) {
			return badRequest("unknown query parameter %q; known are %s", printable(name, 40), strings.Join(known, ", "))
		}
	}
	state := State(c.QueryParam("state"))
	if state != "" && !slices.Contains(States, state) {
		return badRequest("unknown state %q; the states are %s", printable(string(state), 40), stateNames())
	}
	limit, err := natural(c, "limit", defaultListed, maxListed)
	if err != nil {
		return err
	}
	offset, err := natural(c, "offset", 0, 1<<31)
	if err != nil {
		return err
	}
	reason, repository, tag, digest := Reason(c.QueryParam("reason")), c.QueryParam("repository"), c.QueryParam("tag"), c.QueryParam("digest")
	list := s.pipeline.store.List(func(a *Admission) bool {
		return s.visible(c.Request().Context(), a) && (state == "" || a.State == state) &&
			(reason == "" || a.Reason == reason) &&
			(repository == "" || a.Source.Repository == repository) &&
			(tag == "" || slices.ContainsFunc(a.Tags, func(t Tag) bool { return t.Name == tag })) &&
			(digest == "" || a.Source.Digest == digest || a.Released != nil && a.Released.Digest == digest)
	})
	total := len(list)
	slices.Reverse(list)
	list = list[min(offset, total):]
	views := make([]View, 0, min(limit, len(list)))
	for _, a := range list[:min(limit, len(list))] {
		views = append(views, s.view(a))
	}
	return c.JSON(http.StatusOK, map[string]any{"admissions": views, "total": total})
}

// View is an admission as the API shows it: the record, and what is not on the disk.
type View struct {
	*Admission
	Waits bool `json:"waits_for_worker,omitempty"` // nobody works on it yet
}

func (s *Server) view(a *Admission) View { return View{a, s.pipeline.backlog.waits(a.ID)} }

func natural(c echo.Context, name string, otherwise, most int) (int, error) {
	text := c.QueryParam(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, badRequest("%s must be a whole number from 0 to %d", name, most)
	}
	return n, nil
}

func (s *Server) getAdmission(c echo.Context) error {
	a, err := s.admission(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, s.view(a))
}

// shortestID is how many characters name an admission at least.
const shortestID = 6

// admission is the one that the request's path names: by its id, or by the beginning of it, if that is the beginning of no other's that the client may see.
func (s *Server) admission(c echo.Context) (*Admission, error) {
	id := c.Param("id")
	if a, ok := s.pipeline.store.Get(id); ok {
		return a, s.may(c, a.Source.Repository, registry.ActionPush)
	}
	var found []*Admission
	if len(id) >= shortestID {
		found = s.pipeline.store.List(func(a *Admission) bool {
			return strings.HasPrefix(a.ID, id) && s.visible(c.Request().Context(), a)
		})
	}
	switch len(found) {
	case 0:
		return nil, notFound("there is no admission %q", printable(id, 60))
	case 1:
		return found[0], nil
	}
	return nil, badRequest("%d admissions have ids that begin with %q: give more of the id", len(found), id)
}

// publicKey answers the PEM that the attestations are verified with.
func (s *Server) publicKey(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/x-pem-file", s.pipeline.Key.PublicPEM())
}
