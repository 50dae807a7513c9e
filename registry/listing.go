package registry

import (
	"net/http"
	"net/url"
	"sort"
	"strconv"
)

// catalog answers with the repositories of the released store, in pages of n names after the name last, as Docker's
// registry does.
func (g *Gateway) catalog(w http.ResponseWriter, r *http.Request) error {
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	names, err := g.released.repositories()
	if err != nil {
		return err
	}
	last := r.URL.Query().Get("last")
	names = names[sort.Search(len(names), func(i int) bool { return names[i] > last }):]
	if n >= 0 && n < len(names) {
		names = names[:n]
		if n > 0 {
			next := url.Values{"n": {strconv.Itoa(n)}, "last": {names[n-1]}}
			w.Header().Set("Link", "</v2/_catalog?"+next.Encode()+`>; rel="next"`)
		}
	}
	if names == nil {
		names = []string{} // [] in JSON
	}
	return writeJSON(w, map[string]any{"repositories": names})
}

// tags answers with the tags of a repository in the released store.
func (g *Gateway) tags(w http.ResponseWriter, r *http.Request, rt route) error {
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	if !g.released.has(rt.repository) {
		return refuse(http.StatusNotFound, codeNameUnknown, "repository %s is not known", rt.repository)
	}
	if n == 0 { // olareg v0.2.2 panics
		return writeJSON(w, map[string]any{"name": rt.repository, "tags": []string{}})
	}
	return g.forward(w, r, rt, g.released, r.URL.Query())
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
