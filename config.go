package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"grindstone/internal/sandbox"
	"grindstone/policy"
	"grindstone/sanitize"
	"grindstone/sanitize/ort"
)

// Config is everything that can be set. grindstone.example.yaml explains each field to operators.
type Config struct {
	Listen    string            // host:port
	Host      string            // name of the registry in attestations; "" is Listen
	Dir       string            // registry/, state/, work/ and keys/ are kept under it
	Intercept []string          // patterns of repositories to intercept: * within a path segment, ** across
	Datasets  map[string]string // paths of clean datasets by name

	Log       LogConfig
	Trainer   policy.Parameters // for what a decision leaves open, preprocessing too
	Policy    PolicyConfig
	Key       KeyConfig
	Sanitizer SanitizerConfig
	Limits    LimitsConfig
	Upstream  UpstreamConfig
	Auth      AuthConfig
	TLS       TLSConfig
	Queue     QueueConfig
	Worker    WorkerConfig
	Events    map[string]*EventConfig  // registries that tell of pushes, by kind
	Notify    map[string]*NotifyConfig // who is told about admissions that have come to an end

	file  string         // what was read
	lines map[string]int // where each field was set
}

// LogConfig says how the server logs.
type LogConfig struct {
	Format string // text or json
	Level  string // debug, info, warn or error
}

// PolicyConfig names the policy.
type PolicyConfig struct {
	Dir  string         // folder of Rego files; "" is the built-in policy
	Data map[string]any // laid over the policy's data
}

// KeyConfig names the signing key.
type KeyConfig struct {
	Path string // "" is keys/grindstone.key under Dir; created when absent
}

// SanitizerConfig says how sanitizer processes are run.
type SanitizerConfig struct {
	Workers     int           // models sanitized at the same time
	Timeout     time.Duration // wall clock of one run
	Memory      int64         // bytes that one run may hold in memory; 0 is no limit
	Model       int64         // bytes of a model with its external data
	Nodes       int
	Tensors     int
	PerIdentity int    // models of one identity in work at the same time; 0 is no limit
	Provider    string // auto, cpu or cuda
	Sandbox     string // auto, require or off
	Threads     int    // 0 is all cores
}

// WorkerConfig is for `grindstone worker` alone.
type WorkerConfig struct {
	Listen string // host:port of health and metrics; "" answers nobody
}

// LimitsConfig bounds what clients may ask for.
type LimitsConfig struct {
	Manifest int64         // bytes of one manifest
	Blob     int64         // bytes of one blob
	Request  time.Duration // from a request's head to the end of its body
	Grace    time.Duration // for requests in flight at shutdown
	Events   int           // push events whose packages are brought in at the same time
	Records  time.Duration // for how long the records of push events that failed are kept

	Connections int // open at a time; 0: by the files that the process may open
}

// DefaultConfig is the configuration of a server that is told nothing.
func DefaultConfig() Config {
	return Config{
		Listen:    "127.0.0.1:5050",
		Dir:       "grindstone-data",
		Intercept: []string{"**"},
		Datasets:  map[string]string{},
		Notify:    map[string]*NotifyConfig{},
		Events:    map[string]*EventConfig{},
		Queue:     QueueConfig{Labels: []string{}, Replicas: 1, Heartbeat: 30 * time.Second},
		Log:       LogConfig{Format: "text", Level: "info"},
		Sanitizer: SanitizerConfig{Workers: 1, Timeout: 2 * time.Hour, Memory: 8 << 30, Model: 16 << 30, Nodes: 100_000, Tensors: 100_000, PerIdentity: 8, Provider: "auto", Sandbox: "auto"},
		Limits:    LimitsConfig{Manifest: 4 << 20, Blob: 16 << 30, Request: time.Hour, Grace: 30 * time.Second, Events: 4, Records: 30 * 24 * time.Hour},
		Auth:      AuthConfig{OIDC: []OIDCConfig{}, Roles: []RoleConfig{}},
		TLS:       TLSConfig{ClientAuth: "require"},
	}
}

// LoadConfig reads the file over the defaults and checks everything. The error names every problem with file and line.
func LoadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	c, found, err := parseConfig(path, data)
	if err != nil {
		return c, err
	}
	return c, append(found, c.check()...).err()
}

// Validate reports every problem of the values at once, each with its place in the file it was read from.
func (c Config) Validate() error { return c.check().err() }

