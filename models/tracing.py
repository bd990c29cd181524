"""A module, traced and watched: its operations, and what flows between them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from core.boxes import Shape
from models import importing_rules as rules
from models.errors import NetworkError
from models.user import told

SAMPLES = 2, 3
"""In the two minibatches: what changes from one to the other, in its first dimension, are the samples."""
AS_MANY_AS_COME = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
"""Arguments of which none come."""


class Tracer(fx.Tracer):
    """Torch's own modules are one operation each, and so are those in `kept`."""

    proxy_buffer_attributes = True
    known = "dtype", "device", "shape", "ndim", "dim", "size", "numel"
    """Of parameters and buffers: whoever asks for the type of a parameter does not use it."""

    def __init__(self, kept: Mapping[str, str]) -> None:
        super().__init__()
        self.kept, self.failed = kept, ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.kept or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        found = super().getattr(attr, attr_val, parameter_proxy_cache)
        if isinstance(found, fx.Proxy):
            for name in self.known:
                setattr(found, name, getattr(attr_val, name))
        return found

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise


def trace(module: nn.Module) -> tuple[fx.Graph, dict[str, str]]:
    """Its operations, and which of its modules could not be traced and are kept whole, with the reason."""
    kept: dict[str, str] = {}
    while True:
        tracer = Tracer(kept)
        try:
            takes = [one for one in inspect.signature(module.forward).parameters.values() if one.kind not in AS_MANY_AS_COME]
            traced = tracer.trace(module, {one.name: one.default for one in takes[1:] if one.default is not one.empty})
        except Exception as error:  # the user's own code may raise anything
            if tracer.failed and tracer.failed not in kept:
                kept[tracer.failed] = told(error)
                continue
            raise NetworkError(
                f"model.network: {type(module).__name__} cannot be cut into layers: {told(error)}; allowed: a forward whose course depends on no "
                "values and no shapes, unless in a submodule of its own, which is then kept whole"
            ) from error
        break
    needed = [one.name for place, one in enumerate(takes) if not place or one.default is one.empty]
    if len(needed) != 1:
        raise NetworkError(f"model.network: the module takes {', '.join(needed) or 'nothing'}; allowed: one tensor, of inputs")
    return traced, kept


# seeing what flows


@dataclass(slots=True)
class Operation:
    """What was seen of one.  `shape`: of one sample, if its output is a tensor with the samples first and of the parameters' kind."""

    shape: Shape | None = None
    random: bool = False
    """Does it draw from torch's stream?"""
    changes: set[int] = field(default_factory=set)
    """Where the tensors lie that it takes and changes."""
    storage: int | None = None
    """Where its output lies."""
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    """What it gave, if that is a number."""
    constant: bool = False
    """Is it a number that follows from shapes alone, and the same whatever the samples?"""


class Watcher(fx.Interpreter):
    """Runs the operations one by one, and looks."""

    def __init__(self, module: nn.Module, traced: fx.Graph, operations: dict[fx.Node, Operation], kind: torch.dtype) -> None:
        super().__init__(module, garbage_collect_values=False, graph=traced)
        self.operations, self.kind = operations, kind
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        tensors = [one for one in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        versions, stream = [one._version for one in tensors], torch.get_rng_state()
        try:
            result = super().run_node(n)
        except Exception as error:
            shapes = ", ".join(str(tuple(one.shape)) for one in tensors)
            raise NetworkError(
                f"model.network: {told_of(n)} does not take inputs of shape {shapes or '()'}: {told(error)}; allowed: minibatches of any size"
            ) from error
        operation = self.operations.setdefault(n, Operation())
        operation.random |= not torch.equal(stream, torch.get_rng_state())
        changed = (one for one, version in zip(tensors, versions, strict=True) if one._version != version)
        operation.changes = {one.untyped_storage().data_ptr() for one in changed}
        if isinstance(result, int | float):
            operation.numbers.append(result)
        elif isinstance(result, torch.Tensor):
            operation.storage = result.untyped_storage().data_ptr()
            if result.dtype == self.kind or n.op == "placeholder":
                operation.sizes.append(tuple(result.shape))
        return result


def rows(example_inputs: torch.Tensor, samples: int) -> torch.Tensor:
    """So many, from the first on; where there are no more, again from the first, and a little larger if they are real numbers."""
    found = example_inputs[torch.arange(samples) % len(example_inputs)]
    if not found.is_floating_point():
        return found
    again = 1 + 0.1 * (torch.arange(samples) // len(example_inputs)).to(found.dtype)
    return found * again.reshape(-1, *(1,) * (found.dim() - 1))


def seen(module: nn.Module, traced: fx.Graph, example_inputs: torch.Tensor) -> tuple[dict[fx.Node, Operation], dict[fx.Node, Any]]:
    """What was seen of each operation, and what the second minibatch gave."""
    kind = kind_of(module)
    operations: dict[fx.Node, Operation] = {}
    values: dict[fx.Node, Any] = {}
    for samples in SAMPLES:
        watcher = Watcher(module, traced, operations, kind)
        with torch.no_grad(), unchanged(module):
            watcher.run(as_parameters(rows(example_inputs, samples), kind))
        values = watcher.env
    for node, operation in operations.items():
        sizes, numbers = operation.sizes, operation.numbers
        of_shapes = rules.asks_for_shape(node) or all(
            operations[one].constant or isinstance(values[one], torch.Size) for one in node.all_input_nodes
        )
        operation.constant = len(numbers) == len(SAMPLES) and len({*numbers}) == 1 and of_shapes
        if [size[:1] for size in sizes] == [(samples,) for samples in SAMPLES] and sizes[0][1:] == sizes[1][1:]:
            operation.shape = sizes[0][1:]
    return operations, values


def kind_of(module: nn.Module) -> torch.dtype:
    """The type of its parameters."""
    return next((one.dtype for one in module.parameters() if one.is_floating_point()), torch.get_default_dtype())


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Put buffers back, such as running statistics."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    yield
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])


def as_parameters(inputs: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Real numbers in the parameters' type, since float64 modules meet float32 data."""
    return inputs.to(kind) if inputs.is_floating_point() else inputs


def told_of(node: fx.Node) -> str:
    """An operation as a person knows it."""
    return f"{'layer' if node.op == 'call_module' else 'operation'} {path_or_name(node)!r}"


def path_or_name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name
