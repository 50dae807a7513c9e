package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"grindstone/sanitize"
)

// LogLine is one line of an admission's log: a change of its state, or what its sanitizer said.
type LogLine struct {
	At    time.Time `json:"at"`
	State State     `json:"state,omitempty"`
	Text  string    `json:"text"`
}

const (
	maxRunLog    = 48 << 10         // bytes kept of what the sanitizers of one admission said; the older half goes first
	runLogPause  = 10 * time.Second // between lines that only count steps
	runLogFolder = "logs"
)

// runLogs keep what sanitizers said, a file of JSON lines for each admission, so that it can be read after the run and the restart.
// They are for people: a line that cannot be written is lost, and nothing else.
type runLogs struct {
	dir  string
	mu   sync.Mutex
	last map[string]lastLine
}

type lastLine struct {
	phase string
	at    time.Time
}

func newRunLogs(dir string) (*runLogs, error) {
	return &runLogs{dir: dir, last: map[string]lastLine{}}, os.MkdirAll(dir, 0o700)
}

func (l *runLogs) path(id string) string { return filepath.Join(l.dir, id+".jsonl") }

// add keeps a line of progress if it says more than that time goes on.
func (l *runLogs) add(id string, p sanitize.Progress) error {
	now := time.Now().UTC()
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.last[id]; p.Message == "" && p.Error == "" && p.Phase == last.phase && now.Sub(last.at) < runLogPause {
		return nil
	}
	l.last[id] = lastLine{p.Phase, now}
	if p.Phase == "done" || p.Phase == "failed" {
		delete(l.last, id)
	}
	return l.write(id, LogLine{At: now, Text: progressText(p)})
}

func (l *runLogs) write(id string, line LogLine) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	path := l.path(id)
	if info, err := os.Stat(path); err == nil && info.Size()+int64(len(text)) > maxRunLog {
		old, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, kept, _ := bytes.Cut(old[len(old)/2:], []byte("\n"))
		if err := writeFileAtomic(path, kept); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}

// read returns the lines of an admission; none is no error. A line that a crash cut off is left out.
func (l *runLogs) read(id string) ([]LogLine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := os.ReadFile(l.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var lines []LogLine
	for text := range bytes.Lines(data) {
		var line LogLine
		if json.Unmarshal(text, &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// progressText is a line of progress for people.
func progressText(p sanitize.Progress) string {
	text := p.Phase
	if p.Steps > 0 {
		text += fmt.Sprintf(" %d/%d", p.Step, p.Steps)
	}
	if p.Loss != 0 {
		text += fmt.Sprintf(" loss %.4g", p.Loss)
	}
	for _, words := range []string{p.Message, p.Error} {
		if words != "" {
			text += ": " + words
		}
	}
	return text
}

// logOf is the whole log of an admission: the history of its record and what its sanitizers said, in the order of time.
func (p *Pipeline) logOf(a *Admission) ([]LogLine, error) {
	lines, err := p.runLogs.read(a.ID)
	if err != nil {
		return nil, err
	}
	for _, c := range a.History {
		text := string(c.State)
		if c.Reason != "" {
			text += " (" + string(c.Reason) + ")"
		}
		if c.Message != "" {
			text += ": " + c.Message
		}
		lines = append(lines, LogLine{At: c.At, State: c.State, Text: text})
	}
	slices.SortStableFunc(lines, func(a, b LogLine) int { return a.At.Compare(b.At) })
	return lines, nil
}
