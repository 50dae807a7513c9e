package registry

import (
	"archive/tar"
	"bufio"
	"errors"
	"io"
	"os"
)

// A layer's title and media type are the pusher's words. So that a model cannot pass by under another name, the
// content of every other layer is looked at too: whether it has the structure of an ONNX ModelProto, and whether it is
// an archive (tar, gzip, zstd, zip) with such a file inside. Archives in archives are not opened, and other formats of
// archives are not known: a policy that has to be strict admits packages with known media types only.

var errTooLarge = errors.New("too large to be looked through")

// finding says what a layer holds.
type finding struct {
	model  bool   // the layer itself is an ONNX model
	inside string // the layer is an archive with this model in it
	tar    bool   // the archive is a tar

	other OtherModel // the first model of another format, if there is one: the layer itself, without a name, or a file in the archive
}

// inspect looks at the content of a layer. It fails with an errArchive if an archive cannot be read in full or is a model at once, and with errTooLarge
// if more bytes than the budget had to be read out of one. What was read is taken from the budget.
func inspect(f *os.File, budget *int64) (finding, error) {
	info, err := f.Stat()
	if err != nil {
		return finding{}, err
	}
	head, err := io.ReadAll(io.NewSectionReader(f, 0, tarBlock))
	if err != nil {
		return finding{}, err
	}
	var zipped bool
	var directory zipDirectory
	archive := compressionOf(head) != plain || isTar(head) // whose last file may well be a zip
	if !archive {
		directory, zipped, err = findZip(f, info.Size())
	}
	switch model := isONNX(io.NewSectionReader(f, 0, info.Size()), info.Size()); {
	case model && (archive || zipped): // the archive would stay as it was if the weights were replaced
		return finding{}, errArchive("it is an ONNX model as well: push the model as a file that is nothing else")
	case err != nil:
		return finding{}, err
	case model:
		return finding{model: true}, nil
	case zipped:
		return inspectZip(f, info.Size(), directory, budget)
	}
	expanded, kind, err := expand(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return finding{}, err
	}
	defer expanded.Close()
	limited := &io.LimitedReader{R: expanded, N: *budget}
	found, err := inspectExpanded(bufio.NewReader(limited), kind)
	if *budget = limited.N; *budget <= 0 {
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
			if !isFile(h) {
				return nil
			}
			if err := all.add(h.Name, content); err != nil {
				return damage(err)
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
		return finding{}, damage(err)
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
