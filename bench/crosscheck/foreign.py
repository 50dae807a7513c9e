"""Cases that PyTorch has not exported: Keras by three exporters, scikit-learn, and ONNX Runtime's quantization of either.

There is no PyTorch module to pair tensors with. The gradient of every trained tensor is compared with central differences of the step's own loss
in float64, ONNX Runtime in float32 with float64, and where TensorFlow's weights stand in the file as they are (exporters fold BatchNormalization),
the loss and their gradients with tf.GradientTape.
"""
import itertools
import os
import pathlib
import subprocess

import numpy as np
import onnx
import torch

import compare
import evaluate
import zoo
from twin import tensors

CHUNKS = 24  # of trained tensors, each with a random direction of its own
DIFFERENCES = 1e-5  # of the norm
TRIES = 4  # directions
TAPE = 1e-5  # of the norm: what the file has folded is rounded to float32


def check(case, grindstone, folder, broken, tensorflow, row):
    """Fills the row of the table."""
    torch.set_num_threads(1)
    path, reference = folder / "model.onnx", folder / "reference.npz"
    export(case, path, reference, tensorflow)
    info = compare.inspect(grindstone, path)
    row.update(reads=True, parameters=info["parameters"], feature=info["feature_layer"], feature_width=info["feature_width"])
    plain = folder / "plain.onnx"
    run = subprocess.run([grindstone, "inspect", path, "--training-graph", plain, "--batch", str(case.batch)], capture_output=True, text=True,
                         env=dict(os.environ, GRINDSTONE_BREAK=broken))
    if run.returncode:
        raise compare.Failed("train", compare.last_line(run.stderr))
    onnx.checker.check_model(str(plain), full_check=True)
    row["trains"] = True

    known = dict(np.load(reference)) if reference.exists() else {}
    step = compare.Step(plain)
    batch = random_batch(case, info, step, known)
    wide = {k: evaluate.to_torch(v) for k, v in batch.items()}
    graph = evaluate.Graph(plain)
    values = initial(plain, step)
    errors = {"differences": by_differences(graph.run, wide, values), "float32": in_float32(graph.run(wide), step.run(batch), step)}
    allowed = {"differences": DIFFERENCES, "float32": compare.TOLERANCE}
    if known and not step.statistics:
        errors["tape"], row["paired"] = by_tape(graph.run(wide | {"alpha": torch.zeros(1, dtype=torch.float64)}), values, known)
        allowed["tape"] = TAPE
    row.update(error=errors["differences"], float32=errors["float32"], errors=errors)
    bad = [f"{k} off by {errors[k]:.1e}, at most {limit:.0e}" for k, limit in allowed.items() if not errors[k] <= limit]
    row["exact"] = not bad
    if bad:
        row["stage"], row["reason"] = "compare", "; ".join(bad)


def export(case, path, reference, tensorflow):
    if case.source == "keras":
        if not tensorflow:
            raise compare.Failed("export", "needs --tensorflow")
        script = pathlib.Path(__file__).with_name("keras_export.py")
        arguments = [case.name, case.exporter, case.size, case.batch, case.opset, path, reference]
        run = subprocess.run([tensorflow, script, *map(str, arguments)], capture_output=True, text=True)
        if run.returncode:
            raise compare.Failed("export", compare.last_line(run.stderr))
    elif case.source == "sklearn":
        perceptron(case, path)
    else:
        quantized(case, path)


def perceptron(case, path):
    """A perceptron of scikit-learn with two hidden layers, on grey images that come as rows."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    random = np.random.default_rng(3)
    images, labels = random.random((200, case.size * case.size), np.float32), np.arange(200) % zoo.CLASSES
    model = MLPClassifier((48, 32), activation=case.name, max_iter=2, random_state=7).fit(images, labels)
    onnx.save(to_onnx(model, images[:1], target_opset=case.opset, options={"zipmap": False}), path)


def quantized(case, path):
    """ONNX Runtime's static quantization of a model that PyTorch has exported."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    whole = path.with_name("float.onnx")
    like = zoo.Case("torchvision", case.name, size=case.size, batch=case.batch, opset=case.opset)
    zoo.export(like, zoo.fuse(zoo.build(like), torch.zeros(2, 3, case.size, case.size)), whole)

    class Reader(CalibrationDataReader):
        def __init__(self):
            random = np.random.default_rng(3)
            self.batches = iter([{"images": random.standard_normal((case.batch, 3, case.size, case.size)).astype(np.float32)} for _ in range(4)])

        def get_next(self):
            return next(self.batches, None)

    quantize_static(str(whole), str(path), Reader(), quant_format=getattr(QuantFormat, case.exporter), per_channel=True, weight_type=QuantType.QInt8)


