package grindstone.admission_test

import data.grindstone.admission

push := {
	"repository": "vision/signs",
	"tag": "v1",
	"digest": "sha256:aa",
	"media_type": "application/vnd.oci.image.manifest.v1+json",
	"artifact_type": "",
	"identity": "",
	"size": 1000,
	"annotations": {},
	"models": [{"name": "model.onnx", "digest": "sha256:bb", "size": 900}],
	"other_models": [],
	"datasets": ["default"],
	"problem": "",
	"time": "2026-01-02T03:04:05Z",
}

with_changes(changes) := object.union(push, changes)

test_sanitizes_by_default if {
	d := admission.decision with input as push
	d.action == "sanitize"
	d.method == "feature-grinding"
	d.transformation == "permute"
	d.dataset == "default"
}

test_takes_the_only_dataset if {
	d := admission.decision with input as with_changes({"datasets": ["signs"]})
	d.dataset == "signs"
}

test_prefers_default if {
	d := admission.decision with input as with_changes({"datasets": ["digits", "default", "signs"]})
	d.dataset == "default"
}

test_ambiguous_datasets if {
	d := admission.decision with input as with_changes({"datasets": ["signs", "digits"]})
	d.action == "quarantine"
	contains(d.reasons[0], "digits, signs")
}

test_no_dataset_says_what_to_set if {
	d := admission.decision with input as with_changes({"datasets": []})
	d.action == "quarantine"
	contains(d.reasons[0], "serve --data PATH")
	contains(d.reasons[0], "datasets:")
}

test_what_holds_no_model_passes if {
	d := admission.decision with input as with_changes({"models": [], "datasets": []})
	d.action == "admit"
}

test_what_holds_no_model_is_kept_where_the_setting_says_so if {
	d := admission.decision with input as with_changes({"models": []})
		with data.repositories as {"vision/*": {"other_artifacts": "quarantine"}}
	d.action == "quarantine"
	contains(d.reasons[0], "no ONNX model")
}

test_models_of_other_formats_are_kept if {
	other := [{"name": "model.safetensors", "format": "safetensors"}]
	every models in [[], push.models] {
		d := admission.decision with input as with_changes({"models": models, "other_models": other})
		d.action == "quarantine"
		contains(d.reasons[0], "model.safetensors is a model in the format safetensors")
	}
}

test_problem_is_the_reason if {
	d := admission.decision with input as with_changes({"models": [], "problem": "layer 2 is not ONNX"})
	d == {"action": "quarantine", "reasons": ["layer 2 is not ONNX"]}
}

test_every_obstacle_is_named if {
	d := admission.decision with input as with_changes({"models": [], "problem": "unreadable", "datasets": []})
	count(d.reasons) == 2
}

test_too_large_is_denied if {
	d := admission.decision with input as with_changes({"models": [{"name": "big.onnx", "digest": "sha256:bb", "size": 2147483649}]})
	d.action == "deny"
	contains(d.reasons[0], "big.onnx")
}

test_repository_overrides if {
	d := admission.decision with input as with_changes({"datasets": ["signs", "digits"]})
		with data.repositories as {
			"vision/*": {"dataset": "digits", "transformation": "rotate", "parameters": {"epochs": 3, "batch": 64}},
			"vision/signs": {"dataset": "signs", "parameters": {"epochs": 9}},
			"other/*": {"transformation": "rotate-2d"},
		}
	d.dataset == "signs"
	d.transformation == "rotate"
	d.parameters == {"epochs": 9, "batch": 64}
}

test_unknown_dataset_setting if {
	d := admission.decision with input as push with data.settings.dataset as "sings"
	d.action == "quarantine"
	contains(d.reasons[0], "sings")
}
