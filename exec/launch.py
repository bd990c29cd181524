"""`execctl launch`: starts a job's supervisor and agents, keeps them alive, shows how it goes, and ends it on Ctrl-C.

It is nobody's coordinator: if it is killed, the job goes on and ends by itself, and `execctl status` and `stop` reach it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from core.job import SUPERVISOR
from core.journal import Journal
from core.messages import CallFailed
from core.node import Recorder
from core.reports import Overview, Process
from core.timings import Timings
from exec import addresses
from exec.certificates import Authority, Credentials, verify
from exec.chaos import Faults
from exec.handshakes import ENVIRONMENT
from exec.jobfile import CERTIFICATES, Charge, JobFile
from exec.operating import Operator, operator
from exec.placing import Backend, backend, how_ended
from exec.store import last_life
from report.exits import StartError
from report.folder import RunFolder
from scenarios.schema import Scenario

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LOOK_EVERY_S = 0.25
LIVES_AT_ONCE = 5
"""Of the supervisor in a row, none of which answered a single time: then it is given up."""


def prepare(scenario: Scenario, file: str, text: str, overrides: tuple[str, ...], folder: RunFolder, device: str) -> JobFile:
    """Everything that must be there before the first process.  Raises StartError."""
    listen = scenario.exec.listen
    secure = not addresses.is_loopback(listen) or scenario.exec.certificates is not None
    port = addresses.free_port(listen, scenario.exec.port)
    for name in (folder.JOURNALS, "logs", "store"):
        (folder.path / name).mkdir(mode=0o700, exist_ok=True)
    job = JobFile(
        job=uuid.uuid4().hex, scenario=str(Path(file).absolute()) if Path(file).is_file() else file, text=text, overrides=overrides,
        supervisor=f"{listen}:{port}", launched_at=time.time(), folder=str(folder.path.absolute()), storage=uuid.uuid4().hex,  # noqa: TID251
        device=device, secure=secure,
    )  # fmt: skip
    job.write()
    return job


def credentials(scenario: Scenario, job: JobFile, machines: list[str]) -> list[Credentials | None]:
    """Of each machine; the operator's own, which the supervisor shows too, go into the run folder."""
    if not job.secure:
        return [None] * len(machines)
    folder = Path(job.folder) / CERTIFICATES
    host = addresses.split(job.supervisor)[0]
    if scenario.exec.certificates is not None:
        given = Path(scenario.exec.certificates)
        shown = [named(given, machine) for machine in (socket.gethostname(), *machines)]
        for one in shown:
            verify(one, job.job)
        shown[0].save(folder, "operator", force=True)
        return [*shown[1:]]
    authority = Authority.for_job(job.job)
    authority.issue("operator", [host]).save(folder, "operator", force=True)
    return [authority.issue(f"machine-{number}", []) for number in range(len(machines))]


def named(folder: Path, machine: str) -> Credentials:
    """A machine's own, or those of the only machine whose key is there.  Raises CertificateError."""
    return Credentials.load(folder, machine if (folder / f"{machine}.key").is_file() else "")


