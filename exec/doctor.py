"""`execctl doctor`: tries everything on the machines that a job will need there, before it does.

Each machine is asked by a script on its standard input, through the very command that will start its agent.  The scripts
stand at the end; they need nothing but Python, so that they can tell what is missing.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from core.placement import Needs, Site, place
from core.reports import Capacity
from core.timings import Timings
from exec import addresses
from exec.certificates import CertificateError, Credentials, verify
from exec.placing import Commands, backend
from report.exits import Exit, StartError
from scenarios.plan import Plan, plan, roles
from scenarios.protocols import Sandblaster
from scenarios.schema import Scenario
from scenarios.units import in_words

TRIED = 64 << 20
"""Bytes that are written to each disk, and sent between machines."""
PATIENCE_S = 30.0
CLOCKS_S = 0.5
"""By so much two clocks may differ: the journals of a job are put in order by them."""
PAIRS = 15
"""If there are more pairs of machines than this, only the way from each to the next is tried."""


class Line(NamedTuple):
    """One finding; `advice`: what to check, "" if all is well."""

    machine: str
    what: str
    found: str
    advice: str = ""


class Unanswered(Exception):
    """A machine did not do what it was asked; the message is what it said last."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How machines are asked."""

    commands: Commands

    async def begin(self, machine: str, script: str, **told: Any) -> asyncio.subprocess.Process:
        """Run a script there; it finds what it is `told` as a dictionary of that name."""
        command = [*self.commands.through(machine), self.commands.python, "-P", "-"]
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ | {"GRPC_VERBOSITY": "NONE"}
            )
        except OSError as error:
            raise Unanswered(f"{shlex.join(command)}: {error.strerror}") from None
        assert process.stdin is not None
        process.stdin.write(f"told = {told!r}\n{script}".encode())
        process.stdin.close()
        return process

    async def ask(self, machine: str, script: str, **told: Any) -> dict[str, Any]:
        """What the script printed.  Raises Unanswered."""
        process = await self.begin(machine, script, **told)
        try:
            async with asyncio.timeout(PATIENCE_S):
                said, complaints = await process.communicate()
        except TimeoutError:
            process.kill()
            raise Unanswered(f"no answer within {PATIENCE_S:g} s") from None
        if process.returncode:
            last = complaints.decode(errors="replace").strip().splitlines()[-1:]
            raise Unanswered(f"exit code {process.returncode}" + (f": {last[0]}" if last else ""))
        answer: dict[str, Any] = json.loads(said)
        return answer


async def examine(scenario: Scenario, file: str, overrides: tuple[str, ...]) -> int:
    """Print a table of what was found; the exit code."""
    from rich.console import Console

    made = plan(scenario, numerics="real")
    found = [line async for line in findings(scenario, made)]
    Console().print(as_table(found, f"{file} {' '.join(overrides)}".strip()))
    return Exit.NOT_STARTED if any(line.advice for line in found) else Exit.DONE


def as_table(found: list[Line], title: str) -> Any:
    """For people."""
    from rich.table import Table
    from rich.text import Text

    # Text, not markup: a [placement] must not vanish
    table = Table("machine", "what", "found", "", box=None, title=title, title_justify="left")
    for line in found:
        verdict = Text(f"check: {line.advice}", "red") if line.advice else Text("ok", "green")
        table.add_row(line.machine, line.what, Text(line.found), verdict)
    return table


async def findings(scenario: Scenario, made: Plan) -> AsyncIterator[Line]:
    """Everything, from here outwards."""
    listening = listens(scenario)
    yield listening
    for line in certificates(scenario):
        yield line
    if scenario.placement.on == "ray":
        yield Line("ray", "machines", "Ray's own to look after: `ray status`")
        return
    commands = backend(scenario, Path())
    assert isinstance(commands, Commands)
    asking = Asking(commands)
    answers: dict[str, dict[str, Any]] = {}
    local = scenario.placement.on == "local"
    async with clock(scenario.exec.listen if not listening.advice else "127.0.0.1") as port:
        for machine in commands.machines[:1] if local else commands.machines:  # one after the other: they may share a disk
            told = {"listen": scenario.exec.listen, "port": port, "folder": run_folders(), "bytes": TRIED, "push": push_bytes(made)}
            try:
                answers[machine] = await asking.ask(machine, PROBE, **told)
            except Unanswered as failure:
                yield unreached(machine, commands, str(failure), local=local)
                continue
            for line in machine_lines(machine, answers[machine], scenario, made):
                yield line
    for line in places(scenario, {machine: answers.get(machine, answers.get(commands.machines[0], {})) for machine in commands.machines}):
        yield line
    for one, other in pairs(list(answers)):
        yield await network(asking, one, other, scenario.exec.listen)


# this machine


def run_folders() -> str:
    """Where `execctl launch` makes them."""
    return str(Path("runs").absolute() if Path("runs").is_dir() else Path.cwd())


