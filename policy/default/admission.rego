# What happens to a pushed model. Grindstone asks for `decision` when a manifest has been stored in quarantine.
#
# Actions:
#   sanitize    grind it; needs method, transformation and one of input.datasets; parameters are optional
#   quarantine  keep it hidden until somebody acts; needs a reason
#   deny        answer the push with 403; needs a reason, which the pushing client prints
#   admit       release it as it is, not sanitized and without an attestation (this policy never does)
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

obstacles contains "the push holds no ONNX model: give a layer the title NAME.onnx (annotation org.opencontainers.image.title)" if {
	count(input.models) == 0
	input.problem == ""
}

obstacles contains "no clean dataset is configured: start with `serve --data PATH` or set `datasets:` in the configuration" if {
	count(input.datasets) == 0
}

obstacles contains sprintf("several datasets are configured (%s): name one `default`, or set `dataset` in the policy's data", [concat(", ", sort(input.datasets))]) if {
	count(input.datasets) > 1
	not dataset
}

obstacles contains sprintf("the policy's data names dataset %q, which is not configured", [setting.dataset]) if {
	count(input.datasets) > 0
	setting.dataset != ""
	not setting.dataset in input.datasets
}

# The clean dataset: the one that the settings name, the one named default, or the only one.
dataset := setting.dataset if {
	setting.dataset != ""
} else := "default" if {
	"default" in input.datasets
} else := input.datasets[0] if {
	count(input.datasets) == 1
}
