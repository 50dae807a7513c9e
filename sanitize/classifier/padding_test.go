package classifier_test

import (
	"errors"
	"strings"
	"testing"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/onnx"
)

// enlarged is a net with a ConvTranspose of stride 2 and kernel 2 behind its stem: 8x8 becomes 16x16 by itself.
func enlarged(t *testing.T, attrs ...*onnx.Attr) *onnx.Model {
	n := newNet()
	n.Add(&onnx.Node{Name: "up", Op: "ConvTranspose", Inputs: []string{n.stem(-1), n.weight("up.w", 4, 4, 2, 2)}, Outputs: []string{"up.y"},
		Attrs: append([]*onnx.Attr{onnx.Is("strides", 2, 2)}, attrs...)})
	return n.model(t, 17, n.dense(n.pooled("up.y"), 4, 5))
}

// TestOutputShapes: what a runtime would compute from memory that is not its own is refused before it runs.
func TestOutputShapes(t *testing.T) {
	for _, tt := range []struct {
		attr *onnx.Attr
		says string // "" where the model is fine
	}{
		{onnx.Is("output_shape", 16, 16), ""},
		{onnx.Is("output_shape", 15, 13), ""},
		{onnx.Is("output_shape", 17, 16), ""},
		{onnx.Is("output_shape", 18, 16), "output_padding 2 at stride 2"},
		{onnx.Is("output_shape", 16, 9000), "output_padding 8984 at stride 2"},
		{onnx.Is("output_shape", 16), "numbers of dimensions"},
		{onnx.Is("output_padding", 1, 1), ""},
		{onnx.Is("output_padding", 1, 2), "output_padding 2 at stride 2"},
		{onnx.Is("output_padding", 0, -1), "output_padding -1 at stride 2"},
		{onnx.Is("pads", 0, 0, 0, -1), "negative pads"},
	} {
		c, err := classifier.New(enlarged(t, tt.attr), classifier.Options{})
		if tt.says == "" {
			if err != nil {
				t.Errorf("%s %v: %v", tt.attr.Name, tt.attr.Ints, err)
			} else if err := c.CheckTrainable(); err != nil {
				t.Errorf("%s %v: %v", tt.attr.Name, tt.attr.Ints, err)
			}
			continue
		}
		if (!errors.Is(err, onnx.ErrUnsupported) && !errors.Is(err, onnx.ErrMalformed)) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), `node "up"`) {
			t.Errorf("%s %v: error %v, want one about %q", tt.attr.Name, tt.attr.Ints, err, tt.says)
		}
	}
}
