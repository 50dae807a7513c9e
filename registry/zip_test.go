package registry

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"strings"
	"testing"
)

// zip64Of turns a zip archive into one with the records of large archives.
func zip64Of(z []byte) []byte {
	end := len(z) - zipEndLen
	le := binary.LittleEndian
	record, locator := make([]byte, zip64EndLen), make([]byte, zip64Len)
	copy(record, "PK\x06\x06")
	le.PutUint64(record[4:], zip64EndLen-12)
	le.PutUint64(record[24:], uint64(le.Uint16(z[end+8:])))
	le.PutUint64(record[32:], uint64(le.Uint16(z[end+10:])))
	le.PutUint64(record[40:], uint64(le.Uint32(z[end+12:])))
	le.PutUint64(record[48:], uint64(le.Uint32(z[end+16:])))
	copy(locator, "PK\x06\x07")
	le.PutUint64(locator[8:], uint64(end))
	le.PutUint32(locator[16:], 1)
	last := bytes.Clone(z[end:])
	copy(last[8:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
	return concat(z[:end], record, locator, last)
}

// A zip archive is looked through wherever programs find one; where they could find two, or a file cannot be read, it is held.
func TestUnclearZips(t *testing.T) {
	onnx := model("zipped")
	plainZip := zipOf(t, "data/0", onnx)
	text := zipOf(t, "data/0", bytes.Repeat([]byte("some text\n"), 300))
	change := func(z []byte, signature string, offset int, bytes string) []byte {
		z = concat(z)
		copy(z[strings.LastIndex(string(z), signature)+offset:], bytes)
		return z
	}
	folder := change(change(plainZip, "PK\x01\x02", 38, "\x10\x00\x00\x00"), "PK\x01\x02", 5, "\x00") // by the attributes of MS-DOS
	moved := func(z []byte, by uint32) []byte {                                                       // behind a program that knows of the archive
		z = bytes.Clone(z)
		for _, at := range []int{len(z) - zipEndLen + 16, strings.LastIndex(string(z), "PK\x01\x02") + 42} {
			binary.LittleEndian.PutUint32(z[at:], binary.LittleEndian.Uint32(z[at:])+by)
		}
		return concat(make([]byte, by), z)
	}
	twoDirectories := func() []byte { // one where the end record says, one before it
		hidden := plainZip[bytes.Index(plainZip, []byte("PK\x01\x02")) : len(plainZip)-zipEndLen]
		return concat(text[:len(text)-zipEndLen], hidden, text[len(text)-zipEndLen:])
	}
	for name, c := range map[string]struct {
		layer   []byte
		inside  string // the model, or else
		problem string // "" is none
	}{
		"plain":                     {plainZip, "data/0", ""},
		"large":                     {zip64Of(plainZip), "data/0", ""},
		"large, without":            {zip64Of(text), "", ""},
		"a folder by attributes":    {folder, "data/0", ""},
		"behind a program":          {moved(plainZip, 700), "data/0", ""},
		"behind a program, without": {moved(text, 700), "", ""},
		"behind other bytes":        {append([]byte("#!x\n"), plainZip...), "", "not where programs look"},
		"before other bytes":        {append(bytes.Clone(plainZip), 0), "", "not where programs look"},
		"two directories":           {twoDirectories(), "", "not where programs look"},
		"without an end":            {plainZip[:len(plainZip)-zipEndLen], "", "not where programs look"},
		"two numbers of entries":    {change(zip64Of(plainZip), "PK\x05\x06", 10, "\x02\x00"), "", "not where programs look"},
		"unknown method":            {change(plainZip, "PK\x01\x02", 10, "\x0c\x00"), "", "unsupported compression"},
		"encrypted":                 {change(plainZip, "PK\x01\x02", 8, "\x01"), "", "encrypted"},
		"wrong checksum":            {change(text, "PK\x01\x02", 16, "\x01\x02\x03\x04"), "", "checksum"},
	} {
		found, err := inspectLayer(t, c.layer)
		if found.inside != c.inside || (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %+v, %v, want %q %q", name, found, err, c.inside, c.problem)
		}
	}
}

// The directory of a zip archive is not read into memory before it is known how long it is.
func TestZipEntries(t *testing.T) {
	le := binary.LittleEndian
	many := func(entries int, says uint16, name string) []byte {
		entry := make([]byte, zipEntryLen, zipEntryLen+len(name))
		copy(entry, "PK\x01\x02")
		le.PutUint16(entry[28:], uint16(len(name)))
		directory := bytes.Repeat(append(entry, name...), entries)
		first, end := append([]byte("PK\x03\x04"), make([]byte, 26)...), append([]byte("PK\x05\x06"), make([]byte, 18)...)
		le.PutUint16(end[10:], says)
		le.PutUint32(end[12:], uint32(len(directory)))
		le.PutUint32(end[16:], uint32(len(first)))
		return concat(first, directory, end)
	}
	large := func(entries int) []byte {
		z := zip64Of(many(entries, 0, "a/"))
		le.PutUint64(z[len(z)-zipEndLen-zip64Len-zip64EndLen+32:], uint64(entries))
		return z
	}
	for name, c := range map[string]struct {
		layer   []byte
		problem string
	}{
		"as many as there may be":    {large(maxEntries), ""},
		"one more":                   {large(maxEntries + 1), "more than 131072 entries"},
		"many, and it says fewer":    {many(1<<20, 0, "a/"), "not where programs look"},
		"many, modulo 65536":         {many(1<<16+1, 1, "a/"), "not where programs look"},
		"fewer than it says":         {many(1, 1<<16-1, "a/"), "not where programs look"},
		"names that are very long":   {many(1100, 1100, strings.Repeat("a", 1<<16-1)), "larger than 64 MiB"},
		"a few, of names not so big": {many(11, 11, strings.Repeat("a", 1<<10)+"/"), ""},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := inspectLayer(t, c.layer)
		runtime.ReadMemStats(&after)
		if (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %v, want %q", name, err, c.problem)
		}
		if took := after.TotalAlloc - before.TotalAlloc; c.problem != "" && took > 8<<20 {
			t.Errorf("%s: it took %d MiB", name, took>>20)
		}
	}
}

// FuzzFindZip: where a directory is found, archive/zip finds the same number of files in it, or fails.
func FuzzFindZip(f *testing.F) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range []string{"a", "b/c"} {
		file, err := w.Create(name)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := io.WriteString(file, "content"); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(zip64Of(b.Bytes()))
	f.Add(append([]byte("#!x\n"), b.Bytes()...))
	f.Fuzz(func(t *testing.T, content []byte) {
		r := bytes.NewReader(content)
		directory, found, err := findZip(r, r.Size())
		if err != nil || !found || directory.check(r) != nil {
			return
		}
		if z, err := zip.NewReader(r, r.Size()); err == nil && uint64(len(z.File)) != directory.entries {
			t.Fatalf("%d files, the directory has %d", len(z.File), directory.entries)
		}
	})
}
