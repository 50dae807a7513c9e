package registry

import (
	"encoding/json"
	"fmt"
	"strings"
)

// span is the place of a JSON value in a document: document[start:end]. The functions below walk documents that
// json.Valid accepts; they exist because a released manifest must keep every byte that is not replaced.
type span struct{ start, end int }

func (s span) of(doc []byte) []byte { return doc[s.start:s.end] }

// member is a name and a value of a JSON object.
type member struct {
	name  string
	value span
}

// members returns the members of the object at s in their order, nil if there is no object.
func members(doc []byte, s span) []member {
	if doc[s.start] != '{' {
		return nil
	}
	var ms []member
	for i := skipSpace(doc, s.start+1); doc[i] != '}'; {
		var m member
		end := skipValue(doc, i)
		if err := json.Unmarshal(doc[i:end], &m.name); err != nil {
			return nil // unreachable in a valid document
		}
		i = skipSpace(doc, skipSpace(doc, end)+1) // the colon
		m.value = span{i, skipValue(doc, i)}
		ms = append(ms, m)
		if i = skipSpace(doc, m.value.end); doc[i] == ',' {
			i = skipSpace(doc, i+1)
		}
	}
	return ms
}

// elements returns the values of the array at s, nil if there is no array.
func elements(doc []byte, s span) []span {
	if doc[s.start] != '[' {
		return nil
	}
	var es []span
	for i := skipSpace(doc, s.start+1); doc[i] != ']'; {
		e := span{i, skipValue(doc, i)}
		es = append(es, e)
		if i = skipSpace(doc, e.end); doc[i] == ',' {
			i = skipSpace(doc, i+1)
		}
	}
	return es
}

// lookup returns the value of the member with that name.
func lookup(ms []member, name string) (span, bool) {
	for _, m := range ms {
		if m.name == name {
			return m.value, true
		}
	}
	return span{}, false
}

// root returns the place of the document's value without the white space around it.
func root(doc []byte) span {
	start := skipSpace(doc, 0)
	return span{start, skipValue(doc, start)}
}

// skipSpace returns the first index from i on that is not white space.
func skipSpace(doc []byte, i int) int {
	for i < len(doc) && strings.IndexByte(" \t\r\n", doc[i]) >= 0 {
		i++
	}
	return i
}

// skipValue returns the index after the value that starts at i.
func skipValue(doc []byte, i int) int {
	depth := 0
	for ; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			for i++; doc[i] != '"'; i++ {
				if doc[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		case ',', ':', ' ', '\t', '\r', '\n':
			continue
		default: // a number, true, false or null
			for i+1 < len(doc) && strings.IndexByte(",]} \t\r\n", doc[i+1]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
	return i
}

// unambiguous reports member names that different JSON readers understand differently: repeated ones, and ones that
// differ from a known name in case only, which encoding/json takes for the known name and other readers do not.
func unambiguous(ms []member, known ...string) error {
	seen := make(map[string]bool, len(ms))
	for _, m := range ms {
		if seen[m.name] {
			return fmt.Errorf("member %q occurs twice", m.name)
		}
		seen[m.name] = true
		for _, k := range known {
			if m.name != k && strings.EqualFold(m.name, k) {
				return fmt.Errorf("member %q must be spelled %q", m.name, k)
			}
		}
	}
	return nil
}
