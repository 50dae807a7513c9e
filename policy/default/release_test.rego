package grindstone.release_test

import data.grindstone.release

rate(value, low) := {"value": value, "hits": round(value * 1000), "count": 1000, "low": low, "high": value}

report := {
	"schema_version": "1.0",
	"method": "feature-grinding",
	"transformation": "permute",
	"source": {"name": "model.onnx", "sha256": "bb", "size": 900},
	"sanitized": {"name": "model.onnx", "sha256": "cc", "size": 900},
	"dataset": {"name": "default", "digest": "sha256:dd", "classes": 10, "train": 4000, "held_out": 1000},
	"before": {"cda": rate(0.95, 0.935)},
	"after": {"cda": rate(0.9, 0.88)},
	"phases": [{"name": "grind"}, {"name": "restore"}],
	"runtime": {"engine": "onnxruntime", "version": "1.27.0", "provider": "CPUExecutionProvider", "device": "cpu", "threads": 2},
	"started_at": "2026-01-02T03:04:05Z",
	"finished_at": "2026-01-02T03:09:05Z",
	"secret_discarded": true,
}

question(changes) := {
	"admission": {"repository": "vision/signs", "models": [{"name": "model.onnx", "digest": "sha256:bb", "size": 900}]},
	"decision": {"action": "sanitize", "method": "feature-grinding", "transformation": "permute"},
	"report": object.union(report, changes),
}

decide(changes) := d if {
	d := release.decision with input as question(changes)
}

refused_for(changes, words) if {
	d := decide(changes)
	d.release == false
	some reason in d.reasons
	contains(reason, words)
}

test_releases_at_the_threshold if {
	d := decide({})
	d.release == true
	d.reasons == []
	{c.metric: c.value | some c in d.claims} == {"cda_loss": "0.05", "cda_before_low": "0.935", "held_out_images": "1000"}
	every c in d.claims { c.passed }
}

test_loss if refused_for({"after": {"cda": rate(0.899, 0.88)}}, "at most 0.05 is allowed")

test_gain_is_no_loss if decide({"after": {"cda": rate(0.97, 0.95)}}).release

test_chance if refused_for({"before": {"cda": rate(0.12, 0.1)}, "after": {"cda": rate(0.12, 0.1)}}, "near chance")

test_few_images if refused_for({"after": {"cda": {"value": 0.95, "hits": 19, "count": 20, "low": 0.7, "high": 0.99}}}, "measured on 20 images")

test_secret if refused_for({"secret_discarded": false}, "secret")

test_secret_of_wrong_type if refused_for({"secret_discarded": "true"}, "secret")

test_report_of_other_transformation if refused_for({"transformation": "rotate"}, "about rotate, the decision about permute")

test_report_of_other_model if refused_for({"source": {"sha256": "ee"}}, "none of the pushed models")

test_unchanged_model if refused_for({"sanitized": {"sha256": "bb"}}, "unchanged")

data_file(sanitized) := {"name": "weights.bin", "size": 900, "source_sha256": "ff", "sanitized_sha256": sanitized}

test_unchanged_external_data if refused_for({"sanitized": {"sha256": "bb"}, "external_data": [data_file("ff")]}, "unchanged")

test_changed_external_data if decide({"sanitized": {"sha256": "bb"}, "external_data": [data_file("ff"), data_file("ee")]}).release

test_phase if refused_for({"phases": [{"name": "grind"}]}, "restore phase")

test_schema_version if refused_for({"schema_version": "2.0"}, "schema version 2.0")

test_one_class if refused_for({"dataset": {"classes": 1}}, "two classes")

test_all_reasons if {
	d := decide({"after": {"cda": rate(0.5, 0.4)}, "before": {"cda": rate(0.12, 0.1)}, "secret_discarded": false, "phases": []})
	count(d.reasons) == 4
}

test_incomplete[path] if {
	some path, _ in release.required
	q := json.patch(question({}), [{"op": "remove", "path": concat("/", array.concat(["report"], split(path, ".")))}])
	d := release.decision with input as q
	d.release == false
	sprintf("the report lacks %s", [path]) in d.reasons
}

test_every_required_field_was_tried if {
	count({path | some path; test_incomplete[path]}) == count(release.required)
}

test_empty_report if {
	d := release.decision with input as json.patch(question({}), [{"op": "replace", "path": "/report", "value": {}}])
	d.release == false
	count(d.reasons) > count(release.required)
}

test_repository_override if {
	d := release.decision with input as question({"after": {"cda": rate(0.86, 0.84)}})
		with data.repositories as {"vision/*": {"max_cda_loss": 0.1}}
	d.release == true
	some c in d.claims
	c.metric == "cda_loss"
	c.threshold == "0.1"
}
