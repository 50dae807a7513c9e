package queue

import (
	"encoding/json"
	"regexp"
	"time"
)

// Job is one run of the sanitizer.
type Job struct {
	Key      string   `json:"key"`      // unique: admission and number of the run
	Label    string   `json:"label"`    // of the workers that may take it
	Server   string   `json:"server"`   // who asked for it
	Owner    string   `json:"owner"`    // the process that asked for it
	Dir      string   `json:"dir"`      // the scratch folder of that process; the job's files are in it
	In       []string `json:"in"`       // names of the package's files: Dir/in/NAME
	Model    string   `json:"model"`    // which of them is the model
	Dataset  string   `json:"dataset"`  // name of the clean dataset
	Provider string   `json:"provider"` // execution provider that the decision names; "" is the worker's own
	Args     []string `json:"args"`     // of the sanitize command, without those that the worker knows

	Most int64 `json:"-"` // bytes that the result's files may have together; 0 is no limit
}

// validKey matches the keys of jobs, which workers name folders by.
var validKey = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// Result is what became of a job. Without a Reason the sanitizer came to a good end: the files Out are in Dir/out, the report in
// Dir/report.json.
type Result struct {
	Worker  string   `json:"worker"`
	Owner   string   `json:"owner,omitempty"`   // the process whose folder has the files; "": they are in the queue
	Reason  string   `json:"reason,omitempty"`  // code of why not
	Message string   `json:"message,omitempty"` // for people
	Out     []string `json:"out,omitempty"`     // names
	Files   string   `json:"files,omitempty"`   // where in the queue they are: each run has a place of its own, so that none that is late overwrites another's
	Seconds float64  `json:"seconds"`           // of the last run
}

// Run is how far a job is: the value under its key.
type Run struct {
	Server   string    `json:"server"`           // who asked for the job
	Attempts int       `json:"attempts"`         // runs begun and not ended by a graceful stop
	Worker   string    `json:"worker,omitempty"` // that has it, or had it last
	At       time.Time `json:"at"`               // of the last change
	Result   *Result   `json:"result,omitempty"` // once there is one
}

// Took is how long the last run took, 0 if that is not known.
func (r Run) Took() time.Duration {
	if r.Result == nil || !(r.Result.Seconds > 0 && r.Result.Seconds < (1000*time.Hour).Seconds()) {
		return 0
	}
	return time.Duration(r.Result.Seconds * float64(time.Second))
}

func (r Run) encode() []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers
	}
	return text
}

// LabelAny is the label of jobs that every worker may do.
const LabelAny = "any"