// parseConfig reads the file's fields and finds what has the wrong shape. Relative paths are taken from the file's folder. An error
// means that nothing could be read.
func parseConfig(path string, data []byte) (Config, problems, error) {
	c := DefaultConfig()
	d := newDecoder(path)
	c.file, c.lines = path, d.lines
	root, err := d.document(data)
	if err != nil || root == nil {
		return c, nil, err
	}
	known := fields{
		"listen":    d.text(&c.Listen),
		"host":      d.text(&c.Host),
		"dir":       d.path(&c.Dir),
		"intercept": d.texts(&c.Intercept),
		"datasets":  d.paths(&c.Datasets),
		"log":       d.section(fields{"format": d.text(&c.Log.Format), "level": d.text(&c.Log.Level)}),
		"trainer": d.section(fields{
			"epochs": d.number(&c.Trainer.Epochs), "grind_epochs": d.number(&c.Trainer.GrindEpochs), "steps": d.number(&c.Trainer.Steps),
			"batch": d.number(&c.Trainer.Batch), "samples": d.number(&c.Trainer.Samples),
			"learning_rate": d.real(&c.Trainer.LearningRate), "preprocessing": d.text(&c.Trainer.Preprocessing),
		}),
		"policy": d.section(fields{"dir": d.path(&c.Policy.Dir), "data": d.tree(&c.Policy.Data)}),
		"key":    d.section(fields{"path": d.path(&c.Key.Path)}),
		"sanitizer": d.section(fields{
			"workers": d.number(&c.Sanitizer.Workers), "timeout": d.duration(&c.Sanitizer.Timeout),
			"memory": d.bytes(&c.Sanitizer.Memory), "provider": d.text(&c.Sanitizer.Provider), "sandbox": d.text(&c.Sanitizer.Sandbox), "threads": d.number(&c.Sanitizer.Threads),
			"model": d.bytes(&c.Sanitizer.Model), "nodes": d.number(&c.Sanitizer.Nodes), "tensors": d.number(&c.Sanitizer.Tensors), "per_identity": d.number(&c.Sanitizer.PerIdentity),
		}),
		"notify": c.notifyFields(d),
		"queue":  c.queueFields(d),
		"worker": d.section(fields{"listen": d.text(&c.Worker.Listen)}),
		"events": c.eventFields(d),
		"limits": d.section(fields{
			"manifest": d.bytes(&c.Limits.Manifest), "blob": d.bytes(&c.Limits.Blob),
			"request": d.duration(&c.Limits.Request), "grace": d.duration(&c.Limits.Grace),
			"events": d.number(&c.Limits.Events), "event_records": d.duration(&c.Limits.Records), "connections": d.number(&c.Limits.Connections),
		}),
	}
	maps.Copy(known, c.accessFields(d))
	d.object("", root, known)
	return c, d.problems, nil
}

var (
	datasetName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	listenAddr  = regexp.MustCompile(`^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*):[0-9]{1,5}$`)
)

