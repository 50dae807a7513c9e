//go:build !fixedsecret

package sanitize

import (
	"crypto/rand"
	"encoding/binary"
	mathrand "math/rand/v2"
)

// secretIsFixed: see secret_fixed.go.
const secretIsFixed = false

// secretSource is the operating system's cryptographic source.
func secretSource() mathrand.Source { return osSource{} }

// osSource feeds math/rand's distributions.
type osSource struct{}

func (osSource) Uint64() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails: the runtime aborts the process if the system has no randomness
	return binary.LittleEndian.Uint64(b[:])
}
