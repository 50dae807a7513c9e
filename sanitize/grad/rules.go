package grad

import "grindstone/sanitize/onnx"

// Rules is the table of differentiation: one entry per operator of the standard domain at opset 17. The rules stand in files by family;
// docs/operators.md lists them.
//
//go:generate go test -run TestOperatorsDocument . -update
var Rules map[string]Rule

// slope is the derivative of an element-wise function, given its input x and output y.
type slope func(t *Tape, n *onnx.Node, x, y string) string

// elementwise is the rule of a function of one variable.
func elementwise(d slope) Rule {
	return Rule{AnyLayout: true, Backward: func(t *Tape, n *onnx.Node, dy []string) []string {
		return []string{t.mul(dy[0], d(t, n, t.Ref(n.Inputs[0]), t.Ref(n.Outputs[0])))}
	}}
}

func (r Rule) note(text string) Rule {
	r.Note = text
	return r
}

func always(*onnx.Node) bool { return true }

func init() { // in init, since rules refer to the table through the tape
	Rules = map[string]Rule{
		// activations
		"Celu":            elementwise(celuSlope),
		"Clip":            {Backward: clipGrad, AnyLayout: true, Note: "the bounds get gradients too"},
		"Elu":             elementwise(eluSlope),
		"HardSigmoid":     elementwise(hardSigmoidSlope),
		"HardSwish":       elementwise(hardSwishSlope),
		"LeakyRelu":       {Backward: leakyReluGrad, AnyLayout: true},
		"LogSoftmax":      {Backward: logSoftmaxGrad},
		"PRelu":           {Backward: preluGrad, AnyLayout: true},
		"Relu":            {Backward: reluGrad, AnyLayout: true},
		"Selu":            elementwise(seluSlope),
		"Shrink":          elementwise(shrinkSlope),
		"Sigmoid":         elementwise(sigmoidSlope),
		"Softmax":         {Backward: softmaxGrad},
		"Softplus":        elementwise(softplusSlope),
		"Softsign":        elementwise(softsignSlope),
		"Tanh":            elementwise(tanhSlope),
		"ThresholdedRelu": elementwise(thresholdedReluSlope),

		// functions of one variable
		"Abs":        elementwise(absSlope),
		"Acos":       elementwise(acosSlope),
		"Acosh":      elementwise(acoshSlope),
		"Asin":       elementwise(asinSlope),
		"Asinh":      elementwise(asinhSlope),
		"Atan":       elementwise(atanSlope),
		"Atanh":      elementwise(atanhSlope),
		"Cos":        elementwise(cosSlope),
		"Cosh":       elementwise(coshSlope),
		"Erf":        elementwise(erfSlope),
		"Exp":        elementwise(expSlope),
		"Identity":   {Backward: identityGrad, AnyLayout: true},
		"Log":        elementwise(logSlope),
		"Neg":        {Backward: negGrad, AnyLayout: true},
		"Reciprocal": elementwise(reciprocalSlope),
		"Sin":        elementwise(sinSlope),
		"Sinh":       elementwise(sinhSlope),
		"Sqrt":       elementwise(sqrtSlope),
		"Tan":        elementwise(tanSlope),

		// arithmetic with broadcasting
		"Add":   {Backward: addGrad, AnyLayout: true},
		"Div":   {Backward: divGrad, AnyLayout: true},
		"Max":   {Backward: extremeGrad, AnyLayout: true, Note: "equal operands share"},
		"Mean":  {Backward: meanGrad, AnyLayout: true},
		"Min":   {Backward: extremeGrad, AnyLayout: true, Note: "equal operands share"},
		"Mod":   {Backward: modGrad, AnyLayout: true, Note: "fmod=1, the form for floats"},
		"Mul":   {Backward: mulGrad, AnyLayout: true},
		"Pow":   {Backward: powGrad, AnyLayout: true, Note: "exponents of any type; none for the exponent where the base is not positive"},
		"Sub":   {Backward: subGrad, AnyLayout: true},
		"Sum":   {Backward: sumGrad, AnyLayout: true},
		"Where": {Backward: whereGrad, AnyLayout: true},

		// reductions
		"ReduceL1":        reduction(reduceL1),
		"ReduceL2":        reduction(reduceL2),
		"ReduceLogSum":    reduction(reduceLogSum),
		"ReduceLogSumExp": reduction(reduceLogSumExp),
		"ReduceMax":       reduction(reduceExtreme).note("equal elements share"),
		"ReduceMean":      {Backward: reduceMeanGrad},
		"ReduceMin":       reduction(reduceExtreme).note("equal elements share"),
		"ReduceProd":      reduction(reduceProd).note("exact with zeros among the factors"),
		"ReduceSum":       {Backward: reduceSumGrad},
		"ReduceSumSquare": reduction(reduceSumSquare),

		// shape
		"Cast":            {Backward: castGrad, Flat: toDiscrete, Note: "between floating-point types; to others piecewise constant"},
		"CastLike":        {Backward: castGrad},
		"Concat":          {Backward: concatGrad},
		"CumSum":          {Backward: cumSumGrad},
		"DepthToSpace":    {Backward: depthToSpaceGrad},
		"Expand":          {Backward: expandGrad},
		"Flatten":         {Forward: reshapeForward, Backward: reshapeGrad},
		"Pad":             {Backward: padGrad, Note: "all modes at opset 17"},
		"Reshape":         {Forward: reshapeForward, Backward: reshapeGrad},
		"Resize":          {Backward: resizeGrad, Note: "every mode at opset 17 but tf_crop_and_resize; linear by axis"},
		"ReverseSequence": {Backward: again},
		"Slice":           {Backward: sliceGrad, Note: "bounds may be computed"},
		"SpaceToDepth":    {Backward: spaceToDepthGrad},
		"Split":           {Backward: splitGrad},
		"Squeeze":         {Forward: reshapeForward, Backward: reshapeGrad},
		"Tile":            {Backward: tileGrad},
		"Transpose":       {Backward: transposeGrad},
		"Trilu":           {Backward: again},
		"Unsqueeze":       {Forward: reshapeForward, Backward: reshapeGrad},

		// indices
		"Compress":        {Backward: compressGrad, Note: "the condition may be computed"},
		"Gather":          {Backward: gatherGrad, Note: "repeated indices add up"},
		"GatherElements":  {Backward: gatherElementsGrad},
		"GatherND":        {Backward: gatherNDGrad},
		"OneHot":          {Backward: oneHotGrad, Note: "the values get the gradient"},
		"ScatterElements": {Backward: scatterElementsGrad, Refuse: otherReduction, Note: "reduction none and add"},
		"ScatterND":       {Backward: scatterNDGrad, Refuse: otherReduction, Note: "reduction none and add"},
		"TopK":            {Forward: topKForward, Backward: topKGrad},

		// linear layers
		"Conv":          {Forward: convForward, Backward: convGrad, Inner: &innerConv, Refuse: unresolved, Note: "one to three dimensions; groups, strides, dilations"},
		"ConvTranspose": {Backward: convTransposeGrad, Refuse: unresolved, Note: "no output_padding that reaches the stride: ONNX Runtime reads beyond its buffer there"},
		"Einsum":        {Backward: einsumGrad, Note: "ellipses, diagonals, any number of operands"},
		"Gemm":          {Backward: gemmGrad},
		"MatMul":        {Backward: matMulGrad},

		// pooling
		"AveragePool":       {Backward: averagePoolGrad, Inner: &innerAveragePool, Refuse: either(unresolved, overhang)},
		"GlobalAveragePool": {Backward: globalAveragePoolGrad, Inner: &innerGlobalAverage},
		"GlobalLpPool":      {Backward: globalLpPoolGrad},
		"GlobalMaxPool":     {Backward: globalMaxPoolGrad, Note: "equal elements share"},
		"LpPool":            {Backward: lpPoolGrad, Refuse: unresolved},
		"MaxPool":           {Forward: maxPoolForward, Backward: maxPoolGrad, Refuse: either(unresolved, columnMajor), Note: "the first of equal elements; no storage_order=1"},

		// normalization
		"BatchNormalization":        {Forward: batchNormForward, Backward: batchNormGrad, AnyLayout: true, Note: "by the batch in training, by the running statistics otherwise"},
		"InstanceNormalization":     {Backward: instanceNormGrad},
		"LRN":                       {Backward: localResponseGrad},
		"LayerNormalization":        {Forward: layerNormForward, Backward: layerNormGrad, Refuse: statisticsRead, Note: "not with mean and deviation as outputs"},
		"LpNormalization":           {Backward: lpNormalizationGrad},
		"MeanVarianceNormalization": {Backward: meanVarianceGrad},

		// piecewise constant
		"And":            {Flat: always},
		"ArgMax":         {Flat: always},
		"ArgMin":         {Flat: always},
		"Ceil":           {Flat: always},
		"Equal":          {Flat: always},
		"Floor":          {Flat: always},
		"Greater":        {Flat: always},
		"GreaterOrEqual": {Flat: always},
		"Hardmax":        {Flat: always},
		"IsInf":          {Flat: always},
		"IsNaN":          {Flat: always},
		"Less":           {Flat: always},
		"LessOrEqual":    {Flat: always},
		"NonZero":        {Flat: always},
		"Not":            {Flat: always},
		"Or":             {Flat: always},
		"Round":          {Flat: always},
		"Shape":          {Flat: always},
		"Sign":           {Flat: always},
		"Size":           {Flat: always},
		"Xor":            {Flat: always},
	}
}