// check finds what is wrong with the values.
func (c Config) check() problems {
	var found problems
	bad := func(field, format string, args ...any) {
		found = append(found, problem{c.file, c.lines[field], field + ": " + fmt.Sprintf(format, args...)})
	}
	oneOf := func(field, value string, known ...string) {
		if !slices.Contains(known, value) {
			bad(field, "%q is not one of %s", value, strings.Join(known, ", "))
		}
	}
	atLeast := func(field string, value, least float64) {
		if !(value >= least) {
			bad(field, "%v is too small; the least is %v", value, least)
		}
	}
	lasts := func(field string, value, least time.Duration) {
		if value < least {
			bad(field, "%v is too short; the least is %v", value, least)
		}
	}
	holds := func(field string, value, least int64) {
		if value < least {
			bad(field, "%s is too small; the least is %s", formatBytes(value), formatBytes(least))
		}
	}
	if !listenAddr.MatchString(c.Listen) {
		bad("listen", "%q is not host:port, as in 127.0.0.1:5050", c.Listen)
	}
	if strings.ContainsAny(c.Host, "/ @") {
		bad("host", "%q is not a host name with an optional port", c.Host)
	}
	if c.Dir == "" {
		bad("dir", "must name the folder to keep everything in")
	}
	for i, pattern := range c.Intercept {
		if _, err := repositoryPattern(pattern); err != nil {
			bad(fmt.Sprintf("intercept[%d]", i), "%v", err)
		}
	}
	for name, path := range c.Datasets {
		if !datasetName.MatchString(name) {
			bad("datasets."+name, "the name must be letters, digits, '.', '_' and '-'")
		}
		if _, err := os.Stat(path); err != nil {
			bad("datasets."+name, "cannot be read: %v", err)
		}
	}
	if t := c.Trainer; t.Steps != 0 && t.Epochs != 0 {
		bad("trainer.steps", "give steps or epochs, not both")
	} else if t.GrindEpochs > t.Epochs {
		bad("trainer.grind_epochs", "%d do not fit into %d epochs", t.GrindEpochs, t.Epochs)
	}
	oneOf("log.format", c.Log.Format, "text", "json")
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	for field, v := range map[string]float64{
		"epochs": float64(c.Trainer.Epochs), "grind_epochs": float64(c.Trainer.GrindEpochs), "steps": float64(c.Trainer.Steps),
		"batch": float64(c.Trainer.Batch), "samples": float64(c.Trainer.Samples),
		"learning_rate": c.Trainer.LearningRate,
	} {
		atLeast("trainer."+field, v, 0)
	}
	if err := sanitize.CheckPreprocess(c.Trainer.Preprocessing); err != nil {
		bad("trainer.preprocessing", "%v", err)
	}
	if c.Policy.Dir != "" {
		if info, err := os.Stat(c.Policy.Dir); err != nil {
			bad("policy.dir", "cannot be read: %v", err)
		} else if !info.IsDir() {
			bad("policy.dir", "%s is a file; name the folder of the Rego files", c.Policy.Dir)
		}
	}
	atLeast("sanitizer.workers", float64(c.Sanitizer.Workers), 0)
	lasts("sanitizer.timeout", c.Sanitizer.Timeout, time.Second)
	if c.Sanitizer.Memory != 0 {
		holds("sanitizer.memory", c.Sanitizer.Memory, 256<<20)
	}
	holds("sanitizer.model", c.Sanitizer.Model, 1<<20)
	atLeast("sanitizer.nodes", float64(c.Sanitizer.Nodes), 1)
	atLeast("sanitizer.tensors", float64(c.Sanitizer.Tensors), 1)
	atLeast("sanitizer.per_identity", float64(c.Sanitizer.PerIdentity), 0)
	oneOf("sanitizer.provider", c.Sanitizer.Provider, providerNames()...)
	oneOf("sanitizer.sandbox", c.Sanitizer.Sandbox, sandbox.Modes...)
	atLeast("sanitizer.threads", float64(c.Sanitizer.Threads), 0)
	c.checkNotify(bad)
	c.checkQueue(bad)
	if l := c.Worker.Listen; l != "" && !listenAddr.MatchString(l) {
		bad("worker.listen", "%q is not host:port, as in 127.0.0.1:9090", l)
	}
	c.checkEvents(bad)
	holds("limits.manifest", c.Limits.Manifest, 64<<10)
	holds("limits.blob", c.Limits.Blob, 1<<20)
	lasts("limits.request", c.Limits.Request, time.Second)
	lasts("limits.grace", c.Limits.Grace, 0)
	atLeast("limits.events", float64(c.Limits.Events), 1)
	atLeast("limits.connections", float64(c.Limits.Connections), 0)
	lasts("limits.event_records", c.Limits.Records, time.Minute)
	c.checkAccess(bad)
	return found
}

// KeyPath is where the signing key lies.
func (c Config) KeyPath() string {
	if c.Key.Path != "" {
		return c.Key.Path
	}
	return filepath.Join(c.Dir, "keys", "grindstone.key")
}

// Intercepts returns the test whether a repository is intercepted.
func (c Config) Intercepts() func(repository string) bool { return repositoryMatcher(c.Intercept) }

// repositoryMatcher returns the test whether a repository matches one of the patterns.
func repositoryMatcher(texts []string) func(repository string) bool {
	return matcher(texts, repositoryPattern)
}

// matcher returns the test whether a text matches one of the patterns; what is none matches nothing.
func matcher(texts []string, parse func(text string) (*regexp.Regexp, error)) func(text string) bool {
	var patterns []*regexp.Regexp
	for _, text := range texts {
		if p, err := parse(text); err == nil {
			patterns = append(patterns, p)
		}
	}
	return func(text string) bool {
		return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(text) })
	}
}

var repositoryGlob = regexp.MustCompile(`^[a-z0-9*][a-z0-9*._/-]*$`)

// repositoryPattern compiles a pattern: * stands for any part of one path segment, ** for any number of segments.
func repositoryPattern(text string) (*regexp.Regexp, error) {
	if !repositoryGlob.MatchString(text) {
		return nil, fmt.Errorf("%q is no pattern of repository names, as in models/* or **", text)
	}
	return globPattern(text)
}

// globPattern is a pattern in which * stands for text without a slash, and ** for any text.
func globPattern(text string) (*regexp.Regexp, error) {
	quoted := regexp.QuoteMeta(text)
	quoted = strings.ReplaceAll(quoted, `\*\*`, `.*`)
	quoted = strings.ReplaceAll(quoted, `\*`, `[^/]*`)
	return regexp.Compile("^" + quoted + "$")
}

func providerNames() []string {
	names := []string{string(ort.Auto)}
	for _, p := range ort.Providers {
		names = append(names, string(p))
	}
	return names
}
