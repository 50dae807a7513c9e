package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"grindstone/sanitize/classifier"
	"grindstone/sanitize/grad"
	"grindstone/sanitize/ort"
	"grindstone/sanitize/train"
)

// inspection is what inspect prints.
type inspection struct {
	File         string           `json:"file"`
	Producer     string           `json:"producer"`
	IRVersion    int64            `json:"ir_version"`
	Opsets       map[string]int64 `json:"opsets"`
	Input        string           `json:"input"`
	Layout       string           `json:"layout"`
	Height       int              `json:"height"`
	Width        int              `json:"width"`
	Channels     int              `json:"channels"`
	FixedBatch   int64            `json:"fixed_batch,omitempty"`
	Output       string           `json:"output"`
	Logits       string           `json:"logits"`
	Classes      int              `json:"classes"`
	Feature      string           `json:"feature_layer"`
	FeatureWidth int              `json:"feature_width"`
	Head         []string         `json:"head"`
	HeadWeights  []string         `json:"head_weights"` // re-initialised
	Choices      []string         `json:"choices"`      // why output and feature layer are these
	Tail         []string         `json:"tail"`         // the end of the graph, a node a line
	Trainable    []tensorInfo     `json:"trainable"`
	Parameters   int64            `json:"parameters"`
	Quantized    bool             `json:"quantized"`        // weights in integers or activations rounded, trained in floats and rounded again
	Frozen       []string         `json:"frozen,omitempty"` // weights that --freeze-below leaves as they are
	Unfold       []string         `json:"unfold"`           // layers that get a BatchNormalization for training
	Unsupported  []nodeInfo       `json:"unsupported"`      // nodes without a gradient rule in the way of training
	Operators    map[string]int   `json:"operators"`
	Placement    *placement       `json:"placement,omitempty"` // with --provider
	Sandbox      string           `json:"sandbox,omitempty"`   // what confined the process; "" is nothing
}

type tensorInfo struct {
	Name  string  `json:"name"`
	Shape []int64 `json:"shape"`
}

type nodeInfo struct {
	Node   string `json:"node"`
	Op     string `json:"op"`
	Reason string `json:"reason"`
}

func newInspectCommand() *cobra.Command {
	var asJSON bool
	var size, provider string
	var graph trainingGraph
	var confined confinement
	var o classifier.Options
	cmd := &cobra.Command{
		Use:   "inspect MODEL.onnx",
		Short: "Show how Grindstone sees a model",
		Long: `Inspect reads a model as an image classifier and prints its input and layout, its classes, the feature layer and the head above it, the
tensors that training would change, and every node that stands in the way.

With --training-graph it also writes one training step as an ordinary ONNX file: forward pass, losses, backward pass and SGD update in
standard operators of opset 17, on a batch of --batch images. Its doc_string explains inputs and outputs; the gradient of every weight is
among them. Any ONNX runtime runs it, any ONNX tool draws it.

With --provider it runs one training step of --batch images there and prints every node that ONNX Runtime left to the CPU, which it does without
a word. Nodes have the names that --training-graph writes.

Exit status: 0 the model can be sanitized, 3 it cannot or is not there (the reason is printed), 5 no ONNX Runtime library.`,
		Example: `  grindstone inspect resnet18.onnx
  grindstone inspect resnet18.onnx --json | jq .unsupported`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := parseSize(size, &o.Height, &o.Width); err != nil {
				return usageError("%w", err)
			}
			if err := graph.ignored(cmd, provider != ""); err != nil {
				return err
			}
			p := ort.CPU
			if provider != "" {
				var err error
				if p, err = ort.ParseProvider(provider); err != nil {
					return usageError("%w", err)
				}
			}
			confined.provider, confined.model, confined.write = p, args[0], []string{graph.file}
			sandboxed, err := confined.enter()
			if err != nil {
				return err
			}
			c, err := classifier.Open(args[0], o)
			if err != nil {
				return ofModel(args[0], err)
			}
			in := inspect(args[0], c)
			in.Sandbox = sandboxed
			if provider != "" && c.CheckTrainable() == nil {
				if in.Placement, err = placeStep(cmd.Context(), c, p, graph.batch); err != nil {
					return err
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), in); err != nil {
					return err
				}
			} else {
				in.print(cmd.OutOrStdout())
			}
			if err := c.CheckTrainable(); err != nil {
				return err
			}
			return graph.write(cmd.ErrOrStderr(), c)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&size, "size", "", "image size HxW, where the model leaves it open")
	readingFlags(cmd, &o.Output, &o.Feature)
	cmd.Flags().StringArrayVar(&o.FreezeBelow, "freeze-below", nil, "node, by name or output, that would not be trained, nor anything that it depends on; may be given again")
	cmd.Flags().StringVar(&graph.file, "training-graph", "", "write the training step to this ONNX file")
	cmd.Flags().IntVar(&graph.batch, "batch", 8, "images of a step, in --training-graph and with --provider")
	cmd.Flags().StringVar(&provider, "provider", "", "run a training step on this provider and show what it left to the CPU: "+providerHelp)
	cmd.Flags().BoolVar(&graph.unfold, "unfold", false, "in --training-graph, insert BatchNormalizations as sanitizing does, here with mean 0 and variance 1")
	confined.flag(cmd)
	cmd.Flags().BoolVar(&graph.fast, "fast-layout", false, "in --training-graph, the step that training on this CPU runs, with its layouts and ONNX Runtime's own operators")
	return cmd
}

