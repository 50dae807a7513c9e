"""The models of the table and the ways in which they are exported."""
import dataclasses
import io
import pathlib

import torch
from torch import nn


@dataclasses.dataclass(frozen=True)
class Case:
    """One model, exported in one way."""

    source: str  # torchvision or timm; keras, sklearn or onnxruntime (which quantizes): see foreign.py
    name: str
    size: int = 64
    batch: int = 8
    exporter: str = "torchscript"  # or dynamo; elsewhere what made the file
    opset: int = 17
    fused: bool = False  # BatchNormalization folded into the convolutions before the export; the dynamo exporter does that by itself
    unfold: bool = False  # and unfolded again by Grindstone, as an identity
    constant_folding: bool = True
    fixed_batch: bool = False
    inputs: bool = False  # initializers listed as inputs
    auxiliary: bool = False  # exported in training mode, with the auxiliary heads as outputs
    softmax: bool = False  # a closing Softmax
    narrow: str = ""  # weights and arithmetic in float16 or bfloat16
    layers: tuple = ()  # (name, kept, all): of that sequence of equal layers only the first, so that the comparison fits into memory
    settled: bool = False  # running statistics are those of the activations: with BatchNormalization folded, a deep network of others has no digits left
    timed: bool = True
    fast: bool = False  # compares the layouts that training on a CPU uses as well
    arguments: tuple = ()  # of the model's constructor

    @property
    def in_pytorch(self):
        """There is a PyTorch module to compare with; the others are foreign.py's."""
        return self.source in ("torchvision", "timm")

    @property
    def key(self):
        """Names the row of the table."""
        return f"{self.source}/{self.name}", self.how

    @property
    def how(self):
        words = [f"{self.exporter} {self.opset}"]
        for flag in ("fused", "unfold", "fixed_batch", "inputs", "auxiliary", "softmax"):
            if getattr(self, flag):
                words.append(flag.replace("_", " "))
        if self.narrow:
            words.append(self.narrow)
        if not self.constant_folding:
            words.append("no constant folding")
        if self.layers:
            words.append("{1} of {2} layers".format(*self.layers))
        return ", ".join(words)

    @property
    def label(self):
        return f"{self.source}/{self.name} ({self.how})"


CLASSES = 10


def build(case):
    """The PyTorch model in inference mode, with random weights of which no two tensors are equal."""
    torch.manual_seed(7)
    keywords = dict(case.arguments)
    if case.source == "torchvision":
        import torchvision

        if case.name in ("googlenet", "inception_v3"):
            keywords |= {"aux_logits": case.auxiliary or case.name == "inception_v3", "init_weights": False}
            keywords["transform_input"] = False
        if case.name.startswith("vit_"):
            keywords["image_size"] = case.size
        model = torchvision.models.get_model(case.name, weights=None, num_classes=CLASSES, **keywords)
        if case.layers:
            name, kept, _ = case.layers
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, nn.Sequential(*list(model.get_submodule(name))[:kept]))
    else:
        import timm

        if case.name.startswith(("vit_", "deit_", "swin", "mixer", "maxvit", "maxxvit", "coat")):
            keywords.setdefault("img_size", case.size)
        model = timm.create_model(case.name, pretrained=False, num_classes=CLASSES, exportable=True, **keywords)
    randomize(model)
    if case.settled:
        settle(model, torch.randn(128, 3, case.size, case.size))
    return model.eval()


