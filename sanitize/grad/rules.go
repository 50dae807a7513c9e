package grad

// Rules is the table of differentiation: one entry per operator of the standard domain. The rules stand in files by family.
var Rules map[string]Rule

func init() { // in init, since rules refer to the table through the tape
	Rules = map[string]Rule{
		"Abs":                {Backward: absGrad, AnyLayout: true},
		"Add":                {Backward: addGrad, AnyLayout: true},
		"AveragePool":        {Backward: averagePoolGrad, Inner: &innerAveragePool},
		"BatchNormalization": {Forward: batchNormForward, Backward: batchNormGrad, AnyLayout: true},
		"Clip":               {Backward: clipGrad},
		"Concat":             {Backward: concatGrad},
		"Conv":               {Backward: convGrad, Inner: &innerConv},
		"Div":                {Backward: divGrad, AnyLayout: true},
		"Exp":                {Backward: expGrad, AnyLayout: true},
		"Flatten":            {Backward: reshapeGrad},
		"Gemm":               {Backward: gemmGrad},
		"GlobalAveragePool":  {Backward: globalAveragePoolGrad, Inner: &innerGlobalAverage},
		"Identity":           {Backward: identityGrad, AnyLayout: true},
		"LeakyRelu":          {Backward: leakyReluGrad, AnyLayout: true},
		"Log":                {Backward: logGrad, AnyLayout: true},
		"LogSoftmax":         {Backward: logSoftmaxGrad},
		"MatMul":             {Backward: matMulGrad},
		"MaxPool":            {Forward: maxPoolForward, Backward: maxPoolGrad},
		"Mul":                {Backward: mulGrad, AnyLayout: true},
		"Neg":                {Backward: negGrad, AnyLayout: true},
		"Pad":                {Backward: padGrad},
		"ReduceMean":         {Backward: reduceMeanGrad},
		"ReduceSum":          {Backward: reduceSumGrad},
		"Relu":               {Backward: reluGrad, AnyLayout: true},
		"Reshape":            {Backward: reshapeGrad},
		"Sigmoid":            {Backward: sigmoidGrad, AnyLayout: true},
		"Softmax":            {Backward: softmaxGrad},
		"Softplus":           {Backward: softplusGrad, AnyLayout: true},
		"Sqrt":               {Backward: sqrtGrad, AnyLayout: true},
		"Squeeze":            {Backward: reshapeGrad},
		"Sub":                {Backward: subGrad, AnyLayout: true},
		"Tanh":               {Backward: tanhGrad, AnyLayout: true},
		"Transpose":          {Backward: transposeGrad},
		"Unsqueeze":          {Backward: reshapeGrad},
	}
}
