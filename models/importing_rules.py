"""Which operation of a traced module is which kind of layer: see `models/importing.py`.

Functional forms are turned into the torch modules that do the same, so that each rule is written once.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from core.boxes import Shape
from core.graph import Layer
from models.arranging import Concatenate
from models.layers import Dense, Elementwise, LayerNorm, Linear, Mean, Normalised, Rows
from models.windows import Convolution, Pool, Sides, both


def maximum(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> nn.Module:  # fmt: skip
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


def rectified(inplace: bool = False) -> nn.Module:  # noqa: ARG001
    return nn.ReLU()


MODULES: dict[Any, Callable[..., nn.Module]] = {
    functional.max_pool2d: maximum,
    torch.max_pool2d: maximum,
    functional.avg_pool2d: nn.AvgPool2d,
    functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    functional.gelu: nn.GELU,
    functional.silu: nn.SiLU,
    functional.elu: nn.ELU,
    functional.leaky_relu: nn.LeakyReLU,
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, "relu", "relu_"), rectified),
    **dict.fromkeys((functional.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"), nn.Sigmoid),
    **dict.fromkeys((functional.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"), nn.Tanh),
}
"""By function, or by the name of a tensor's method."""
NAMED: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}
POINTWISE_MODULES = {
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU6, nn.SELU,
    nn.SiLU, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanhshrink, nn.Threshold,
}  # fmt: skip
NAMES = {
    "abs", "add", "clamp", "clip", "cos", "div", "erf", "exp", "expm1", "log", "log1p", "maximum", "minimum", "mul", "neg", "pow", "reciprocal",
    "rsqrt", "rsub", "sign", "sin", "sqrt", "square", "sub",
}  # fmt: skip


def both_forms(*names: str) -> Iterator[Any]:
    """Of functions that are methods of tensors too."""
    for name in names:
        yield from (name, getattr(torch, name))


POINTWISE = {
    *(operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv, operator.itruediv),
    *(operator.pow, operator.neg, operator.pos, operator.abs),
    *(functional.celu, functional.hardsigmoid, functional.hardswish, functional.hardtanh, functional.logsigmoid, functional.mish),
    *(functional.relu6, functional.selu, functional.softplus, functional.softsign),
    *(getattr(torch, name) for name in NAMES),
    *(name for plain in NAMES for name in (plain, f"{plain}_")),
    "expand_as",
}
"""Functions and methods that compute each element from those at its place, of one tensor or of several."""
RESHAPING = {*both_forms("flatten", "reshape", "squeeze", "unflatten", "unsqueeze"), "view"}
PERMUTING = {*both_forms("movedim", "moveaxis", "permute", "swapaxes", "swapdims", "transpose")}
SELECTING = {operator.getitem, *both_forms("chunk", "narrow", "select", "split", "tensor_split", "unbind")}
SOFTMAXES = {*both_forms("softmax", "log_softmax"), functional.softmax, functional.log_softmax}
OF_MATRICES = {operator.matmul, *both_forms("matmul"), functional.scaled_dot_product_attention}
CONCATENATING = {torch.cat, torch.concat, torch.concatenate}
DROPOUTS = nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout
COPIES = {"contiguous", "clone", "to", "type_as", "float", "double", torch.clone}
"""The same numbers, perhaps of another type, or lying otherwise in memory: then `view` takes what it would not have taken before."""
SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}


def numbers_alone(node: fx.Node) -> bool:
    """Is what it takes besides its first argument no output of another operation?"""
    rest: list[fx.Node] = []
    fx.node.map_arg((node.args[1:], node.kwargs), rest.append)
    return not rest


def as_module(node: fx.Node, submodules: Mapping[str, nn.Module]) -> nn.Module | None:
    """What does the same, if torch has it."""
    if node.op == "call_module":
        return submodules[str(node.target)]
    make = MODULES.get(node.target)
    if make is None or not numbers_alone(node) or not node.args:
        return None
    return make(*node.args[1:], **node.kwargs)


TAKE_PARAMETERS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    functional.linear: (nn.Linear, ()),
    **dict.fromkeys((functional.conv2d, torch.conv2d), (nn.Conv2d, ("stride", "padding", "dilation", "groups"))),
}
"""By function: the module that has those parameters itself, and what the function takes after them."""


