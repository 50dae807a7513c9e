package onnx

import "fmt"

// branch returns the nodes that an If with a constant condition stands for, with their constants among the graph's initializers; ok is false
// for any other If, which stays. Inner values get the name of the If's first output before their own, as branches beside each other
// may use the same names.
func (u *upgrade) branch(n *Node) (nodes []*Node, ok bool, err error) {
	condition := u.initializer(n.Input(0))
	if n.Op != "If" || n.Domain != "" || condition == nil || condition.Type != Bool || condition.Len() != 1 {
		return nil, false, nil
	}
	name := "else_branch"
	if condition.Raw[0] != 0 {
		name = "then_branch"
	}
	a := n.Attr(name)
	if a == nil || a.Graph == nil || len(a.Graph.Outputs) != len(n.Outputs) {
		return nil, false, malformed("%s is missing, or has another number of outputs", name)
	}
	body := a.Graph
	inner := map[string]string{"": ""}
	define := func(names ...string) {
		for _, s := range names {
			if s != "" {
				inner[s] = n.Output(0) + "/" + s
			}
		}
	}
	for _, t := range body.Initializers {
		define(t.Name)
	}
	for _, b := range body.Nodes {
		define(b.Outputs...)
	}
	rename := func(s string) string {
		if to, known := inner[s]; known {
			return to
		}
		return s // of the graph around it
	}
	renamed := func(names []string) []string {
		out := make([]string, len(names))
		for i, s := range names {
			out[i] = rename(s)
		}
		return out
	}
	for _, t := range body.Initializers {
		moved := *t
		moved.Name = inner[t.Name]
		u.graph.Initializers = append(u.graph.Initializers, &moved)
	}
	for _, b := range body.Nodes {
		moved := *b
		moved.Name, moved.Inputs, moved.Outputs = within(n.Label(), b.Name), renamed(b.Inputs), renamed(b.Outputs)
		moved.Attrs = b.Recaptured(rename)
		nodes = append(nodes, &moved)
	}
	for i, v := range body.Outputs {
		if n.Output(i) != "" {
			nodes = append(nodes, &Node{Name: fmt.Sprintf("%s/output %d", n.Label(), i), Op: "Identity", Inputs: []string{rename(v.Name)}, Outputs: []string{n.Output(i)}})
		}
	}
	return nodes, true, nil
}
