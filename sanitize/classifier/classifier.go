// Package classifier understands an ONNX image classifier: its input and layout, its logits, the feature layer and the head above it
// (Feature Grinding, section 4.2), and the tensors that training may change.
package classifier

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
)

// What can be wrong with a model as an image classifier.
var (
	ErrInput       = errors.New("no usable image input")
	ErrSize        = errors.New("the image size is not the model's")
	ErrOutput      = errors.New("no usable class output")
	ErrNoHead      = errors.New("no head found")
	ErrUnsupported = errors.New("operators without a gradient rule lie between trainable weights and the output")
	ErrFrozen      = fmt.Errorf("%w: it is computed by other nodes, or no float tensor of the file, so that training cannot change it", onnx.ErrUnsupported)
	ErrWithin      = fmt.Errorf("%w: it has layers within a branch or a loop, where training does not reach them", onnx.ErrUnsupported)
	ErrShared      = fmt.Errorf("%w: another layer shares them", onnx.ErrUnsupported)
)

// Layout is the order of an image tensor's axes.
type Layout string

// The two layouts in use.
const (
	NCHW Layout = "NCHW"
	NHWC Layout = "NHWC"
)

// Classifier is a model in the form in which it is trained and evaluated: operators normalized to opset 17, constants named, any batch
// size. The model it came from stays untouched.
type Classifier struct {
	Source *onnx.Model

	Nodes     []*onnx.Node            // all that Logits and Feature depend on
	Constants map[string]*onnx.Tensor // initializers and Constant nodes by name

	Input                   string
	Layout                  Layout
	Height, Width, Channels int  // of the input image; 0 where the model leaves it open
	Bytes                   bool // the input is of bytes, which the model itself makes floats of

	Output  string // the model's own class output
	Logits  string // class scores before a closing Softmax, LogSoftmax or ArgMax, [batch, Classes]
	Classes int

	Feature      string       // the tensor that the head reads; of several heads, what all of them read
	FeatureWidth int          // elements per image
	Head         []*onnx.Node // from what the heads read (exclusive) to Logits
	Closing      []*onnx.Node // from Logits to Output; not among Nodes
	Choices      []string     // why output and feature layer are these, in words
	HeadWeights  []string     // constants of the head that are re-initialised

	Trainable     []string // constants that training changes, in graph order; none of them is a running statistic
	FrozenWeights []string // constants that training would change, had they not been frozen by choice

	FixedBatch int64 // the batch size that the file fixes, 0 if it is open
	Unfolded   []Unfolded

	mixture    bool                // the output mixes probabilities
	live       map[string]bool     // what the image has a part in
	learned    map[string]bool     // what linear layers make, and all that depends on it
	composed   map[string][]string // by a layer's weight that the file computes: the constants it is composed of
	composing  map[string]bool     // values that such weights are computed by
	quantized  []*quantized        // weights and activations that the file keeps in integers
	frozen     map[string]bool     // values that frozen nodes make
	changeable map[string]bool     // constants that the file holds as tensors, and those of Unfold
	masks      map[string]bool     // of values that are computed of constants: whether they are masks
	inferred   bool                // the runtime infers all shapes as they are
	shapes     map[string][]int64  // of all values, for as many images as measured
}

// Options override what New finds by itself.
type Options struct {
	Output        string   // name of the output with the classes; "" to find it
	Feature       string   // name of the feature tensor; "" to find it
	FreezeBelow   []string // nodes that, with all that they depend on, are not trained
	Rounded       bool     // keep the rounding of a quantized model's activations: the form to evaluate, not to train
	Height, Width int      // image size where the model leaves it open
}

// Open reads a file as a classifier: onnx.ReadFile and New.
func Open(path string, o Options) (*Classifier, error) {
	m, err := onnx.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return New(m, o)
}

