package registry

import "context"

// Admitter decides about pushes to intercepted repositories. Its methods are called from many requests at once.
type Admitter interface {
	// Admit is called when a package has been stored durably in quarantine and before the client is answered.
	// It is called again with the same Push when a client repeats a push, so it must be idempotent.
	//
	// A nil *Denial and a nil error acknowledge the push (201). A *Denial refuses it (403 DENIED). An error means
	// that nothing could be decided (503); a package that was not acknowledged before is then taken out of quarantine.
	Admit(ctx context.Context, p Push) (*Denial, error)

	// Status tells why a reference is not visible: a tag, or the digest of a manifest or a blob. The second result is false when the
	// admitter knows nothing of it.
	Status(repository, reference string) (Status, bool)
}

// Push describes a package that was pushed to an intercepted repository.
type Push struct {
	Repository   string            // e.g. "models/resnet"
	Tag          string            // "" for a push by digest
	Digest       string            // of the manifest, as answered to the client
	MediaType    string            // of the manifest
	ArtifactType string            // as in referrers: artifactType, else the config's media type
	Identity     string            // who pushes, as given with WithIdentity; "" if unknown
	Size         int64             // bytes of the manifest and all that it refers to
	Annotations  map[string]string // of the manifest
	Blobs        []string          // digests of all content: config and layers, or an index's manifests
	Subject      string            // digest of the package that this one is attached to; "" if there is none
	Models       []File            // the files that are ONNX models, in the order of the manifest
	OtherModels  []OtherModel      // models of other formats, which cannot be sanitized: at most one of each layer
	Problem      string            // why the models of this package could not be found, or not all of them; "" if they were, or there are none
}

// File is a file of a package: a layer, or in a layer that is a tar archive.
type File struct {
	Name      string // relative path with forward slashes: the title of the layer, or the name in the archive
	Digest    string // of the file
	MediaType string // of the layer
	Size      int64  // bytes
	SHA256    string // hex, of a model whose Digest is another one; else ""
}

// Denial refuses a push.
type Denial struct {
	ID      string   // of the admission; shown to the client if not empty
	Reasons []string // shown to the client, one OCI error each
}

// Status is what a client is told about a reference that it cannot see.
type Status struct {
	ID     string // of the admission
	State  string // e.g. "quarantined", "sanitizing", "denied"
	Reason string // optional, one sentence
}

type identityKey struct{}

// WithIdentity returns a context that names who makes a request. The gateway authenticates nobody: a handler in
// front of it does and passes the result on with this function.
func WithIdentity(ctx context.Context, identity string) context.Context {
	return context.WithValue(ctx, identityKey{}, identity)
}

// Identity returns who makes a request, "" if nobody said.
func Identity(ctx context.Context) string {
	s, _ := ctx.Value(identityKey{}).(string)
	return s
}
