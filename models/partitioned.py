"""The computations of one machine of a partitioned replica, in torch: parts forward and backward, and what crosses between machines.

Each part is differentiated by itself, from the regions it took to the region it gave; gradients of regions are added up where they came
from, in the order of the parts that used them, whatever order these were computed in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from core.boxes import Box, extent, meet, slices, volume
from core.partitioning import Partitioned, Placed, Take, Task
from core.phases import Arrival
from core.work import Cost, Gradient, Work
from models.data import Batch
from models.layers import Source

ORDER = 1_000_003
"""Keeps what parts draw (dropout) apart."""


class TorchPartition:
    """`core.work.Partition` over torch."""

    def __init__(self, partitioned: Partitioned, machine: int, initial: torch.Tensor, device: str = "cpu") -> None:
        """`initial`: this machine's parameters to begin from, in the order of its pieces."""
        self.partitioned, self.machine, self.device = partitioned, machine, torch.device(device)
        self._initial = initial

    def __len__(self) -> int:
        return len(self._initial)

    def initial(self) -> torch.Tensor:
        return self._initial.clone()

    def begin(self, parameters: torch.Tensor, batch: Batch) -> Minibatch:
        return Minibatch(self, parameters.to(self.device), batch)


class Minibatch:
    """`core.work.Computation`: one minibatch, on its machine."""

    def __init__(self, partition: TorchPartition, parameters: torch.Tensor, batch: Batch) -> None:
        self.partition, self.parameters, self.batch = partition, parameters, batch
        self.partitioned, self.samples = partition.partitioned, len(batch.inputs)
        inputs = batch.inputs.to(partition.device)
        self.given = {
            "inputs": inputs.to(parameters.dtype) if inputs.is_floating_point() else inputs,
            "targets": batch.targets.to(partition.device),
        }
        if self.given["targets"].is_floating_point():
            self.given["targets"] = self.given["targets"].to(parameters.dtype)
        self.loss: float | None = None
        self.flat_gradient = torch.zeros_like(parameters)
        self._outputs: dict[int, torch.Tensor] = {}
        """Of each part of this machine, cut off from how it was computed."""
        self._tapes: dict[int, tuple[torch.Tensor, list[torch.Tensor | None], dict[str, torch.Tensor]]] = {}
        """Its output, inputs and parameters as torch has seen them."""
        self._received: dict[int, list[torch.Tensor]] = {}
        """The boxes of each message from another machine."""
        self._gradients: defaultdict[int, list[tuple[int, Box, torch.Tensor]]] = defaultdict(list)
        """Of each part's output: who adds what where.  Other machines count from the number of their message, negative."""
        self._returned: defaultdict[int, list[tuple[int, Box, torch.Tensor]]] = defaultdict(list)
        """The same of each message that came."""
        self._weights: defaultdict[int, list[tuple[int, Box, torch.Tensor]]] = defaultdict(list)
        """The same of each piece of this machine's parameters."""

    def work(self, tasks: Sequence[Task], leaving: Sequence[Arrival]) -> Work[list[torch.Tensor]]:
        def run() -> list[torch.Tensor]:
            for task in tasks:
                (self.forward if task.direction == "forward" else self.backward)(self.partitioned.parts[task.part])
            return [self.payload(arrival) for arrival in leaving]

        return Work(run, Cost(sum(map(self.partitioned.flops, tasks)) * self.samples))

    # what crosses

    def payload(self, arrival: Arrival) -> torch.Tensor:
        """What a message carries: its boxes one after the other, each with all samples."""
        message = self.partitioned.messages[arrival.message]
        if arrival.phase == "down":
            found = self.summed(self._returned.pop(message.number, []), message.boxes, samples=not message.weights)
        elif message.weights:
            whole, piece = self.piece(message.of), self.partitioned.pieces[message.of].box
            found = [whole[slices(box, piece)] for box in message.boxes]
        else:
            output, own = self._outputs[message.of], self.partitioned.parts[message.of].part.box
            found = [output[(slice(None), *slices(box, own))] for box in message.boxes]
        return torch.cat([one.reshape(-1) for one in found]).cpu()

    def take(self, arrival: Arrival, payload: torch.Tensor) -> None:
        """A message has come."""
        message = self.partitioned.messages[arrival.message]
        payload = payload.to(self.partition.device)
        found, first = [], 0
        for box in message.boxes:
            shape = extent(box) if message.weights else (self.samples, *extent(box))
            count = volume(box) * (1 if message.weights else self.samples)
            found.append(payload[first : first + count].view(shape))
            first += count
        if arrival.phase == "up":
            self._received[message.number] = found
        else:
            into = self._weights if message.weights else self._gradients
            into[message.of] += [(-1 - message.number, box, one) for box, one in zip(message.boxes, found, strict=True)]

    def summed(self, given: Sequence[tuple[int, Box, torch.Tensor]], regions: Sequence[Box], *, samples: bool) -> list[torch.Tensor]:
        """What was given for these regions, added up in an order that does not depend on when it was."""
        lead = (self.samples,) if samples else ()
        found = [self.parameters.new_zeros((*lead, *extent(box))) for box in regions]
        every = (slice(None),) * len(lead)
        for _, box, gradient in sorted(given, key=lambda one: one[0]):
            for region, into in zip(regions, found, strict=True):
                both = meet(box, region)
                if both is not None:
                    into[(*every, *slices(both, region))] += gradient[(*every, *slices(both, box))]
        return found

    # parts

    def forward(self, placed: Placed) -> None:
        """Compute a part from regions that it shares with nobody's tape."""
        inputs: list[torch.Tensor] = []
        leaves: list[torch.Tensor | None] = []
        for name, takes, need in zip(placed.node.inputs, placed.inputs, placed.part.needs, strict=True):
            if takes is None:
                source = self.partitioned.graph[name].layer
                assert isinstance(source, Source)
                given = source.fitted(self.given[source.what])
                inputs.append(given[(slice(None), *(slice(*side) for side in need))] if need else given)
                leaves.append(None)
            else:
                leaf = self.region(takes, need).detach().requires_grad_()
                inputs.append(leaf)
                leaves.append(leaf)
        weights = {
            name: self.weight(takes, placed.part.weights[name]).detach().requires_grad_() for name, takes in placed.parameters.items()
        }
        self.seed(self.batch.seed + ORDER * placed.number)
        with torch.enable_grad():
            output = placed.node.layer.forward(inputs, weights, placed.part)
        self._tapes[placed.number] = output, leaves, weights
        self._outputs[placed.number] = output.detach()
        if placed.node.layer.loss:
            self.loss = output.detach().mean().item()

    def seed(self, number: int) -> None:
        """Of the device's own stream: `torch.manual_seed` is for all devices that there may be, and writes down the stack for each."""
        torch.default_generator.manual_seed(number)
        if self.partition.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def region(self, takes: Sequence[Take], need: Box) -> torch.Tensor:
        """A region of an input, put together; not copied where it is one part's."""
        if len(takes) == 1 and takes[0].box == need:
            return self.taken(takes[0], need)
        whole = self.parameters.new_empty((self.samples, *extent(need)))
        for take in takes:
            whole[(slice(None), *slices(take.box, need))] = self.taken(take, take.box)
        return whole

    def taken(self, take: Take, box: Box) -> torch.Tensor:
        if take.message is None:
            own = self.partitioned.parts[take.source].part.box
            return self._outputs[take.source][(slice(None), *slices(box, own))]
        return self.received(take.message, box, samples=True)

    def received(self, number: int, box: Box, *, samples: bool) -> torch.Tensor:
        """A box of a message that has come."""
        message, found = self.partitioned.messages[number], self._received[number]
        every = (slice(None),) if samples else ()
        for region, tensor in zip(message.boxes, found, strict=True):
            if meet(box, region) == box:
                return tensor[(*every, *slices(box, region))]
        whole = self.parameters.new_empty((*((self.samples,) if samples else ()), *extent(box)))
        for region, tensor in zip(message.boxes, found, strict=True):
            both = meet(box, region)
            if both is not None:
                whole[(*every, *slices(both, box))] = tensor[(*every, *slices(both, region))]
        return whole

    def piece(self, number: int) -> torch.Tensor:
        """A piece of a parameter that is this machine's own."""
        piece = self.partitioned.pieces[number]
        return self.parameters[piece.first : piece.first + piece.count].view(extent(piece.box))

    def weight(self, takes: Sequence[Take], need: Box) -> torch.Tensor:
        """A region of a parameter, put together; not copied where it is one piece."""
        found = [
            self.piece(take.source)[slices(take.box, self.partitioned.pieces[take.source].box)] if take.message is None
            else self.received(take.message, take.box, samples=False)
            for take in takes
        ]  # fmt: skip
        if len(takes) == 1 and takes[0].box == need:
            return found[0]
        whole = self.parameters.new_empty(extent(need))
        for take, one in zip(takes, found, strict=True):
            whole[slices(take.box, need)] = one
        return whole

    def backward(self, placed: Placed) -> None:
        """The gradients of what a part took."""
        output, leaves, weights = self._tapes.pop(placed.number)
        if placed.node.layer.loss:
            above = torch.full_like(output, 1 / self.samples)
        else:
            above = self.summed(self._gradients.pop(placed.number, []), [placed.part.box], samples=True)[0]
        wanted = [leaf for leaf in leaves if leaf is not None] + list(weights.values())
        if not wanted or not output.requires_grad:
            return
        found = iter(torch.autograd.grad(output, wanted, above, allow_unused=True))
        for takes, leaf, need in zip(placed.inputs, leaves, placed.part.needs, strict=True):
            if takes is not None and leaf is not None and (gradient := next(found)) is not None:
                for take in takes:
                    into = self._gradients[take.source] if take.message is None else self._returned[take.message]
                    into.append((placed.number, take.box, gradient[(slice(None), *slices(take.box, need))]))
        for (name, takes), gradient in zip(placed.parameters.items(), found, strict=True):
            if gradient is not None:
                for take in takes:
                    into = self._weights[take.source] if take.message is None else self._returned[take.message]
                    into.append((placed.number, take.box, gradient[slices(take.box, placed.part.weights[name])]))

    def gradient(self) -> Gradient:
        """Of all the parameters of this machine."""
        for number, given in self._weights.items():
            piece = self.partitioned.pieces[number]
            into = self.flat_gradient[piece.first : piece.first + piece.count].view(extent(piece.box))
            for _, box, one in sorted(given, key=lambda one: one[0]):
                into[slices(box, piece.box)] += one
        self._weights.clear()
        return Gradient(self.flat_gradient.cpu(), self.loss, self.samples)

    def outputs(self) -> dict[str, list[tuple[Box, torch.Tensor]]]:
        """What this machine has of the graph's outputs, by layer."""
        names = {node.name for node in self.partitioned.graph.outputs}
        found: dict[str, list[tuple[Box, torch.Tensor]]] = {}
        for placed in self.partitioned.parts_of(self.partition.machine):
            if placed.node.name in names and placed.number in self._outputs:
                found.setdefault(placed.node.name, []).append((placed.part.box, self._outputs[placed.number]))
        return found


