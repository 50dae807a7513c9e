// Package integration tests the program as a whole: it builds it, runs it as processes of its own, and speaks to it as its users do, by HTTP,
// by the clients of registries and by its own commands. There are tests here and nothing else. Each starts what it needs on free ports of the
// loopback interface, and is skipped, saying why, where something is absent.
//
// `go test ./integration` runs, in some minutes, what needs no program of other people:
//
//   - a backdoored model, and others' classifiers, from push to release; the demo
//   - every command and route, logins and TLS, upstream registries, workers apart from the server, events of registries and of the Hugging Face Hub
//   - models in every packaging, and pushes and requests that are malformed, too large or too slow
//
// -short leaves out what takes minutes. The other suites are targets of the Makefile, which get what they need:
//
//   - make test-clients: push, pull and verify with the real clients, and the commands of the README (clients*_test.go)
//   - make test-conformance: the OCI distribution-spec's conformance suite (conformance_test.go)
//   - make test-mlflow: a real MLflow (mlflow_test.go)
//   - make test-faults: processes killed, disks filled, clocks set and files damaged under a stream of pushes (faults*_test.go); -faults tells how
//     many processes are killed, -seed draws the plan by which they are
package integration
