"""Any `torch.nn.Module` as a graph of layers, so that a model that was written for one machine can be split over several.

The module is traced, and run twice to see what flows between its operations.  Every operation whose output has the samples in its first
dimension becomes a layer; what lies between these (sizes, tuples, transposed tensors) belongs to the layer that takes it.  Standard layers
become the kinds of `models/layers.py` and its neighbours; all else is kept whole, and `Graph.notes` says what and why.  In the end the graph and the module
compute the same minibatch, and must agree.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from core.boxes import Shape, slices, whole
from core.graph import Graph, GraphError, Layer, Node
from models import importing_rules as rules
from models.arranging import Permute, Reshape, Slice
from models.errors import NetworkError
from models.graph_module import GraphModule
from models.layers import Add, Dense, Elementwise, Rows, Source, Whole
from models.losses import LOSSES
from models.tracing import SAMPLES, Operation, as_parameters, kind_of, path_or_name, rows, seen, told_of, trace, unchanged
from models.user import told

ALIKE = 1e-2
"""How far graph and module may be apart, relative to the norm of all outputs, or of all gradients: float32 summed in another order comes to
1e-6, batch normalisation of what hardly varies to 1e-4, and a layer that was misunderstood to 1."""
DRAWS = "it draws random numbers, for all of it at once"
WRAPPERS = nn.DataParallel, nn.parallel.DistributedDataParallel, torch.jit.ScriptModule
RESERVED = {"targets", *LOSSES, *(f"{loss}-parts" for loss in LOSSES)}
"""Names of the layers that compute a loss: see `with_loss`."""


def graph_of(module: nn.Module, example_inputs: torch.Tensor) -> Graph:
    """Its layers in training; keys are names of its `state_dict`.

    `example_inputs`: a minibatch of any size.  Raises NetworkError for a module whose forward cannot be traced, takes or returns anything but
    one tensor, changes what others then take, or has a parameter that no layer or more than one would own.
    """
    own = copied(module)
    traced, kept = trace(own)
    with torch.random.fork_rng(devices=[]):
        operations, values = seen(own, traced, example_inputs)
        graph = Reading(own, traced, operations, values, kept).graph(tuple(example_inputs.shape[1:]))
        agree(own, graph, example_inputs)
    for parameter in own.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.new_empty(0)  # layers that are kept whole hold our copy, and are given their parameters
    return graph


def copied(module: nn.Module) -> nn.Module:
    """The module in training, ours: nobody else turns it to evaluation, or takes statistics with it."""
    lazy = next((name for name, parameter in module.named_parameters() if isinstance(parameter, nn.UninitializedParameter)), None)
    if lazy is not None:
        raise NetworkError(f"model.network: parameter {lazy!r} has no shape yet; allowed: a module that has been called once")
    if isinstance(module, WRAPPERS) or hasattr(module, "_orig_mod"):  # the latter is of torch.compile
        raise NetworkError(f"model.network: {type(module).__name__} hides the module that it was made of; allowed: that one")
    try:
        return copy.deepcopy(module).train()
    except Exception as error:  # the user's own code may raise anything
        raise NetworkError(f"model.network: {type(module).__name__} cannot be copied: {told(error)}; allowed: copy.deepcopy") from error


# reading the operations as layers


@dataclass(frozen=True, eq=False)
class Stretch:
    """Some operations, from the outputs of layers to the output of one: what a layer computes that is kept whole."""

    module: nn.Module
    inputs: tuple[fx.Node, ...]
    operations: tuple[fx.Node, ...]
    """In order; the last one's output is the layer's."""
    parameters: Mapping[fx.Node, Mapping[str, str]]
    """Keys of those that are trained, of each operation, by their names there."""
    constants: Mapping[fx.Node, float]
    """Of numbers that they take, such as how many channels there are."""
    changes: bool
    """Does any operation change what it takes?"""

    @property
    def keys(self) -> list[str]:
        """Of all parameters that are trained, each once."""
        return list(dict.fromkeys(key for keys in self.parameters.values() for key in keys.values()))

    def __call__(self, inputs: Sequence[Any], weights: Mapping[str, Any]) -> Any:
        values: dict[fx.Node, Any] = dict(self.constants)
        for node, one in zip(self.inputs, inputs, strict=True):
            values[node] = one.clone() if self.changes else one
        for node in self.operations:
            values[node] = self.value(node, values, weights)
        return values[self.operations[-1]]

    def value(self, node: fx.Node, values: Mapping[fx.Node, Any], weights: Mapping[str, Any]) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        mine = {name: weights[key] for name, key in self.parameters[node].items()}
        target: Any = node.target
        if node.op == "get_attr":
            return mine[target] if mine else attribute(self.module, target)
        if node.op == "call_module":
            submodule = self.module.get_submodule(target)
            return functional_call(submodule, mine | {name: buffer.clone() for name, buffer in submodule.named_buffers()}, args, kwargs)
        return getattr(args[0], target)(*args[1:], **kwargs) if node.op == "call_method" else target(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class Function:
    """A stretch as a function of its inputs, and then of its parameters."""

    stretch: Stretch

    def __call__(self, *given: Any) -> Any:
        inputs = len(self.stretch.inputs)
        return self.stretch(given[:inputs], dict(zip(self.stretch.keys, given[inputs:], strict=True)))


def selection(computes: Callable[[Any], Any], before: Shape, shape: Shape) -> Layer | None:
    """What a function selects of tensors of a shape, seen on places that are numbered; None if it is no box."""
    if not before or 0 in shape:
        return None
    places = torch.arange(math.prod(before)).reshape(1, *before)
    found = computes(places)[0]
    corners = (torch.unravel_index(corner, before) for corner in (found.min(), found.max()))
    box = tuple((int(first), int(last) + 1) for first, last in zip(*corners, strict=True))
    inside = places[0][slices(box, whole(before))]
    return Slice(box, shape) if torch.equal(inside.reshape(-1), found.reshape(-1)) else None


def attribute(module: nn.Module, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def lies(value: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...]]:
    """How its numbers lie in memory."""
    return value.dtype, value.stride()


class Reading:
    """Turns the operations that the output needs into layers, one after the other."""

    def __init__(
        self, module: nn.Module, traced: fx.Graph, operations: Mapping[fx.Node, Operation], values: Mapping[fx.Node, Any],
        kept: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.module, self.operations, self.values, self.kept = module, operations, values, kept
        self.order = {node: place for place, node in enumerate(traced.nodes)}
        self.submodules = dict(module.named_modules(remove_duplicate=False))
        self.parameters = dict(module.named_parameters())
        self.trained = {key: parameter for key, parameter in self.parameters.items() if parameter.requires_grad}
        self.keys = {id(parameter): key for key, parameter in self.parameters.items()}
        self.layers: dict[str, Node] = {}
        self.notes: list[str] = []
        self.layer: dict[fx.Node, str] = {}
        """By what it computes."""
        self.flat: dict[fx.Node, fx.Node] = {}
        """Of operations that only flatten: what they take."""
        self.owner: dict[str | fx.Node, str] = {}
        """Of each parameter, and of each operation between layers that must not be done twice: the layer that has it."""

    def graph(self, given: Shape) -> Graph:
        """Raises NetworkError."""
        output = self.output()
        self.check_changes()
        for node in self.needed(output):
            if node.op == "placeholder":
                self.add(node, Source(given), ())
            elif self.is_layer(node):
                self.read(node)
        self.name_of(output)
        if len(self.layers) == 1:
            raise NetworkError("model.network: the module returns what it is given")
        unused = [key for key in self.trained if key not in self.owner]
        if unused:
            more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
            raise NetworkError(
                f"model.network: parameter {unused[0]!r}{more} is used by no layer that the output needs; allowed: requires_grad_(False), or none such"
            )
        graph = Graph(self.layers.values(), notes=self.notes)
        for node, name in self.layer.items():
            told, found = graph[name].at.output, self.operations[node].shape
            assert told == found or node.op == "placeholder", f"layer {name!r} says {told}, and was seen to give {found}"
        return graph

    def output(self) -> fx.Node:
        """What the module returns."""
        found = next(node for node in self.order if node.op == "output").args[0]
        if not isinstance(found, fx.Node) or not isinstance(self.values[found], torch.Tensor):
            returned = type(self.values[found] if isinstance(found, fx.Node) else found).__name__.removeprefix("immutable_")
            raise NetworkError(f"model.network: the module returns a {returned}; allowed: a tensor")
        if self.operations[found].shape is None:
            value = self.values[found]
            raise NetworkError(
                f"model.network: the module returns {value.dtype} of shape {tuple(value.shape)} for {SAMPLES[1]} samples; "
                "allowed: the parameters' type, with the samples in the first dimension"
            )
        return found

    def is_layer(self, node: fx.Node) -> bool:
        return self.operations[node].shape is not None and node.op != "get_attr"

    def needed(self, output: fx.Node) -> list[fx.Node]:
        """The output and all that it needs, in order."""
        found, left = {output}, [output]
        while left:
            fresh = [node for node in left.pop().all_input_nodes if node not in found]
            found.update(fresh)
            left += fresh
        return sorted(found, key=self.order.__getitem__)

    def check_changes(self) -> None:
        """An operation in place is as good as any other, if nobody takes what it changed by an older name afterwards."""
        for node, place in self.order.items():
            if node.op == "output" or not self.operations[node].changes:
                continue
            for other in list(self.order)[:place]:
                if self.operations[other].storage not in self.operations[node].changes:
                    continue
                if other.op == "get_attr":
                    raise NetworkError(
                        f"model.network: {told_of(node)} changes {str(other.target)!r} in place; allowed: minibatches that leave no trace"
                    )
                later = next((user for user in other.users if self.order[user] > place), None)
                if later is not None:
                    raise NetworkError(
                        f"model.network: {told_of(node)} changes the output of {told_of(other)} in place, and {told_of(later)} takes that afterwards; "
                        "allowed: to take what the operation in place returns"
                    )

    def name_of(self, node: fx.Node) -> str:
        """The layer that computes it; flattening becomes one where it matters to whoever takes it."""
        if node not in self.layer:
            self.add(node, Reshape(self.operations[node].shape or ()), [self.flat[node]])
        return self.layer[node]

    def read(self, node: fx.Node) -> None:
        """Make a layer of an operation; or nothing, of one that does nothing."""
        shape = self.operations[node].shape
        taken = self.takes(node)
        shapes = [self.operations[one].shape for one in taken]
        module, keys = rules.as_module(node, self.submodules), None
        if (found := rules.with_parameters(node, self.trained)) is not None:
            module, keys = found
        if shapes == [shape] and rules.does_nothing(node, module) and lies(self.values[node]) == lies(self.values[taken[0]]):
            if taken[0] in self.flat:
                self.flat[node] = self.flat[taken[0]]
            else:
                self.layer[node] = self.name_of(taken[0])
        elif len(taken) == 1 and shape == (math.prod(shapes[0] or ()),) and rules.reshapes(node, module):
            self.flat[node] = taken[0]
        else:
            layer = self.kind(node, module, taken, keys)
            if isinstance(layer, str):
                self.keep(node, layer)
            else:
                self.add(node, layer, taken or self.stretch(node).inputs, keys)

    def takes(self, node: fx.Node) -> list[fx.Node]:
        """The layers whose outputs it takes as they are; in the order in which they are put together, if they are."""
        together = rules.concatenated(node)
        if together is not None and all(map(self.is_layer, together)):
            return together
        return sorted(filter(self.is_layer, node.all_input_nodes), key=self.order.__getitem__)

    def kind(self, node: fx.Node, module: nn.Module | None, taken: Sequence[fx.Node], keys: Mapping[str, str] | None = None) -> Layer | str:
        """The kind that can be split, or why there is none for this one.  `keys`: of parameters that it is given."""
        shape = self.operations[node].shape or ()
        shapes = [self.operations[one].shape or () for one in taken]
        found: Layer | str | None = None
        if module is not None and str(node.target) in self.kept:
            found = f"it cannot be traced ({self.kept[str(node.target)]})"
        elif self.operations[node].random:
            found = DRAWS
        elif len(taken) == 1 and rules.reshapes(node, module):
            found = Reshape(shape)
        elif module is None:
            found = self.function(node, shape)
        elif len(taken) == 1 == len(node.all_input_nodes) - len(keys or ()):
            found = reserved(module) or rules.layer_of(module, shapes[0])
        return found if found is not None else none_of(node, module)

    def function(self, node: fx.Node, shape: Shape) -> Layer | None:
        """The kind of a function; or of several, one after the other, which only put in another order or select."""
        found: Layer | None = None
        stretch = self.stretch(node)
        computes, given = Function(stretch), [self.operations[one].shape or () for one in stretch.inputs]
        if len(given) == 1 and all(map(rules.permutes, stretch.operations)):
            sizes = computes(torch.empty(*range(len(shape) + 1), device="meta")).shape
            found = Permute(tuple(size - 1 for size in sizes[1:]))
        elif len(given) == 1 and all(map(rules.selects, stretch.operations)):
            found = selection(computes, given[0], shape)
        elif rules.is_pointwise(node) and set(stretch.operations) == {node, *filter(self.is_trained, node.all_input_nodes)}:
            found = self.pointwise(node, stretch, given)
        elif len(stretch.operations) == 1:
            if rules.by_rows(node, given):
                found = Rows(shape, computes, self.flops(stretch))
            else:
                found = rules.concatenation(node, len(shape)) or rules.mean_of(node, given[0])
        return found

    def pointwise(self, node: fx.Node, stretch: Stretch, given: Sequence[Shape]) -> Layer | None:
        """The kind of one that computes each element from those at its place, of inputs of these shapes and of parameters."""
        shape, layer = self.operations[node].shape, Elementwise(Function(stretch), self.trained_by(stretch))
        if rules.adds(node) and given == [shape, shape]:
            return Add()
        try:
            return layer if layer.shape(tuple(given)) == shape else None
        except GraphError:
            return None

    def is_trained(self, node: fx.Node) -> bool:
        """Is it a parameter that is trained?"""
        return node.op == "get_attr" and str(node.target) in self.trained

    def add(self, node: fx.Node, layer: Layer, taken: Sequence[fx.Node], keys: Mapping[str, str] | None = None, named: str = "") -> None:
        """A layer: its name is the path of its module, or what the trace calls it, and a number where that is taken."""
        if isinstance(layer, Dense | Reshape):  # which take whatever shape
            taken = [self.flat.get(one, one) for one in taken]
        inputs = [self.name_of(one) for one in taken]
        wanted = "inputs" if node.op == "placeholder" else named or path_or_name(node)
        name, number = wanted, 0
        while name in self.layers or name in RESERVED:
            number += 1
            name = f"{wanted}_{number}"
        if keys is None:
            keys = {name: name for name, _ in layer.parameters} if isinstance(layer, Elementwise | Whole) else self.keys_of(node)
        for key in keys.values():
            self.own(key, name)
        self.layer[node] = name
        self.layers[name] = Node(name, layer, *inputs, keys=keys)

    def own(self, what: str | fx.Node, name: str) -> None:
        """A parameter, or an operation between layers, belongs to a layer.  Raises NetworkError if it belongs to another."""
        other = self.owner.setdefault(what, name)
        if other != name:
            told = f"parameter {what!r}" if isinstance(what, str) else f"{told_of(what)}, whose output does not have the samples first,"
            raise NetworkError(
                f"model.network: {told} is used by layers {other!r} and {name!r}; allowed: by one, or inside one submodule that is kept whole"
            )

    def keys_of(self, node: fx.Node) -> dict[str, str]:
        """The parameters of an operation that are trained: keys by their names there."""
        found: dict[str, Any] = {}
        if node.op == "call_module":
            found = dict(self.submodules[str(node.target)].named_parameters())
        elif node.op == "get_attr":
            found = {str(node.target): attribute(self.module, str(node.target))}
        return {name: self.keys[id(one)] for name, one in found.items() if isinstance(one, nn.Parameter) and one.requires_grad}

    def stretch(self, node: fx.Node) -> Stretch:
        """An operation with what lies between it and the layers that it takes from."""
        found, left = {node}, [node]
        inputs, constants = set(), {}
        while left:
            for one in left.pop().all_input_nodes:
                if self.is_layer(one):
                    inputs.add(one)
                elif self.operations[one].constant:
                    constants[one] = self.values[one]
                elif one not in found:
                    found.add(one)
                    left.append(one)
        operations = tuple(sorted(found, key=self.order.__getitem__))
        changes = any(self.operations[one].changes for one in operations)
        parameters = {one: self.keys_of(one) for one in operations}
        return Stretch(self.module, tuple(sorted(inputs, key=self.order.__getitem__)), operations, parameters, constants, changes)

    def trained_by(self, stretch: Stretch) -> tuple[tuple[str, Shape], ...]:
        """Its parameters with their shapes."""
        return tuple((key, tuple(self.parameters[key].shape)) for key in stretch.keys)

    def keep(self, node: fx.Node, why: str) -> None:
        """A layer that is not split."""
        stretch, shape = self.stretch(node), self.operations[node].shape
        assert shape is not None
        if not stretch.inputs:
            raise NetworkError(
                f"model.network: {told_of(node)} has a row for each sample and takes none of them; allowed: to take the inputs"
            )
        main = next((one for one in reversed(stretch.operations) if one.op == "call_module"), node)
        layer = Whole(shape, self.trained_by(stretch), stretch, self.flops(stretch))
        self.add(node, layer, stretch.inputs, named=path_or_name(main))
        name = self.layer[node]
        for one in stretch.operations:
            if one is not node and self.operations[one].random:
                self.own(one, name)
        if main is not node:
            why = DRAWS if self.operations[main].random else none_of(main, self.submodules[str(main.target)])
        self.notes.append(f"layer {name!r} is kept whole: {why}")

    def flops(self, stretch: Stretch) -> float:
        """Of one sample, as torch counts; 0 if it counts nothing."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            stretch([self.values[one] for one in stretch.inputs], self.parameters)
        return float(counter.get_total_flops()) / SAMPLES[1]


