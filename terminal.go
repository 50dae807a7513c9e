package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// visible writes text as a terminal may show it: of what it would obey, or show as something else, the code, as JSON has it. Names, reasons and errors have
// words of pushers and registries. JSON means the same afterwards.
type visible struct {
	w    io.Writer
	rest []byte // of a character whose end has not come yet
}

func (v *visible) Write(p []byte) (int, error) {
	text := append(v.rest, p...)
	end := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if at := len(text) - back; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				end = at
			}
			break
		}
	}
	v.rest = append([]byte(nil), text[end:]...)
	if _, err := io.WriteString(v.w, codes(string(text[:end]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// codes replaces every character that is neither printed nor the end of a line or cell.
func codes(text string) string {
	text = strings.ToValidUTF8(text, "\ufffd") // a byte may be a code of its own
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !hidden(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }
