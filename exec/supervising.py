"""The supervisor as a process: `core/supervisor.py` on a real host.  Started by the launcher, and by it again if it dies.

Its ledger lies in the run folder, and its address never changes, so a new life goes on where the last one was.  When the job
is over it merges the journals and writes the summary; so a job whose launcher is gone still ends as it should.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from core.job import SUPERVISOR
from core.journal import Journal, one_line
from core.membership import Membership
from core.messages import Request, Sender
from core.node import Outcome, Server, StoreFailed
from core.supervisor import supervisor
from core.timings import Timings
from exec import addresses
from exec.codec import Identity
from exec.host import Host
from exec.jobfile import JobFile
from exec.metrics import Metrics
from exec.relay import Relay, Relayed
from exec.relaying import take
from exec.server import AddressInUse
from exec.store import FileStore
from exec.summing import sum_up
from report.exits import Exit
from report.folder import RunFolder
from scenarios.plan import roles
from scenarios.schema import Scenario


def main() -> None:
    """`python -P -m exec.supervising RUN LIFE MACHINES`; exit codes as `report/exits.py`, the last line of its log says why."""
    import setproctitle

    job, life = JobFile.of(Path(sys.argv[1])), int(sys.argv[2])
    setproctitle.setproctitle(f"execctl role=supervisor life={life} job={job.job[:8]}")
    scenario = job.load()
    try:
        membership = asyncio.run(serve(job, scenario, life, int(sys.argv[3])))
    except (AddressInUse, StoreFailed) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(Exit.NOT_STARTED if isinstance(error, AddressInUse) else Exit.NOT_WRITTEN)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    overview = membership.overview()
    sum_up(job, scenario, overview.verdict, overview.reason)


async def serve(job: JobFile, scenario: Scenario, life: int, machines: int) -> Membership:
    """One life of the supervisor."""
    folder = Path(job.folder)
    timings = Timings(scenario.protocol.detect_within)
    host_name, port = addresses.split(job.supervisor)
    store = FileStore(folder / "store" / SUPERVISOR, life)
    with (folder / RunFolder.JOURNALS / f"supervisor.{life}.tsv").open("wb") as file:
        async with Receiving(
            Identity(job.job, SUPERVISOR, life), Journal(file, prompt=True), deadline_s=timings.deadline_s, timings=timings,
            launched_at=job.launched_at, store=store, bind=host_name, port=port, credentials=job.credentials(),
        ) as host:  # fmt: skip
            host.folder = folder
            membership = Membership(
                roles(scenario), timings, now=host.now, record=host.record, life=life, start_within_s=scenario.exec.start_within,
                machines=machines, needed=scenario.protocol.needed_replicas,
            )  # fmt: skip
            host.record("started", SUPERVISOR, life, note=f"process, at {job.supervisor}")
            beside: list[asyncio.Future[Any]] = [host.failure]
            if scenario.exec.metrics or scenario.exec.tensorboard:
                beside.append(asyncio.ensure_future(Metrics(scenario, membership, folder).run()))
            watching = asyncio.ensure_future(supervisor(host, membership))
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: end_now(membership))
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the launcher's to decide
            await asyncio.wait([watching, *beside], return_when=asyncio.FIRST_COMPLETED)
            if host.failure.done():
                host.failure.result()
            for one in beside[1:]:
                one.cancel()
            try:
                return await watching
            except StoreFailed as failure:
                host.record("failed", note=one_line(str(failure)))
                raise
            finally:
                await asyncio.to_thread(store.close)


def end_now(membership: Membership) -> None:
    """Whoever ends the supervisor by a signal does not wait for anybody's last words."""
    membership.conclude("interrupted", "the supervisor was ended")
    membership.enter("over")


class Receiving(Host):
    """A host that besides takes in what agents relay."""

    folder: Path

    def serve(self, server: Server) -> str:
        return super().serve(Taking(server, self.folder))


class Taking:
    """The supervisor's server, and files."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder

    def handle(self, request: Request[Any], sender: Sender) -> Outcome:
        if isinstance(request, Relay):
            take(self.folder, request)
            return Outcome(Relayed(len(request.data)))
        return self.server.handle(request, sender)


if __name__ == "__main__":
    main()