// readingFlags say what is what in a model that is not read as it should be.
func readingFlags(cmd *cobra.Command, output, feature *string) {
	cmd.Flags().StringVar(output, "output-tensor", "", "name of the output with the classes (default: of several, the one whose head is deepest in the network)")
	cmd.Flags().StringVar(feature, "feature-tensor", "", "name of the feature layer's tensor (default: the input of the last linear layer)")
}

// trainingGraph says how inspect writes the training step.
type trainingGraph struct {
	file         string // "": not at all
	batch        int
	unfold, fast bool
}

// ignored is the error that flags were given that are about the training step, where none is written or run.
func (g *trainingGraph) ignored(cmd *cobra.Command, runs bool) error {
	switch {
	case g.file != "":
		return nil
	case runs:
		return ignored(cmd, "it is about the file that --training-graph writes", "unfold", "fast-layout")
	}
	return ignored(cmd, "it is about the training step; give --training-graph, or for a batch --provider", "unfold", "fast-layout", "batch")
}

// write tells notes of what is called otherwise than documented.
func (g *trainingGraph) write(notes io.Writer, c *classifier.Classifier) error {
	if g.file == "" {
		return nil
	}
	if g.batch < 2 {
		return usageError("a batch needs at least 2 images, not %d (--batch)", g.batch)
	}
	if g.unfold {
		unfoldIdentity(c)
	}
	m, err := train.BuildGraph(c, train.StepOptions{Batch: g.batch, Feature: true, Momentum: 0.9, WeightDecay: 5e-4, PlainLayout: !g.fast})
	if err != nil {
		return err
	}
	for _, note := range train.Renamed(m) {
		fmt.Fprintf(notes, "%s: %s\n", g.file, note)
	}
	raw, err := m.Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(g.file, raw, 0o644)
}

// unfoldIdentity inserts BatchNormalizations that change nothing as long as they use their running statistics.
func unfoldIdentity(c *classifier.Classifier) {
	layers := c.Foldable()
	mean, variance := make([][]float32, len(layers)), make([][]float32, len(layers))
	for i, l := range layers {
		mean[i], variance[i] = make([]float32, l.Channels), slices.Repeat([]float32{1}, l.Channels)
	}
	c.Unfold(layers, mean, variance)
}

func inspect(file string, c *classifier.Classifier) *inspection {
	m := c.Source
	in := &inspection{
		File: file, Producer: strings.TrimSpace(m.ProducerName + " " + m.ProducerVersion), IRVersion: m.IRVersion, Opsets: m.Opsets,
		Input: c.Input, Layout: string(c.Layout), Height: c.Height, Width: c.Width, Channels: c.Channels, FixedBatch: c.FixedBatch,
		Output: c.Output, Logits: c.Logits, Classes: c.Classes, Feature: c.Feature, FeatureWidth: c.FeatureWidth, HeadWeights: c.HeadWeights, Quantized: c.Quantized(), Frozen: c.FrozenWeights,
		Choices: c.Choices, Tail: c.Tail(),
		Operators: map[string]int{}, Unsupported: []nodeInfo{}, Unfold: []string{},
	}
	for _, n := range m.Graph.Nodes {
		in.Operators[n.Op]++
	}
	for _, n := range c.Head {
		in.Head = append(in.Head, n.Label())
	}
	for _, name := range c.Trainable {
		t := c.Constants[name]
		size := int64(1)
		for _, d := range t.Shape {
			size *= d
		}
		in.Parameters += size
		in.Trainable = append(in.Trainable, tensorInfo{name, t.Shape})
	}
	for _, f := range c.Foldable() {
		in.Unfold = append(in.Unfold, f.Node.Label())
	}
	for _, n := range c.Unsupported() {
		in.Unsupported = append(in.Unsupported, nodeInfo{n.Label(), n.Op, grad.Check(n).Error()})
	}
	return in
}

func (in *inspection) print(w io.Writer) {
	row := func(what, format string, a ...any) {
		fmt.Fprintf(w, "%-12s "+format+"\n", append([]any{what}, a...)...)
	}
	row("file", "%s (%s, opset %d)", in.File, in.Producer, in.Opsets[""])
	batch := "any batch"
	if in.FixedBatch > 0 {
		batch = fmt.Sprintf("exported for a batch of %d, opened", in.FixedBatch)
	}
	row("input", "%s: %s, %dx%d, %d channels, %s", in.Input, in.Layout, in.Height, in.Width, in.Channels, batch)
	row("output", "%s: %d classes, logits %s", in.Output, in.Classes, in.Logits)
	row("features", "%s: %d wide", in.Feature, in.FeatureWidth)
	row("head", "%s", strings.Join(in.Head, ", "))
	for _, why := range in.Choices {
		row("", "%s", why)
	}
	for i, line := range in.Tail {
		row(map[bool]string{true: "tail"}[i == 0], "%s", line)
	}
	row("trainable", "%d tensors, %d parameters", len(in.Trainable), in.Parameters)
	if in.Quantized {
		row("quantized", "trained in floats, then rounded with new scales; zero points stay")
	}
	if len(in.Frozen) > 0 {
		row("frozen", "%s", strings.Join(in.Frozen, ", "))
	}
	if len(in.Unfold) > 0 {
		row("unfold", "%d layers get a BatchNormalization for training: %s", len(in.Unfold), strings.Join(in.Unfold, ", "))
	}
	if in.Placement != nil {
		in.Placement.print(row)
	}
	for _, n := range in.Unsupported {
		row("unsupported", "%s", n.Reason)
	}
}
