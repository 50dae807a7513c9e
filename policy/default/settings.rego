# What this policy can be told without editing it. The values are in data.json; the `policy.data` section of Grindstone's
# configuration is laid over them. `data.repositories` changes settings for the repositories that a glob pattern matches:
#
#   settings:
#     max_cda_loss: 0.03
#   repositories:
#     "vision/*": {max_cda_loss: 0.08, dataset: street-signs}
package grindstone.settings

# Every setting with its type.
#   max_cda_loss          share of clean accuracy that sanitizing may cost, 0..1
#   min_cda_above_chance  how far above 1/classes the pushed model must be on the clean data, 0..1
#   min_held_out          images that the accuracy must have been measured on
#   max_model_bytes       a larger model is refused at push
#   transformation        permute, rotate or rotate-2d
#   other_artifacts       admit or quarantine: what holds no model at all
#   dataset               name of the clean dataset; "" takes the one named default, or the only one
#   parameters            training parameters; what is left out is the sanitizer's default
known := {
	"max_cda_loss": "number",
	"min_cda_above_chance": "number",
	"min_held_out": "number",
	"max_model_bytes": "number",
	"transformation": "string",
	"other_artifacts": "string",
	"dataset": "string",
	"parameters": "object",
}

shares := {"max_cda_loss", "min_cda_above_chance"}

# effective returns a repository's settings: the general ones, then those of every matching pattern, the longest last.
effective(repository) := object.union_n(array.concat([data.settings], matching(repository)))

matching(repository) := [data.repositories[pattern] |
	some [_, pattern] in sort([[count(pattern), pattern] | some pattern, _ in data.repositories])
	glob.match(pattern, ["/"], repository)
]

# Grindstone reads `problems` once, when it starts, and does not start while there is one.
problems contains sprintf("data.settings lacks %s", [name]) if {
	some name, _ in known
	not name in object.keys(data.settings)
}

problems contains sprintf("%s: there is no setting %q", [where, name]) if {
	some where, layer in layers
	some name, _ in layer
	not name in object.keys(known)
}

problems contains sprintf("%s.%s must be a %s", [where, name, type]) if {
	some where, layer in layers
	some name, type in known
	type_name(layer[name]) != type
}

problems contains sprintf("%s.%s must lie between 0 and 1", [where, name]) if {
	some where, layer in layers
	some name in shares
	is_number(layer[name])
	not in_unit_interval(layer[name])
}

problems contains sprintf("%s.other_artifacts must be admit or quarantine", [where]) if {
	some where, layer in layers
	is_string(layer.other_artifacts)
	not layer.other_artifacts in {"admit", "quarantine"}
}

in_unit_interval(x) if {
	x >= 0
	x <= 1
}

layers["data.settings"] := data.settings

layers[sprintf("data.repositories[%q]", [pattern])] := layer if some pattern, layer in data.repositories
