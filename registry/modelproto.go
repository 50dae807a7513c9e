package registry

import (
	"bufio"
	"errors"
	"io"
)

// An ONNX model has no magic number: it is known by the structure of the protobuf message that it is. The walk over its fields is as generous as
// protobuf's own readers are, and more so: what they take for a model has to be one here.

const maxFields = 1 << 20 // of a protobuf message; what has more is taken for a model

// isONNX reports whether r, of the given size or -1 if unknown, has the structure of a ModelProto: well-formed protobuf
// to the end with a graph (field 7, well-formed too) and an IR version (1) or an opset (8). Unknown fields do not
// matter, as they do not matter to whoever loads a model. After a graph with nodes and outputs nothing else matters either: whoever can read on
// behind a malformed field has a model.
func isONNX(r io.Reader, size int64) bool {
	c := &cursor{r: bufio.NewReader(r), size: size}
	c.file, _ = r.(io.ReadSeeker)
	var graph, version, complete bool
	err := c.fields(-1, func(field uint64, wire byte, length int64) (bool, error) {
		switch {
		case field == 1 && wire == 0, field == 8 && wire == 2:
			version = true
		case field == 7 && wire == 2 && length > 0:
			graph = true
			var nodes, outputs bool
			err := c.fields(c.pos+length, func(field uint64, wire byte, _ int64) (bool, error) {
				nodes = nodes || field == 1 && wire == 2
				outputs = outputs || field == 12 && wire == 2
				return false, nil
			})
			complete = complete || err == nil && nodes && outputs
			return true, err
		}
		return false, nil
	})
	return complete || errors.Is(err, errTooLarge) || err == nil && graph && version
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

// varint reads a number as protobuf does: of up to ten bytes, of which the bits beyond 64 are dropped.
func (c *cursor) varint() (uint64, error) {
	var v uint64
	for shift := 0; shift < 70; shift += 7 {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, errMalformed
		}
		c.pos++
		if v |= uint64(b&0x7f) << shift; b < 0x80 {
			return v, nil
		}
	}
	return 0, errMalformed
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
		key, err := c.varint()
		field := key & (1<<32 - 1) >> 3 // of 32 bits, and others are dropped
		if err != nil || field == 0 {
			return errMalformed
		}
		wire, length := byte(key&7), int64(0)
		switch wire {
		case 0:
			if _, err := c.varint(); err != nil {
				return err
			}
		case 1:
			length = 8
		case 2:
			n, err := c.varint()
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
			walked, err := visit(field, wire, length)
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
