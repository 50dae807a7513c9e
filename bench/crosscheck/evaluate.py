"""Runs an ONNX graph of opset 17 on PyTorch tensors, floats in float64.

ONNX Runtime has no convolution in float64 on CPUs, and in float32 a single ReLU whose input rounds to the other side of zero changes a gradient by
more than the mistake of a rule would. In float64 the training step agrees with autograd to the rounding of its float32 constants.
"""
import functools
import math

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch.nn import functional as F

TYPES = {1: torch.float64, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float64, 11: torch.float64, 16: torch.float64}


def to_torch(array):
    t = torch.from_numpy(np.array(array))
    return t.double() if t.is_floating_point() else t


class Graph:
    """once: a constant is forgotten as soon as an input has replaced it."""

    def __init__(self, path, once=False):
        self.once = once
        model = onnx.load(path)
        self.nodes = [(n, {"outputs": len(n.output)} | {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}) for n in model.graph.node]
        self.constants = {t.name: to_torch(numpy_helper.to_array(t)) for t in model.graph.initializer}
        self.outputs = [o.name for o in model.graph.output]
        self.last = {}
        for i, (n, _) in enumerate(self.nodes):
            for name in n.input:
                self.last[name] = i

    def run(self, inputs):
        if self.once:
            for name in inputs:
                self.constants.pop(name, None)
        values = {"": None} | self.constants | inputs
        keep = set(self.outputs)
        with torch.no_grad():
            for i, (n, attributes) in enumerate(self.nodes):
                arguments = [values[name] for name in n.input]
                name = ("blocked_" if n.domain == "com.microsoft.nchwc" else "op_") + n.op_type
                out = globals()[name](attributes, *arguments) if name in globals() else simple(n.op_type, arguments)
                values.update(zip(n.output, out if isinstance(out, (tuple, list)) else (out,)))
                for name in n.input:
                    if self.last[name] == i and name and name not in keep:
                        values.pop(name, None)
        return {name: values[name] for name in self.outputs}


SIMPLE = {
    "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Atan": torch.atan, "Ceil": torch.ceil, "Cos": torch.cos, "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp,
    "Floor": torch.floor, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Identity": lambda x: x, "IsNaN": torch.isnan, "Less": torch.lt, "LessOrEqual": torch.le, "Log": torch.log,
    "MatMul": torch.matmul, "Mul": torch.mul, "Neg": torch.neg, "Not": torch.logical_not, "Or": torch.logical_or, "Pow": lambda x, y: torch.pow(x, y).to(x.dtype),
    "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Softplus": F.softplus,
    "Softsign": F.softsign, "Sqrt": torch.sqrt, "Sub": torch.sub, "Tanh": torch.tanh, "Xor": torch.logical_xor, "HardSwish": F.hardswish, "Mish": F.mish,
    "PRelu": lambda x, s: torch.where(x < 0, x * s, x), "Where": torch.where, "Size": lambda x: torch.tensor(x.numel()),
    "Max": lambda *x: maximum(torch.maximum, x), "Min": lambda *x: maximum(torch.minimum, x), "Sum": lambda *x: sum(x), "Mean": lambda *x: sum(x) / len(x),
}


def simple(op, arguments):
    return SIMPLE[op](*arguments)


def maximum(f, xs):
    y = xs[0]
    for x in xs[1:]:
        y = f(y, x)
    return y


def op_Div(a, x, y):
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def op_Mod(a, x, y):
    return torch.fmod(x, y) if a.get("fmod") else torch.remainder(x, y)


def op_Cast(a, x):
    return x.to(TYPES[a["to"]])


def op_CastLike(a, x, y):
    return x.to(y.dtype)


def op_Constant(a):
    return to_torch(numpy_helper.to_array(a["value"]))


def op_ConstantOfShape(a, shape):
    v = to_torch(numpy_helper.to_array(a["value"])) if "value" in a else torch.zeros(1, dtype=torch.float64)
    return v.reshape(()).expand(shape.tolist()).clone()


def op_Shape(a, x):
    return torch.tensor(list(x.shape))[a.get("start", 0): a.get("end", x.dim())]