def listens(scenario: Scenario) -> Line:
    """Is the supervisor's address ours, and its port free?"""
    listen, port = scenario.exec.listen, scenario.exec.port
    try:
        addresses.free_port(listen, port)
    except StartError as error:
        return Line("here", "exec.listen", f"{listen}:{port}", str(error))
    if scenario.placement.on in ("ssh", "slurm") and listen == "127.0.0.1" and "ssh" in scenario.placement.through:
        return Line("here", "exec.listen", listen, "exec.listen must be an address of this machine that the others reach")
    return Line("here", "exec.listen", f"{listen}, port {port or 'any'}: free")


def certificates(scenario: Scenario) -> Iterator[Line]:
    """Those of each machine, as the launcher will hand them out."""
    if scenario.exec.certificates is None:
        loopback = addresses.is_loopback(scenario.exec.listen)
        yield Line("here", "certificates", "none needed: loopback" if loopback else "will be made for the job alone")
        return
    folder = Path(scenario.exec.certificates)
    for key in sorted(folder.glob("*.key")) or [folder / ".key"]:
        if key.name == "ca.key":
            continue
        try:
            verify(Credentials.load(folder, key.stem if key.stem != ".key" else ""))
        except CertificateError as error:
            yield Line(key.stem.strip("."), "certificate", str(folder), str(error))
        else:
            yield Line(key.stem, "certificate", "valid")


def resolves(machine: str) -> bool:
    try:
        return bool(socket.getaddrinfo(machine.rpartition("@")[2], None))
    except OSError:
        return False


# each machine


def unreached(machine: str, commands: Commands, why: str, *, local: bool) -> Line:
    by_hand = shlex.join([*commands.through(machine), commands.python, "-V"])
    name = "" if local or resolves(machine) else "its name does not resolve here; "
    return Line(machine, "reached", why, f"{name}try by hand: {by_hand}")


def machine_lines(machine: str, answer: dict[str, Any], scenario: Scenario, made: Plan) -> Iterator[Line]:
    """What a machine has told of itself."""
    ours = version("opendistbelief")
    named = "" if scenario.placement.on == "local" or resolves(machine) else "; the name means something to the command only"
    yield Line(machine, "reached", f"{answer['host']}, Python {answer['python']}{named}")
    if answer["missing"]:
        yield Line(machine, "package", answer["missing"], f"install opendistbelief {ours} for placement.python there")
    else:
        advice = "" if answer["version"] == ours else f"install {ours} there: all machines of a job need the same"
        yield Line(machine, "package", f"opendistbelief {answer['version']}", advice)
    if answer["unreachable"]:
        advice = f"firewalls, and whether exec.listen = {scenario.exec.listen!r} is what that machine knows this one by"
        yield Line(machine, "reaches the supervisor", answer["unreachable"], advice)
    else:
        yield Line(machine, "reaches the supervisor", f"round trip {in_words(answer['round_trip_s'])}")
        off, unsure = abs(answer["clock_s"]), answer["round_trip_s"] / 2
        advice = "set the clocks by NTP: journals and certificates go by them" if off - unsure > CLOCKS_S else ""
        yield Line(machine, "clock", f"off by {in_words(off)}, within {in_words(unsure)}", advice)
    yield disk(machine, answer, scenario, made)


def push_bytes(made: Plan) -> int:
    """Of the largest shard."""
    return int(max((shard.part.stop - shard.part.start) for shard in made.job.shards) * 4)


STATES = {"sgd": 0, "momentum": 1, "adagrad": 1, "adam": 2}
"""Vectors that a rule keeps beside the parameters."""


def disk(machine: str, answer: dict[str, Any], scenario: Scenario, made: Plan) -> Line:
    """How fast it is, beside what the durability asks of it."""
    if answer["unwritten"]:
        return Line(machine, "disk", answer["folder"], f"{answer['unwritten']}: is the disk full, or the folder another's?")
    protocol, rate = scenario.protocol, TRIED / answer["write_s"]
    found = f"{answer['folder']}: {rate / 1e6:.0f} MB/s synced"
    if protocol.durability == "log":
        advice = "" if answer["push_s"] < Timings(protocol.detect_within).deadline_s else "a faster disk, or durability = 'mirror'"
        return Line(
            machine, "disk", f"{found}; a push of {push_bytes(made) / 1e6:.3g} MB is logged in {in_words(answer['push_s'])}", advice
        )
    if protocol.durability == "snapshot":
        takes = push_bytes(made) * (1 + STATES["sgd" if isinstance(protocol, Sandblaster) else protocol.rule.kind]) / rate
        advice = "" if takes < protocol.snapshot_every / 2 else "a faster disk, more shards, or a longer protocol.snapshot_every"
        return Line(machine, "disk", f"{found}; a snapshot takes {in_words(takes)} every {in_words(protocol.snapshot_every)}", advice)
    return Line(machine, "disk", f"{found}; durability = {protocol.durability!r} writes at the end only")


