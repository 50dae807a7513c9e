// Package webhook is the server: it joins the registry, the policy, the sanitizer and the attestation.
//
// One admission record carries a pushed model through the pipeline:
//
//	quarantined -> deciding -> sanitizing -> evaluating -> attesting -> releasing -> released
//	                   \            \             \            \
//	                   denied        `------------ held -------'
//
// Every state has one step file (step_*.go) that does the state's work and names the state that follows. The record is on disk
// before a state begins, and every step may be repeated, so a server that was killed anywhere goes on from there at its next
// start. Interruption is not failure: only a step that finished with a verdict leaves the path, with a [Reason].
//
// Sanitizing is a job of package queue: a [Worker] of this process or of another machine does it. Operators decide about what is held
// ([Pipeline.Operate]), targets are told of every end ([Target]), and registries that cannot be fronted tell of pushes ([EventSource]).
package webhook