def op_Reshape(a, x, shape):
    return x.reshape([x.shape[i] if d == 0 and not a.get("allowzero") else d for i, d in enumerate(shape.tolist())])


def op_Flatten(a, x):
    axis = a.get("axis", 1) % (x.dim() + 1) if a.get("axis", 1) < 0 else a.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def op_Expand(a, x, shape):
    return x * torch.ones(shape.tolist(), dtype=x.dtype) if x.dtype != torch.bool else x | torch.zeros(shape.tolist(), dtype=torch.bool)


def op_Tile(a, x, repeats):
    return x.repeat(repeats.tolist())


def op_Transpose(a, x):
    return x.permute(a.get("perm", list(range(x.dim()))[::-1])).contiguous()


def op_Squeeze(a, x, axes=None):
    axes = axes.tolist() if axes is not None else [i for i, d in enumerate(x.shape) if d == 1]
    return x.squeeze([i % x.dim() for i in axes])


def op_Unsqueeze(a, x, axes):
    rank = x.dim() + len(axes)
    for i in sorted(i % rank for i in axes.tolist()):
        x = x.unsqueeze(i)
    return x


def op_Concat(a, *x):
    return torch.cat(x, a["axis"])


def op_Split(a, x, sizes=None):
    axis = a.get("axis", 0)
    return torch.split(x, sizes.tolist() if sizes is not None else x.shape[axis] // a["outputs"], axis)


def op_Slice(a, x, starts, ends, axes=None, steps=None):
    axes = axes.tolist() if axes is not None else range(len(starts))
    steps = steps.tolist() if steps is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps):
        n = x.shape[axis]
        start, end = (v + n if v < 0 else v for v in (start, end))
        if step > 0:
            at = range(min(max(start, 0), n), min(max(end, 0), n), step)
        else:
            at = range(min(max(start, -1), n - 1), min(max(end, -1), n), step)
        x = x.index_select(axis, torch.tensor(list(at), dtype=torch.int64))
    return x


