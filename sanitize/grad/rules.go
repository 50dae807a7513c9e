package grad

// Rules is the table of differentiation: one entry per operator of the standard domain. The rules stand in files by family.
var Rules map[string]Rule

func init() { // in init, since rules refer to the table through the tape
	Rules = map[string]Rule{
		"Abs":                {Backward: absGrad},
		"Add":                {Backward: addGrad},
		"AveragePool":        {Backward: averagePoolGrad},
		"BatchNormalization": {Forward: batchNormForward, Backward: batchNormGrad},
		"Clip":               {Backward: clipGrad},
		"Concat":             {Backward: concatGrad},
		"Conv":               {Backward: convGrad},
		"Div":                {Backward: divGrad},
		"Exp":                {Backward: expGrad},
		"Flatten":            {Backward: reshapeGrad},
		"Gemm":               {Backward: gemmGrad},
		"GlobalAveragePool":  {Backward: globalAveragePoolGrad},
		"Identity":           {Backward: identityGrad},
		"LeakyRelu":          {Backward: leakyReluGrad},
		"Log":                {Backward: logGrad},
		"LogSoftmax":         {Backward: logSoftmaxGrad},
		"MatMul":             {Backward: matMulGrad},
		"MaxPool":            {Forward: maxPoolForward, Backward: maxPoolGrad},
		"Mul":                {Backward: mulGrad},
		"Neg":                {Backward: negGrad},
		"Pad":                {Backward: padGrad},
		"ReduceMean":         {Backward: reduceMeanGrad},
		"ReduceSum":          {Backward: reduceSumGrad},
		"Relu":               {Backward: reluGrad},
		"Reshape":            {Backward: reshapeGrad},
		"Sigmoid":            {Backward: sigmoidGrad},
		"Softmax":            {Backward: softmaxGrad},
		"Sqrt":               {Backward: sqrtGrad},
		"Squeeze":            {Backward: reshapeGrad},
		"Sub":                {Backward: subGrad},
		"Tanh":               {Backward: tanhGrad},
		"Transpose":          {Backward: transposeGrad},
		"Unsqueeze":          {Backward: reshapeGrad},
	}
}