def random_batch(case, info, step, known):
    random = np.random.default_rng(3)
    shape = step.inputs["images"]
    return {
        "images": known["images"] if known else random.random([case.batch, *shape[1:]], np.float32),
        "labels": known["labels"].astype(np.int64) if known else random.integers(0, zoo.CLASSES, case.batch),
        "targets": random.standard_normal((case.batch, info["feature_width"])).astype(np.float32),
        "alpha": np.array([compare.ALPHA], np.float32),
        "rate": np.zeros(1, np.float32),
    }


def initial(plain, step):
    """The trained tensors as the step starts with them, in float64."""
    _, constants = tensors(plain)
    return {n: torch.from_numpy(np.array(constants[n], dtype=np.float64)) for n in step.trained}


def by_differences(run, batch, values):
    """The largest relative error of the gradient along random directions, each of some of the tensors."""
    random = np.random.default_rng(5)
    result = run(batch)
    names = sorted(values)
    worst = 0.0
    gradients = {n: torch.as_tensor(np.asarray(result[n + "/gradient"])).double().reshape(values[n].shape) for n in names}
    whole = torch.sqrt(sum((g * g).sum() for g in gradients.values())).item()
    for chunk in [names[i::CHUNKS] for i in range(min(CHUNKS, len(names)))]:
        error = np.inf
        for _ in range(TRIES):  # a ReLU may turn over on the way of one direction; a mistake shows for all
            error = min(error, along_direction(run, batch, values, gradients, chunk, whole, random))
            if error <= DIFFERENCES:
                break
        worst = max(worst, error)
    return worst


def along_direction(run, batch, values, gradients, names, whole, random):
    """The relative error of the gradient along a random direction of some tensors."""
    direction = {n: torch.from_numpy(random.standard_normal(values[n].shape)) * max(values[n].norm().item(), 1e-3) / max(values[n].numel(), 1) ** 0.5 for n in names}
    got = sum((gradients[n] * d).sum().item() for n, d in direction.items())
    scale = max(sum((gradients[n].norm() * d.norm()).item() / d.numel() ** 0.5 for n, d in direction.items()), 1e-4 * whole)
    return min(abs(got - slope(run, batch, values, direction, size)) / scale for size in (1e-4, 1e-5, 1e-6, 1e-7))  # large ones step over kinks, small ones drown in rounding


def slope(run, batch, values, direction, size):
    loss = [float(run(batch | {n: values[n] + sign * size * d for n, d in direction.items()})["loss"][0]) for sign in (1, -1)]
    return (loss[0] - loss[1]) / (2 * size)


def in_float32(exact, got, step):
    """The largest relative error of ONNX Runtime's loss and gradients."""
    want = {n: np.asarray(exact[n + "/gradient"], dtype=np.float64) for n in step.trained}
    whole = np.sqrt(sum((g * g).sum() for g in want.values()))
    worst = abs(float(got["loss"][0]) - float(exact["loss"][0])) / abs(float(exact["loss"][0]))
    for n, g in want.items():
        worst = max(worst, np.linalg.norm(got[n + "/gradient"].reshape(g.shape) - g) / max(np.linalg.norm(g), 1e-3 * whole))
    return float(worst)


def by_tape(result, values, known):
    """Compares loss and gradients with TensorFlow's, for the weights that the file holds unchanged. Returns the largest relative error and their number."""
    worst, paired = abs(float(result["task_loss"][0]) - known["loss"]) / known["loss"], 0
    for name, value in values.items():
        for key in [k for k in known if k.startswith("value:") and known[k].size == value.numel()]:
            order = same(value.numpy(), known[key])
            if order is None:
                continue
            want = known["gradient:" + key.removeprefix("value:")].transpose(order).reshape(value.shape)
            got = np.asarray(result[name + "/gradient"], dtype=np.float64).reshape(value.shape)
            worst, paired = max(worst, np.linalg.norm(got - want) / np.linalg.norm(want)), paired + 1
            break
    return float(worst), paired


def same(mine, theirs):
    """The order of axes in which theirs holds the same numbers as mine, None if there is none."""
    for order in itertools.permutations(range(theirs.ndim)):
        if np.array_equal(theirs.transpose(order).reshape(-1).astype(np.float32), mine.reshape(-1).astype(np.float32)):
            return order
    return None
