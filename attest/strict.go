package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

const maxDepth = 32

// unmarshalStrict decodes one JSON value into out. Unlike json.Unmarshal it refuses unknown names, names in another case,
// repeated names, null, nesting beyond maxDepth, and anything after the value: two readers of a signed text must read the same.
func unmarshalStrict(data []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := walk(d, reflect.TypeOf(out).Elem(), "", 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the JSON value")
	}
	return json.Unmarshal(data, out)
}

// walk reads one value and holds its names against a type; types other than structs, slices and maps only count names.
func walk(d *json.Decoder, typ reflect.Type, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s is nested deeper than %d", path, maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch token {
	case nil:
		return fmt.Errorf("%s is null", path)
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			if err := walk(d, element(typ), fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			at := strings.TrimPrefix(path+"."+name, ".")
			if seen[name] {
				return fmt.Errorf("%s is given twice", at)
			}
			seen[name] = true
			below, known := member(typ, name)
			if !known {
				return fmt.Errorf("%s is no known field", at)
			}
			if err := walk(d, below, at, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}

var anything = reflect.TypeFor[any]()

func element(typ reflect.Type) reflect.Type {
	if typ.Kind() == reflect.Slice && typ != reflect.TypeFor[json.RawMessage]() {
		return typ.Elem()
	}
	return anything
}

func member(typ reflect.Type, name string) (reflect.Type, bool) {
	switch typ.Kind() {
	case reflect.Struct:
		for i := range typ.NumField() {
			if tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); tag == name {
				return typ.Field(i).Type, true
			}
		}
		return nil, false
	case reflect.Map:
		return typ.Elem(), true
	default:
		return anything, true
	}
}