def gathered(partitioned: Partitioned, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """All parameters as one vector, ordered by machine and piece, from whole tensors by their keys."""
    kinds = {tensor.dtype for tensor in tensors.values()}
    flat = torch.empty(sum(partitioned.sizes), dtype=kinds.pop())
    for machine in range(partitioned.machines):
        first = partitioned.parameters_of(machine).start
        for piece in partitioned.pieces_of(machine):
            whole = tensors[partitioned.graph[piece.node].key(piece.weight)]
            shape = partitioned.graph[piece.node].weights[piece.weight]
            into = flat[first + piece.first : first + piece.first + piece.count].view(extent(piece.box))
            into.copy_(whole.detach().reshape(shape)[tuple(slice(*side) for side in piece.box)])
    return flat


def scattered(partitioned: Partitioned, flat: torch.Tensor, into: Mapping[str, torch.Tensor]) -> None:
    """The other way: write that vector into whole tensors."""
    for machine in range(partitioned.machines):
        first = partitioned.parameters_of(machine).start
        for piece in partitioned.pieces_of(machine):
            whole = into[partitioned.graph[piece.node].key(piece.weight)]
            shape = partitioned.graph[piece.node].weights[piece.weight]
            part = flat[first + piece.first : first + piece.first + piece.count].view(extent(piece.box))
            whole.detach().view(shape)[tuple(slice(*side) for side in piece.box)] = part.to(whole.device)