def none_of(node: fx.Node, module: nn.Module | None) -> str:
    return f"{rules.called(node, module)} is none of the kinds that can be split"


def reserved(module: nn.Module) -> str | None:
    """Why even a module of a kind that can be split is kept whole."""
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has hooks"
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    return f"its {' and '.join(frozen)} {'are' if len(frozen) > 1 else 'is'} not trained" if frozen else None


# both compute the same


def agree(module: nn.Module, graph: Graph, example_inputs: torch.Tensor) -> None:
    """Raises NetworkError if they do not, outputs or gradients; modules that draw random numbers are let off what these change."""
    inputs = as_parameters(rows(example_inputs, 2 * SAMPLES[0]), kind_of(module))
    parameters: dict[str, torch.Tensor] = {key: one for key, one in module.named_parameters() if one.requires_grad}
    with torch.device("meta"):
        mirror = GraphModule(graph)
    dropouts = {one: one.p for one in module.modules() if isinstance(one, nn.modules.dropout._DropoutNd)}
    for one in dropouts:
        one.p = 0.0
    with unchanged(module):
        first = outcome(module, parameters, inputs)
    with unchanged(module):
        second = outcome(module, parameters, inputs)
    try:
        found = outcome(lambda given: functional_call(mirror, parameters, given), parameters, inputs)
    except Exception as error:  # whatever was misunderstood, torch says it in its own words
        raise NetworkError(
            f"model.network: the layers of {type(module).__name__} cannot be computed one by one: {told(error)}; allowed: operations that take "
            "their inputs as they are, however they lie in memory"
        ) from error
    for one, share in dropouts.items():
        one.p = share
    if not torch.equal(first[0], second[0]):
        return
    pairs = list(zip(first, found, strict=True))
    apart = [float((one - other).norm() / (one.norm() + 1e-30)) for one, other in pairs]
    if any(not distance <= ALIKE and bool(torch.isfinite(pair[0]).all()) for distance, pair in zip(apart, pairs, strict=True)):
        raise NetworkError(
            f"model.network: its layers compute something else than {type(module).__name__} does (apart by {max(apart):.2g} of it): its forward does "
            "what cannot be traced, such as changing a tensor in place that it uses again, or torch.no_grad(); allowed: operations that return what "
            "they compute, and detach()"
        )


def outcome(
    function: Callable[[torch.Tensor], torch.Tensor], parameters: dict[str, torch.Tensor], inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Outputs, and the gradient of a sum of them in which each weighs something else."""
    outputs = function(inputs.clone())
    if not outputs.requires_grad:
        return outputs, outputs.new_zeros(1)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).cos().reshape(outputs.shape)
    gradients = torch.autograd.grad((outputs * weights).sum(), list(parameters.values()), allow_unused=True, materialize_grads=True)
    return outputs.detach(), torch.cat([gradient.reshape(-1) for gradient in gradients])
