package registry

import (
	"archive/tar"
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// A layer's title and media type are the pusher's words. So that a model cannot pass by under another name, the
// content of every other layer is looked at too: whether it has the structure of an ONNX ModelProto, and whether it is
// an archive (tar, gzip, zstd, zip) with such a file inside. Archives in archives are not opened, and other formats of
// archives are not known: a policy that has to be strict admits packages with known media types only.

const maxFields = 1 << 20 // of a protobuf message; what has more is taken for a model

var errTooLarge = errors.New("too large to be looked through")

// finding says what a layer holds.
type finding struct {
	model  bool   // the layer itself is an ONNX model
	inside string // the layer is an archive with this model in it
	tar    bool   // the archive is a tar

	other OtherModel // the first model of another format, if there is one: the layer itself, without a name, or a file in the archive
}

// inspect looks at the content of a layer. A file can be a model and an archive at once, so both are tried. It fails with an errArchive if an archive
// cannot be read in full, and with errTooLarge if more than budget bytes had to be read out of one.
func inspect(f *os.File, budget int64) (finding, error) {
	info, err := f.Stat()
	if err != nil {
		return finding{}, err
	}
	if isONNX(io.NewSectionReader(f, 0, info.Size()), info.Size()) {
		return finding{model: true}, nil
	}
	expanded, kind, err := expand(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return finding{}, err
	}
	defer expanded.Close()
	if kind == plain {
		if _, found, err := findZip(f, info.Size()); err != nil {
			return finding{}, err
		} else if found {
			return inspectZip(f, info.Size(), budget)
		}
	}
	limited := &io.LimitedReader{R: expanded, N: budget}
	found, err := inspectExpanded(bufio.NewReader(limited), kind)
	if limited.N <= 0 {
		return finding{}, errTooLarge
	}
	return found, err
}

// inspectExpanded looks at the content of a layer without its compression: a tar archive, or one file.
func inspectExpanded(r *bufio.Reader, kind compression) (finding, error) {
	head, _ := r.Peek(formatHead)
	var all finding
	all.other = otherModelIn("", head)
	zeros := skipZeros(r)
	switch block, _ := r.Peek(tarBlock); {
	case isTar(block) && zeros:
		return finding{}, errArchive("it begins with zeros, where some programs end and others do not: pack it anew")
	case isTar(block):
		all = finding{tar: true}
		err := walkTar(r, func(h *tar.Header, content io.Reader) error {
			if isFile(h) && all.add(h.Name, content) != nil {
				return errDamaged
			}
			return nil
		})
		return all, err
	case kind == plain: // the layer itself, which is no model
		return all, nil
	case isONNX(r, -1):
		return finding{inside: "the expanded content"}, nil
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return finding{}, errDamaged
	}
	return all, nil
}

// otherModelIn is what a file is by its name and its first bytes, if it is no ONNX model.
func otherModelIn(name string, head []byte) OtherModel {
	if format := otherFormat(name, head); format != "" {
		return OtherModel{name, format}
	}
	return OtherModel{}
}

// add looks at a file in an archive, to its end.
func (all *finding) add(name string, content io.Reader) error {
	buffered := bufio.NewReader(content)
	head, _ := buffered.Peek(formatHead)
	other := otherModelIn(name, head)
	if hasONNXSuffix(name) || isONNX(buffered, -1) {
		if all.inside == "" {
			all.inside = name
		}
	} else if all.other == (OtherModel{}) {
		all.other = other
	}
	_, err := io.Copy(io.Discard, buffered)
	return err
}

// isONNX reports whether r, of the given size or -1 if unknown, has the structure of a ModelProto: well-formed protobuf
// to the end with a graph (field 7, well-formed too) and an IR version (1) or an opset (8). Unknown fields do not
// matter, as they do not matter to whoever loads a model.
func isONNX(r io.Reader, size int64) bool {
	c := &cursor{r: bufio.NewReader(r), size: size}
	c.file, _ = r.(io.ReadSeeker)
	var graph, version bool
	err := c.fields(-1, func(field uint64, wire byte, length int64) (bool, error) {
		switch {
		case field == 1 && wire == 0, field == 8 && wire == 2:
			version = true
		case field == 7 && wire == 2 && length > 0:
			graph = true
			return true, c.fields(c.pos+length, nil)
		}
		return false, nil
	})
	if errors.Is(err, errTooLarge) {
		return true
	}
	return err == nil && graph && version
}

// cursor walks over protobuf fields. It seeks over long ones where it can.
type cursor struct {
	r     *bufio.Reader
	file  io.ReadSeeker // nil if r cannot seek
	size  int64         // -1 if unknown
	pos   int64
	count int
}

var errMalformed = errors.New("malformed")

// ReadByte implements io.ByteReader for binary.ReadUvarint.
func (c *cursor) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.pos++
	}
	return b, err
}

// fields walks to the position end, or to the end of the content if end is -1. visit is told of every field, by its wire
// type 0 or 2 with its length; it returns true if it walked over the payload itself.
func (c *cursor) fields(end int64, visit func(field uint64, wire byte, length int64) (bool, error)) error {
	for end < 0 || c.pos < end {
		if c.count++; c.count > maxFields {
			return errTooLarge
		}
		if end < 0 {
			if _, err := c.r.Peek(1); err == io.EOF {
				return nil
			}
		}
		key, err := binary.ReadUvarint(c)
		if err != nil || key>>3 == 0 || key>>3 > 1<<29-1 {
			return errMalformed
		}
		wire, length := byte(key&7), int64(0)
		switch wire {
		case 0:
			if _, err := binary.ReadUvarint(c); err != nil {
				return errMalformed
			}
		case 1:
			length = 8
		case 2:
			n, err := binary.ReadUvarint(c)
			if err != nil || n > 1<<62 {
				return errMalformed
			}
			length = int64(n)
		case 3, 4: // a group: its fields follow
		case 5:
			length = 4
		default:
			return errMalformed
		}
		if end >= 0 && length > end-c.pos {
			return errMalformed
		}
		if visit != nil {
			walked, err := visit(key>>3, wire, length)
			if err != nil {
				return err
			}
			if walked {
				continue
			}
		}
		if err := c.skip(length); err != nil {
			return err
		}
	}
	if c.pos != end {
		return errMalformed
	}
	return nil
}

func (c *cursor) skip(n int64) error {
	if c.size >= 0 && n > c.size-c.pos {
		return errMalformed
	}
	c.pos += n
	if buffered := int64(c.r.Buffered()); c.file != nil && n > buffered {
		if _, err := c.file.Seek(n-buffered, io.SeekCurrent); err != nil {
			return err
		}
		c.r.Reset(c.file)
		return nil
	}
	if m, err := io.CopyN(io.Discard, c.r, n); err != nil || m != n {
		return errMalformed
	}
	return nil
}