def randomize(model):
    """Exporters merge equal tensors, and trivial ones hide mistakes."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for name, p in model.named_parameters():
        if p.dim() <= 1 or bool((p == p.flatten()[0]).all()):
            scale = 0.1 if name.endswith("weight") or "gamma" in name else 0.02
            centre = 1.0 if p.numel() and bool((p == 1).all()) else 0.0
            if "gamma" in name or "layer_scale" in name:
                centre = 0.5
            with torch.no_grad():
                p.normal_(centre, scale)


def settle(model, images):
    """Lets the running statistics be those of a batch."""
    norms = [(m, m.momentum) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm, _ in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    for norm, momentum in norms:
        norm.momentum = momentum


class Softmaxed(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return torch.softmax(self.model(x), 1)


def fuse(model, images):
    """Folds every BatchNormalization that alone reads a convolution's output into the convolution, as exporters do."""
    made, readers = {}, {}

    def after(name):
        def hook(module, args, out):
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if args and id(args[0]) in made and (norm or not list(module.children())):
                readers.setdefault(made[id(args[0])][0], []).append(name if norm else None)
            if isinstance(module, nn.Conv2d):
                made[id(out)] = (name, out)  # kept, so that no other tensor gets its id

        return hook

    handles = [m.register_forward_hook(after(n)) for n, m in model.named_modules()]
    with torch.no_grad():
        model(images)
    for h in handles:
        h.remove()
    for conv_name, (norm_name, *others) in readers.items():
        if norm_name is None or others:
            continue
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        with torch.no_grad():
            factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            bias = (conv.bias if conv.bias is not None else 0) - norm.running_mean
            conv.weight.mul_(factor.reshape(-1, 1, 1, 1))
            conv.bias = nn.Parameter(bias * factor + norm.bias)
        rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]  # timm's BatchNormAct2d
        parent, _, attribute = norm_name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, nn.Sequential(*rest))
    return model


def export(case, model, path):
    x = torch.randn(case.batch, 3, case.size, case.size)
    if case.softmax:
        model = Softmaxed(model)
    if case.exporter == "dynamo":
        batch = torch.export.Dim("batch")
        program = torch.onnx.export(
            model, (x,), None, dynamo=True, opset_version=case.opset, optimize=case.constant_folding, verbose=False,
            dynamic_shapes=None if case.fixed_batch else ({0: batch},),
        )
        program.save(str(path), keep_initializers_as_inputs=case.inputs)
    else:
        mode = torch.onnx.TrainingMode.PRESERVE
        if case.auxiliary:
            mode = torch.onnx.TrainingMode.TRAINING
            model.train()
        torch.onnx.export(
            model, (x,), str(path), dynamo=False, opset_version=case.opset, do_constant_folding=case.constant_folding, training=mode,
            input_names=["images"], keep_initializers_as_inputs=case.inputs or None,
            dynamic_axes=None if case.fixed_batch else {"images": {0: "batch"}},
        )
        model.eval()
    if case.narrow:
        narrow(path, case.narrow)


def narrow(path, kind):
    """Turns a float32 file into one of float16 or bfloat16: weights, input, output and everything between."""
    import ml_dtypes
    import numpy as np
    import onnx
    from onnx import numpy_helper, TensorProto

    element, dtype = {"float16": (TensorProto.FLOAT16, np.float16), "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16)}[kind]

    m = onnx.load(path)

    def tensor(t):
        if t.data_type == TensorProto.FLOAT:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(dtype), t.name))

    for t in m.graph.initializer:
        tensor(t)
    for n in m.graph.node:
        for a in n.attribute:
            if a.HasField("t"):
                tensor(a.t)
            if n.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT:
                a.i = element
    for v in [*m.graph.input, *m.graph.output, *m.graph.value_info]:
        if v.type.tensor_type.elem_type == TensorProto.FLOAT:
            v.type.tensor_type.elem_type = element
    onnx.save(m, path)


class Gelu(nn.Module):
    """GELU with the root of two as a narrow type has it."""

    def __init__(self, kind):
        super().__init__()
        self.root = float(torch.tensor(2.0).sqrt().to(getattr(torch, kind)))

    def forward(self, x):
        return 0.5 * x * (1 + torch.erf(x / self.root))


def round_constants(model, kind):
    """Does to the constants of a model's functions what narrow did to the file's."""
    for name, module in list(model.named_modules()):
        if "GELU" in type(module).__name__:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, Gelu(kind))


def tv(name, **keywords):
    return Case("torchvision", name, **keywords)


def tm(name, **keywords):
    return Case("timm", name, **keywords)


QUICK = [
    tv("resnet18", size=32, batch=16, fast=True), tv("mobilenet_v2", size=32, batch=16, fast=True), tv("resnet18", fused=True), tv("resnet18", fused=True, unfold=True),
    tv("resnet18", exporter="dynamo", opset=20), tv("resnet18", opset=9, inputs=True, constant_folding=False),
    tv("squeezenet1_1"), tv("densenet121"),
    tm("vit_tiny_patch16_224"), tm("convnext_atto"),
]

