# Whether a sanitized model may leave quarantine. Grindstone asks for `decision` when the sanitizer has written its report.
# Only {"release": true} without a reason and with every claim passed releases; the claims become part of the attestation.
#
# METADATA
# scope: package
# schemas:
#   - input: schema.release
package grindstone.release

import data.grindstone.settings

decision := {"release": false, "reasons": sort(incomplete | mismatches), "claims": []} if {
	count(incomplete) > 0
} else := {"release": count(reasons) == 0, "reasons": sort(reasons), "claims": claims} if {
	reasons := mismatches | failures
}

report := input.report

limit := settings.effective(input.admission.repository)

# The report has to be whole before anything in it can be believed.
required := {
	"source.sha256": "string", "sanitized.sha256": "string",
	"dataset.digest": "string", "dataset.classes": "number",
	"before.cda.value": "number", "before.cda.low": "number", "before.cda.count": "number",
	"after.cda.value": "number", "after.cda.count": "number",
	"runtime.engine": "string", "runtime.version": "string", "runtime.provider": "string",
	"started_at": "string", "finished_at": "string",
}

incomplete contains sprintf("the report lacks %s", [path]) if {
	some path, type in required
	value := object.get(report, split(path, "."), null)
	not present(value, type)
}

incomplete contains sprintf("the report has schema version %v; this policy reads 1.0", [object.get(report, "schema_version", "none")]) if {
	not report.schema_version == "1.0"
}

incomplete contains "the dataset has fewer than two classes" if report.dataset.classes < 2

present(value, type) if {
	type_name(value) == type
	value != ""
}

# The report has to be about this model and this decision.
mismatches contains "the transformation's secret was not discarded" if not report.secret_discarded == true

mismatches contains sprintf("the report is about %v, the decision about %v", [object.get(report, field, "nothing"), input.decision[field]]) if {
	some field in {"method", "transformation"}
	not report[field] == input.decision[field]
}

mismatches contains "the report's source is none of the pushed models" if not source_was_pushed

mismatches contains "the sanitized model is the pushed model, unchanged" if not changed

mismatches contains sprintf("the report lacks a %s phase", [name]) if {
	some name in {"grind", "restore"}
	not name in {phase.name | some phase in report.phases}
}

changed if report.sanitized.sha256 != report.source.sha256

changed if { # a model may have all its weights in external data
	some file in object.get(report, "external_data", [])
	file.sanitized_sha256 != file.source_sha256
}

source_was_pushed if {
	some m in input.admission.models
	trim_prefix(m.digest, "sha256:") == report.source.sha256
}

# What the numbers have to satisfy. CDA: accuracy on held-out clean images; low: the lower end of its 95 % interval.
claims := [
	claim("cda_loss", "<=", limit.max_cda_loss, report.before.cda.value - report.after.cda.value),
	claim("cda_before_low", ">=", (1 / report.dataset.classes) + limit.min_cda_above_chance, report.before.cda.low),
	claim("held_out_images", ">=", limit.min_held_out, min([report.before.cda.count, report.after.cda.count])),
]

explanation := {
	"cda_loss": "accuracy on the clean images fell by %s; at most %s is allowed (max_cda_loss)",
	"cda_before_low": "the pushed model is near chance on the clean images (at least %s, needed %s): the dataset or the preprocessing does not fit the model",
	"held_out_images": "accuracy was measured on %s images; at least %s are needed (min_held_out)",
}

failures contains sprintf(explanation[c.metric], [c.value, c.threshold]) if {
	some c in claims
	not c.passed
}

claim(metric, comparator, threshold, value) := {
	"metric": metric,
	"comparator": comparator,
	"threshold": sprintf("%v", [rounded(threshold)]),
	"value": sprintf("%v", [rounded(value)]),
	"passed": holds(comparator, rounded(value), rounded(threshold)),
}

holds("<=", value, threshold) := value <= threshold

holds(">=", value, threshold) := value >= threshold

# Six decimals: 0.95 - 0.9 is 0.05 and not a little more.
rounded(x) := round(x * 1000000) / 1000000
