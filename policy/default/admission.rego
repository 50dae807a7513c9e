# What happens to a pushed model. Grindstone asks for `decision` when a manifest has been stored in quarantine.
#
# Actions:
#   sanitize    grind it; needs method, transformation and one of input.datasets; parameters are optional
#   quarantine  keep it hidden until somebody acts; needs a reason
#   deny        answer the push with 403; needs a reason, which the pushing client prints
#   admit       release it as it is, not sanitized, attested as such (this policy does so with what holds no model)
#
# METADATA
# scope: package
# schemas:
#   - input: schema.admission
package grindstone.admission

import data.grindstone.settings

decision := {"action": "deny", "reasons": sort(refusals)} if {
	count(refusals) > 0
} else := {"action": "quarantine", "reasons": sort(obstacles)} if {
	count(obstacles) > 0
} else := {"action": "admit", "reasons": ["it holds no model"]} if {
	no_models
} else := {
	"action": "sanitize",
	"method": "feature-grinding",
	"transformation": setting.transformation,
	"dataset": dataset,
	"parameters": setting.parameters,
	"reasons": [],
}

setting := settings.effective(input.repository)

# Refused at once: no amount of waiting makes these acceptable.
refusals contains sprintf("model %s has %d bytes, more than the %d allowed (max_model_bytes)", [m.name, m.size, setting.max_model_bytes]) if {
	some m in input.models
	m.size > setting.max_model_bytes
}

# Kept in quarantine: somebody has to provide something first.
obstacles contains input.problem if input.problem != ""

obstacles contains sprintf("%s is a model in the format %s, and only ONNX can be sanitized: export it to ONNX", [m.name, m.format]) if {
	some m in input.other_models
}

obstacles contains "the push holds no ONNX model: give a layer the title NAME.onnx (annotation org.opencontainers.image.title)" if {
	no_models
	setting.other_artifacts != "admit"
}

obstacles contains "no clean dataset is configured: start with `serve --data PATH` or set `datasets:` in the configuration" if {
	count(input.datasets) == 0
	not no_models
}

obstacles contains sprintf("several datasets are configured (%s): name one `default`, or set `dataset` in the policy's data", [concat(", ", sort(input.datasets))]) if {
	count(input.datasets) > 1
	not dataset
	not no_models
}

obstacles contains sprintf("the policy's data names dataset %q, which is not configured", [setting.dataset]) if {
	count(input.datasets) > 0
	setting.dataset != ""
	not setting.dataset in input.datasets
	not no_models
}

# A chart, a signature, an image without models: nothing in it is a model, of any format that is known.
no_models if {
	count(input.models) == 0
	count(input.other_models) == 0
	input.problem == ""
}

# The clean dataset: the one that the settings name, the one named default, or the only one.
dataset := setting.dataset if {
	setting.dataset != ""
} else := "default" if {
	"default" in input.datasets
} else := input.datasets[0] if {
	count(input.datasets) == 1
}