# One or more of each family, the cheap ones first. The old exporter wants AdaptiveAvgPool to divide its input: hence the sizes of AlexNet and VGG.
# Swin v2 gets images that fill its windows: dynamo folds the keys' bias into a constant of zeros, whose gradient at a padded position is 1e12 (see table.py).
FAMILIES = [
    tv("squeezenet1_1"), tv("resnet18"), tv("mobilenet_v2"), tv("mobilenet_v3_small"), tv("shufflenet_v2_x0_5"), tv("mnasnet0_5"), tv("efficientnet_b0"),
    tv("regnet_x_400mf"), tv("regnet_y_400mf"), tv("googlenet"), tv("densenet121"), tv("inception_v3", size=96, batch=4), tv("resnet50"),
    tv("resnext50_32x4d"), tv("efficientnet_v2_s"), tv("convnext_tiny", size=32, batch=4), tv("swin_t"), tv("swin_v2_t", size=256, batch=2),
    tm("vit_tiny_patch16_224"), tm("deit_tiny_patch16_224"), tm("mixer_s32_224"), tm("convnext_atto"), tm("convnextv2_atto"), tm("resnet10t"),
    tm("regnetx_002"), tm("regnety_002"), tm("densenet121"), tm("mobilenetv2_035"), tm("mobilenetv3_small_050"), tm("mobilenetv4_conv_small_035"),
    tm("efficientnet_b0"), tm("tf_efficientnet_lite0"), tm("efficientnetv2_rw_t", settled=True), tm("mnasnet_small"), tm("resnet18d"), tm("seresnext26d_32x4d"),
    tm("resnext26ts"), tm("inception_v4", size=160, batch=4), tm("swin_tiny_patch4_window7_224", size=112, batch=4), tm("maxvit_pico_rw_256"),
    tv("wide_resnet50_2", batch=4), tv("maxvit_t", size=224, batch=2), tv("vit_b_16", size=32, batch=4), tv("alexnet", size=224, batch=2),
]

# The rest of torchvision, by size.
REST = [
    tv("squeezenet1_0"), tv("shufflenet_v2_x1_0"), tv("shufflenet_v2_x1_5"), tv("shufflenet_v2_x2_0"), tv("mnasnet0_75"), tv("mnasnet1_0"), tv("mnasnet1_3"),
    tv("mobilenet_v3_large"), tv("regnet_x_800mf"), tv("regnet_y_800mf"), tv("resnet34"), tv("efficientnet_b1"), tv("efficientnet_b2"), tv("efficientnet_b3"),
    tv("regnet_x_1_6gf"), tv("regnet_y_1_6gf"), tv("densenet169"), tv("densenet201"), tv("regnet_x_3_2gf"), tv("regnet_y_3_2gf"), tv("resnet101"),
    tv("efficientnet_b4"), tv("densenet161"), tv("resnet152"), tv("efficientnet_b5"), tv("regnet_x_8gf"), tv("regnet_y_8gf"), tv("convnext_small", size=32, batch=4),
    tv("swin_s"), tv("swin_v2_s", size=256, batch=2), tv("efficientnet_v2_m", batch=4), tv("efficientnet_b6", batch=4), tv("efficientnet_b7", batch=4),
    tv("regnet_x_16gf", batch=4), tv("regnet_y_16gf", batch=4), tv("resnext101_64x4d", batch=4), tv("resnext101_32x8d", batch=4),
    tv("convnext_base", size=32, batch=4), tv("swin_b", batch=4), tv("swin_v2_b", size=256, batch=2), tv("vit_b_32", size=32, batch=4),
    tv("regnet_x_32gf", batch=4), tv("regnet_y_32gf", batch=4), tv("efficientnet_v2_l", batch=4), tv("wide_resnet101_2", batch=4),
    *(tv(f"vgg{n}{norm}", size=224, batch=2) for n in (11, 13, 16, 19) for norm in ("", "_bn")), tm("vgg11_bn", size=224, batch=2),
    tv("convnext_large", size=32, batch=4), tv("vit_l_16", size=32, batch=2, layers=("encoder.layers", 8, 24)),
    tv("vit_l_32", size=32, batch=2, layers=("encoder.layers", 8, 24)), tv("vit_h_14", size=28, batch=2, layers=("encoder.layers", 6, 32)),
    tv("regnet_y_128gf", batch=2, layers=("trunk_output.block3", 2, 17)),
]

