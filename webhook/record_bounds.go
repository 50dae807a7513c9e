package webhook

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A record is kept for good, in memory too, and a manifest may be all annotations, or one title. So a record has of a pusher's words what these bounds allow.
const (
	maxAnnotations = 16 << 10 // bytes of all names and values
	maxAnnotation  = 4 << 10  // of one name and value

	maxType    = 255  // runes of a media type, as RFC 6838 has it
	maxName    = 1024 // of the name of a model of another format
	maxOthers  = 64   // models of other formats
	maxFiles   = 1024 // ONNX files, one model under several names among them: the attestation names each
	maxProblem = 2000 // runes
)

// bound cuts what is too long, to what no whole text of its kind is, and what terminals obey. What is left out of the other models is a problem: a policy may
// ask for every one of them.
func (s *Source) bound() {
	s.MediaType, s.ArtifactType = printable(s.MediaType, maxType), printable(s.ArtifactType, maxType)
	problem := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !strings.Contains(s.Problem, text) { // as it does in a record that is read
			s.Problem = strings.TrimPrefix(s.Problem+"; "+text, "; ")
		}
	}
	s.Problem = printable(s.Problem, maxProblem)
	if n := len(s.Models); n > maxFiles {
		problem("it holds %d ONNX files; no more than %d are taken in one package", n, maxFiles)
	}
	if n := len(s.OtherModels); n > maxOthers {
		problem("it holds %d models of other formats than ONNX, of which only %d are told", n, maxOthers)
		s.OtherModels = slices.Clone(s.OtherModels[:maxOthers])
	}
	for i, m := range s.OtherModels {
		s.OtherModels[i].Name = printable(m.Name, maxName)
	}
}

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
