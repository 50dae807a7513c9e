package main

import (
	"fmt"
	"regexp"

	"grindstone/webhook"
	"grindstone/webhook/huggingface"
	"grindstone/webhook/remotefile"
)

// hubKind is the source of push events that has Git repositories of models: their ONNX files are downloaded.
const hubKind = "huggingface"

// HubConfig is what the Hugging Face Hub needs besides.
type HubConfig struct {
	TokenFile string   // bearer token; "" reads public models only
	Branch    string   // whose commits are looked at
	Files     []string // patterns of the paths of ONNX files that are wanted
	Hosts     []string // patterns of the hosts that large files may come from
	Size      int64    // bytes of the files of a commit
}

func defaultHub() HubConfig {
	return HubConfig{Branch: "main", Files: []string{"**"}, Hosts: []string{"*.hf.co", "*.huggingface.co"}, Size: 16 << 30}
}

func (h *HubConfig) fields(d *decoder) fields {
	return fields{
		"token_file": d.path(&h.TokenFile), "branch": d.text(&h.Branch), "files": d.texts(&h.Files), "hosts": d.texts(&h.Hosts),
		"size": d.bytes(&h.Size),
	}
}

var (
	hubBranch = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`) // it becomes a tag
	hubHost   = regexp.MustCompile(`^[a-z0-9*][a-z0-9*.-]*$`)
)

// hostPattern and filePattern make a pattern out of its text.
func hostPattern(text string) (*regexp.Regexp, error) {
	if !hubHost.MatchString(text) {
		return nil, fmt.Errorf("%q is no pattern of host names in lower case, as in *.hf.co", text)
	}
	return globPattern(text)
}

func filePattern(text string) (*regexp.Regexp, error) {
	if !remotefile.Safe(text) {
		return nil, fmt.Errorf("%q is no pattern of paths in a model repository, as in onnx/model.onnx or **", text)
	}
	return globPattern(text)
}

// check finds what is wrong with the settings of a Hub.
func (h HubConfig) check(at, server string, bad func(field, format string, args ...any)) {
	if !isServerURL(server) {
		bad(at+".registry", "%q is no URL of a Hugging Face Hub, as in https://huggingface.co", server)
	}
	if h.TokenFile != "" {
		if _, err := readLogin(h.TokenFile); err != nil {
			bad(at+".token_file", "%v", err)
		}
	}
	if !hubBranch.MatchString(h.Branch) {
		bad(at+".branch", "%q is no branch that can be a tag, as in main: letters, digits, '.', '_' and '-'", h.Branch)
	}
	for i, pattern := range h.Files {
		if _, err := filePattern(pattern); err != nil {
			bad(fmt.Sprintf("%s.files[%d]", at, i), "%v", err)
		}
	}
	for i, pattern := range h.Hosts {
		if _, err := hostPattern(pattern); err != nil {
			bad(fmt.Sprintf("%s.hosts[%d]", at, i), "%v", err)
		}
	}
	if h.Size < 1<<20 {
		bad(at+".size", "%d bytes are too few; the least is 1MiB", h.Size)
	}
}

// modelHub makes the client of a Hub.
func (e *EventConfig) modelHub(maxFile int64) (*webhook.ModelHub, error) {
	hub := &huggingface.Hub{URL: e.Registry, Hosts: matcher(e.Hub.Hosts, hostPattern)}
	if e.Hub.TokenFile != "" {
		var err error
		if hub.Token, err = readLogin(e.Hub.TokenFile); err != nil {
			return nil, fmt.Errorf("events.%s.token_file: %w", hubKind, err)
		}
	}
	return &webhook.ModelHub{
		Hub: hub, Branch: e.Hub.Branch, Files: matcher(e.Hub.Files, filePattern), MaxFile: maxFile, MaxSize: e.Hub.Size,
	}, nil
}
