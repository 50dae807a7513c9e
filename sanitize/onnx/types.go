// Package onnx reads, changes and writes ONNX models (https://onnx.ai/onnx/repo-docs/IR.html).
//
// Two uses shape it. A third party's model is read with Parse or ReadFile and written back with Rewrite, which keeps every byte but
// the weights. A training graph is assembled with a Builder and written with Marshal.
package onnx

import "fmt"

// DataType is TensorProto.DataType.
type DataType int32

// The element types of the ONNX standard that classifiers use.
const (
	Undefined DataType = 0
	Float     DataType = 1
	Uint8     DataType = 2
	Int8      DataType = 3
	Uint16    DataType = 4
	Int16     DataType = 5
	Int32     DataType = 6
	Int64     DataType = 7
	String    DataType = 8
	Bool      DataType = 9
	Float16   DataType = 10
	Double    DataType = 11
	Uint32    DataType = 12
	Uint64    DataType = 13
	BFloat16  DataType = 16
)

// Model is a ModelProto.
type Model struct {
	IRVersion       int64
	Opsets          map[string]int64 // operator set domain -> version; "" is the standard's own domain
	ProducerName    string
	ProducerVersion string
	Domain          string
	ModelVersion    int64
	Doc             string
	Metadata        map[string]string
	Graph           *Graph
	Functions       []*Function // model-local functions

	raw []byte // the bytes the model was parsed from; Rewrite patches these
	err error  // what went wrong while a Builder assembled the model; Marshal reports it
}

// Graph is a GraphProto. Nodes are in topological order, as the standard demands.
type Graph struct {
	Name         string
	Nodes        []*Node
	Initializers []*Tensor
	Inputs       []*Value
	Outputs      []*Value
	Values       []*Value // value_info of inner values, where the exporter wrote it
}

// Node is a NodeProto. An empty input name is an omitted optional input.
type Node struct {
	Name     string
	Op       string
	Domain   string
	Overload string // tells functions of the same name apart
	Inputs   []string
	Outputs  []string
	Attrs    []*Attr
}

// Function is a FunctionProto: an operator that the model itself defines by nodes.
type Function struct {
	Name     string
	Domain   string
	Overload string
	Inputs   []string
	Outputs  []string
	Attrs    []string // attributes of a call, without defaults
	Defaults []*Attr  // attributes with them
	Nodes    []*Node
	Opsets   map[string]int64
}

// AttrType is AttributeProto.AttributeType.
type AttrType int32

// The attribute types in use.
const (
	AttrFloat   AttrType = 1
	AttrInt     AttrType = 2
	AttrString  AttrType = 3
	AttrTensor  AttrType = 4
	AttrGraph   AttrType = 5
	AttrFloats  AttrType = 6
	AttrInts    AttrType = 7
	AttrStrings AttrType = 8
)

// Attr is an AttributeProto; Type says which of the fields holds the value.
type Attr struct {
	Name    string
	Type    AttrType
	F       float32
	I       int64
	S       []byte
	Tensor  *Tensor
	Graph   *Graph
	Floats  []float32
	Ints    []int64
	Strings [][]byte
	Ref     string // inside of a function: the attribute of the call that gives the value
}

// Tensor is a TensorProto. Raw holds the elements in row-major order, little-endian, whatever field the file kept them in; it is nil
// for strings. Shape [] is a scalar.
type Tensor struct {
	Name  string
	Type  DataType
	Shape []int64
	Raw   []byte

	Strings  [][]byte  // the elements of a String tensor
	External *External // set when the file keeps the data outside; Raw is filled by ReadFile
}

// External locates tensor data outside of the model file (external_data of a TensorProto).
type External struct {
	Location string
	Offset   int64
	Length   int64 // 0: to the end of the file
}

// Value is a ValueInfoProto of tensor type. Shape is nil when the rank is unknown, and empty for a scalar. Type is Undefined where the
// file gives no type or one that is not a tensor (a sequence, a map); NotTensor tells the two apart.
type Value struct {
	Name      string
	Type      DataType
	Shape     []Dim
	NotTensor bool
}

// Dim is one dimension: a fixed Size, or Size -1 with an optional symbolic Param ("batch").
type Dim struct {
	Size  int64
	Param string
}

// Error tells where in a model something is wrong.
type Error struct {
	File string // may be empty
	Node string // name or op of a node, may be empty
	What string // tensor, attribute or field, may be empty
	Err  error
}

func (e *Error) Error() string {
	s := ""
	if e.File != "" {
		s += e.File + ": "
	}
	if e.Node != "" {
		s += fmt.Sprintf("node %q: ", e.Node)
	}
	if e.What != "" {
		s += e.What + ": "
	}
	return s + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }
