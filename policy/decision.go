package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Action is what happens to a push.
type Action string

// The actions of an admission decision.
const (
	Admit      Action = "admit"      // release the model as it is
	Deny       Action = "deny"       // refuse the push
	Sanitize   Action = "sanitize"   // grind the model, then ask for release
	Quarantine Action = "quarantine" // keep it hidden until somebody acts
)

// FeatureGrinding is the one method there is.
const FeatureGrinding = "feature-grinding"

var (
	transformations = []string{"permute", "rotate", "rotate-2d"}
	providers       = []string{"", "auto", "cpu", "cuda"}
	comparators     = []string{"<", "<=", "==", ">=", ">"}
)

// AdmissionDecision answers a push. The zero value admits nothing: its Action is none of the four.
type AdmissionDecision struct {
	ID             string     `json:"id"`                       // UUID, also in the log
	Action         Action     `json:"action"`                   //
	Method         string     `json:"method,omitempty"`         // Sanitize only: "feature-grinding"
	Transformation string     `json:"transformation,omitempty"` // Sanitize only: permute, rotate or rotate-2d
	Dataset        string     `json:"dataset,omitempty"`        // Sanitize only: one of AdmissionInput.Datasets
	Parameters     Parameters `json:"parameters"`               // Sanitize only
	Reasons        []string   `json:"reasons"`                  // at least one for Deny and Quarantine
	PolicyDigest   string     `json:"policy_digest"`            // Engine.Digest
}

// Parameters tune the sanitizer; a zero value is the sanitizer's default.
type Parameters struct {
	Epochs        int     `json:"epochs,omitempty"`        // of both phases together
	GrindEpochs   int     `json:"grind_epochs,omitempty"`  // of the grinding phase
	Steps         int     `json:"steps,omitempty"`         // optimizer steps instead of epochs
	GrindSteps    int     `json:"grind_steps,omitempty"`   // of the grinding phase
	Batch         int     `json:"batch,omitempty"`         // images per step
	Samples       int     `json:"samples,omitempty"`       // clean images to use
	LearningRate  float64 `json:"learning_rate,omitempty"` // 0: search
	Angle         float64 `json:"angle,omitempty"`         // radians, rotate-2d only
	Provider      string  `json:"provider,omitempty"`      // cpu, cuda or auto
	Preprocessing string  `json:"preprocessing,omitempty"` // name of a known preprocessing; "": found automatically
}

// ReleaseDecision answers a sanitizer's report. The zero value does not release.
type ReleaseDecision struct {
	ID           string   `json:"id"`
	Release      bool     `json:"release"`
	Reasons      []string `json:"reasons"` // why not; empty when Release
	PolicyDigest string   `json:"policy_digest"`
	Claims       []Claim  `json:"claims"` // what was compared, for the attestation
}

// Claim is one comparison of a measured value with a threshold, both as decimal text.
type Claim struct {
	Metric     string `json:"metric"`
	Comparator string `json:"comparator"` // <, <=, ==, >= or >: Value Comparator Threshold
	Threshold  string `json:"threshold"`
	Value      string `json:"value"`
	Passed     bool   `json:"passed"`
}

// The fields that a policy may set; id and digest are the engine's.
type admissionRule struct {
	Action         Action     `json:"action"`
	Method         string     `json:"method"`
	Transformation string     `json:"transformation"`
	Dataset        string     `json:"dataset"`
	Parameters     Parameters `json:"parameters"`
	Reasons        []string   `json:"reasons"`
}

type releaseRule struct {
	Release bool     `json:"release"`
	Reasons []string `json:"reasons"`
	Claims  []Claim  `json:"claims"`
}

func (r admissionRule) check(datasets []string) error {
	reasoned := !slices.Contains(r.Reasons, "") && len(r.Reasons) > 0
	switch r.Action {
	case Sanitize:
		return r.checkSanitize(datasets)
	case Deny, Quarantine:
		if !reasoned {
			return fmt.Errorf("action %q needs at least one reason, and none of them empty", r.Action)
		}
	case Admit:
	case "":
		return errors.New("field action is missing: it must be admit, deny, sanitize or quarantine")
	default:
		return fmt.Errorf("unknown action %q: it must be admit, deny, sanitize or quarantine", r.Action)
	}
	if r.Method != "" || r.Transformation != "" || r.Dataset != "" || r.Parameters != (Parameters{}) {
		return fmt.Errorf("action %q takes no method, transformation, dataset or parameters", r.Action)
	}
	return nil
}

