// Package sanitize removes backdoors from ONNX classifiers by Feature Grinding (ICLR 2022 submission, section 4).
package sanitize

import "time"

// Report is what one sanitizing run did and measured. It holds nothing of the transformation's secret.
type Report struct {
	SchemaVersion   string          `json:"schema_version"` // "1.0"
	Method          string          `json:"method"`         // "feature-grinding"
	Transformation  string          `json:"transformation"` // permute, rotate or rotate-2d
	Source          FileInfo        `json:"source"`
	Sanitized       FileInfo        `json:"sanitized"`
	ExternalData    []DataFile      `json:"external_data,omitempty"` // the files beside the model that hold weights of it
	Hyperparameters Hyperparameters `json:"hyperparameters"`
	Dataset         DatasetInfo     `json:"dataset"`
	Preprocessing   Preprocessing   `json:"preprocessing"`
	FeatureLayer    string          `json:"feature_layer"` // name of the tensor that the head reads
	FeatureWidth    int             `json:"feature_width"`
	Unfolded        int             `json:"unfolded"`         // identity BatchNormalizations inserted for training and folded back
	Frozen          *Frozen         `json:"frozen,omitempty"` // what was not trained by choice
	Before          Metrics         `json:"before"`
	After           Metrics         `json:"after"`
	FeatureDistance Distance        `json:"feature_distance"`
	Phases          []Phase         `json:"phases"`
	Runtime         Runtime         `json:"runtime"`
	Memory          Memory          `json:"memory"`
	StartedAt       time.Time       `json:"started_at"`
	FinishedAt      time.Time       `json:"finished_at"`
	Seconds         float64         `json:"seconds"`
	ImagesPerSecond float64         `json:"images_per_second"` // of the training phases
	SecretDiscarded bool            `json:"secret_discarded"`
	Warnings        []string        `json:"warnings,omitempty"`
}

// FileInfo identifies a model file.
type FileInfo struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // hex
	Size   int64  `json:"size"`   // bytes
}

// DataFile is an external data file. Where a model keeps all weights in such files, it is these that sanitizing changes, and the model's own stays.
type DataFile struct {
	Name            string `json:"name"` // path beside the model
	Size            int64  `json:"size"`
	SourceSHA256    string `json:"source_sha256"` // hex
	SanitizedSHA256 string `json:"sanitized_sha256"`
}

// Hyperparameters are the run's settings after defaults and search.
type Hyperparameters struct {
	Epochs           float64 `json:"epochs"`
	GrindEpochs      float64 `json:"grind_epochs"`
	Steps            int     `json:"steps"`
	GrindSteps       int     `json:"grind_steps"`
	BatchSize        int     `json:"batch_size"`
	MicroBatch       int     `json:"micro_batch,omitempty"` // where a batch was split: the images that BatchNormalization normalized by
	LearningRate     float64 `json:"learning_rate"`
	LearningRateFrom string  `json:"learning_rate_from"` // "flag" or "search"
	Momentum         float64 `json:"momentum"`
	WeightDecay      float64 `json:"weight_decay"`
	Optimizer        string  `json:"optimizer"` // "sgd-nesterov"
	Schedule         string  `json:"schedule"`  // "cosine"
	AlphaGrind       float64 `json:"alpha_grind"`
	AlphaRestore     float64 `json:"alpha_restore"`
	Angle            float64 `json:"angle,omitempty"` // radians, rotate-2d only
	Seed             uint64  `json:"seed"`            // of shuffling, augmentation and head; never of the secret
	Unfold           bool    `json:"unfold"`

	Augmentation []string `json:"augmentation"` // of training images: "random-crop", "cutout", "mirror"
}

// Frozen is the part of the network that was not trained, because the run was asked to leave it. What is hidden there stays.
type Frozen struct {
	Below      []string `json:"below"`   // the nodes named
	Tensors    []string `json:"tensors"` // weights that training would have changed
	Parameters int64    `json:"parameters"`
}

// DatasetInfo identifies the clean dataset. Every accuracy comes from the held-out images alone.
type DatasetInfo struct {
	Name    string `json:"name"`
	Digest  string `json:"digest"` // "sha256:..."
	Classes int    `json:"classes"`
	Train   int    `json:"train"`
	HeldOut int    `json:"held_out"`
}

// Preprocessing is how pixels become the model's input.
type Preprocessing struct {
	Name   string  `json:"name"`
	Layout string  `json:"layout"`          // NCHW or NHWC
	From   string  `json:"from"`            // "auto", "flag", "policy", "annotation" or "config"
	Margin float64 `json:"margin"`          // auto: accuracy above the second best candidate
	Rival  string  `json:"rival,omitempty"` // auto: that one, where so few images cannot tell which of the two is right
}

// Metrics are measured on held-out images.
type Metrics struct {
	CDA Rate `json:"cda"`
}

// Rate is a share of trials with its Wilson 95 % interval.
type Rate struct {
	Value float64 `json:"value"` // 0..1
	Hits  int     `json:"hits"`
	Count int     `json:"count"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Distance is the mean un-squared L2 distance between features and their transformed targets (paper, section 4.2, L_f).
type Distance struct {
	Before float64 `json:"before"`
	After  float64 `json:"after"`
	Floor  float64 `json:"floor"` // mean L2 norm of the targets' negative part where features cannot be negative; 0 if they can
}

// Phase is grinding or restoration.
type Phase struct {
	Name    string  `json:"name"` // "grind" or "restore"
	Alpha   float64 `json:"alpha"`
	Steps   int     `json:"steps"`
	Loss    Ends    `json:"loss"`
	Feature Ends    `json:"feature_distance"` // L_f over the training batches
	Task    Ends    `json:"task_loss"`        // L_t, cross entropy
	Seconds float64 `json:"seconds"`
}

// Ends is a quantity's mean over the first and the last tenth of a phase.
type Ends struct {
	First float64 `json:"first"`
	Last  float64 `json:"last"`
}

// Runtime says what the run ran on.
type Runtime struct {
	Engine   string `json:"engine"` // "onnxruntime"
	Version  string `json:"version"`
	Provider string `json:"provider"` // CPUExecutionProvider, CUDAExecutionProvider
	Device   string `json:"device"`
	Threads  int    `json:"threads"`

	Precision Precision `json:"precision"`         // of matrix products and convolutions
	Sandbox   string    `json:"sandbox,omitempty"` // what confined the process: "landlock" and the version of its interface; "" is nothing
}

// Memory is what the run needed of main memory, in bytes.
type Memory struct {
	Limit int64 `json:"limit,omitempty"`
	Step  int64 `json:"step_estimate,omitempty"` // of a training step's tensors, where there is a limit
	Peak  int64 `json:"peak,omitempty"`          // of the process so far, where the system tells
}

// Progress is one line of a run's progress; the zero value of a field that does not belong to the phase is left out.
type Progress struct {
	Phase           string  `json:"phase"` // load, preprocess, evaluate, record, search, grind, restore, write, done, failed
	Step            int     `json:"step,omitempty"`
	Steps           int     `json:"steps,omitempty"`
	Loss            float64 `json:"loss,omitempty"`
	ImagesPerSecond float64 `json:"images_per_second,omitempty"`
	Remaining       float64 `json:"remaining_seconds,omitempty"`
	Message         string  `json:"message,omitempty"`
	Error           string  `json:"error,omitempty"` // phase failed only
}
