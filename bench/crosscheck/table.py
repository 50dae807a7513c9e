"""Writes the model table."""
import collections

HEAD = """# Models

Made by `make models` (bench/crosscheck), which makes every row of the plan and goes on where it stopped: each model is exported with random weights,
`grindstone inspect --training-graph` writes its training step, and the step is compared with PyTorch autograd on the same weights: losses, every
gradient, BatchNormalization's running statistics, and the state after five steps of SGD with Nesterov momentum and weight decay.

{summary}

- *reads*: Grindstone finds input, classes, head and feature layer. *trains*: every operator on the way has a gradient rule.
- *exact*: the training step, run in float64, agrees with PyTorch in float64 to 1e-6 of the norm, five steps long, and ONNX Runtime in float32 agrees
  for one step to 1e-4 or to five times what PyTorch in float32 loses itself (*PyTorch's*): in a deep network one ReLU whose input rounds to the
  other side of zero changes gradients by more. The columns give the largest relative error over all tensors.
- *time*: a step's time (`grindstone bench step`) over PyTorch's in its default layout, medians of three, two threads each, of one export of each model, on a machine that
  did nothing else. Batch and images are as small as in the comparison, so that much of a step is the update of the weights; steps of a usual size are in
  [results](results/). A cell that is empty has not been timed. Those of VGG with 13 layers and more, and timm's with 11, are from when the update was in the graph.
- *6 of 24 layers* and the like: so that the comparison in float64 fits into memory; the layers left out are equal to those that are kept.
- Exporters of torchvision's and timm's models: `torchscript` (PyTorch's older one) keeps BatchNormalization unless *fused*; `dynamo` folds it into
  convolutions. *unfold*: the identity BatchNormalizations that sanitizing inserts are there. The number is the opset.
- *folded*: how many tensors an exporter has computed from parameters (tables of relative positions). PyTorch has no parameter to compare them with;
  their gradient is compared with central differences of the loss, to 1e-5.
- Keras models (exported by tf2onnx, by Keras itself, or by way of TFLite), scikit-learn's perceptrons and models quantized by ONNX Runtime: every
  gradient is compared with central differences of the loss in float64, to 1e-5, along a random direction, or up to three others where a ReLU turns over on its
  way; ONNX Runtime in float32 with float64, to 1e-4, and, where the file holds the weights of a model without BatchNormalization unchanged (*by tape*: how
  many), with tf.GradientTape in float64, to 1e-5.

Beside the table:

- Quantized models are read in the QDQ form (QuantizeLinear and DequantizeLinear around operators on floats). Other forms (QLinearConv, QLinearMatMul,
  ConvInteger, ONNX Runtime's own QLinear operators, dynamic quantization) are refused, and the message says how to quantize instead.
- A model with 2.16 GB of external data (a linear layer of 537 million weights) was inspected in 2.2 GB of memory, trained for two steps below 18.4 GB with
  that layer frozen, and written again in 70 MB. Steps that train all of a model of linear layers, 235 MB, hold 6.5 times its size. `inspect --training-graph` writes a
  single file, and so none above 2 GiB.
- tf2onnx writes GELU of Keras with an operator that ONNX does not have (Erfc), and leaves constants of Keras's Normalization as inputs, which nobody feeds: such a file does not run anywhere.
  An input that no node reads any more is no obstacle.
- PyTorch's dynamo exporter folds the keys' bias of Swin v2, which is zero, into a constant, and that is trained. Where images do not fill the windows (8 by 8
  patches of the last stages: 256 pixels do, 224 do not), the normalization of a padded position divides by next to nothing, and that bias gets gradients of 1e11.
- Weights that a file computes when it runs (normalized, standardized or divided by their spectral norm, low-rank updates that are not merged, pruned ones under their mask) are trained by
  the tensors that they are computed of. Vectors that estimate a spectral norm stay as they are.
- A layer without a gradient rule, such as LSTM and GRU, is an obstacle wherever it is, since it would keep its weights; `--freeze-below` leaves it as it is.
- Models of float16, bfloat16 and double are trained in float32, and written in their own type. Inputs of bytes (uint8) are read where the model makes floats of them before it computes.
- Files that ONNX Runtime has optimized and saved are read up to its level "extended"; level "all" is for one kind of processor.
- An If is read where its condition is a constant; other control flow is an obstacle where it lies on the way.
- A ConvTranspose whose output_padding or output_shape reaches beyond what its windows cover by a stride or more is refused before it runs: ONNX Runtime
  1.27 reads beyond its buffers there.

| model | export | pixels, batch | parameters | reads | trains | exact | float64 | float32 | PyTorch's | folded | by tape | time | why not |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def write(path, rows, planned):
    """rows: results as crosscheck.py keeps them. planned: the (model, how) of every case of the whole table."""
    rows = [r for r in rows if (r["model"], r["how"]) in planned]
    done = {(r["model"], r["how"]) for r in rows}
    text = HEAD.format(summary=summary(rows, [p for p in planned if p not in done], len(planned)))
    for r in sorted(rows, key=lambda r: (r["model"], r["exporter"], r["how"])):
        yes = {True: "yes", False: "no"}
        compared = "float32" in r
        cells = [
            r["model"], r["how"], f"{r['size']}, {r['batch']}" if "size" in r else "", f"{r['parameters']:,}" if "parameters" in r else "",
            yes[r["reads"]], yes[r["trains"]], yes[r["exact"]] if compared else "", f"{r['error']:.0e}" if compared else "",
            f"{r['float32']:.0e}" if compared else "", f"{r['float32_pytorch']:.0e}" if "float32_pytorch" in r else "", str(r.get("folded", "")), str(r.get("paired", "")),
            str(r.get("time_ratio", "")), "" if r["exact"] else f"{r.get('stage', '')}: {r.get('reason', '')}".replace("|", "\\|"),
        ]
        text += "| " + " | ".join(cells) + " |\n"
    path.write_text(text)


def summary(rows, missing, planned):
    """What has been run and what has not, in words."""
    stages = collections.Counter(r["stage"] for r in rows if not r["exact"])
    words = {"export": "could not be exported", "read": "are not read", "train": "are not trained", "compare": "are not exact enough", "time": "took too long", "error": "failed otherwise"}
    text = f"The plan has {planned} exports. **{len(rows)} of them have been run: {sum(r['exact'] for r in rows)} are exact"
    text += "".join(f", {n} {words[stage]}" for stage, n in sorted(stages.items())) + ".**"
    if missing:
        by_model = collections.defaultdict(list)
        for model, how in missing:
            by_model[model].append(how)
        text += f" {len(missing)} have not been run yet, which says nothing about them:\n\n"
        text += "; ".join(f"{model} ({' / '.join(hows)})" for model, hows in sorted(by_model.items())) + "."
    return text
