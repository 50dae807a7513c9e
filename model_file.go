package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"grindstone/sanitize/onnx"
)

// ofModel is an error about a model's file as people can use it: one that cannot be read has the exit code of a model, and one that is no ONNX says what it
// is instead, where that is known.
func ofModel(path string, err error) error {
	var file *fs.PathError
	switch {
	case errors.As(err, &file) && file.Path == path:
		return &exitError{exitModel, err}
	case errors.Is(err, onnx.ErrMalformed), errors.Is(err, onnx.ErrNotModel):
		if is := otherThanONNX(path); is != "" {
			return fmt.Errorf("%w: %s %s", onnx.ErrNotModel, path, is)
		}
	}
	return err
}

// otherThanONNX says what a file is that is called a model, and what to do about it, "" for what is not known.
func otherThanONNX(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	head := make([]byte, 64)
	n, _ := io.ReadFull(file, head)
	head = head[:n]
	begins := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case n == 0:
		return "is empty"
	case begins("version https://git-lfs"):
		return "is a pointer of Git LFS and not the model: fetch the model with `git lfs pull`"
	case begins("GGUF"):
		return "is a GGUF model: only ONNX can be sanitized; export it from the framework that it was trained in"
	case len(head) > 9 && head[8] == '{' && binary.LittleEndian.Uint64(head) < 100<<20: // the length of a header, and its JSON
		return "holds safetensors, weights without a graph: export the model to ONNX (torch.onnx.export)"
	case begins("PK\x03\x04"):
		return "is a zip archive, as torch.save writes it: export the model to ONNX (torch.onnx.export), or unpack the ONNX file that is in it"
	case begins("\x80\x02"):
		return "is a pickle, as old versions of torch.save write it: export the model to ONNX (torch.onnx.export)"
	case begins("\x89HDF"):
		return "is an HDF5 file, as Keras writes it: convert it to ONNX (tf2onnx)"
	}
	return ""
}