def op_Pad(a, x, pads, value=None, axes=None):
    mode = a.get("mode", b"constant").decode()
    n = len(pads) // 2
    axes = axes.tolist() if axes is not None else list(range(n))
    begin, end = [0] * x.dim(), [0] * x.dim()
    for k, axis in enumerate(axes):
        begin[axis], end[axis] = pads[k].item(), pads[n + k].item()
    flat = [v for i in reversed(range(x.dim())) for v in (begin[i], end[i])]
    if mode == "constant":
        return F.pad(x, flat, value=0 if value is None else value.item())
    for axis in range(x.dim()):
        if begin[axis] or end[axis]:
            at = np.pad(np.arange(x.shape[axis]), (begin[axis], end[axis]), mode={"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode])
            x = x.index_select(axis, torch.from_numpy(at))
    return x


def op_Gather(a, x, at):
    axis = a.get("axis", 0) % x.dim()
    at = torch.where(at < 0, at + x.shape[axis], at).long()
    return x.index_select(axis, at.reshape(-1)).reshape([*x.shape[:axis], *at.shape, *x.shape[axis + 1:]])


def op_GatherElements(a, x, at):
    axis = a.get("axis", 0)
    return torch.gather(x, axis, torch.where(at < 0, at + x.shape[axis], at))


def op_GatherND(a, x, at):
    if a.get("batch_dims", 0):
        return torch.stack([op_GatherND(a | {"batch_dims": a["batch_dims"] - 1}, v, i) for v, i in zip(x, at)])
    return x[tuple(at[..., k] for k in range(at.shape[-1]))]


def op_ScatterElements(a, x, at, updates):
    axis = a.get("axis", 0)
    at = torch.where(at < 0, at + x.shape[axis], at)
    if a.get("reduction", b"none") == b"add":
        return x.scatter_add(axis, at, updates)
    return x.scatter(axis, at, updates)


def op_ScatterND(a, x, at, updates):
    return x.index_put(tuple(at[..., k] for k in range(at.shape[-1])), updates, accumulate=a.get("reduction", b"none") == b"add")


def op_Range(a, start, end, step):
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def op_OneHot(a, at, depth, values):
    out = F.one_hot(at % int(depth), int(depth)).to(values.dtype)
    return values[0] + (values[1] - values[0]) * out.movedim(-1, a.get("axis", -1))


def op_Trilu(a, x, k=None):
    return (torch.triu if a.get("upper", 1) else torch.tril)(x, 0 if k is None else k.item())


def op_CumSum(a, x, axis):
    axis = int(axis)
    y = x.flip(axis) if a.get("reverse") else x
    y = y.cumsum(axis) - (y if a.get("exclusive") else 0)
    return y.flip(axis) if a.get("reverse") else y


def op_TopK(a, x, k):
    return torch.topk(x, k.item(), a.get("axis", -1), bool(a.get("largest", 1)))


def op_ArgMax(a, x):
    return x.argmax(a.get("axis", 0), bool(a.get("keepdims", 1)))


def op_Einsum(a, *x):
    return torch.einsum(a["equation"].decode(), *x)


def op_Gemm(a, x, y, z=None):
    x, y = (x.T if a.get("transA") else x), (y.T if a.get("transB") else y)
    out = a.get("alpha", 1.0) * (x @ y)
    return out if z is None else out + a.get("beta", 1.0) * z


def reduction(f):
    def run(a, x, axes=None):
        axes = axes.tolist() if axes is not None else a.get("axes")
        if not axes and a.get("noop_with_empty_axes"):
            return x
        return f(x, tuple(axes) if axes else tuple(range(x.dim())), bool(a.get("keepdims", 1)))

    return run


op_ReduceSum = reduction(lambda x, axes, keep: x.sum(axes, keep))
op_ReduceMean = reduction(lambda x, axes, keep: x.mean(axes, keep))
op_ReduceMax = reduction(lambda x, axes, keep: x.amax(axes, keep))
op_ReduceMin = reduction(lambda x, axes, keep: x.amin(axes, keep))
op_ReduceSumSquare = reduction(lambda x, axes, keep: (x * x).sum(axes, keep))
op_ReduceL1 = reduction(lambda x, axes, keep: x.abs().sum(axes, keep))
op_ReduceL2 = reduction(lambda x, axes, keep: (x * x).sum(axes, keep).sqrt())
op_ReduceLogSumExp = reduction(lambda x, axes, keep: x.logsumexp(axes, keep))


def op_ReduceProd(a, x):
    for axis in sorted(i % x.dim() for i in a.get("axes", range(x.dim())))[::-1]:
        x = x.prod(axis, bool(a.get("keepdims", 1)))
    return x


def op_Clip(a, x, low=None, high=None):
    return torch.clamp(x, low, high) if low is not None or high is not None else x


def op_LeakyRelu(a, x):
    return F.leaky_relu(x, a.get("alpha", 0.01))


def op_Elu(a, x):
    return F.elu(x, a.get("alpha", 1.0))


def op_Selu(a, x):
    alpha, gamma = a.get("alpha", 1.67326319217681884765625), a.get("gamma", 1.05070102214813232421875)
    return gamma * torch.where(x > 0, x, alpha * (torch.exp(x) - 1))


def op_Celu(a, x):
    return F.celu(x, a.get("alpha", 1.0))


def op_HardSigmoid(a, x):
    return torch.clamp(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1)


def op_Gelu(a, x):
    return F.gelu(x, approximate=a.get("approximate", b"none").decode())


def op_Softmax(a, x):
    return torch.softmax(x, a.get("axis", -1))


def op_LogSoftmax(a, x):
    return torch.log_softmax(x, a.get("axis", -1))


def op_BatchNormalization(a, x, scale, shift, mean, variance):
    return F.batch_norm(x, mean, variance, scale, shift, False, 0, a.get("epsilon", 1e-5))


def op_InstanceNormalization(a, x, scale, shift):
    return F.instance_norm(x, weight=scale, bias=shift, eps=a.get("epsilon", 1e-5))


def op_LayerNormalization(a, x, scale, shift=None):
    axes = tuple(range(a.get("axis", -1) % x.dim(), x.dim()))
    mean = x.mean(axes, True)
    inverse = 1 / torch.sqrt(((x - mean) ** 2).mean(axes, True) + a.get("epsilon", 1e-5))
    y = (x - mean) * inverse * scale
    return (y if shift is None else y + shift), mean, inverse


def op_LRN(a, x):
    return F.local_response_norm(x, a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0))


def window(a, rank):
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise NotImplementedError(a["auto_pad"])
    pads = a.get("pads", [0] * (2 * rank))
    return a.get("strides", [1] * rank), a.get("dilations", [1] * rank), list(zip(pads[:rank], pads[rank:]))


def padded(x, pads, value=0):
    return F.pad(x, [v for pair in reversed(pads) for v in pair], value=value)


def op_Conv(a, x, w, b=None):
    rank = x.dim() - 2
    strides, dilations, pads = window(a, rank)
    if rank == 2 and w.shape[1] == 1 and w.shape[0] == x.shape[1] and a.get("group", 1) > 8:
        y = depthwise(padded(x, pads), w, strides, dilations)
        return y if b is None else y + b.reshape(-1, 1, 1)
    return (F.conv1d, F.conv2d, F.conv3d)[rank - 1](padded(x, pads), w, b, strides, 0, dilations, a.get("group", 1))


def depthwise(x, w, strides, dilations):
    """A sum over the taps: PyTorch's own depthwise convolution is slow in float64."""
    out = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], w.shape[2:], strides, dilations)]
    y = 0
    for r in range(w.shape[2]):
        for c in range(w.shape[3]):
            top, left = r * dilations[0], c * dilations[1]
            view = x[:, :, top: top + (out[0] - 1) * strides[0] + 1: strides[0], left: left + (out[1] - 1) * strides[1] + 1: strides[1]]
            y = y + view * w[:, 0, r, c].reshape(-1, 1, 1)
    return y


