package grad_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"grindstone/sanitize/grad"
	"grindstone/sanitize/onnx"
	"grindstone/sanitize/ort"
)

// draw makes a random sample of an operator. There must be one for every rule in the table.
var draw = map[string]func(t *rapid.T) sample{
	"Celu": unary("Celu", kinks, "alpha"), "Clip": drawClip, "Elu": unary("Elu", kinks, "alpha"), "HardSigmoid": unary("HardSigmoid", kinks, "alpha", "beta"),
	"HardSwish": unary("HardSwish", kinks), "LeakyRelu": unary("LeakyRelu", kinks, "alpha"), "LogSoftmax": alongAxis("LogSoftmax", smooth),
	"PRelu": drawPRelu, "Relu": unary("Relu", kinks), "Selu": unary("Selu", kinks, "alpha", "gamma"), "Shrink": unary("Shrink", kinks, "lambd", "bias"),
	"Sigmoid": unary("Sigmoid", smooth), "Softmax": alongAxis("Softmax", smooth), "Softplus": unary("Softplus", smooth), "Softsign": unary("Softsign", kinks),
	"Tanh": unary("Tanh", smooth), "ThresholdedRelu": unary("ThresholdedRelu", kinks, "alpha"),

	"Abs": unary("Abs", kinks), "Acos": unary("Acos", within1), "Acosh": unary("Acosh", above1), "Asin": unary("Asin", within1), "Asinh": unary("Asinh", smooth),
	"Atan": unary("Atan", smooth), "Atanh": unary("Atanh", within1), "Cos": unary("Cos", smooth), "Cosh": unary("Cosh", smooth), "Erf": unary("Erf", smooth),
	"Exp": unary("Exp", smooth), "Identity": unary("Identity", smooth), "Log": unary("Log", above0), "Neg": unary("Neg", smooth), "Reciprocal": unary("Reciprocal", kinks),
	"Sin": unary("Sin", smooth), "Sinh": unary("Sinh", smooth), "Sqrt": unary("Sqrt", above0), "Tan": unary("Tan", within1),

	"Add": binary("Add"), "Div": binary("Div"), "Mod": binary("Mod", onnx.I("fmod", 1)), "Mul": binary("Mul"), "Sub": binary("Sub"), "Pow": drawPow, "Where": drawWhere,
	"Max": variadic("Max"), "Mean": variadic("Mean"), "Min": variadic("Min"), "Sum": variadic("Sum"),

	"ReduceL1": reduce("ReduceL1", kinks), "ReduceL2": reduce("ReduceL2", smooth), "ReduceLogSum": reduce("ReduceLogSum", above0),
	"ReduceLogSumExp": reduce("ReduceLogSumExp", smooth), "ReduceMax": reduce("ReduceMax", kinks), "ReduceMean": reduce("ReduceMean", smooth),
	"ReduceMin": reduce("ReduceMin", kinks), "ReduceProd": reduce("ReduceProd", withZeros), "ReduceSum": drawReduceSum, "ReduceSumSquare": reduce("ReduceSumSquare", smooth),

	"Cast": drawCast, "CastLike": drawCastLike, "Concat": drawConcat, "CumSum": drawCumSum, "DepthToSpace": drawDepthToSpace, "Expand": drawExpand, "Flatten": drawFlatten,
	"Pad": drawPad, "Reshape": drawReshape, "Resize": drawResize, "ReverseSequence": drawReverseSequence, "Slice": drawSlice, "SpaceToDepth": drawSpaceToDepth,
	"Split": drawSplit, "Squeeze": drawSqueeze, "Tile": drawTile, "Transpose": drawTranspose, "Trilu": drawTrilu, "Unsqueeze": drawUnsqueeze,

	"Compress": drawCompress, "Gather": drawGather, "GatherElements": drawGatherElements, "GatherND": drawGatherND, "OneHot": drawOneHot,
	"ScatterElements": drawScatterElements, "ScatterND": drawScatterND, "TopK": drawTopK,

	"Conv": drawConv, "ConvTranspose": drawConvTranspose, "Einsum": drawEinsum, "Gemm": drawGemm, "MatMul": drawMatMul,

	"AveragePool": drawPool("AveragePool"), "GlobalAveragePool": drawGlobal("GlobalAveragePool"), "GlobalLpPool": drawGlobal("GlobalLpPool"),
	"GlobalMaxPool": drawGlobal("GlobalMaxPool"), "LpPool": drawPool("LpPool"), "MaxPool": drawPool("MaxPool"),

	"BatchNormalization": drawBatchNorm, "InstanceNormalization": drawInstanceNorm, "LRN": drawLRN, "LayerNormalization": drawLayerNorm,
	"LpNormalization": drawLpNormalization, "MeanVarianceNormalization": drawMeanVariance,

	"ArgMax": alongAxis("ArgMax", kinks), "ArgMin": alongAxis("ArgMin", kinks), "Ceil": unary("Ceil", offGrid), "Equal": binary("Equal"), "Floor": unary("Floor", offGrid),
	"Greater": binary("Greater"), "GreaterOrEqual": binary("GreaterOrEqual"), "Hardmax": alongAxis("Hardmax", kinks), "IsInf": unary("IsInf", smooth),
	"IsNaN": unary("IsNaN", smooth), "Less": binary("Less"), "LessOrEqual": binary("LessOrEqual"), "NonZero": unary("NonZero", kinks), "Round": unary("Round", offGrid),
	"Shape": unary("Shape", smooth), "Sign": unary("Sign", kinks), "Size": unary("Size", smooth),
}

