package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// AdmissionInput is what the policy sees of a push. Schema: schema/admission.json.
type AdmissionInput struct {
	Repository   string            `json:"repository"`    // name without the registry's host
	Tag          string            `json:"tag"`           // "" when the push was by digest
	Digest       string            `json:"digest"`        // of the manifest, "sha256:..."
	MediaType    string            `json:"media_type"`    // of the manifest
	ArtifactType string            `json:"artifact_type"` // of the manifest; may be ""
	Identity     string            `json:"identity"`      // who pushed, as far as the gateway knows; may be ""
	Size         int64             `json:"size"`          // bytes of the package
	Annotations  map[string]string `json:"annotations"`   // of the manifest
	Models       []Model           `json:"models"`        // ONNX models of the package
	OtherModels  []OtherModel      `json:"other_models"`  // models of other formats than ONNX, which cannot be sanitized
	Datasets     []string          `json:"datasets"`      // names of the configured clean datasets
	Problem      string            `json:"problem"`       // why not every model could be found; else ""
	Time         time.Time         `json:"time"`          // when the push arrived
}

// Model is one ONNX file of a package.
type Model struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // "sha256:..."
	Size   int64  `json:"size"`   // bytes
}

// OtherModel is a file of a package that looks like a model of another format than ONNX.
type OtherModel struct {
	Name   string `json:"name"`
	Format string `json:"format"` // "safetensors", "pytorch", ...; "unknown" where only its media type says that it is a model
}

// ReleaseInput is what the policy sees of a sanitized model. Schema: schema/admission.json, decision.json and report.json.
type ReleaseInput struct {
	Admission AdmissionInput    `json:"admission"`
	Decision  AdmissionDecision `json:"decision"` // the answer to Admission
	Report    any               `json:"report"`   // whatever encodes to the JSON of a sanitize.Report: json.RawMessage, a map, the struct
}

// normal has no null where the schema promises a list or an object, and its time in UTC.
func (in AdmissionInput) normal() AdmissionInput {
	if in.Annotations == nil {
		in.Annotations = map[string]string{}
	}
	if in.Models == nil {
		in.Models = []Model{}
	}
	if in.OtherModels == nil {
		in.OtherModels = []OtherModel{}
	}
	if in.Datasets == nil {
		in.Datasets = []string{}
	}
	in.Time = in.Time.UTC()
	return in
}

func (in ReleaseInput) normal() ReleaseInput {
	in.Admission = in.Admission.normal()
	if in.Decision.Reasons == nil {
		in.Decision.Reasons = []string{}
	}
	return in
}

// checkReport refuses what does not encode to an object.
func (in ReleaseInput) checkReport() error {
	text, err := json.Marshal(in.Report)
	if err != nil {
		return fmt.Errorf("the report cannot be encoded: %w", err)
	}
	if len(text) == 0 || text[0] != '{' {
		return errors.New("the report is not a JSON object")
	}
	return nil
}
