"""The `[[fault]]` tables: what goes wrong, where and when.

Every fault has a `target`: a role, a machine, a group of machines ("rack/0", "power/0"), a link, a glob of these, or a list.  It strikes
`at` a time, all its targets at once; or `every` so often, each target by itself: the next time is drawn when the last is over, a
target that is down does not fail meanwhile, and its clock begins again when it is back.  It lasts `for` some time, or until `repair`.
What is drawn is drawn for each target from a stream of its own.  `scenarios/declared.py` has presets and traces.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from scenarios.distributions import Distribution, Durations, Lasting
from scenarios.table import Positive, Probability, Table
from scenarios.units import Duration, PositiveDuration, Share, SignedDuration

ROLE, MACHINE, GROUP, LINK = "role", "machine", "group", "link"


def names(value: Any) -> Any:
    """One name or a list of them."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not found or not all(isinstance(name, str) for name in found):
        raise ValueError("allowed: a name or glob as 'replica/3', 'machine/*' or 'rack/0', or a list of them")
    return found


Names = Annotated[tuple[str, ...], BeforeValidator(names)]
For = Annotated[Durations | None, Field(alias="for")]
Times = Annotated[float, Field(gt=1, allow_inf_nan=False)]


class Aimed(Table):
    """What all faults have in common."""

    target: Names
    at: Duration | None = None
    every: Durations | None = None
    until: Duration | None = None
    """With `every`: it does not strike any more from then on."""
    frailty: Positive | None = None
    """With `every`: each target has a rate of its own, so many times the usual one, drawn from a gamma distribution of mean 1 and this
    variance; so counts are over-dispersed (Vaupel et al., Demography 1979)."""
    together: PositiveInt = 1
    """With `every`: so many neighbours among the targets share one clock, and are hit at once."""

    reaches: ClassVar[tuple[str, ...]] = (ROLE, MACHINE, GROUP)
    at_once: ClassVar[bool] = False
    """With neither `at` nor `every`: is it there from the beginning?"""

    @property
    def begins_s(self) -> float:
        """When it strikes, if that is not drawn."""
        return self.at if self.at is not None else 0.0

    @property
    def lasting(self) -> Distribution | None:
        """How long a strike lasts; None: to the end of the job."""
        return getattr(self, "for_", None) or getattr(self, "repair", None)

    @property
    def notice_s(self) -> float:
        """Between the first sign of it and the fault."""
        return 0.0


class Crash(Aimed):
    """`target = "replica/3"` loses the process (peers see resets), `"machine/3"` the machine (peers see silence), `"rack/0"` all of its."""

    kind: Literal["crash"]
    repair: Durations | None = None
    """Until a new life starts; left out: never."""


class Preemption(Aimed):
    """A machine is taken away, and says so before: shards write down what they have, replicas push it, and all go elsewhere."""

    kind: Literal["preemption"]
    notice: Duration = 120.0
    repair: Durations | None = None
    """From the loss until there is a machine again."""

    reaches: ClassVar[tuple[str, ...]] = (MACHINE, GROUP)

    @property
    def notice_s(self) -> float:
        return self.notice


class Pause(Aimed):
    """Processes stand still."""

    kind: Literal["pause"]
    for_: Annotated[Durations, Field(alias="for")]


class Slowdown(Aimed):
    """Computing takes longer on a machine; a role means the one it lives on."""

    kind: Literal["slowdown"]
    for_: For = None
    factor: Times
    """How many times slower."""

    at_once: ClassVar[bool] = True


class OfMessages(Aimed):
    """It hits messages to and from the target; of a link, those that pass over it."""

    for_: For = None

    reaches: ClassVar[tuple[str, ...]] = (ROLE, MACHINE, GROUP, LINK)
    at_once: ClassVar[bool] = True


class Loss(OfMessages):
    """Messages are lost, each with this probability."""

    kind: Literal["loss"]
    probability: Probability


class Delay(OfMessages):
    """Messages take so much longer."""

    kind: Literal["delay"]
    by: PositiveDuration


class Duplication(OfMessages):
    """Requests arrive twice, each with this probability."""

    kind: Literal["duplication"]
    probability: Probability


class Reordering(OfMessages):
    """Messages are held up, each with this probability for a time that is drawn, so that later ones overtake them."""

    kind: Literal["reordering"]
    probability: Probability
    by: Durations


class Degraded(OfMessages):
    """A link has less bandwidth; of a machine its own links, of a rack those that lead out of it."""

    kind: Literal["degraded"]
    factor: Times
    """Bandwidth is divided by it."""

    reaches: ClassVar[tuple[str, ...]] = (MACHINE, GROUP, LINK)


class Flapping(Table):
    """Cut for `down`, whole for `up`, and so on."""

    up: Lasting
    down: Lasting


class Cut(OfMessages):
    """Messages between the targets and everybody else, or those in `from`, are lost, and nobody is told."""

    kind: Literal["cut"]
    from_: Annotated[Names | None, Field(alias="from")] = None
    direction: Literal["both", "out", "in"] = "both"
    """As the targets see it: "out", they are not heard; "in", they hear nothing."""
    flapping: Flapping | None = None

    reaches: ClassVar[tuple[str, ...]] = (ROLE, MACHINE, GROUP)


class OfDisks(Aimed):
    """It hits a machine's disk; a role means the machine it lives on."""

    for_: For = None

    at_once: ClassVar[bool] = True


class FullDisk(OfDisks):
    """Nothing more can be written: what a shard cannot log fails the job, a snapshot is tried again."""

    kind: Literal["full-disk"]


class SlowDisk(OfDisks):
    """Reading and writing take longer."""

    kind: Literal["slow-disk"]
    factor: Times


class ClockDrift(Aimed):
    """A machine's clock is wrong: too fast or too slow by `rate`, and ahead by `step` from the beginning.  Timers are not."""

    kind: Literal["clock-drift"]
    for_: For = None
    rate: Share = 0.0
    step: SignedDuration = 0.0

    at_once: ClassVar[bool] = True


class Preset(Table):
    """Several faults with published figures; `rate` times as often."""

    kind: Literal["preset"]
    name: Literal["lanl", "google-first-year", "spot"]
    rate: Positive = 1.0
    target: Names = ("machine/*",)
    """Of google-first-year all machines are meant."""


class Trace(Table):
    """A CSV file of (time, target, event) is replayed."""

    kind: Literal["trace"]
    file: str


Plain = Crash | Preemption | Pause | Slowdown | Loss | Delay | Duplication | Reordering | Degraded | Cut | FullDisk | SlowDisk | ClockDrift
Fault = Annotated[Plain | Preset | Trace, Field(discriminator="kind")]