def with_parameters(node: fx.Node, parameters: Mapping[str, torch.Tensor]) -> tuple[nn.Module, dict[str, str]] | None:
    """What does the same as a function that is given parameters as they are, and the keys of these; `parameters`: those that are trained."""
    if node.op != "call_function" or node.target not in TAKE_PARAMETERS:
        return None
    kind, further = TAKE_PARAMETERS[node.target]
    given: dict[str, Any] = dict(zip(("input", "weight", "bias", *further), node.args, strict=False)) | dict(node.kwargs)
    found: dict[str, Any] = {name: given.pop(name) for name in ("weight", "bias") if given.get(name) is not None}
    del given["input"]
    if any(not isinstance(one, fx.Node) or one.op != "get_attr" or one.target not in parameters for one in found.values()):
        return None
    if any(isinstance(one, fx.Node) for one in torch.utils._pytree.tree_leaves(given)):
        return None
    shape = parameters[found["weight"].target].shape
    given |= {"bias": "bias" in found, "device": "meta"}
    if kind is nn.Linear:
        module: nn.Module = nn.Linear(shape[1], shape[0], **given)
    else:
        module = nn.Conv2d(shape[1] * given.get("groups", 1), shape[0], (shape[2], shape[3]), **given)
    return module, {name: one.target for name, one in found.items()}


def called(node: fx.Node, module: nn.Module | None) -> str:
    """What it computes, by its name in torch."""
    return type(module).__name__ if module is not None else str(getattr(node.target, "__name__", node.target))


def does_nothing(node: fx.Node, module: nn.Module | None) -> bool:
    """To a tensor whose shape stays as it is."""
    if isinstance(module, DROPOUTS):
        return bool(module.p == 0 or not module.training)
    if node.target is functional.dropout:
        given = dict(zip(("input", "p", "training"), node.args, strict=False)) | node.kwargs
        return bool(given.get("p", 0.5) == 0 or not given.get("training", True))
    return isinstance(module, nn.Identity) or reshapes(node, module) or (module is None and node.target in COPIES)


def reshapes(node: fx.Node, module: nn.Module | None) -> bool:
    """Leaves all numbers in their order."""
    return type(module) in {nn.Flatten, nn.Unflatten} or (node.op != "call_module" and node.target in RESHAPING)


def adds(node: fx.Node) -> bool:
    """The sum of two tensors."""
    return node.op != "call_module" and node.target in SUMS and len(node.args) == 2 and not node.kwargs


def asks_for_shape(node: fx.Node) -> bool:
    return node.op != "call_module" and node.target in {getattr, "dim", "size"}


def permutes(node: fx.Node) -> bool:
    """Puts dimensions in another order."""
    return node.op != "call_module" and node.target in PERMUTING


def selects(node: fx.Node) -> bool:
    """Takes some of a tensor, or cuts it into several."""
    return node.op != "call_module" and node.target in SELECTING


def concatenated(node: fx.Node) -> list[fx.Node] | None:
    """Which tensors it puts together, one after the other."""
    given = node.args[0] if node.args else node.kwargs.get("tensors")
    if node.op == "call_module" or node.target not in CONCATENATING or not isinstance(given, list | tuple):
        return None
    return [one for one in given if isinstance(one, fx.Node)]


def concatenation(node: fx.Node, dimensions: int) -> Layer | None:
    """The kind, of inputs that have so many."""
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    if concatenated(node) is None or not isinstance(axis, int):
        return None
    return Concatenate(axis % (1 + dimensions) - 1)


def is_pointwise(node: fx.Node) -> bool:
    return node.op != "call_module" and (node.target in POINTWISE or node.target in COPIES)


def by_rows(node: fx.Node, shapes: list[Shape]) -> bool:
    """Does it compute each place of a sample's first dimension from that place of what it takes, outputs of these shapes?"""
    if node.op == "call_module":
        return False
    if node.target in SOFTMAXES:
        return is_within(node.args[1] if len(node.args) > 1 else node.kwargs.get("dim"), len(shapes[0]))
    return node.target in OF_MATRICES and min(map(len, shapes)) > 2 and len({(len(one), one[0]) for one in shapes}) == 1


def is_within(axis: Any, dimensions: int) -> bool:
    """Is it one after the first of a sample's, which has so many?"""
    return isinstance(axis, int) and axis % (1 + dimensions) > 1


def mean_of(node: fx.Node, before: Shape) -> Layer | None:
    """Where it is written as a mean over dimensions."""
    if node.op == "call_module" or node.target not in {torch.mean, "mean"} or not numbers_alone(node):
        return None
    given: dict[str, Any] = dict(zip(("input", "dim", "keepdim"), node.args, strict=False)) | dict(node.kwargs)
    over = given.get("dim", given.get("axis"))
    over = (over,) if isinstance(over, int) else over
    if not over or given.get("dtype") is not None:
        return None
    return Mean(bool(given.get("keepdim", False)), tuple(sorted(axis % (1 + len(before)) - 1 for axis in over)))


