"""One case: export, let Grindstone write the training step, run it in ONNX Runtime, compare it with PyTorch."""
import fcntl
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
import torch

import evaluate
import zoo
from twin import Twin, pair_up, tensors

ALPHA, STEPS = 0.625, 5  # alpha is exact in both precisions, and so is the rate
EXACT = 1e-6  # of the norm, in float64; what is left is the rounding of the graph's float32 constants
FAST = 5e-3  # of the norm: the bilinear algorithms' constants are rounded to float32, which turns a ReLU over here and there
TOLERANCE = 1e-4  # of the norm, by ONNX Runtime in float32
DIFFERENCES = 1e-5  # of central differences, for constants that PyTorch's exporter has folded
RETRIES = 3  # with other images, where float64 agrees and float32 does not
LATER = 75  # exit status of a large model that must wait for another
LARGE = 40_000_000  # parameters; the disk helps; about 80 bytes of memory a parameter are needed all the same
ALONE = 90_000_000  # parameters; of such models one is compared at a time
NOISE = 5  # of PyTorch's own float32 errors, which are allowed where they are larger


class Failed(Exception):
    """The case ends here; stage and message go into the table."""

    def __init__(self, stage, message):
        super().__init__(message)
        self.stage = stage


def blank(case):
    """The row of a case of which nothing is known."""
    return {"model": f"{case.source}/{case.name}", "how": case.how, "exporter": case.exporter, "opset": case.opset, "size": case.size, "batch": case.batch,
            "reads": False, "trains": False, "exact": False}


def check(case, grindstone, folder, broken="", cache=None, tensorflow=None):
    """Returns the row of the table as a dict."""
    row, folder = blank(case), pathlib.Path(folder)
    started = time.time()
    try:
        if case.in_pytorch:
            compare(case, Prepared(case, grindstone, folder, cache, row, broken), folder, row)
        else:
            import foreign

            foreign.check(case, grindstone, folder, broken, tensorflow, row)
    except Failed as e:
        row["stage"], row["reason"] = e.stage, str(e)
    row["seconds"] = round(time.time() - started, 1)
    return row


LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization"}


def users(source, name):
    return {n.op_type for n in source.graph.node if name in n.input}


