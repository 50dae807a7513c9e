package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A tar archive is read by many programs, which differ in what they make of odd headers: one goes by the type of an entry, another by its mode, a
// third reads on behind the end. What they could read in two ways is refused here, so that the files that are looked at are those that are extracted.

const tarBlock = 512 // bytes; an archive is made of them

// isTar reports whether a block is the header of an entry: by its checksum, for the oldest format has no magic number, or by the magic number,
// for readers that look for the next header that is right.
func isTar(block []byte) bool {
	if len(block) < tarBlock {
		return false
	}
	var unsigned, signed int64
	for i, b := range block[:tarBlock] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		unsigned += int64(b)
		signed += int64(int8(b))
	}
	field := block[148:156]
	sum, err := strconv.ParseInt(strings.Trim(string(field), " \x00"), 8, 64)
	if field[0]&0x80 != 0 { // a binary number
		sum, err = int64(field[5])<<16|int64(field[6])<<8|int64(field[7]), nil
	}
	return string(block[257:262]) == "ustar" || err == nil && (sum == unsigned || sum == signed)
}

// skipZeros passes over blocks of zeros and reports whether there were any. Some readers take them for the end of an archive and others do not.
func skipZeros(r *bufio.Reader) bool {
	for n := 0; ; n++ {
		block, _ := r.Peek(tarBlock)
		if len(block) < tarBlock || !allZeros(block) {
			return n > 0
		}
		_, _ = r.Discard(tarBlock) // it has been read
	}
}

func allZeros(p []byte) bool { return len(bytes.TrimLeft(p, "\x00")) == 0 }

// isFile reports whether an entry is a file with content. Its mode does not matter: who extracts goes by the type.
func isFile(h *tar.Header) bool { return h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeCont }

// walkTar visits every entry of a tar archive, in order. It fails with an errArchive if an entry, or what follows the last one, is not beyond doubt.
func walkTar(r io.Reader, visit func(h *tar.Header, content io.Reader) error) error {
	var headers bytes.Buffer // of one entry, behind the padding of the one before
	source := &tap{r: r}
	t := tar.NewReader(source)
	for n := 0; ; n++ {
		headers.Reset()
		source.to = &headers
		padding := source.padding()
		h, err := t.Next()
		source.to = io.Discard
		switch {
		case errors.Is(err, io.EOF):
			return endOfTar(source)
		case errors.Is(err, tar.ErrFieldTooLong):
			return errArchive("a header in it is too long: pack it with shorter names and attributes")
		case err != nil:
			return damage(err)
		case n == maxEntries:
			return errEntries
		}
		headers.Next(padding)
		if err := checkEntry(h, headers.Bytes()); err != nil {
			return err
		}
		if err := visit(h, t); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, t); err != nil { //nolint:gosec // whoever gives r bounds it
			return damage(err)
		}
	}
}

// endOfTar sees to it that zeros only follow the last entry, to the end of what is compressed.
func endOfTar(rest io.Reader) error {
	p := make([]byte, 1<<15)
	for {
		n, err := rest.Read(p)
		switch {
		case !allZeros(p[:n]):
			return errArchive("more follows its end, which some programs read and others do not: pack it anew")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return damage(err)
		}
	}
}

// checkEntry refuses an entry that programs read in different ways. headers are its blocks: those that extend the last one, each with its content,
// and the last one.
func checkEntry(h *tar.Header, headers []byte) error {
	unclear := func(why string) error {
		return errArchive(fmt.Sprintf("%s of %.200q, which programs read in different ways: pack it anew", why, h.Name))
	}
	extended := "" // types of the headers that extend the last one
	for {
		if len(headers) < tarBlock {
			return errDamaged
		}
		block := headers[:tarBlock]
		headers = headers[tarBlock:]
		kind := string(block[156:157])
		size, ok := octal(block[124:136])
		if _, sumOK := octal(block[148:156]); !sumOK || !ok && block[124] != 0x80 { // sizes from 8 GiB are binary
			return unclear("it has an odd number in the header")
		}
		if !strings.Contains("xLK", kind) {
			break
		}
		if extended += kind; strings.Count(extended, kind) > 1 || strings.Contains(extended, "x") && extended != "x" {
			return unclear("it has too many headers")
		}
		if !ok || size > int64(len(headers)) {
			return errDamaged
		}
		headers = headers[min(int(size+tarBlock-1)/tarBlock*tarBlock, len(headers)):]
	}
	sparse, moved := h.Typeflag == tar.TypeGNUSparse, false
	for key, value := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
		layout := key == "path" || key == "linkpath" || key == "size"
		moved = moved || layout && (value == "" || h.Typeflag == tar.TypeXGlobalHeader)
	}
	switch {
	case sparse:
		return errArchive(fmt.Sprintf("%.200q is a sparse file: pack it as a whole, without --sparse", h.Name))
	case moved, h.Typeflag == tar.TypeXGlobalHeader && extended != "":
		return unclear("it has attributes for many files, or empty ones, in the header")
	case isFile(h), h.Typeflag == tar.TypeXGlobalHeader:
		return nil
	case h.Typeflag < tar.TypeLink || h.Typeflag > tar.TypeFifo:
		return unclear(fmt.Sprintf("it has the type %q", h.Typeflag))
	case h.Size != 0:
		return unclear("it has content in a link, folder or device, that")
	}
	return nil
}

// octal reads a number as all programs do: digits, behind spaces if need be, and before spaces and zero bytes.
func octal(field []byte) (int64, bool) {
	digits := strings.TrimRight(strings.TrimLeft(string(field), " "), " \x00")
	if digits == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(digits, 8, 63)
	return int64(n), err == nil
}
