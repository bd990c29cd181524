"""One role of a job as a process of its own: `python -P -m exec.role …`, started by the launcher and nobody else.

It makes its part of the plan, attends to the launcher, and runs the protocol of `core` on a real node.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.downpour import replica
from core.evaluator import Final, evaluator
from core.job import EVALUATOR, role_number
from core.journal import Journal, one_line
from core.messages import Refused
from core.shard import Shard
from core.work import Diverged
from exec.codec import Identity, Payload
from exec.control import Attendant, Orphaned, attend
from exec.device import keep_memory
from exec.host import Host
from exec.wire import control_pb2 as wire
from models.errors import InputError
from report.exits import Exit
from report.folder import RunFolder
from report.tally import Tally
from scenarios.load import ScenarioError, load
from scenarios.plan import Plan, plan

STATUS_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Errand:
    """What the launcher tells a process on its command line."""

    scenario: str
    overrides: tuple[str, ...]
    folder: Path
    launcher: str
    own: Identity
    device: str

    def arguments(self) -> list[str]:
        """The command line that `read` reads."""
        overrides = [f"--set={override}" for override in self.overrides]
        return [
            f"--folder={self.folder}", f"--launcher={self.launcher}", f"--job={self.own.job}", f"--role={self.own.name}",
            f"--incarnation={self.own.incarnation}", f"--device={self.device}", *overrides, "--", self.scenario,
        ]  # fmt: skip

    @classmethod
    def read(cls, arguments: list[str]) -> Errand:
        parser = argparse.ArgumentParser(prog="exec.role")
        for name in ("--folder", "--launcher", "--job", "--role", "--incarnation", "--device"):
            parser.add_argument(name, required=True)
        parser.add_argument("--set", action="append", default=[])
        parser.add_argument("scenario")
        told = parser.parse_args(arguments)
        own = Identity(told.job, told.role, int(told.incarnation))
        return cls(told.scenario, tuple(told.set), Path(told.folder), told.launcher, own, told.device)


def main() -> None:
    """Exit codes as `report/exits.py`; what went wrong is the last line of standard error."""
    keep_memory()
    errand = Errand.read(sys.argv[1:])
    try:
        made = plan(load(errand.scenario, errand.overrides), real=True, device=errand.device)
    except (ScenarioError, InputError) as error:
        sys.exit(f"{error}")
    path = errand.folder / RunFolder.JOURNALS / f"{errand.own.name.replace('/', '-')}.{errand.own.incarnation}.tsv"
    with path.open("wb") as file:
        asyncio.run(live(errand, made, Journal(file, prompt=True)))


async def live(errand: Errand, made: Plan, journal: Journal) -> None:
    """This life, from its first report to its last."""
    tally = Tally()
    tally.attach(journal)
    async with Host(errand.own, journal, deadline_s=made.job.deadline_s, seed=made.scenario.seed) as host:
        address = serve(host, made) if errand.own.name.startswith("shard/") else ""
        async with attend(errand.launcher, errand.own, address) as attendant:
            beside = [asyncio.create_task(attendant.obey()), asyncio.create_task(tell(attendant, tally)), host.failure]
            exit_code, reason = await until_first_ends(protocol(errand, made, host, attendant), beside)
            if reason:
                host.record("failed" if exit_code else "ended", "", 0, 0.0, one_line(reason))
                sys.stderr.write(one_line(reason) + "\n")
            await attendant.report(ended=wire.Ended(exit=exit_code, reason=reason))
            for one in beside:  # not before the last report: cancelling a read ends the stream
                one.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
    if exit_code:
        sys.exit(exit_code)


def serve(host: Host, made: Plan) -> str:
    """Begin to serve this shard's slice; its address."""
    part = made.job.shards[role_number(host.name)].part
    parameters = made.network.initial()[part].clone()
    return host.serve(Shard(host, made.job, parameters, made.rule()), Payload(parameters.dtype, parameters.nbytes))


async def protocol(errand: Errand, made: Plan, host: Host, attendant: Attendant) -> None:
    """What this role does once everybody is there."""
    begin = await attendant.begun
    host.begin(begin.began_at)
    for peer, address in begin.addresses.items():
        host.introduce(peer, address)
    if host.name == EVALUATOR:
        final: Final = await evaluator(host, made.job, made.network, attendant.concluded)
        made.save(final.parameters, RunFolder.model_in(errand.folder))
    elif host.name.startswith("replica/"):
        await replica(host, made.job, made.network, made.data(role_number(host.name), host.incarnation))
    else:
        await attendant.concluded.wait()


async def until_first_ends(role: Coroutine[Any, Any, None], beside: Sequence[asyncio.Future[None]]) -> tuple[int, str]:
    """Run the role beside what must go on with it; the exit code, and why if there is something to say."""
    running = asyncio.create_task(role)
    try:
        ended, _ = await asyncio.wait([running, *beside], return_when=asyncio.FIRST_COMPLETED)
        for one in ended:
            one.result()
    except Diverged as error:
        return Exit.FAILED, str(error)
    except InputError as error:
        return Exit.WRONG_INPUT, str(error)
    except Refused as error:
        return Exit.DONE, f"refused: {error}"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return Exit.DONE, ""


async def tell(attendant: Attendant, tally: Tally) -> None:
    """Report how it goes, now and then."""
    while True:
        await asyncio.sleep(STATUS_EVERY_S)
        last = tally.curve[-1] if tally.curve else None
        await attendant.report(
            status=wire.Status(
                updates=tally.updates,
                staleness=tally.mean_staleness(),
                loss=last.loss if last else None,
                accuracy=last.accuracy if last else None,
            )
        )


if __name__ == "__main__":
    try:
        main()
    except Orphaned as orphaned:
        sys.exit(f"{orphaned}")