class Prepared:
    """An exported model, its training step, and the PyTorch module, which gets the numbers of the file. What is known of the model goes into the row.

    path: the model; info: what Grindstone says of it; plain, fast: files of the step in standard operators and, where asked for, as it is trained; step: the former in
    ONNX Runtime; folded: tensors that the exporter has computed, by name; large: its results go to the disk.
    """

    def __init__(self, case, grindstone, folder, cache, row, broken=""):
        torch.backends.mha.set_fastpath_enabled(False)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))  # one where others are at work: threads that wait for one another make a busy machine slow
        self.path = path = self.export(case, cache or folder)
        self.info = inspect(grindstone, path)
        row.update(reads=True, parameters=self.info["parameters"], feature=self.info["feature_layer"], feature_width=self.info["feature_width"])
        self.large = self.info["parameters"] > LARGE
        if self.info["parameters"] > ALONE:
            self.wait_for_others()

        self.plain, self.fast = folder / "plain.onnx", folder / "fast.onnx"
        environment = dict(os.environ, GRINDSTONE_BREAK=broken)
        for out, flags in [(self.plain, []), (self.fast, ["--fast-layout"])][: 2 if case.fast else 1]:
            flags = flags + (["--unfold"] if case.unfold else [])
            run = subprocess.run([grindstone, "inspect", path, "--training-graph", out, "--batch", str(case.batch), *flags], capture_output=True, text=True, env=environment)
            if run.returncode:
                raise Failed("train", last_line(run.stderr))
        onnx.checker.check_model(str(self.plain), full_check=True)
        row["trains"] = True
        self.step = Step(self.plain)
        self.pair(case, *tensors(path))

    def export(self, case, folder):
        """Makes the module and its file."""
        model = zoo.build(case)
        if case.fused:
            model = zoo.fuse(model, torch.zeros(2, 3, case.size, case.size))
        path = pathlib.Path(folder) / (re.sub("[^a-zA-Z0-9_]+", "-", case.label) + f"{case.size}-{case.batch}.onnx")
        if not path.exists():
            try:
                zoo.export(case, model, path)
            except Exception as e:
                raise Failed("export", f"{type(e).__name__}: {first_line(e)}") from e
        if case.exporter == "dynamo" and case.constant_folding:
            model = zoo.fuse(model, torch.zeros(2, 3, case.size, case.size))
        if case.narrow:
            zoo.round_constants(model, case.narrow)
        self.model = model
        return path

    def wait_for_others(self):
        """One of the largest models at a time: where another is at work this process ends."""
        self.alone = open(pathlib.Path(tempfile.gettempdir()) / "grindstone-crosscheck.lock", "w")
        try:
            fcntl.flock(self.alone, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
        except BlockingIOError:
            sys.exit(LATER)

    def pair(self, case, source, values):
        """Finds the parameter of every tensor, and gives it the file's numbers."""
        inserted = insertions(source, self.step) if case.unfold else []
        close = {"": 1e-5, "float16": 2e-3, "bfloat16": 8e-3}[case.narrow]
        self.pairs, missing = pair_up(self.model, {n: values[n] for n in self.step.trained if n in values}, close)
        self.running, missing_statistics = pair_up(self.model, {n: values[n] for n in self.step.statistics if n in values}, close)
        self.folded = {n: values[n] for n in missing if not users(source, n) & LAYERS}  # of a table and an index, say: no parameter of PyTorch's
        lost = [n for n in missing + missing_statistics if n not in self.folded]
        if lost:
            raise Failed("compare", f"no PyTorch tensor holds the numbers of {', '.join(lost[:4])} ({len(lost)} in all)")
        for pair in self.pairs + self.running:
            value = torch.from_numpy(np.array(values[pair.name], dtype=np.float32))
            pair.assign(self.model, value)
        modules = {p.name: p.module for p in self.pairs}
        self.head = modules[self.info["head_weights"][0]]
        self.inserted = [(prefix, modules[weight], channels) for prefix, weight, channels in inserted]

    def twin(self, dtype):
        """The PyTorch side, at its first step."""
        return Twin(self.model, self.pairs, self.running, self.head, self.inserted, dtype)


def measure(case, grindstone, folder, samples, cache=None):
    """Returns a row with the time of a step as it is trained (`grindstone bench step`), PyTorch's, in seconds, medians, two threads each, and their ratio."""
    prepared = Prepared(case, grindstone, pathlib.Path(folder), cache, blank(case))
    flags = ["--batch", str(case.batch), "--samples", str(samples), "--threads", "2", "--provider", "cpu", "--json"] + ([] if case.unfold else ["--no-unfold"])
    run = subprocess.run([grindstone, "bench", "step", "--model", prepared.path, *flags], capture_output=True, text=True)
    if run.returncode:
        raise Failed("time", last_line(run.stderr))
    mine = json.loads(run.stdout)["median_seconds"]
    torch.set_num_threads(2)
    batch, twin, times = random_batch(case, prepared.info, seed=3), prepared.twin(torch.float32), []
    arguments = [torch.from_numpy(batch[k]) for k in ("images", "labels", "targets")]
    for _ in range(samples + 1):
        started = time.perf_counter()
        twin.step(*arguments, ALPHA, 0.0)
        times.append(time.perf_counter() - started)
    theirs = statistics.median(times[1:])
    return blank(case) | {"time_ratio": round(mine / theirs, 2), "seconds_grindstone": mine, "seconds_pytorch": theirs}


def compare(case, prepared, folder, row):
    step, folded = prepared.step, prepared.folded
    batch = random_batch(case, prepared.info, seed=3)
    arguments = [torch.from_numpy(batch[k]) for k in ("images", "labels", "targets")]
    rate = gentle_rate(prepared.twin(torch.float64), arguments)
    batch["rate"] = np.array([rate], np.float32)
    keep = (lambda name: on_disk(folder / name)) if prepared.large else lambda name: in_memory
    exact = record(prepared.twin(torch.float64), arguments, rate, STEPS, keep("exact"))
    wide = {k: evaluate.to_torch(v) for k, v in batch.items()}
    if folded:
        row["folded"], row["differences"] = len(folded), by_differences(evaluate.Graph(prepared.plain).run, wide, folded)
    ways = {  # each made, compared and forgotten: a large model fills the memory with one
        "pytorch": lambda: record(prepared.twin(torch.float32), arguments, rate, 1),
        "float64": lambda: record_step(evaluate.Graph(prepared.plain, once=True).run, step, wide, STEPS, keep("float64"), folded),
        "float32": lambda: record_step(step.run, step, batch, 1),
    }
    if case.fast:
        ways["fast float64"] = lambda: record_step(evaluate.Graph(prepared.fast).run, step, wide, 1)
        ways["fast float32"] = lambda: record_step(Step(prepared.fast).run, step, batch, 1)
    judge(row, {name: compare_results(way(), exact) for name, way in ways.items()})
    for seed in range(4, 4 + RETRIES):
        # In float32 a ReLU whose input rounds to the other side of zero changes a gradient by leaps, for some batches; a mistake would show for all.
        if not row["failed"] or set(row["failed"]) - {"float32"}:
            break
        other, step.state = random_batch(case, prepared.info, seed), {}
        twin = prepared.twin(torch.float64)
        others = [torch.from_numpy(other[k]) for k in ("images", "labels", "targets")]
        exact = record(twin, others, rate, 1)
        again = compare_results(record_step(step.run, step, other, 1), exact)["worst"]
        rounding = prepared.twin(torch.float32)
        theirs = compare_results(record(rounding, others, rate, 1), exact)["worst"]
        if again <= max(TOLERANCE, NOISE * theirs):
            row.update(float32=again, float32_pytorch=theirs, exact=True, failed=[], reason="")


def by_differences(run, batch, values):
    """Compares the gradient of tensors (name -> array) with central differences of the loss along a random direction. Returns the relative error."""
    random = np.random.default_rng(5)
    at = {n: torch.from_numpy(np.array(v, dtype=np.float64)) for n, v in values.items()}
    direction = {n: torch.from_numpy(random.standard_normal(v.shape)) * max(v.norm().item(), 1.0) for n, v in at.items()}
    size = 1e-6
    loss = [float(run(batch | {n: v + sign * size * direction[n] for n, v in at.items()})["loss"][0]) for sign in (1, -1)]
    result = run(batch)
    gradient = {n: torch.as_tensor(np.asarray(result[n + "/gradient"])).double().reshape(v.shape) for n, v in at.items()}
    got, want = sum(float((gradient[n] * d).sum()) for n, d in direction.items()), (loss[0] - loss[1]) / (2 * size)
    scale = sum(float(gradient[n].norm() * d.norm()) for n, d in direction.items())
    return abs(got - want) / max(abs(want), 1e-3 * scale, 1e-30)


def gentle_rate(twin, arguments):
    """A rate at which a step changes the weights by about 1e-6 of their norm: a random network at a high rate multiplies every rounding error."""
    twin.step(*arguments, ALPHA, 0.0)
    norm = [float(torch.sqrt(sum((v.double() ** 2).sum() for _, v in x))) for x in (twin.values(), twin.gradients())]
    return 2.0 ** np.floor(np.log2(1e-6 * norm[0] / norm[1]))


def random_batch(case, info, seed):
    random = np.random.default_rng(seed)
    return {
        "images": random.standard_normal((case.batch, 3, case.size, case.size)).astype(np.float32),
        "labels": random.integers(0, zoo.CLASSES, case.batch),
        "targets": random.standard_normal((case.batch, info["feature_width"])).astype(np.float32),
        "alpha": np.array([ALPHA], np.float32),
        "rate": np.zeros(1, np.float32),
    }


def inspect(grindstone, path):
    run = subprocess.run([grindstone, "inspect", path, "--json"], capture_output=True, text=True)
    if not run.stdout:
        raise Failed("read", last_line(run.stderr))
    info = json.loads(run.stdout)
    if run.returncode:
        raise_unsupported(info, run.stderr)
    return info


def raise_unsupported(info, stderr):
    ops = sorted({n["op"] for n in info["unsupported"]})
    raise Failed("train", f"no gradient rule: {', '.join(ops)}" if ops else last_line(stderr))


def insertions(source, step):
    """The layers behind which Grindstone inserted a BatchNormalization: prefix of its tensors' names, weight, channels."""
    by = {out: n for n in source.graph.node for out in n.output}
    constant = {t.name for t in source.graph.initializer}
    out = []
    for name, shape in step.trained.items():
        if name.endswith("/unfold/scale"):
            prefix = name.removesuffix("/scale")
            n = by[prefix.removesuffix("/unfold")]
            if n.op_type == "Add":
                n = next(by[i] for i in n.input if i in by and by[i].op_type == "MatMul")
            out.append((prefix, next(i for i in n.input[1:] if i in constant), shape[0]))
    return out


class Step:
    """The training step's file in ONNX Runtime."""

    def __init__(self, path):
        self.path = path
        session = self.open()
        shapes = self.inputs = {i.name: i.shape for i in [*session.get_inputs(), *session.get_overridable_initializers()]}
        self.outputs = [o.name for o in session.get_outputs()]
        self.trained = {n.removesuffix("/gradient"): shapes[n.removesuffix("/gradient")] for n in self.outputs if n.endswith("/gradient")}
        self.statistics = [n.removesuffix("/next") for n in self.outputs
                           if n.endswith("/next") and not n.endswith("/momentum/next") and n.removesuffix("/next") not in self.trained]
        self.state = {}

    def open(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def run(self, batch):
        session = self.open()  # one of its own for each run: a large model's takes memory that others need
        values = dict(zip(self.outputs, session.run(self.outputs, batch | self.state)))
        self.state = {n.removesuffix("/next"): v for n, v in values.items() if n.endswith("/next")}
        return values


def in_memory(kind, tensors):
    """Keeps what is compared: pairs of name and tensor."""
    return {n: np.asarray(v, dtype=np.float64) for n, v in tensors}


def on_disk(prefix):
    """The same for a large model: in files, read when they are asked for. Pairs that are made one by one are never in memory together."""
    def put(path, v):
        np.save(path, np.asarray(v, dtype=np.float64))
        return np.load(path, mmap_mode="r") if v.numel() else v.numpy()

    return lambda kind, tensors: {n: put(f"{prefix}-{kind}-{i}.npy", v) for i, (n, v) in enumerate(tensors)}


def record(twin, arguments, rate, steps, keep=in_memory):
    """Runs the steps and keeps what is compared: losses of all steps, gradient and running statistics of the first, the state after the last."""
    before = keep("before", twin.values()) if steps > 1 else None
    out = {"losses": [twin.step(*arguments, ALPHA, rate)]}
    out |= {"gradients": keep("gradients", twin.gradients()), "running": keep("running", twin.running())}
    for _ in range(steps - 1):
        out["losses"].append(twin.step(*arguments, ALPHA, rate))
    if steps > 1:
        out |= {"momentum": keep("momentum", twin.momentum()), "weights": keep("weights", twin.values())}
        out["change"] = keep("change", ((n, v - torch.tensor(before[n])) for n, v in twin.values()))
    return out


def record_step(run, step, batch, steps, keep=in_memory, fixed=()):
    """The same of the training step's graph. fixed: tensors that stay as they are, since PyTorch's side has none like them."""
    names = [f"{n}{x}" for n in step.trained if n not in fixed for x in ("", "/momentum")] + step.statistics
    state, out = {}, {"losses": []}
    for i in range(steps):
        last = None  # before the next one is made
        last = {n: torch.as_tensor(v) for n, v in run(batch | state).items()}
        if i == 0:
            out["gradients"] = keep("gradients", ((n, last.pop(n + "/gradient")) for n in step.trained))
            out["running"] = keep("running", ((n, last[n + "/next"]) for n in step.statistics))
        out["losses"].append(losses(last))
        state = {n: last[n + "/next"] for n in names}
    if steps > 1:
        out |= {kind: keep(kind, ((n, last[n + end]) for n in step.trained)) for kind, end in (("momentum", "/momentum/next"), ("weights", "/next"))}
    return out


def losses(values):
    return {n: float(values[n][0]) for n in ("loss", "feature_loss", "task_loss")}


def judge(row, errors):
    """The training step in float64 must agree with PyTorch in float64: losses, gradients, running statistics and five steps of SGD. ONNX Runtime in
    float32 must agree for one step, to the tolerance or to what PyTorch in float32 loses itself."""
    row["errors"] = errors
    row["error"], row["float32"], row["float32_pytorch"] = (errors[n]["worst"] for n in ("float64", "float32", "pytorch"))
    noise = max(TOLERANCE, NOISE * row["float32_pytorch"])
    allowed = {"float64": EXACT, "float32": noise}
    if "fast float64" in errors:
        row["fast"] = errors["fast float64"]["worst"]
        allowed |= {"fast float64": FAST, "fast float32": max(FAST, noise, 1.5 * row["float32"])}  # it may turn over what the plain one does
    if row.get("differences", 0) > DIFFERENCES:
        row["error"] = max(row["error"], row["differences"])
        errors["float64"].update(worst=row["error"], kind="gradient of a folded constant", at="differences")
    bad = [f"{name}: {errors[name]['kind']} off by {errors[name]['worst']:.1e}, at most {limit:.1e}, at {errors[name]['at']}"
           for name, limit in allowed.items() if not errors[name]["worst"] <= limit]
    row["exact"], row["failed"] = not bad, [name for name, limit in allowed.items() if not errors[name]["worst"] <= limit]
    if bad:
        row["stage"], row["reason"] = "compare", "; ".join(bad)


def compare_results(got, exact):
    """The largest relative error, and where."""
    steps = len(got["losses"])
    out = {"worst": 0.0, "kind": "", "at": ""}

    def see(e, kind, at):
        if not e <= out["worst"]:
            out.update(worst=float(e), kind=kind, at=at)

    for i in range(steps):
        for k, want in exact["losses"][i].items():
            see(abs(got["losses"][i][k] - want) / max(abs(want), 1e-9), "loss", f"{k} of step {i + 1}")
    for kind in ("gradients", "running", "momentum", "weights"):
        if kind not in got:
            continue
        scale = exact["change" if kind == "weights" else kind]
        whole = np.sqrt(sum(float((v * v).sum()) for v in scale.values()))
        for n, want in exact[kind].items():
            off = np.linalg.norm(np.asarray(got[kind][n], dtype=np.float64).reshape(want.shape) - want)
            # a tensor whose gradient vanishes is measured by the whole gradient
            see(off / max(np.linalg.norm(scale[n]), 1e-3 * whole, 1e-30), kind, n)
    return out


def first_line(e):
    return (str(e).strip().splitlines() or [""])[0][:300]


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "no message"
