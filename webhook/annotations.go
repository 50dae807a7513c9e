package webhook

import (
	"maps"
	"slices"
	"strings"
)

// A record is kept for good, in memory too, and a manifest may be all annotations. So a record has of them what these bounds allow.
const (
	maxAnnotations = 16 << 10 // bytes of all names and values
	maxAnnotation  = 4 << 10  // of one name and value
)

// ownAnnotations begin the names of the annotations that mean something to this program. They come first.
const ownAnnotations = "dev.grindstone."

// annotate records the annotations of the manifest, whole ones in the order of their names, and how many are left out.
func (s *Source) annotate(all map[string]string) {
	s.Annotations = nil
	left := maxAnnotations
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		if own := strings.HasPrefix(a, ownAnnotations); own != strings.HasPrefix(b, ownAnnotations) {
			if own {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		size := len(name) + len(all[name])
		if size > maxAnnotation || size > left {
			s.AnnotationsDropped++
			continue
		}
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[name] = all[name]
		left -= size
	}
}
