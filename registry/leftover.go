package registry

import "strings"

// IsLeftover reports whether a file of a store, by its name, is one that is still being written or whose writing was cut off. The
// next New removes those.
func IsLeftover(name string) bool {
	return strings.HasPrefix(name, "index.json.") || strings.HasPrefix(name, temporary)
}
