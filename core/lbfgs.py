"""L-BFGS as Sandblaster's coordinator runs it (paper, section 4.2): the vectors stay on the shards, numbers travel.

    until settled:
      take the products that the newest pair and the gradient add         one round
      direction = - H gradient, by the two-loop recursion on coefficients   `vector_free`, one Combine in a second round
      search along the direction for an acceptable step                   each trial is a pass over the batch
      parameters += step direction;  s, y, gradient follow                `accept`, one batch: the commit point

Sources: Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 3.1 (backtracking), 3.5 and 3.6 (strong
Wolfe), 7.4 (two-loop recursion); Chen, Wang, Zhou, Large-scale L-BFGS using MapReduce, NIPS 2014 (vector-free).  What they
leave open is decided as torch.optim.LBFGS decides it, so that iterates agree.

Vectors by name: "parameters"; "gradient", at the parameters; "direction"; "s.K" and "y.K", by how much step K changed
parameters and gradient; and those of trials, named by whoever evaluates.  Symbols: alpha, beta, s, y as in algorithm 7.4.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Protocol

from core.operations import Combine, Dot, Drop, Largest, Norm1, Operation

PARAMETERS, GRADIENT, DIRECTION = "parameters", "gradient", "direction"

LEAST_CURVATURE = 1e-10
"""y.s that a pair must exceed to be kept, as in torch: the inverse Hessian stays positive definite."""

LEAST_MOVE = 1e-9
"""A bracket in which no parameter moves by more is not searched further (torch's tolerance_change)."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The loss at parameters + step * direction, its slope there (gradient . direction), and the gradient's name."""

    step: float
    loss: float
    slope: float
    gradient: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why it is over; `ok` where it is what was asked for."""

    reason: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """`memory`: pairs (s, y) kept.  `c1`, `c2`: sufficient decrease and curvature.  `search_evaluations`: of one line search.

    It is over when no element of the gradient exceeds `gradient`, when a step changes the loss by no more than `change`
    relative to it (or to 1, as SciPy), or after `iterations` or `evaluations`.
    """

    memory: int = 10
    direction: Literal["vector_free", "two_loop"] = "vector_free"
    search: Literal["strong_wolfe", "armijo"] = "strong_wolfe"
    c1: float = 1e-4
    c2: float = 0.9
    search_evaluations: int = 25
    gradient: float = 1e-7
    change: float = 1e-9
    iterations: float = math.inf
    evaluations: float = math.inf


@dataclass(slots=True)
class State:
    """Between two iterations, all there is to know; with the vectors on the shards, what a new life goes on from.

    `history`: the K of the pairs kept, oldest first.  `products`: dot products among them, by both names.
    """

    iteration: int = 0
    evaluations: int = 0
    resets: int = 0
    loss: float = math.inf
    previous_loss: float = math.inf
    steepest: float = math.inf
    """The largest element of the gradient, before the step."""
    history: list[int] = field(default_factory=list)
    products: dict[str, float] = field(default_factory=dict)

    def anew(self) -> State:
        """From the parameters as they are, without a history."""
        return State(iteration=self.iteration)

    def in_words(self) -> str:
        return f"{self.evaluations} evaluations, gradient {self.steepest:.3g}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> State:
        return cls(**json.loads(text))


class Space(Protocol):
    """All shards together."""

    async def operate(self, *operations: Operation) -> list[float]:
        """Have every shard do the batch; the numbers it yields, merged."""


Evaluate = Callable[[float], Awaitable[Trial]]
"""Loss and gradient at parameters + step * direction: the whole batch, by all replicas."""

Commit = Callable[[State, list[Operation]], Awaitable[None]]
"""Make it so: once it returns, the shards have done the batch once, and `state` is what a new life would begin with."""


class NoProgress(Exception):
    """No acceptable step along this direction."""


async def minimise(space: Space, evaluate: Evaluate, settings: Settings, state: State, commit: Commit) -> Stopped:
    """Go on from `state`, which is advanced in place.  Trials' gradients of an earlier life are for the caller to drop."""
    if not state.evaluations and not math.isfinite(await begin(space, evaluate, state, commit)):
        return Stopped(f"the loss of the first parameters is {state.loss}", ok=False)
    while True:
        if stopped := exhausted(settings, state) or settled(settings, state):
            return stopped
        try:
            downhill = await descend(space, settings, state)
            state.steepest = downhill.steepest
            if downhill.steepest <= settings.gradient:
                return Stopped(f"no element of the gradient exceeds {settings.gradient:g}", ok=True)
            start = Trial(0.0, state.loss, downhill.slope, GRADIENT)
            trial = await search(space, evaluate, settings, state, start, downhill)
        except NoProgress as failure:
            if not state.history:
                return Stopped(f"{failure}, along steepest descent", ok=False)
            await commit(state, reset(state))
        else:
            await commit(state, accept(settings, state, start, trial))


async def begin(space: Space, evaluate: Evaluate, state: State, commit: Commit) -> float:
    """Loss and gradient of the first parameters: a trial of step 0 along a direction of zeros."""
    await space.operate(Combine(DIRECTION, ((PARAMETERS, 0.0),)))
    trial = await evaluate(0.0)
    state.evaluations, state.loss = 1, trial.loss
    await commit(state, [Combine(GRADIENT, ((trial.gradient, 1.0),)), Drop((trial.gradient,))])
    return trial.loss


def accept(settings: Settings, state: State, start: Trial, trial: Trial) -> list[Operation]:
    """Take this step: all that it changes on the shards, as one batch.  `state` becomes what follows it.

    y.s = step (slope there - slope here), so whether the pair is kept is known before it exists.
    """
    state.iteration += 1
    state.previous_loss, state.loss = state.loss, trial.loss
    changes: list[Operation] = [Combine(PARAMETERS, ((PARAMETERS, 1.0), (DIRECTION, trial.step)))]
    if trial.step * (trial.slope - start.slope) > LEAST_CURVATURE:
        newest = state.iteration
        changes += [
            *forget(state, len(state.history) + 1 - settings.memory),
            Combine(s(newest), ((DIRECTION, trial.step),)),
            Combine(y(newest), ((trial.gradient, 1.0), (GRADIENT, -1.0))),
        ]
        state.history.append(newest)
    return [*changes, Combine(GRADIENT, ((trial.gradient, 1.0),)), Drop((trial.gradient,))]


def forget(state: State, pairs: int) -> list[Operation]:
    """Drop the oldest pairs, and the products that they are in."""
    if pairs <= 0:
        return []
    gone = [name for k in state.history[:pairs] for name in (s(k), y(k))]
    state.history = state.history[pairs:]
    lost = set(gone)
    state.products = {names: product for names, product in state.products.items() if lost.isdisjoint(names.split())}
    return [Drop(tuple(gone))]


def reset(state: State) -> list[Operation]:
    """Begin again with steepest descent."""
    state.resets += 1
    return forget(state, len(state.history))


def settled(settings: Settings, state: State) -> Stopped | None:
    """Whether the last step changed the loss so little that it is over."""
    change = abs(state.previous_loss - state.loss)
    if change <= settings.change * max(abs(state.previous_loss), abs(state.loss), 1.0) < math.inf:
        return Stopped(f"the last step changed the loss by {change:.2g}", ok=True)
    return None


def exhausted(settings: Settings, state: State) -> Stopped | None:
    """Whether it has had its iterations or evaluations."""
    if state.iteration >= settings.iterations:
        return Stopped(f"{state.iteration} iterations", ok=True)
    if state.evaluations >= settings.evaluations:
        return Stopped(f"{state.evaluations} evaluations", ok=True)
    return None


# The direction


@dataclass(frozen=True, slots=True)
class Downhill:
    """Of the gradient: its 1-norm and largest element.  Of the direction: the slope at the parameters and its largest element."""

    norm1: float
    steepest: float
    slope: float
    widest: float


async def descend(space: Space, settings: Settings, state: State) -> Downhill:
    """Make the direction on the shards.  Products once taken are kept in `state`, but for those with the gradient."""
    find, needed = (vector_free, every_product) if settings.direction == "vector_free" else (two_loop, curvatures)
    asked = [dot for dot in needed(state.history) if pair(dot.a, dot.b) not in state.products]
    norm1, steepest, *answers = finite(await space.operate(Norm1(GRADIENT), Largest(GRADIENT), *asked))
    products = state.products | {pair(dot.a, dot.b): answer for dot, answer in zip(asked, answers, strict=True)}
    state.products = {names: product for names, product in products.items() if GRADIENT not in names.split()}
    if any(products[pair(s(k), y(k))] <= 0 for k in state.history):
        raise NoProgress("rounding made the curvature of a pair negative")
    last = await find(space, state.history, products)
    slope, widest = finite(await space.operate(last, Dot(GRADIENT, DIRECTION), Largest(DIRECTION)))
    return Downhill(norm1, steepest, slope, widest)


def every_product(history: list[int]) -> Iterator[Dot]:
    """What the recursion on coefficients looks up: s of each pair with its own y and younger ones, y with y, both with g."""
    for place, k in enumerate(history):
        for j in history[: place + 1]:
            yield Dot(s(j), y(k))
            yield Dot(y(j), y(k))
        yield Dot(s(k), GRADIENT)
        yield Dot(y(k), GRADIENT)


def curvatures(history: list[int]) -> Iterator[Dot]:
    """What the recursion on vectors divides by."""
    yield from (Dot(s(k), y(k)) for k in history)
    yield from (Dot(y(k), y(k)) for k in history[-1:])


async def vector_free(_: Space, history: list[int], products: dict[str, float]) -> Combine:
    """The two-loop recursion on the direction's coefficients, without a look at a vector (Chen, Wang, Zhou 2014)."""
    direction = {GRADIENT: -1.0}
    alpha = {}

    def dot(name: str) -> float:
        return math.fsum(coefficient * products[pair(name, other)] for other, coefficient in direction.items())

    for k in reversed(history):
        alpha[k] = dot(s(k)) / products[pair(s(k), y(k))]
        direction[y(k)] = -alpha[k]
    for name in direction:
        direction[name] *= scale(history, products)
    for k in history:
        beta = dot(y(k)) / products[pair(s(k), y(k))]
        direction[s(k)] = alpha[k] - beta
    return Combine(DIRECTION, tuple(direction.items()))


async def two_loop(space: Space, history: list[int], products: dict[str, float]) -> Combine:
    """The two-loop recursion on the vectors themselves: each of 2m products waits for the one before."""
    last = Combine(DIRECTION, ((GRADIENT, -1.0),))
    alpha = {}
    for k in reversed(history):
        [product] = finite(await space.operate(last, Dot(s(k), DIRECTION)))
        alpha[k] = product / products[pair(s(k), y(k))]
        last = Combine(DIRECTION, ((DIRECTION, 1.0), (y(k), -alpha[k])))
    scaled = scale(history, products)
    last = Combine(DIRECTION, tuple((name, scaled * coefficient) for name, coefficient in last.terms))
    for k in history:
        [product] = finite(await space.operate(last, Dot(y(k), DIRECTION)))
        beta = product / products[pair(s(k), y(k))]
        last = Combine(DIRECTION, ((DIRECTION, 1.0), (s(k), alpha[k] - beta)))
    return last


def scale(history: list[int], products: dict[str, float]) -> float:
    """The first guess of the inverse Hessian's diagonal, s.y / y.y of the newest pair (equation 7.20)."""
    if not history:
        return 1.0
    newest = history[-1]
    return products[pair(s(newest), y(newest))] / products[pair(y(newest), y(newest))]


def finite(numbers: list[float]) -> list[float]:
    """Raises NoProgress for a number that is none."""
    if not all(map(math.isfinite, numbers)):
        raise NoProgress("a vector holds NaN or infinity, or its products overflow")
    return numbers


def s(k: int) -> str:
    return f"s.{k}"


def y(k: int) -> str:
    return f"y.{k}"


def pair(a: str, b: str) -> str:
    """The key of a product, whichever way it is asked."""
    return f"{a} {b}" if a <= b else f"{b} {a}"


# The step


async def search(space: Space, evaluate: Evaluate, settings: Settings, state: State, start: Trial, downhill: Downhill) -> Trial:
    """An acceptable step along the direction, its gradient the only one left of the trials'.

    The first guess is 1, at which a quasi-Newton step is good; without history there is no scale but the gradient's own.
    Raises NoProgress.
    """
    if start.slope >= 0:
        raise NoProgress(f"the slope along the direction is {start.slope:.3g}, no descent")
    line = Line(space, evaluate, settings, state, start, downhill.widest)
    first = 1.0 if state.history else min(1.0, 1.0 / downhill.norm1)
    try:
        found = await (strong_wolfe(line, first) if settings.search == "strong_wolfe" else backtracking(line, first))
    except NoProgress:
        await line.keep()
        raise
    await line.keep(found)
    if found is start or found.loss > start.loss:
        raise NoProgress(f"no lower loss in the {line.evaluations} evaluations of a line search")
    return found


@dataclass(slots=True)
class Line:
    """The loss along the direction, and the trials whose gradients are still on the shards."""

    space: Space
    evaluate: Evaluate
    settings: Settings
    state: State
    start: Trial
    widest: float
    evaluations: int = 0
    trials: list[Trial] = field(default_factory=list)

    def more(self) -> bool:
        """Whether another trial may be made."""
        return self.evaluations < self.settings.search_evaluations and self.state.evaluations < self.settings.evaluations

    async def at(self, step: float, *still: Trial) -> Trial:
        """A trial of this step; of earlier ones only those named can still be chosen."""
        await self.keep(*still)
        self.evaluations += 1
        self.state.evaluations += 1
        trial = await self.evaluate(step)
        self.trials.append(trial)
        return trial

    async def keep(self, *still: Trial) -> None:
        unwanted = tuple(trial.gradient for trial in self.trials if trial not in still)
        self.trials = [trial for trial in self.trials if trial in still]
        if unwanted:
            await self.space.operate(Drop(unwanted))

    def decreases(self, trial: Trial) -> bool:
        """Sufficiently: Armijo's condition, equation 3.6a."""
        return trial.loss <= self.start.loss + self.settings.c1 * trial.step * self.start.slope

    def flat(self, trial: Trial) -> bool:
        """Enough: the strong curvature condition, equation 3.7b."""
        return abs(trial.slope) <= -self.settings.c2 * self.start.slope


async def strong_wolfe(line: Line, step: float) -> Trial:
    """Algorithm 3.5: go on until an acceptable step is passed, or found.  Points and bounds are those of torch."""
    before, now = line.start, measurable(await line.at(step))
    interpolated = 0
    while line.more():
        if not line.decreases(now) or (interpolated > 1 and now.loss >= before.loss):
            return await zoom(line, before, now)
        if line.flat(now):
            return now
        if now.slope >= 0:
            return await zoom(line, before, now)
        step = cubic(before, now, least=now.step + 0.01 * (now.step - before.step), most=10 * now.step)
        before, now = now, measurable(await line.at(step, now))
        interpolated += 1
    return min(line.start, now, key=lambda trial: trial.loss)


async def zoom(line: Line, before: Trial, now: Trial) -> Trial:
    """Algorithm 3.6: narrow a bracket that holds an acceptable step.  Its best end so far, where there is no more."""
    ends = [before, now]
    low = lower(ends)
    crept = False
    while line.more() and abs(ends[1].step - ends[0].step) * line.widest >= LEAST_MOVE:
        left, right = sorted(end.step for end in ends)
        step, margin = cubic(ends[0], ends[1], least=left, most=right), 0.1 * (right - left)
        near = min(right - step, step - left) < margin
        if near and (crept or not left < step < right):  # twice close to an end, and hardly narrower: step away from it
            step = right - margin if right - step < step - left else left + margin
            near = False
        crept = near
        trial, high = measurable(await line.at(step, *ends)), 1 - low
        if not line.decreases(trial) or trial.loss >= ends[low].loss:
            ends[high] = trial
            low = lower(ends)
            continue
        if line.flat(trial):
            return trial
        if trial.slope * (ends[high].step - ends[low].step) >= 0:
            ends[high] = ends[low]
        ends[low] = trial
    return ends[low]


async def backtracking(line: Line, step: float) -> Trial:
    """Algorithm 3.1, the next step where a parabola has its minimum, within a tenth and a half of this one."""
    while True:
        trial = await line.at(step)
        if line.decreases(trial) and math.isfinite(trial.slope):
            return trial
        if not line.more():
            return line.start
        rise = trial.loss - line.start.loss - line.start.slope * step
        parabola = -line.start.slope * step / (2 * rise) if 0 < rise < math.inf else 0.5
        step *= min(max(parabola, 0.1), 0.5)


def measurable(trial: Trial) -> Trial:
    """Raises NoProgress where there is nothing to interpolate."""
    if not (math.isfinite(trial.loss) and math.isfinite(trial.slope)):
        raise NoProgress(f"the loss at step {trial.step:.3g} is {trial.loss}, its slope {trial.slope}")
    return trial


def lower(ends: list[Trial]) -> int:
    return 0 if ends[0].loss <= ends[1].loss else 1


def cubic(one: Trial, other: Trial, least: float, most: float) -> float:
    """Where the cubic with their losses and slopes has its minimum (equation 3.59), within bounds; else between these."""
    left, right = sorted((one, other), key=lambda trial: trial.step)
    d1 = left.slope + right.slope - 3 * (left.loss - right.loss) / (left.step - right.step)
    square = d1 * d1 - left.slope * right.slope
    between = (least + most) / 2
    if not 0 <= square < math.inf:
        return between
    d2 = math.sqrt(square)
    rise, bend = right.slope + d2 - d1, right.slope - left.slope + 2 * d2
    if bend == 0:  # as good as straight: the minimum is infinitely far
        return most if rise < 0 else least if rise > 0 else between
    minimum = right.step - (right.step - left.step) * (rise / bend)
    return min(max(minimum, least), most)


# Timing alone


async def rehearse(space: Space, evaluate: Evaluate, settings: Settings, state: State, commit: Commit, trials: int = 1) -> Stopped:
    """`minimise` with vectors that have no contents: the same rounds, batches and passes over the data, to the limits set.

    No number means anything, so every pair is kept and every line search ends with its trial of that number.
    """
    if not state.evaluations:
        await begin(space, evaluate, state, commit)
    while not (stopped := exhausted(settings, state)):
        await descend(Rehearsed(space), settings, state)
        start = Trial(0.0, 0.0, -1.0, GRADIENT)
        line = Line(space, evaluate, settings, state, start, 1.0)
        for _ in range(trials):
            trial = await line.at(1.0)
        await commit(state, accept(settings, state, start, replace(trial, step=1.0, slope=0.0)))
    return stopped


@dataclass(slots=True)
class Rehearsed:
    """Shards whose every number is 1, where 0 would be divided by."""

    space: Space

    async def operate(self, *operations: Operation) -> list[float]:
        return [1.0 for _ in await self.space.operate(*operations)]