func (r admissionRule) checkSanitize(datasets []string) error {
	if r.Method != FeatureGrinding {
		return fmt.Errorf("unknown method %q: it must be %s", r.Method, FeatureGrinding)
	}
	if !slices.Contains(transformations, r.Transformation) {
		return fmt.Errorf("unknown transformation %q: it must be one of %q", r.Transformation, transformations)
	}
	if !slices.Contains(datasets, r.Dataset) {
		return fmt.Errorf("dataset %q is not configured: it must be one of %q", r.Dataset, datasets)
	}
	p := r.Parameters
	for name, v := range map[string]float64{
		"epochs": float64(p.Epochs), "grind_epochs": float64(p.GrindEpochs), "steps": float64(p.Steps), "grind_steps": float64(p.GrindSteps),
		"batch": float64(p.Batch), "samples": float64(p.Samples), "learning_rate": p.LearningRate,
	} {
		if v < 0 {
			return fmt.Errorf("parameters.%s is %v: it must not be negative", name, v)
		}
	}
	if !slices.Contains(providers, p.Provider) {
		return fmt.Errorf("unknown parameters.provider %q: it must be cpu, cuda or auto", p.Provider)
	}
	return nil
}

func (r releaseRule) check() error {
	for _, c := range r.Claims {
		if c.Metric == "" || c.Value == "" || c.Threshold == "" || !slices.Contains(comparators, c.Comparator) {
			return fmt.Errorf("claim %+v needs a metric, a comparator of %q, a threshold and a value", c, comparators)
		}
		if r.Release && !c.Passed {
			return fmt.Errorf("release is true although the claim on %s did not pass", c.Metric)
		}
	}
	if r.Release == (len(r.Reasons) > 0) || slices.Contains(r.Reasons, "") {
		return errors.New("a release takes no reasons, and a refusal at least one that is not empty")
	}
	return nil
}

// Reasons are printed by pushers' clients and kept in records for good, and have pushers' words in them.
const (
	maxReasons = 32
	maxReason  = 500 // runes
)

// sentences has reasons on one line each, without characters that terminals obey, and no more of them than is read.
func sentences(reasons []string) []string {
	all := []string{}
	for _, r := range reasons[:min(len(reasons), maxReasons)] {
		r = strings.Map(func(r rune) rune {
			switch {
			case unicode.IsSpace(r):
				return ' '
			case !unicode.IsPrint(r):
				return -1
			}
			return r
		}, r)
		if runes := []rune(r); len(runes) > maxReason {
			r = string(runes[:maxReason]) + "…"
		}
		all = append(all, strings.TrimSpace(r))
	}
	if more := len(reasons) - len(all); more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return all
}

var fieldName = regexp.MustCompile(`^[a-z0-9_]+$`)

// decode reads a rule's value into out: no unknown field, no other spelling of a known one, at least one field.
func decode(value any, out any) error {
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("the decision is a %s, not an object", jsonType(value))
	}
	if err := checkNames("", object); err != nil {
		return err
	}
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(out)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("field %s is of type %s, and has to be %s", wrong.Field, wrong.Value, typeName(wrong.Type.Kind()))
	}
	return err
}

func typeName(k reflect.Kind) string {
	switch k {
	case reflect.Int:
		return "a whole number (5, not 5.0)"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "a boolean"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	default:
		return "an object"
	}
}

// checkNames refuses spellings that encoding/json would match without regard to case.
func checkNames(path string, value any) error {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if !fieldName.MatchString(name) {
				return fmt.Errorf("unknown field %q", path+name)
			}
			if err := checkNames(path+name+".", member); err != nil {
				return err
			}
		}
	case []any:
		for i, member := range v {
			if err := checkNames(fmt.Sprintf("%s%d.", path, i), member); err != nil {
				return err
			}
		}
	}
	return nil
}

func jsonType(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "list or set"
	default:
		return "number"
	}
}
