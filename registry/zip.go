package registry

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A zip archive is read from its end: the last record says where the directory is. Bytes may stand before the archive, so that a program can be one,
// and what follows the record is a comment.

const (
	zipEndLen   = 22 // bytes of the end record without its comment
	zip64EndLen = 56 // bytes of its second form, for large archives, and of what points to that:
	zip64Len    = 20
	zipEntryLen = 46 // of an entry in the directory without its name

	maxZipDirectory = maxEntries << 9 // bytes; it is read into memory
)

var errZip = errArchive("it is damaged, or parts of it are not where programs look for them: pack it anew, as a tar")

// zipDirectory is where the directory of a zip archive is, and of how many entries it says that it is.
type zipDirectory struct{ offset, size, entries uint64 }

// findZip finds the directory of a zip archive. It reports false for what is none, and fails with an errArchive if programs could look for the
// directory in another place.
func findZip(r io.ReaderAt, size int64) (zipDirectory, bool, error) {
	tail := make([]byte, min(size, zipEndLen+1<<16))
	if _, err := io.ReadFull(io.NewSectionReader(r, size-int64(len(tail)), size), tail); err != nil {
		return zipDirectory{}, false, err
	}
	begins := hasAt(r, 0, "PK\x03\x04")
	at := bytes.LastIndex(tail[:max(0, len(tail)-zipEndLen+4)], []byte("PK\x05\x06"))
	if at < 0 {
		if begins { // who reads from the front finds something
			return zipDirectory{}, true, errZip
		}
		return zipDirectory{}, false, nil
	}
	record, end := tail[at:], uint64(size)-uint64(len(tail)-at)
	le := binary.LittleEndian
	d := zipDirectory{uint64(le.Uint32(record[16:])), uint64(le.Uint32(record[12:])), uint64(le.Uint16(record[10:]))}
	large := end >= zip64Len+zip64EndLen && hasAt(r, int64(end-zip64Len), "PK\x06\x07")
	if !begins && !large && (d.size > end || !hasAt(r, int64(end-d.size), "PK\x01\x02")) {
		return zipDirectory{}, false, nil // bytes that look like an end record
	}
	if large {
		short := d
		end -= zip64Len + zip64EndLen
		record64 := make([]byte, zip64EndLen)
		if _, err := r.ReadAt(record64, int64(end)); err != nil {
			return zipDirectory{}, true, err
		}
		d = zipDirectory{le.Uint64(record64[48:]), le.Uint64(record64[40:]), le.Uint64(record64[32:])}
		agrees := func(short, full, unset uint64) bool { return short == full || short == unset }
		if string(record64[:4]) != "PK\x06\x06" || !agrees(short.offset, d.offset, 1<<32-1) || !agrees(short.size, d.size, 1<<32-1) || !agrees(short.entries, d.entries, 1<<16-1) {
			return zipDirectory{}, true, errZip
		}
	}
	comment := int(le.Uint16(record[20:]))
	if d.size > end || d.offset != end-d.size || len(record) != zipEndLen+comment {
		return zipDirectory{}, true, errZip
	}
	return d, true, nil
}

// check sees to it that a directory is as long as it says, before all of it is read into memory.
func (d zipDirectory) check(r io.ReaderAt) error {
	if d.entries > maxEntries {
		return errEntries
	}
	if d.size > maxZipDirectory {
		return errArchive("its directory is larger than 64 MiB: pack it into several archives")
	}
	entries := bufio.NewReader(io.NewSectionReader(r, int64(d.offset), int64(d.size)))
	for range d.entries {
		head, err := entries.Peek(zipEntryLen)
		if err != nil || string(head[:4]) != "PK\x01\x02" {
			return errZip
		}
		length := zipEntryLen
		for _, at := range []int{28, 30, 32} { // name, extra field, comment
			length += int(binary.LittleEndian.Uint16(head[at:]))
		}
		if _, err := entries.Discard(length); err != nil {
			return errZip
		}
	}
	if _, err := entries.Peek(1); !errors.Is(err, io.EOF) {
		return errZip
	}
	return nil
}

func hasAt(r io.ReaderAt, offset int64, magic string) bool {
	p := make([]byte, len(magic))
	n, _ := r.ReadAt(p, offset)
	return string(p[:n]) == magic
}

// inspectZip looks at every file of a zip archive, whatever its name and attributes say that it is.
func inspectZip(r io.ReaderAt, size int64, d zipDirectory, budget *int64) (finding, error) {
	if err := d.check(r); err != nil {
		return finding{}, err
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return finding{}, errZip
	}
	var all finding
	for _, f := range z.File {
		if f.Flags&1 != 0 {
			return all, errArchive(fmt.Sprintf("%.200q in it is encrypted", f.Name))
		}
		content, err := f.Open()
		if err != nil {
			return all, errArchive(fmt.Sprintf("%.200q in it cannot be read (%v): pack it anew, as a tar", f.Name, err))
		}
		limited := &io.LimitedReader{R: content, N: *budget}
		err = all.add(f.Name, limited)
		content.Close()
		if *budget = limited.N; *budget <= 0 {
			return all, errTooLarge
		}
		if err != nil {
			return all, errArchive(fmt.Sprintf("%.200q in it cannot be read (%v): pack it anew, as a tar", f.Name, err))
		}
	}
	return all, nil
}
