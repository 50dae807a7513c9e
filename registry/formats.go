package registry

import (
	"bytes"
	"encoding/binary"
	"path"
	"slices"
	"strings"
)

// Models of other formats than ONNX cannot be sanitized. They are recognized by what their files begin with, and by their names, so that a
// policy can tell a package with such a model from one without any. External data of ONNX models has no format and no fixed name, and is none of these.

// OtherModel is a file of a package that looks like a model of another format than ONNX.
type OtherModel struct {
	Name   string // as in File; for a layer without a title its digest
	Format string // e.g. "safetensors", "pytorch"
}

// formatsBySuffix are the names that frameworks give their files: those that have no other common use.
var formatsBySuffix = map[string]string{
	".safetensors": "safetensors", ".gguf": "gguf", ".ggml": "ggml",
	".pt": "pytorch", ".pth": "pytorch", ".pt2": "pytorch", ".pkl": "pickle", ".pickle": "pickle", ".joblib": "pickle", ".dill": "pickle",
	".h5": "hdf5", ".hdf5": "hdf5", ".keras": "keras", ".tflite": "tflite", ".pb": "tensorflow", ".ckpt": "checkpoint",
	".mlmodel": "coreml", ".mlpackage": "coreml", ".engine": "tensorrt", ".plan": "tensorrt", ".pmml": "pmml", ".caffemodel": "caffe",
	".pdmodel": "paddle", ".pdiparams": "paddle", ".mar": "torchserve", ".llamafile": "llamafile", ".ort": "onnxruntime",
}

const formatHead = 16 // bytes that a format is recognized by

// otherFormat names the format that a file is in by its name or its first formatHead bytes, "" for none that is known.
func otherFormat(name string, head []byte) string {
	if f := formatsBySuffix[strings.ToLower(path.Ext(name))]; f != "" {
		return f
	}
	at := func(offset int, magic string) bool {
		return len(head) >= offset && bytes.HasPrefix(head[offset:], []byte(magic))
	}
	switch {
	case at(0, "GGUF"):
		return "gguf"
	case at(0, "\x89HDF\r\n\x1a\n"):
		return "hdf5"
	case at(4, "TFL3"):
		return "tflite"
	case at(4, "ORTM"):
		return "onnxruntime"
	case len(head) > 9 && at(8, "{\"") && binary.LittleEndian.Uint64(head) < 100<<20: // the header's length, and its JSON
		return "safetensors"
	case len(head) > 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5 && slices.Contains([]byte{0x95, '}', ']', '(', 'c', 0x8a, 'X', 'q', 0x8c}, head[2]):
		return "pickle" // PROTO of the pickle protocols 2 to 5, and an opcode that pickles go on with
	}
	return ""
}

// modelTypes begin the media types of layers that hold models, whatever their format (KitOps, CNCF ModelPack).
var modelTypes = []string{"application/vnd.kitops.modelkit.model.", "application/vnd.kitops.modelkit.modelpart.", "application/vnd.cncf.model.weight.v"}

// typedModel reports whether a media type says that the layer is a model.
func typedModel(mediaType string) bool {
	return slices.ContainsFunc(modelTypes, func(t string) bool { return strings.HasPrefix(mediaType, t) })
}