class Launch:
    """One job as its launcher sees it."""

    def __init__(self, scenario: Scenario, job: JobFile) -> None:
        self.scenario, self.job, self.folder = scenario, job, Path(job.folder)
        self.timings = Timings(scenario.protocol.detect_within)
        self.seen: Overview | None = None
        self.interrupted = 0
        self.backend: Backend = backend(scenario, self.folder)
        self._supervisor: asyncio.subprocess.Process | None = None
        self._hold: asyncio.Future[None] | None = None
        self._wanted = ""
        """Why the job shall end, once somebody said so."""
        self._trouble = ""
        """Why no machine is left."""
        self._life, self._felled = 0, ""
        """Of the supervisor, and the declared fault that ended it."""
        self._record: Recorder = lambda *_, **__: None
        self.on_look: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """The whole job.  Raises StartError."""
        boot = time.time_ns() // 1_000_000
        with (self.folder / RunFolder.JOURNALS / f"launcher.{boot}.tsv").open("wb") as file:
            self._record = Journal(file, prompt=True).recorder("launcher", 1, self.now)
            await self._run()
        if self._trouble:
            raise StartError(self._trouble)

    def now(self) -> float:
        """The job's time."""
        return time.time() - self.job.launched_at  # noqa: TID251

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for told in ENDING:
            loop.add_signal_handler(told, self.interrupt)
        try:
            shown = credentials(self.scenario, self.job, self.backend.machines)
            await self.begin_supervisor()
            for number in range(len(self.backend.machines)):
                await self.backend.start(Charge(self.job, number, shown[number]))
            faults = asyncio.ensure_future(Faults(self.scenario, "", self, now=self.now, record=self._record).run())
            await self.watch()
            faults.cancel()
        finally:
            await self.backend.end()
            if self._supervisor is not None and self._supervisor.returncode is None:
                await self._supervisor.wait()
            for told in ENDING:
                loop.remove_signal_handler(told)

    def interrupt(self) -> None:
        """Ctrl-C: once to come to an end, twice to end now, which agents do who hear it; thrice without hearing anybody."""
        self.interrupted += 1
        self._wanted = "Ctrl-C"
        if self.interrupted > 1:
            self.send(self.supervisor, signal.SIGTERM)
        if self.interrupted > 2:
            self.backend.kill()

    # the supervisor, which nobody else starts

    async def begin_supervisor(self) -> None:
        self._life = life = last_life(self.folder / "store" / SUPERVISOR) + 1
        with (self.folder / "logs" / f"supervisor.{life}.log").open("wb") as log:
            self._supervisor = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "exec.supervising", str(self.folder), str(life), str(len(self.backend.machines)),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=os.environ | (ENVIRONMENT if self.job.secure else {"GRPC_VERBOSITY": "NONE"}),
            )  # fmt: skip
        pids = self.folder / "pids"
        pids.mkdir(mode=0o700, exist_ok=True)
        (pids / SUPERVISOR).write_text(f"{self._supervisor.pid}\n")

    async def watch(self) -> None:
        """Until the supervisor has ended because the job is over; another life for one that died, or that does not answer."""
        deaths, answered_at = 0, time.monotonic()
        async with operator(self.job, deadline_s=2 * self.timings.detect_within_s) as asking:
            while True:
                assert self._supervisor is not None
                ended = asyncio.ensure_future(self._supervisor.wait())
                await asyncio.wait([ended], timeout=LOOK_EVERY_S)
                if self._supervisor.returncode == 0:
                    return
                if self._supervisor.returncode is not None:
                    deaths += 1
                    self._record("crashed", SUPERVISOR, self._life, note=self._felled or how_ended(self._supervisor.returncode))
                    self._felled = ""
                    if deaths >= LIVES_AT_ONCE:
                        raise StartError(f"the supervisor ended {deaths} times without an answer: {self.last_words()}")
                    if self._hold is not None:
                        await asyncio.wait([self._hold])
                    await self.begin_supervisor()
                    answered_at = time.monotonic()
                elif await self.look(asking):
                    deaths, answered_at = 0, time.monotonic()
                elif time.monotonic() - answered_at > self.scenario.exec.start_within:
                    self._supervisor.kill()
                ended.cancel()

    async def look(self, asking: Operator) -> bool:
        """Ask how it goes, and pass on what is wanted; False if nobody answered."""
        try:
            self.seen = await (asking.conclude(self._wanted) if self._wanted else asking.inquire())
        except CallFailed:
            return False
        trouble = self.backend.trouble()
        if trouble and not any(machine.state == "up" for machine in self.seen.machines):
            self._trouble = trouble
            self._wanted = f"no machine is left: {trouble}"
        self.on_look()
        return True

    def last_words(self) -> str:
        logs = sorted((self.folder / "logs").glob("supervisor.*.log"), key=lambda path: path.stat().st_mtime)
        lines = logs[-1].read_text(errors="replace").strip().splitlines() if logs else []
        return lines[-1] if lines else "it said nothing"

    # exec.chaos.Victims

    def roles(self) -> dict[Process, str]:
        return {self.supervisor: SUPERVISOR}

    def send(self, process: Process, number: int) -> None:
        if self._supervisor is not None and self._supervisor.returncode is None and process == self.supervisor:
            self._supervisor.send_signal(number)

    def fell(self, process: Process, why: str, hold: asyncio.Future[None]) -> None:
        self._hold, self._felled = hold, why
        self.send(process, signal.SIGKILL)

    @property
    def supervisor(self) -> Process:
        """Its present life."""
        return Process(SUPERVISOR, self._life)
