package registry

import (
	"net/http"
	"strconv"
)

// catalog answers with the repositories of the backend that the request's identity may pull from.
func (g *Gateway) catalog(w http.ResponseWriter, r *http.Request) error {
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	var visible func(string) bool
	if g.authorize != nil {
		visible = func(repository string) bool { return g.authorize(r.Context(), repository, ActionPull) }
	}
	return g.released.catalog(w, r, n, visible)
}

// tags answers with the tags of a repository in the backend.
func (g *Gateway) tags(w http.ResponseWriter, r *http.Request, rt route) error {
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	return g.released.tags(w, r, rt, n)
}

// pageSize reads the parameter n of a list: -1 if it is absent.
func pageSize(r *http.Request) (int, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return 0, refuse(http.StatusMethodNotAllowed, codeUnsupported, "a list can only be read")
	}
	s := r.URL.Query().Get("n")
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, refuse(http.StatusBadRequest, codeUnsupported, "n=%.20q is not a number of names", s)
	}
	return n, nil
}