def places(scenario: Scenario, answers: dict[str, dict[str, Any]]) -> Iterator[Line]:
    """Is there room for every role?  Placed as the supervisor will."""
    sites = {machine: Site(Capacity(a["cores"], a["memory"], a["gpus"])) for machine, a in answers.items() if a}
    for machine, site in sites.items():
        has = site.capacity
        yield Line(machine, "has", f"{has.cores} cores, {has.memory_bytes / 1e9:.3g} GB, {has.gpus} GPUs")
    short = 0
    for role in roles(scenario) if sites else ():
        machine, why = place(role.name, role.needs, sites)
        if machine:
            sites[machine].taken[role.name] = role.needs
        else:
            short += 1
            yield Line("all", "room", role.name, f"[placement]: {why}")
    if sites and not short:
        asked = any(role.needs != Needs() for role in roles(scenario))
        yield Line("all", "room", f"for {len(roles(scenario))} roles" + ("" if asked else "; [placement] says nothing of what they need"))


# between machines


def pairs(machines: list[str]) -> list[tuple[str, str]]:
    if len(machines) == 1:
        return [(machines[0], machines[0])]
    every = list(combinations(machines, 2))
    return every if len(every) <= PAIRS else list(zip(machines, [*machines[1:], machines[0]], strict=True))


async def network(asking: Asking, one: str, other: str, listen: str) -> Line:
    """From one to the other, straight."""
    way = "loopback" if one == other else f"{one} to {other}"
    try:
        receiver = await asking.begin(other, RECEIVER, listen=listen)
        assert receiver.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                address, port = json.loads(await receiver.stdout.readline() or "[null, 0]")
            if address is None:
                raise Unanswered(f"{other} cannot listen")
            sent = await asking.ask(one, SENDER, address=address, port=port, bytes=TRIED)
        finally:
            if receiver.returncode is None:
                receiver.kill()
            await receiver.wait()
    except (Unanswered, TimeoutError) as failure:
        return Line(
            one, "network", f"{way}: {failure}", f"firewalls: every machine connects to every other, at any port of {listen}'s network"
        )
    return Line(one, "network", f"{way}: {TRIED / sent['seconds'] / 1e6:,.0f} MB/s")


@asynccontextmanager
async def clock(listen: str) -> AsyncIterator[int]:
    """A server of the time, where the supervisor will be; its port."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1):
            writer.write(f"{time.time():.9f}\n".encode())  # noqa: TID251
        writer.close()

    async with await asyncio.start_server(tell, listen, 0) as server:
        yield server.sockets[0].getsockname()[1]


PROBE = """
import importlib.metadata, json, os, pathlib, socket, sys, time
found = {"host": socket.gethostname(), "python": sys.version.split()[0], "missing": "", "version": "", "unreachable": "", "unwritten": ""}
try:
    import exec.agent
    found |= {"version": importlib.metadata.version("opendistbelief"), "gpus": exec.agent.gpus()}
except Exception as error:
    found |= {"missing": f"{type(error).__name__}: {error}", "gpus": 0}
found |= {"cores": len(os.sched_getaffinity(0)), "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}
try:
    with socket.create_connection((told["listen"], told["port"]), 5) as link, link.makefile("r") as lines:
        tries = []
        for _ in range(8):
            before = time.time()
            link.sendall(b"?")
            theirs, after = float(lines.readline()), time.time()
            tries.append((after - before, (before + after) / 2 - theirs))
        found["round_trip_s"], found["clock_s"] = min(tries)
except OSError as error:
    found["unreachable"] = f"{told['listen']}: {error}"
folder = next(path for path in map(pathlib.Path, (told["folder"], pathlib.Path.home() / ".cache", pathlib.Path.home(), "/tmp")) if path.is_dir())
found["folder"], path = str(folder), folder / f".doctor.{os.getpid()}"
def synced(count):
    data, began = os.urandom(1 << 20), time.monotonic()
    with path.open("wb", buffering=0) as file:
        for at in range(0, count, len(data)):
            file.write(data[: count - at])
        os.fsync(file.fileno())
    return time.monotonic() - began
try:
    found["write_s"], found["push_s"] = synced(told["bytes"]), min(synced(told["push"]) for _ in range(3))
except OSError as error:
    found["unwritten"] = str(error)
finally:
    path.unlink(missing_ok=True)
print(json.dumps(found))
"""

RECEIVER = """
import json, socket
family, kind, _, _, to = socket.getaddrinfo(told["listen"], 9, type=socket.SOCK_DGRAM)[0]
with socket.socket(family, kind) as way:
    way.connect(to)
    address = way.getsockname()[0]
with socket.create_server((address, 0), family=family) as server:
    server.settimeout(30)
    print(json.dumps([address, server.getsockname()[1]]), flush=True)
    link = server.accept()[0]
    while link.recv(1 << 20):
        pass
    link.sendall(b"!")
"""

SENDER = """
import json, socket, time
with socket.create_connection((told["address"], told["port"]), 10) as link:
    data, began = memoryview(bytes(1 << 20)), time.monotonic()
    for _ in range(0, told["bytes"], len(data)):
        link.sendall(data)
    link.shutdown(socket.SHUT_WR)
    link.recv(1)
    print(json.dumps({"seconds": time.monotonic() - began}))
"""
