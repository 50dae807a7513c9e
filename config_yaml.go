package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder reads a YAML file field by field and collects every problem with its line.
type decoder struct {
	file  string
	lines map[string]int // where each field was set
	problems
}

// problem is one thing wrong with a configuration; line is 0 for a value that no file set.
type problem struct {
	file string
	line int
	text string
}

func (p problem) Error() string {
	if p.line == 0 {
		return p.text
	}
	return fmt.Sprintf("%s:%d: %s", p.file, p.line, p.text)
}

type problems []problem

// err joins the problems in the order of their lines, one line of text each.
func (ps problems) err() error {
	slices.SortStableFunc(ps, func(a, b problem) int { return cmp.Or(a.line-b.line, strings.Compare(a.text, b.text)) })
	var all []error
	for _, p := range ps {
		all = append(all, p)
	}
	return errors.Join(all...)
}

// fields maps the names that a mapping may hold to what reads their values.
type fields map[string]reader

// reader reads the value of the field named path.
type reader func(path string, n *yaml.Node)

func newDecoder(file string) *decoder { return &decoder{file: file, lines: map[string]int{}} }

func (d *decoder) bad(n *yaml.Node, format string, args ...any) {
	d.problems = append(d.problems, problem{d.file, n.Line, fmt.Sprintf(format, args...)})
}

var yamlLine = regexp.MustCompile(`^yaml: line ([0-9]+): `)

// document returns the file's one document, nil when it is empty.
func (d *decoder) document(data []byte) (*yaml.Node, error) {
	var root, more yaml.Node
	in := yaml.NewDecoder(bytes.NewReader(data))
	err := in.Decode(&root)
	if errors.Is(err, io.EOF) {
		return nil, nil // says nothing
	}
	if err == nil {
		if second := in.Decode(&more); second == nil {
			return nil, fmt.Errorf("%s:%d: a second document; the configuration is one", d.file, more.Line)
		} else if !errors.Is(second, io.EOF) {
			err = second
		}
	}
	if err != nil {
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			return nil, fmt.Errorf("%s:%s: %s", d.file, m[1], strings.TrimPrefix(err.Error(), m[0]))
		}
		return nil, fmt.Errorf("%s: %s", d.file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return root.Content[0], nil
}

// each calls f for every key of a mapping, once per key.
func (d *decoder) each(path string, n *yaml.Node, f func(path, key string, k, v *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // "section:" with nothing under it
	}
	if n.Kind != yaml.MappingNode {
		d.bad(n, "%s must be a mapping of fields", fieldName(path))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+k.Value, ".")
		if first, twice := seen[k.Value]; twice {
			d.bad(k, "%s is set twice, first in line %d", at, first)
			continue
		}
		seen[k.Value] = k.Line
		d.lines[at] = k.Line
		f(at, k.Value, k, v)
	}
}

func (d *decoder) object(path string, n *yaml.Node, known fields) {
	d.each(path, n, func(at, key string, k, v *yaml.Node) {
		if read, ok := known[key]; ok {
			read(at, v)
			return
		}
		d.bad(k, "unknown field %s; known are %s", at, strings.Join(sortedKeys(known), ", "))
	})
}

func (d *decoder) section(known fields) reader {
	return func(path string, n *yaml.Node) { d.object(path, n, known) }
}

// scalar reads a value that is no list and no mapping; null and what cannot be parsed leave the default.
func scalar[T any](d *decoder, what string, to *T, parse func(text string) (T, error)) reader {
	return func(path string, n *yaml.Node) {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		switch {
		case n.Kind != yaml.ScalarNode:
			d.bad(n, "%s must be %s", path, what)
		case n.Tag == "!!null":
		default:
			v, err := parse(n.Value)
			if err != nil {
				d.bad(n, "%s: %q is not %s", path, n.Value, what)
				return
			}
			*to = v
		}
	}
}

func (d *decoder) text(to *string) reader {
	return scalar(d, "a text", to, func(s string) (string, error) { return s, nil })
}

// path reads a path, relative to the file's folder.
func (d *decoder) path(to *string) reader {
	return scalar(d, "a path", to, func(s string) (string, error) {
		if s == "" || filepath.IsAbs(s) {
			return s, nil
		}
		return filepath.Join(filepath.Dir(d.file), s), nil
	})
}

func (d *decoder) number(to *int) reader { return scalar(d, "a whole number", to, strconv.Atoi) }

func (d *decoder) boolean(to *bool) reader { return scalar(d, "true or false", to, strconv.ParseBool) }

func (d *decoder) real(to *float64) reader {
	return scalar(d, "a number", to, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
}

func (d *decoder) duration(to *time.Duration) reader {
	return scalar(d, "a duration such as 90s, 30m or 2h", to, time.ParseDuration)
}

func (d *decoder) bytes(to *int64) reader {
	return scalar(d, "a size such as 512MiB or 8GiB", to, parseBytes)
}

func (d *decoder) texts(to *[]string) reader {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			d.bad(n, "%s must be a list", path)
			return
		}
		*to = make([]string, len(n.Content))
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.lines[at] = item.Line
			d.text(&(*to)[i])(at, item)
		}
	}
}

// list reads a list of mappings, whose fields known names.
func list[T any](d *decoder, to *[]T, known func(*T) fields) reader {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			d.bad(n, "%s must be a list", path)
			return
		}
		*to = make([]T, len(n.Content))
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.lines[at] = item.Line
			d.object(at, item, known(&(*to)[i]))
		}
	}
}

func (d *decoder) paths(to *map[string]string) reader {
	return func(path string, n *yaml.Node) {
		d.each(path, n, func(at, key string, _, v *yaml.Node) {
			var p string
			d.path(&p)(at, v)
			(*to)[key] = p
		})
	}
}

// named reads a mapping from names of the operator's choice to sections of the fields that known gives for each.
func (d *decoder) named(known func(name string) fields) reader {
	return func(path string, n *yaml.Node) {
		d.each(path, n, func(at, key string, _, v *yaml.Node) { d.object(at, v, known(key)) })
	}
}

// tree reads any mapping.
func (d *decoder) tree(to *map[string]any) reader {
	return func(path string, n *yaml.Node) {
		d.each(path, n, func(_, _ string, _, _ *yaml.Node) {})
		if n.Kind == yaml.MappingNode {
			if err := n.Decode(to); err != nil {
				d.bad(n, "%s: %v", path, err)
			}
		}
	}
}

var byteSize = regexp.MustCompile(`^([0-9]+) ?(B|KiB|MiB|GiB|TiB|)$`)

// parseBytes reads a size in binary units.
func parseBytes(s string) (int64, error) {
	m := byteSize.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("no size")
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	shift := map[string]uint{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[m[2]]
	if err != nil || n > 1<<62>>shift {
		return 0, errors.New("too large")
	}
	return n << shift, nil
}

// formatBytes writes a size in the largest binary unit that divides it.
func formatBytes(n int64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n%1024 != 0 || n == 0 {
			return fmt.Sprintf("%d%s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%dTiB", n)
}

func fieldName(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

func sortedKeys(f fields) []string {
	keys := make([]string, 0, len(f))
	for k := range f {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