// withoutFloats are operators on bools, which have nothing to differentiate.
var withoutFloats = []string{"And", "Not", "Or", "Xor"}

// tolerance is the relative error that finite differences in float64 allow.
const tolerance = 1e-6

func TestRules(t *testing.T) {
	for op := range grad.Rules {
		t.Run(op, func(t *testing.T) {
			d := draw[op]
			if d == nil && !slices.Contains(withoutFloats, op) {
				t.Fatalf("no sample of %s: a rule without a check", op)
			}
			if d == nil {
				return
			}
			rapid.Check(t, func(rt *rapid.T) {
				s := d(rt)
				s.open = rapid.Bool().Draw(rt, "open batch")
				rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "numbers"), 0))
				e, err := checkRule(t, s, rng)
				if err != nil {
					rt.Fatalf("%v: %v", describe(s), err)
				}
				if e > tolerance {
					rt.Fatalf("relative error %.2g; %v", e, describe(s))
				}
			})
		})
	}
}

// TestBrokenRulesAreCaught breaks every rule in turn, by 1 % of the gradients that it is given and by returning none, and expects the check to
// fail.
func TestBrokenRulesAreCaught(t *testing.T) {
	for op, rule := range grad.Rules {
		if rule.Backward == nil {
			continue
		}
		wrong, none := rule, rule
		wrong.Backward = func(t *grad.Tape, n *onnx.Node, dy []string) []string {
			dy = slices.Clone(dy) // rules are linear in it
			for i := range dy {
				if dy[i] != "" {
					dy[i] = t.B.Op("Mul", []string{dy[i], t.B.Float(1.01)})
				}
			}
			return rule.Backward(t, n, dy)
		}
		none.Flat = func(*onnx.Node) bool { return true }
		for how, broken := range map[string]grad.Rule{"by 1 %": wrong, "by saying that it is flat": none} {
			t.Run(op+" "+how, func(t *testing.T) {
				grad.Rules[op] = broken
				defer func() { grad.Rules[op] = rule }()
				caught := 0
				for seed := range 10 { // the true gradient of a single sample may happen to be zero
					s := rapid.Custom(draw[op]).Example(seed)
					e, err := checkRule(t, s, rand.New(rand.NewPCG(1, 0)))
					if err != nil {
						t.Fatal(err)
					}
					if e > tolerance {
						caught++
					}
				}
				if caught < 5 {
					t.Errorf("a rule that is wrong %s passes on %d of 10 samples", how, 10-caught)
				}
			})
		}
	}
}

// TestRulesInRuntime runs the gradients in ONNX Runtime, whose types and kernels the interpreter does not know.
func TestRulesInRuntime(t *testing.T) {
	if _, err := ort.Load(); errors.Is(err, ort.ErrLibrary) {
		t.Skip(err)
	}
	for op, d := range draw {
		t.Run(op, func(t *testing.T) {
			for seed := range 12 {
				s := rapid.Custom(d).Example(seed)
				s.open = seed%2 == 1
				e, err := checkRuntime(t, s, rand.New(rand.NewPCG(2, uint64(seed))))
				if err != nil {
					t.Fatalf("%v: %v", describe(s), err)
				}
				if e > 1e-3 {
					t.Errorf("relative difference %.2g; %v", e, describe(s))
				}
			}
		})
	}
}

func describe(s sample) (list []any) {
	list = append(list, s.node.Op, s.node.Inputs, s.inputs)
	for _, c := range s.constants {
		list = append(list, c.Name, c.Shape, c.Ints(), c.Doubles())
	}
	for name, v := range s.fed {
		list = append(list, name, v.Shape, v.I)
	}
	for _, a := range s.node.Attrs {
		list = append(list, a.Name, a.I, a.F, string(a.S), a.Ints)
	}
	return list
}
