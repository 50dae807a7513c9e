package pushevent

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// HuggingFace reads the webhooks of the Hugging Face Hub, version 3. Branches and tags of model repositories that point at another commit are
// pushes of it, each with its Ref; all else (datasets, Spaces, discussions, settings, refs that were deleted) is left out. The URLs in the body are
// not looked at: anybody who knows the secret could name any host there.
func HuggingFace(_ http.Header, body []byte) ([]Pushed, error) {
	var e struct {
		Event       struct{ Action, Scope string }
		Repo        struct{ Type, Name string }
		UpdatedRefs []struct {
			Ref    string
			NewSha *string // null: the ref was deleted
		}
	}
	err := decode(body, &e)
	if err == nil && (e.Event.Action == "" || e.Event.Scope == "" || e.Repo.Type == "" || e.Repo.Name == "") {
		err = errors.New("it has no event.action, event.scope, repo.type or repo.name")
	}
	// Scopes that are added later narrow a known one down.
	if content := e.Event.Scope == "repo.content" || strings.HasPrefix(e.Event.Scope, "repo.content."); err != nil || !content || e.Event.Action != "update" || e.Repo.Type != "model" {
		return check(nil, err)
	}
	if !hubName.MatchString(e.Repo.Name) || strings.Contains(e.Repo.Name, "..") {
		return check(nil, fmt.Errorf("%.60q is no name of a model repository", e.Repo.Name))
	}
	var all []Pushed
	for _, u := range e.UpdatedRefs {
		switch {
		case u.NewSha == nil:
			continue
		case !commit.MatchString(*u.NewSha):
			return check(nil, fmt.Errorf("%.60q is no commit", *u.NewSha))
		case u.Ref == "" || !printable.MatchString(u.Ref):
			return check(nil, fmt.Errorf("%.60q is no ref", u.Ref))
		}
		all = append(all, Pushed{ID: *u.NewSha, Repository: HubRepository(e.Repo.Name), Tag: *u.NewSha, Model: e.Repo.Name, Version: *u.NewSha, Ref: u.Ref})
	}
	return check(all, nil)
}

var (
	hubName = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$`) // the oldest models have no owner
	commit  = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// HubRepository is the name of a model repository of the Hub, OWNER/NAME, as that of a repository here: each part as ModelRepository says.
func HubRepository(model string) string {
	parts := strings.Split(model, "/")
	for i, p := range parts {
		parts[i] = ModelRepository(p)
	}
	return strings.Join(parts, "/")
}
