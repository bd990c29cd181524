"""The way of operators to a running job: the launcher's, and that of `execctl status` and `stop`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.job import SUPERVISOR
from core.journal import Journal
from core.reports import Conclude, Inquire, Overview
from exec.codec import Identity
from exec.host import Host
from exec.jobfile import JobFile

OPERATOR = "operator"


class Operator:
    """Asks the supervisor; raises CallFailed when it does not answer."""

    def __init__(self, host: Host) -> None:
        self.host = host

    async def inquire(self) -> Overview:
        return await self.host.call(SUPERVISOR, Inquire())

    async def conclude(self, reason: str) -> Overview:
        return await self.host.call(SUPERVISOR, Conclude(reason))


@asynccontextmanager
async def operator(job: JobFile, deadline_s: float = 2.0) -> AsyncIterator[Operator]:
    """A connection to the supervisor of that job."""
    own = Identity(job.job, OPERATOR, 1)
    async with Host(own, Journal(), deadline_s=deadline_s, launched_at=job.launched_at, credentials=job.credentials()) as host:
        host.introduce(SUPERVISOR, 0, job.supervisor)
        yield Operator(host)