HEADS = [
    tv("resnet18", softmax=True), tv("resnet18", fixed_batch=True), tv("resnet18", narrow="float16"), tv("resnet18", narrow="bfloat16"), tv("resnet18", inputs=True),
    tm("vit_tiny_patch16_224", fixed_batch=True), tm("vit_tiny_patch16_224", narrow="float16"), tm("vit_tiny_patch16_224", narrow="bfloat16"),
    tv("googlenet", auxiliary=True), tv("inception_v3", auxiliary=True, size=299, batch=2),
]

def keras(name, *exporters, **keywords):
    return [Case("keras", name, exporter=e, **{"size": 32, "batch": 4, **keywords}) for e in exporters]


FOREIGN = [
    *keras("plain", "keras", "tf2onnx", "tflite"), *keras("residual", "keras", "tf2onnx", "tflite"), *keras("plain", "tf2onnx", opset=9), *keras("residual", "tf2onnx", opset=9),
    *keras("residual", "tf2onnx", opset=13), *keras("residual", "tf2onnx", opset=18), *keras("MobileNet", "tf2onnx", "tflite"), *keras("MobileNetV2", "tf2onnx", "tflite"),
    *keras("MobileNetV3Small", "tf2onnx", "tflite", size=64), *keras("ResNet50V2", "tf2onnx"), *keras("DenseNet121", "tf2onnx"), *keras("EfficientNetB0", "keras", "tflite", size=64),
    *keras("Xception", "tf2onnx", size=71, batch=2), *keras("NASNetMobile", "tf2onnx"), *keras("ConvNeXtTiny", "tf2onnx"),
    *(Case("sklearn", activation, size=8, batch=16, exporter="skl2onnx") for activation in ("relu", "tanh", "logistic")),
    *(Case("onnxruntime", name, size=32, exporter=how) for name in ("resnet18", "mobilenet_v2", "squeezenet1_1") for how in ("QDQ", "QOperator")),
]

# Families whose operators differ between opsets and foldings, and the oldest opset at which the old exporter can write them.
VARIANTS = {
    "resnet18": 9, "squeezenet1_1": 9, "mobilenet_v2": 9, "shufflenet_v2_x0_5": 9, "densenet121": 9, "efficientnet_b0": 9, "mobilenet_v3_small": 9,
    "convnext_tiny": 9, "vit_b_16": 14, "swin_t": 14,
}


def cases(selection):
    """The cases of a selection: quick or all. The latter in the order of what they tell for their time."""
    if selection == "quick":
        return QUICK
    by_name = {c.name: c for c in FAMILIES if c.source == "torchvision"}
    dynamo = [dataclasses.replace(c, exporter="dynamo", opset=20, timed=False) for c in FAMILIES + REST]
    out = FAMILIES + dynamo[: len(FAMILIES)] + HEADS + FOREIGN
    for name in ("resnet18", "mobilenet_v2", "googlenet", "mnasnet0_5", "regnet_x_400mf", "shufflenet_v2_x0_5", "resnet50"):
        out += [tv(name, fused=True, timed=False), tv(name, fused=True, unfold=True)]
    for name, oldest in VARIANTS.items():
        c = dataclasses.replace(by_name[name], timed=False)
        out += [dataclasses.replace(c, constant_folding=False), dataclasses.replace(c, exporter="dynamo", opset=20, constant_folding=False)]
        out += [dataclasses.replace(c, opset=o) for o in (9, 11, 13, 14, 15, 16) if o >= oldest]
        out += [dataclasses.replace(c, exporter="dynamo", opset=o) for o in (18, 22, 23)]
    return out + REST + dynamo[len(FAMILIES) :]
