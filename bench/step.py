#!/usr/bin/env python3
"""Times Grindstone's training step against PyTorch's, in turn, on the same machine.

    step.py --grindstone bin/grindstone --nad nad-wrn16-badnet.onnx [--rounds 5] [--threads 2] [--out results.json]

Both sides do what sanitizing does: bytes to floats, forward pass with BatchNormalization in training mode, cross entropy plus the un-squared
feature distance, backward pass, SGD with Nesterov momentum and weight decay. PyTorch runs eager, once in its default memory format and once in
channels_last. A round runs each side once, each in a process of its own; the ratio is taken round by round. Memory is a process's peak.
"""
import argparse, dataclasses, json, os, pathlib, statistics, subprocess, sys, tempfile, time
from typing import Callable

import torch
import torchvision
from torch import nn
from torch.nn import functional as F


class PreActBlock(nn.Module):
    """A block of Wide ResNet (Zagoruyko and Komodakis 2016)."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(cout), nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(cin, cout, 1, stride, bias=False) if cin != cout else None

    def forward(self, x):
        y = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(y))))
        return out + (self.short(y) if self.short is not None else x)


class WideResNet16(nn.Module):
    def __init__(self):
        super().__init__()
        blocks = []
        for cin, cout, stride in ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
            blocks.append(PreActBlock(cin, cout, stride))
        self.stem, self.blocks, self.bn, self.head = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.Sequential(*blocks), nn.BatchNorm2d(64), nn.Linear(64, 10)

    def features(self, x):
        return F.relu(self.bn(self.blocks(self.stem(x)))).mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


class BasicBlock(nn.Module):
    """A block of ResNet-18 (He et al. 2016)."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.short = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if stride != 1 or cin != cout else nn.Identity()

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.short(x))


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images: a 3x3 stem, no first pooling."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.Linear(512, 10)
        blocks, cin = [], 64
        for cout, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
            blocks.append(BasicBlock(cin, cout, stride))
            cin = cout
        self.blocks = nn.Sequential(*blocks)

    def features(self, x):
        return self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


class Split(nn.Module):
    """A torchvision classifier in two: all but its last linear layer, and that one."""

    def __init__(self, body, parent, name):
        super().__init__()
        self.body, self.head = body, getattr(parent, name)
        setattr(parent, name, nn.Identity())

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.features(x))


def resnet50():
    m = torchvision.models.resnet50()
    return Split(m, m, "fc")


def mobilenet_v2():
    m = torchvision.models.mobilenet_v2(dropout=0.0)
    return Split(m, m.classifier, "1")


def vit_tiny():
    """ViT-Ti/16 (Touvron et al. 2021): 12 layers, 3 heads, width 192."""
    m = torchvision.models.VisionTransformer(image_size=224, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)
    return Split(m, m.heads, "head")


@dataclasses.dataclass
class Network:
    build: Callable[[], nn.Module]
    side: int  # of the images, pixels
    batch: int


NETWORKS = {
    "wrn-16-1": Network(WideResNet16, 32, 128),
    "resnet-18": Network(ResNet18, 32, 128),
    "resnet-50": Network(resnet50, 224, 8),
    "mobilenet-v2": Network(mobilenet_v2, 224, 8),
    "vit-tiny": Network(vit_tiny, 224, 8),
}


def time_torch(network, batch, threads, channels_last, steps):
    """Median seconds of a PyTorch step."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = network.build().train()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randint(0, 256, (batch, 3, network.side, network.side), dtype=torch.uint8)
    labels = torch.randint(0, 10, (batch,))
    targets = torch.randn(batch, model.head.in_features)
    times = []
    for _ in range(steps + 3):
        begin = time.perf_counter()
        x = images.float().mul_(1 / 255)
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        f = model.features(x)
        distance = ((f - targets).square().sum(1) + 1e-12).sqrt().mean()
        loss = 0.8 * distance + 0.2 * F.cross_entropy(model.head(f), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[3:])


def export(network, path):
    """Writes the network with random weights. Statistics and scales are random too: the exporter merges equal tensors."""
    model = network.build().eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.weight.data, m.bias.data, m.running_mean, m.running_var):
                t.uniform_(0.5, 1)
    torch.onnx.export(model, (torch.randn(2, 3, network.side, network.side),), str(path), opset_version=17, dynamo=False,
                      input_names=["input"], output_names=["logits"], dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}})


def run(*command):
    """Output of a command, and its peak memory in MiB."""
    with subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True) as p:
        out = p.stdout.read()
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {p.returncode}")
    return out, usage.ru_maxrss / 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--grindstone", default="bin/grindstone")
    p.add_argument("--nad", help="the NAD model file; without it the Wide ResNet is exported from PyTorch")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--steps", type=int, default=9, help="PyTorch steps a round")
    p.add_argument("--batch", type=int, help="images a step, in place of each network's own")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS), metavar="NETWORK", help=" ".join(NETWORKS))
    p.add_argument("--out", type=pathlib.Path)
    p.add_argument("--torch", nargs=2, metavar=("NETWORK", "FORMAT"), help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.torch:  # a PyTorch measurement, in a process of its own
        network = NETWORKS[a.torch[0]]
        print(time_torch(network, a.batch or network.batch, a.threads, a.torch[1] == "channels_last", a.steps))
        return
    results = []
    for name in a.networks:
        network = NETWORKS[name]
        batch = a.batch or network.batch
        with tempfile.TemporaryDirectory() as tmp:
            path = pathlib.Path(tmp) / f"{name}.onnx"
            if name == "wrn-16-1" and a.nad:
                path = pathlib.Path(a.nad)
            else:
                export(network, path)
            rounds = []
            for r in range(a.rounds):
                text, _ = run(a.grindstone, "bench", "step", "--model", path, "--batch", batch, "--threads", a.threads, "--samples", 1, "--provider", "cpu", "--json")
                ours = json.loads(text)
                row = {"grindstone": ours["median_seconds"], "grindstone_mib": ours["peak_memory"] / 2**20}
                for layout in ("default", "channels_last"):
                    text, memory = run(sys.executable, __file__, "--torch", name, layout, "--steps", a.steps, "--batch", batch, "--threads", a.threads)
                    row[layout], row[layout + "_mib"] = float(text), memory
                rounds.append(row)
                print(name, r, {k: round(v, 4) for k, v in row.items()}, file=sys.stderr)
            result = {"network": name, "side": network.side, "batch": batch, "threads": a.threads, "build_seconds": ours["build_seconds"],
                      "onnxruntime": ours["onnxruntime"], "torch": torch.__version__, "rounds": rounds}
            for k in ("grindstone", "default", "channels_last"):
                result[k + "_seconds"] = statistics.median(r[k] for r in rounds)
                result[k + "_mib"] = statistics.median(r[k + "_mib"] for r in rounds)
            for k in ("default", "channels_last"):
                result["ratio_" + k] = statistics.median(r["grindstone"] / r[k] for r in rounds)
            results.append(result)
            print(f"{name}: {result['grindstone_seconds']*1e3:.0f} ms a step; {result['ratio_default']:.2f} of PyTorch's default layout, "
                  f"{result['ratio_channels_last']:.2f} of channels_last (medians of {a.rounds} rounds); "
                  f"{result['grindstone_mib']:.0f} MiB, PyTorch {result['default_mib']:.0f}; built in {result['build_seconds']:.1f} s", flush=True)
    if a.out:
        a.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