def op_FusedConv(a, x, w, b=None, added=0):
    return op_Conv(a, x, w, b) + added


@functools.cache
def block():
    """Channels in a block of ONNX Runtime's NCHWc operators, whose tensors are [N, C/block, H, W, block] with the shape [N, C, H, W]."""
    node = onnx.helper.make_node("ReorderInput", ["x"], ["y"], domain="com.microsoft.nchwc")
    value = [onnx.helper.make_tensor_value_info(name, 1, [1, 64, 1, 2]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "probe", value[:1], value[1:]), ir_version=8,
                                   opset_imports=[onnx.helper.make_opsetid("com.microsoft.nchwc", 1), onnx.helper.make_opsetid("", 17)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, = session.run(None, {"x": np.tile(np.float32([0, 1]), 64).reshape(1, 64, 1, 2)})
    return int(y.ravel().argmax())  # a block's channels at the first position come before the second


def blocked_ReorderInput(a, x):
    return x.reshape(-1, block(), x.shape[2] * x.shape[3]).transpose(1, 2).reshape(x.shape)


def blocked_ReorderOutput(a, x):
    return x.reshape(-1, x.shape[2] * x.shape[3], block()).transpose(1, 2).reshape(x.shape)


def blocked_Conv(a, x, w):
    """Each channel by itself; a kernel as large as the input makes a sum over the outputs the shorter one."""
    strides, dilations, pads = window(a, 2)
    x, w = padded(blocked_ReorderOutput(a, x), pads), blocked_ReorderOutput(a, w)
    out = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], w.shape[2:], strides, dilations)]
    if math.prod(out) > math.prod(w.shape[2:]):
        return blocked_ReorderInput(a, depthwise(x, w, strides, dilations))
    y = x.new_empty(*x.shape[:2], *out)
    span = [d * (k - 1) + 1 for k, d in zip(w.shape[2:], dilations)]
    for r in range(out[0]):
        for c in range(out[1]):
            top, left = r * strides[0], c * strides[1]
            y[:, :, r, c] = (x[:, :, top: top + span[0]: dilations[0], left: left + span[1]: dilations[1]] * w[:, 0]).sum((2, 3))
    return blocked_ReorderInput(a, y)


