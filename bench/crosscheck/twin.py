"""The PyTorch side: a model whose parameters are paired with the tensors of its ONNX file, trained by autograd."""
import copy
import itertools

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

MOMENTUM, DECAY = float(np.float32(0.9)), float(np.float32(5e-4))  # as the graph's float32 constants have them
EPSILON = 1e-5  # of the BatchNormalizations that Grindstone inserts


class Pair:
    """An ONNX tensor and the PyTorch parameter that holds the same numbers, perhaps with its axes in another order."""

    def __init__(self, name, module, attribute, permutation):
        self.name, self.module, self.attribute, self.permutation = name, module, attribute, permutation

    def forward(self, value):
        """From PyTorch's order to the file's."""
        return value.permute(self.permutation) if self.permutation else value

    def assign(self, model, value):
        target = getattr(model.get_submodule(self.module), self.attribute)
        if self.permutation:
            value = value.permute([self.permutation.index(i) for i in range(len(self.permutation))])
        with torch.no_grad():
            target.copy_(value.reshape(target.shape).to(target.dtype))

    def get(self, model):
        return getattr(model.get_submodule(self.module), self.attribute)


def tensors(path):
    """All constant tensors of a file, by name."""
    m = onnx.load(path)
    found = {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
    for n in m.graph.node:
        if n.op_type == "Constant" and n.attribute and n.attribute[0].name == "value":
            found[n.output[0]] = numpy_helper.to_array(n.attribute[0].t)
    return m, found


def pair_up(model, wanted, tolerance):
    """Pairs each ONNX tensor (name -> array) with the parameter or buffer that holds its numbers. Returns pairs and names without one."""
    by_size = {}
    for prefix, module in model.named_modules():
        for attribute, value in itertools.chain(module._parameters.items(), module._buffers.items()):
            if value is not None and value.is_floating_point():
                by_size.setdefault(value.numel(), []).append((prefix, attribute, value.detach()))
    pairs, missing = [], []
    for name, array in wanted.items():
        found = None
        mine = torch.from_numpy(np.array(array, dtype=np.float32))
        scale = mine.abs().max().item() or 1.0
        for prefix, attribute, value in by_size.get(mine.numel(), []):
            orders = [None]
            if mine.dim() == 2 and value.dim() == 2:
                orders.append((1, 0))
            if mine.dim() == 4 and value.dim() == 4:
                orders.append((2, 3, 1, 0))
            for order in orders:
                other = value.permute(order) if order else value
                if order and tuple(other.shape) != tuple(mine.shape):
                    continue
                if (other.reshape(-1) - mine.reshape(-1)).abs().max().item() <= tolerance * scale:
                    found = Pair(name, prefix, attribute, order)
                    break
            if found:
                break
        if found:
            pairs.append(found)
        else:
            missing.append(name)
    return pairs, missing


class Twin:
    """Trains a copy of the model in one precision. pairs: the trained tensors; layers: modules behind which a BatchNormalization is inserted."""

    def __init__(self, model, pairs, statistics, head, inserted, dtype):
        self.model = copy.deepcopy(model).to(dtype)
        self.pairs, self.statistics, self.dtype = pairs, statistics, dtype
        for p in self.model.parameters():
            p.requires_grad_(False)
        self.parameters = {}
        for pair in pairs:
            p = pair.get(self.model)
            p.requires_grad_(True)
            self.parameters[pair.name] = (pair, p)
        for module in self.model.modules():
            if isinstance(getattr(module, "eps", None), float):
                module.eps = float(np.float32(module.eps))  # as the file has it
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        self.inserted = {}
        for prefix, where, channels in inserted:
            self.insert(prefix, self.model.get_submodule(where), channels)
        self.kept = kept = {}  # the hook knows nothing of self: a circle would keep a large model in memory
        self.model.get_submodule(head).register_forward_pre_hook(lambda module, args: kept.update(feature=args[0]))
        self.optimizer = torch.optim.SGD([p for _, p in self.parameters.values()], lr=1.0, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)

    def insert(self, prefix, module, channels):
        scale = nn.Parameter(torch.full((channels,), float(np.float32(np.sqrt(1 + EPSILON))), dtype=self.dtype))
        shift = nn.Parameter(torch.zeros(channels, dtype=self.dtype))
        mean, variance = torch.zeros(channels, dtype=self.dtype), torch.ones(channels, dtype=self.dtype)
        pair = Pair(None, None, None, None)
        self.parameters[prefix + "/scale"], self.parameters[prefix + "/shift"] = (pair, scale), (pair, shift)
        self.inserted[prefix + "/mean"], self.inserted[prefix + "/variance"] = mean, variance
        module.register_forward_hook(lambda m, args, out: F.batch_norm(out, mean, variance, scale, shift, True, 0.1, EPSILON))

    def step(self, images, labels, targets, alpha, rate):
        """One step of SGD. Returns the losses."""
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(images.to(self.dtype))
        difference = self.kept.pop("feature").flatten(1) - targets.to(self.dtype)
        feature_loss = torch.sqrt((difference * difference).sum(1) + 1e-12).mean()
        task_loss = F.cross_entropy(logits, labels)
        loss = alpha * feature_loss + (1 - alpha) * task_loss
        loss.backward()
        self.optimizer.param_groups[0]["lr"] = rate
        for _, p in self.parameters.values():
            if p.grad is None:  # weight decay applies all the same
                p.grad = torch.zeros_like(p)
        self.optimizer.step()
        return {"loss": loss.item(), "feature_loss": feature_loss.item(), "task_loss": task_loss.item()}

    def gradients(self):
        """Pairs of name and tensor, made one by one, as below."""
        return ((name, pair.forward(p.grad)) for name, (pair, p) in self.parameters.items())

    def values(self):
        return ((name, pair.forward(p.detach()).clone()) for name, (pair, p) in self.parameters.items())

    def momentum(self):
        return ((name, pair.forward(self.optimizer.state[p]["momentum_buffer"])) for name, (pair, p) in self.parameters.items())

    def running(self):
        statistics = itertools.chain(((pair.name, pair.get(self.model)) for pair in self.statistics), self.inserted.items())
        return ((name, v.clone()) for name, v in statistics)