// New reads a model as a classifier. Errors are of type *onnx.Error or wrap this package's sentinels.
func New(m *onnx.Model, o Options) (*Classifier, error) {
	g, err := onnx.Normalize(m)
	if err != nil {
		return nil, err
	}
	c := &Classifier{Source: m, Nodes: g.Nodes, Constants: map[string]*onnx.Tensor{}, masks: map[string]bool{}}
	for _, t := range g.Initializers {
		c.Constants[t.Name] = t
	}
	if err := c.widen(); err != nil {
		return nil, err
	}
	c.findChangeable()
	if err := c.dequantize(o.Rounded); err != nil {
		return nil, err
	}
	c.resolveAliases()
	if err := c.findInput(g, o); err != nil {
		return nil, err
	}
	if err := c.findLogits(g, o.Output); err != nil {
		return nil, err
	}
	if err := c.resolveOutputShapes(); err != nil {
		return nil, err
	}
	if err := c.openBatch(); err != nil {
		return nil, err
	}
	if err := c.findHead(o.Feature); err != nil {
		return nil, err
	}
	if err := c.freezeBelow(o.FreezeBelow); err != nil {
		return nil, err
	}
	c.findTrainable()
	if err := c.checkFeatures(o.FreezeBelow); err != nil {
		return nil, err
	}
	if len(c.HeadWeights) == 0 {
		return nil, &onnx.Error{What: "feature tensor " + c.Feature, Err: fmt.Errorf("%w: no float weight lies between it and the output", ErrNoHead)}
	}
	if err := c.measure(); err != nil {
		return nil, err
	}
	c.resolvePadding()
	return c, nil
}

// findInput: an input that no node reads is none. Keras leaves some behind when it has folded what read them.
func (c *Classifier) findInput(g *onnx.Graph, o Options) error {
	users := c.users()
	for _, out := range g.Outputs {
		users[out.Name]++
	}
	var images []*onnx.Value
	for _, in := range g.Inputs {
		if _, constant := c.Constants[in.Name]; !constant && users[in.Name] > 0 {
			images = append(images, in)
		}
	}
	if len(images) != 1 {
		names := make([]string, len(images))
		for i, in := range images {
			names[i] = in.Name
		}
		return fmt.Errorf("%w: expected one input, the model has %d %q", ErrInput, len(images), names)
	}
	in := images[0]
	switch {
	case in.Type == onnx.Uint8:
		if err := c.readBytes(in.Name); err != nil {
			return err
		}
	case in.Type != onnx.Float && !otherFloat(in.Type):
		return &onnx.Error{What: "input " + in.Name, Err: fmt.Errorf("%w: element type %v, only float, float16, bfloat16, double and uint8 are supported", ErrInput, in.Type)}
	}
	if len(in.Shape) > 0 {
		c.FixedBatch = max(in.Shape[0].Size, 0)
	}
	if len(in.Shape) == 2 {
		return c.readRows(in, o)
	}
	if in.Shape == nil {
		return &onnx.Error{What: "input " + in.Name, Err: fmt.Errorf("%w: the file does not say its shape; export it with one, such as [batch, 3, 224, 224]", ErrInput)}
	}
	if len(in.Shape) != 4 {
		return &onnx.Error{What: "input " + in.Name, Err: fmt.Errorf("%w: rank %d, an image batch has rank 4, or 2 with images as rows", ErrInput, len(in.Shape))}
	}
	c.Input = in.Name
	axes := in.Sizes()[1:]
	if !c.setImage(axes...) && !c.setImage(c.convolved(in.Name, axes)...) {
		return &onnx.Error{What: "input " + in.Name, Err: fmt.Errorf("%w: neither NCHW nor NHWC with 1, 3 or 4 channels: %v", ErrInput, in.Shape)}
	}
	if o.Height > 0 {
		if h, w := cmp.Or(c.Height, o.Height), cmp.Or(c.Width, o.Width); h != o.Height || w != o.Width {
			return &onnx.Error{What: "input " + in.Name, Err: fmt.Errorf("%w: the file fixes %dx%d, and %dx%d is asked for; leave --size out", ErrSize, h, w, o.Height, o.Width)}
		}
		c.Height, c.Width = o.Height, o.Width
	}
	if c.Height == 0 || c.Width == 0 {
		return &onnx.Error{What: "input " + in.Name, Err: fmt.Errorf("%w: the model leaves the image size open; give it with --size", ErrInput)}
	}
	return nil
}