def op_ConvTranspose(a, x, w, b=None):
    rank = x.dim() - 2
    strides, dilations, pads = window(a, rank)
    group = a.get("group", 1)
    extra = a.get("output_padding", [0] * rank)
    if rank == 2 and group > 8:  # as a convolution of the input spread out
        spread = x.new_zeros(*x.shape[:2], *[(n - 1) * s + 1 for n, s in zip(x.shape[2:], strides)])
        spread[:, :, :: strides[0], :: strides[1]] = x
        border = [((k - 1) * d,) * 2 for k, d in zip(w.shape[2:], dilations)]
        flipped = w.flip(2, 3).reshape(group, -1, *w.shape[1:]).transpose(1, 2).reshape(-1, w.shape[0] // group, *w.shape[2:])
        y = op_Conv({"dilations": dilations, "group": group}, padded(spread, border), flipped)
        y = padded(y, [(-p, e - q) for (p, q), e in zip(pads, extra)])
        return y if b is None else y + b.reshape(-1, 1, 1)
    f = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    y = f(x, w, None, strides, 0, 0, group, dilations)
    y = padded(y, [(-p, e - q) for (p, q), e in zip(pads, extra)])
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def rounded_up(a, x, pads, strides, dilations):
    """With ceil_mode the last window may hang over the end; what it misses is padding. Windows that begin in the padding do not exist."""
    more = []
    for size, (p, q), s, d, k in zip(x.shape[2:], pads, strides, dilations, a["kernel_shape"]):
        span = size + p + q - d * (k - 1) - 1
        n = -(-span // s) + 1 if a.get("ceil_mode") else span // s + 1
        if a.get("ceil_mode") and (n - 1) * s >= size + p:
            n -= 1
        more.append((p, q + max((n - 1) * s - span, 0)))
    return more


def op_MaxPool(a, x):
    rank = x.dim() - 2
    strides, dilations, pads = window(a, rank)
    before = x.shape
    y, at = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1](
        padded(x, rounded_up(a, x, pads, strides, dilations), -math.inf), a["kernel_shape"], strides, 0, dilations, return_indices=True)
    size = padded(x, rounded_up(a, x, pads, strides, dilations)).shape
    flat, rest = torch.zeros_like(at), at
    for axis in reversed(range(rank)):  # positions in the padded plane, as positions in all of the input
        where = rest % size[2 + axis] - pads[axis][0]
        rest = rest // size[2 + axis]
        flat = flat + where * math.prod(before[3 + axis:])
    planes = torch.arange(before[0] * before[1]).reshape(before[0], before[1], *[1] * rank)
    return y, flat + planes * math.prod(before[2:])


def op_AveragePool(a, x):
    rank = x.dim() - 2
    strides, dilations, pads = window(a, rank)
    all_pads = rounded_up(a, x, pads, strides, dilations)
    ones = torch.ones(1, 1, *a["kernel_shape"], dtype=x.dtype)
    conv = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    planes = x.reshape(-1, 1, *x.shape[2:])
    inside = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    if a.get("count_include_pad"):
        inside = padded(inside, pads, 1)
        count = conv(padded(inside, [(0, q2 - q) for (_, q), (_, q2) in zip(pads, all_pads)]), ones, None, strides, 0, dilations)
    else:
        count = conv(padded(inside, all_pads), ones, None, strides, 0, dilations)
    y = conv(padded(planes, all_pads), ones, None, strides, 0, dilations) / count
    return y.reshape(*x.shape[:2], *y.shape[2:])


def op_GlobalAveragePool(a, x):
    return x.mean(tuple(range(2, x.dim())), True)


def op_GlobalMaxPool(a, x):
    return x.amax(tuple(range(2, x.dim())), True)


def op_DepthToSpace(a, x):
    n, c, h, w = x.shape
    b = a["blocksize"]
    if a.get("mode", b"DCR") == b"DCR":
        return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


def op_SpaceToDepth(a, x):
    n, c, h, w = x.shape
    b = a["blocksize"]
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)