def layer_of(module: nn.Module, before: Shape) -> Layer | str | None:
    """The kind that a module of torch is, for inputs of this shape; or why not, or None if it is no kind of ours at all."""
    kind = type(module)
    if kind in NAMED:
        return Elementwise(NAMED[kind])
    if kind in POINTWISE_MODULES:
        module = copy.copy(module)
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
        return Elementwise(module)
    rule = RULES.get(kind)
    return rule(module, before) if rule is not None else None


NO_IMAGES = "a pool is split where its inputs are images with channels"


def linear(module: Any, before: Shape) -> Layer:
    return (Dense if len(before) == 1 else Linear)(module.out_features, module.bias is not None)


def convolution(module: Any, before: Shape) -> Layer | str:  # noqa: ARG001
    padding = module.padding
    if padding == "same":
        around = [(window - 1) * dilation for window, dilation in zip(module.kernel_size, module.dilation, strict=True)]
        if any(one % 2 for one in around):
            return "a convolution that is padded more behind than before is not split"
        padding = around[0] // 2, around[1] // 2
    elif padding == "valid":
        padding = 0, 0
    if module.padding_mode != "zeros" and padding != (0, 0):
        return f"a convolution padded by {module.padding_mode!r} is not split"
    window, stride, padding, dilation = map(plain, (module.kernel_size, module.stride, padding, module.dilation))
    return Convolution(module.out_channels, window, stride, padding, module.bias is not None, dilation, module.groups)


def pool(module: Any, before: Shape) -> Layer | str:
    if len(before) != 3:
        return NO_IMAGES
    window, stride, padding = map(plain, (module.kernel_size, module.stride or module.kernel_size, module.padding))
    if isinstance(module, nn.MaxPool2d):
        if module.return_indices:
            return "a pool that returns indices is not split"
        return Pool("max", window, stride, padding, dilation=plain(module.dilation), ceil_mode=module.ceil_mode)
    if module.divisor_override is not None:
        return "a pool with a divisor of its own is not split"
    counts_padding = module.count_include_pad and padding != 0
    if module.ceil_mode and counts_padding:
        return "a mean that counts the padding, of windows that may hang over it (ceil_mode), is not split"
    return Pool("mean", window, stride, padding, counts_padding, ceil_mode=module.ceil_mode)


def adaptive(module: Any, before: Shape) -> Layer | str:
    if len(before) != 3:
        return NO_IMAGES
    sizes = before[1:]
    sides = [size if side is None else side for side, size in zip(both(module.output_size), sizes, strict=True)]
    if sides == [1, 1]:
        return Mean(keepdim=True)
    if any(size % side for side, size in zip(sides, sizes, strict=True)):
        return "an adaptive pool is split where its windows are all of one size"
    window = plain([size // side for side, size in zip(sides, sizes, strict=True)])
    return Pool("mean", window, window)


def normalised(module: Any, before: Shape) -> Layer | str:  # noqa: ARG001
    if not module.training and module.running_mean is not None:
        return "its train() leaves it in evaluation, with the statistics that it has"
    return Normalised(module.eps, module.affine)


def layer_norm(module: Any, before: Shape) -> Layer | str:
    if len(module.normalized_shape) == len(before):
        return "a LayerNorm of all dimensions together is not split"
    return LayerNorm(len(module.normalized_shape), module.eps, module.weight is not None, module.bias is not None)


def softmax(module: Any, before: Shape) -> Layer | str:
    if not is_within(module.dim, len(before)):
        return f"a {type(module).__name__} over the first dimension is not split"
    return Rows(before, module)


RULES: dict[type[nn.Module], Callable[[Any, Shape], Layer | str]] = {
    nn.Linear: linear,
    nn.Conv2d: convolution,
    nn.MaxPool2d: pool,
    nn.AvgPool2d: pool,
    nn.AdaptiveAvgPool2d: adaptive,
    nn.Softmax: softmax,
    nn.LogSoftmax: softmax,
    nn.LayerNorm: layer_norm,
    nn.BatchNorm1d: normalised,
    nn.BatchNorm2d: normalised,
    nn.BatchNorm3d: normalised,
}


def plain(sides: Any) -> Sides:
    """One number for both sides, if they are equal; torch also takes a list of one."""
    down, *along = (sides,) if isinstance(sides, int) else sides
    return (down, along[0]) if along and along[0] != down else down
