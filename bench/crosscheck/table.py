"""Writes the model table."""
HEAD = """# Models

Made by `make models` (bench/crosscheck): each model is exported by PyTorch with random weights, `grindstone inspect --training-graph` writes its
training step, and the step is compared with PyTorch autograd on the same weights: losses, every gradient, BatchNormalization's running
statistics, and the state after five steps of SGD with Nesterov momentum and weight decay. {count} exports, {exact} exact.

- *reads*: Grindstone finds input, classes, head and feature layer. *trains*: every operator on the way has a gradient rule.
- *exact*: the training step, run in float64, agrees with PyTorch in float64 to 1e-6 of the norm, five steps long, and ONNX Runtime in float32 agrees
  for one step to 1e-4 or to five times what PyTorch in float32 loses itself. The columns give the largest relative error over all tensors.
- *time*: a step's time over PyTorch's in its default layout, on this batch and image size, two threads each; small images say little about large ones.
- Exporters: `torchscript` (PyTorch's older one) keeps BatchNormalization unless *fused*; `dynamo` folds it into convolutions. *unfold*: the identity
  BatchNormalizations that sanitizing inserts are there. The number is the opset.
- Compared are the tensors that Grindstone trains. Where an exporter has folded a constant out of parameters (tables of relative positions), there is
  no parameter in PyTorch to compare with; its gradient is compared with central differences of the loss instead, to 1e-5.
- *folded*: how many such tensors there are.

| model | export | pixels, batch | parameters | reads | trains | exact | float64 | float32 | folded | time | why not |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def write(path, rows):
    text = HEAD.format(count=len(rows), exact=sum(r["exact"] for r in rows))
    for r in sorted(rows, key=lambda r: (r["model"], r["exporter"], r["how"])):
        yes = {True: "yes", False: "no"}
        compared = "float32" in r
        cells = [
            r["model"], r["how"], f"{r['size']}, {r['batch']}" if "size" in r else "", f"{r['parameters']:,}" if "parameters" in r else "",
            yes[r["reads"]], yes[r["trains"]], yes[r["exact"]] if compared else "", f"{r['error']:.0e}" if compared else "",
            f"{r['float32']:.0e}" if compared else "", str(r.get("folded", "")), str(r.get("time_ratio", "")), "" if r["exact"] else f"{r.get('stage', '')}: {r.get('reason', '')}".replace("|", "\\|"),
        ]
        text += "| " + " | ".join(cells) + " |\n"
    path.write_text(text)
