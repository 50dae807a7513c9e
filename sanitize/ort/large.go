package ort

import (
	"os"

	"grindstone/sanitize/onnx"
)

// NewModelSession prepares a model. One that is too large for a single message goes through files in the folder for temporary ones, which
// are gone when it returns. Errors: those of NewSession, of serializing and of writing.
func NewModelSession(m *onnx.Model, opt Options) (*Session, error) {
	if m.Graph == nil || m.FitsMessage() {
		raw, err := m.Marshal()
		if err != nil {
			return nil, err
		}
		return NewSession(raw, opt)
	}
	dir, err := os.MkdirTemp("", "grindstone-model-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, err := m.WriteOutside(dir)
	if err != nil {
		return nil, err
	}
	return NewSessionFile(path, opt)
}
