//go:build fixedsecret

package sanitize

import mathrand "math/rand/v2"

// secretIsFixed says in every report that the secret was not discarded: anybody can draw it again. What such a build sanitizes is never
// released.
const secretIsFixed = true

// secretSource gives the same secret every time, so that a run can be repeated byte by byte. Tests alone are built like this
// (go test -tags fixedsecret ./sanitize).
func secretSource() mathrand.Source { return mathrand.NewPCG(2022, 1) }