// setImage takes the axes of an image, and tells their order by the channels. An axis below 0 is open.
func (c *Classifier) setImage(axes ...int64) bool {
	isChannels := func(n int) bool { return n == 1 || n == 3 || n == 4 }
	d := func(i int) int { return int(max(axes[i], 0)) }
	switch {
	case isChannels(d(0)):
		c.Layout, c.Channels, c.Height, c.Width = NCHW, d(0), d(1), d(2)
	case isChannels(d(2)):
		c.Layout, c.Height, c.Width, c.Channels = NHWC, d(0), d(1), d(2)
	default:
		return false
	}
	return true
}

// convolved returns the axes of an image, one of which has no size in the file, with the number of channels that the first convolution takes.
func (c *Classifier) convolved(input string, axes []int64) []int64 {
	data, by, at := grad.Reach(c.Nodes, []string{input}), producers(c.Nodes), 0
	for _, n := range c.Nodes {
		switch {
		case !data[n.Input(0)] || n.Domain != "":
		case n.Op == "Transpose" && slices.Equal(n.Ints("perm"), []int64{0, 3, 1, 2}):
			at = 2
		case n.Op == "Conv":
			w := c.Constants[c.Unmoved(by, n.Inputs[1])]
			if w == nil || len(w.Shape) != 4 || axes[at] > 0 {
				return axes
			}
			axes = slices.Clone(axes)
			axes[at] = w.Shape[1] * n.Int("group", 1)
			return axes
		case c.isLinear(by, n):
			return axes
		}
	}
	return axes
}

// ImageShape is the shape of a batch of n images.
func (c *Classifier) ImageShape(n int64) []int64 {
	if c.Layout == NHWC {
		return []int64{n, int64(c.Height), int64(c.Width), int64(c.Channels)}
	}
	return []int64{n, int64(c.Channels), int64(c.Height), int64(c.Width)}
}

// Body returns the nodes up to and including the feature tensor, and those of the head.
func (c *Classifier) Body() []*onnx.Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *onnx.Node) bool { return slices.Contains(c.Head, n) })
}

// Unsupported returns the nodes that stand in the way of training: those between a trained weight and the logits, and those that have weights themselves,
// wherever they are.
func (c *Classifier) Unsupported() []*onnx.Node {
	between := setOf(grad.Unsupported(c.Nodes, c.Trainable, c.Logits))
	by := producers(c.Nodes)
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *onnx.Node) bool { return !between[n] && !c.closedLayer(by, n) })
}

// closedLayer reports whether a node is a layer with weights of a kind that has no gradient rule, so that they would stay as they are.
func (c *Classifier) closedLayer(by map[string]*onnx.Node, n *onnx.Node) bool {
	switch n.Op {
	case "LSTM", "GRU", "RNN", "DeformConv", "If", "Loop", "Scan":
	default:
		if n.Domain == "" || n.Domain == "ai.onnx.ml" {
			return false
		}
	}
	if c.Frozen(n) || !slices.ContainsFunc(n.Reads(), func(in string) bool { return c.live[in] }) {
		return false
	}
	matrix := func(name string) bool {
		t := c.Constants[name]
		return t == nil || len(slices.DeleteFunc(slices.Clone(t.Shape), func(d int64) bool { return d == 1 })) > 1
	}
	for _, in := range n.Reads() {
		if c.Constants[in] != nil && matrix(in) {
			return true
		}
	}
	return slices.ContainsFunc(c.leavesOf(by, n.Reads()), matrix)
}

// CheckTrainable returns an error naming the weights that training cannot change, or else the nodes without a gradient rule on the
// way from a trainable weight to the logits; of many the first few.
func (c *Classifier) CheckTrainable() error {
	if bad := c.untrainable(); len(bad) > 0 {
		return several(bad)
	}
	bad := c.Unsupported()
	if len(bad) == 0 {
		return nil
	}
	var list []error
	for _, n := range bad {
		list = append(list, grad.Check(n))
	}
	return fmt.Errorf("%w: %w", ErrUnsupported, several(list))
}

// several joins errors. A network has hundreds of layers: what is wrong with each would be pages.
func several(all []error) error {
	const shown = 8
	if more := len(all) - shown; more > 0 {
		all = append(all[:shown:shown], fmt.Errorf("and %d more", more))
	}
	return errors.Join(all...)
}
