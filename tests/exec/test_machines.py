"""Jobs on several machines: agents side by side here, and network namespaces with a cable each, which can be pulled."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.exec.jobs import Job, check, until

THREE_HERE = """
[placement]
machines = 3
"""


def test_a_killed_agent_takes_its_roles_along_and_the_job_goes_on(tmp_path):
    async def story() -> None:
        async with Job(tmp_path, THREE_HERE) as job:
            await until(lambda: job.updates() > 100, 60, "training begins")
            number = job.home("shard/0").rpartition("/")[2]
            (agent,) = job.processes(f"agent={number} ")
            before = max(one.time_s for one in job.records())
            os.kill(agent, signal.SIGKILL)
            await until(lambda: job.happened("enlisted", f"machine/{number}", before), 10, "its agent is started again")
            await until(lambda: job.happened("granted", "shard/0", before), 10, "its shard lives again")
            check(job, await job.end())

    asyncio.run(story())
