"""Numbers of a running job for those who watch many: Prometheus metrics, and TensorBoard scalars by choice.

Names are those of the summary, so that one dashboard serves simulated and real runs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from core.job import role_kind
from core.lives import State
from core.membership import Membership
from scenarios.schema import Scenario

EVERY_S = 1.0


class Metrics:
    """What the supervisor knows, published once a second."""

    def __init__(self, scenario: Scenario, membership: Membership, folder: Path) -> None:
        self.membership = membership
        self.gauges = self.publish(scenario) if scenario.exec.metrics else {}
        self.board: Any = None
        if scenario.exec.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def publish(self, scenario: Scenario) -> dict[str, Any]:
        from prometheus_client import Gauge, start_http_server

        start_http_server(scenario.exec.metrics, addr=scenario.exec.listen)
        return {
            "seconds": Gauge("distbelief_seconds", "Seconds since the job was launched"),
            "updates": Gauge("distbelief_updates", "Pushes applied by the shard that applied the fewest"),
            "staleness": Gauge("distbelief_staleness", "Mean updates between a gradient's parameters and its application"),
            "loss": Gauge("distbelief_loss", "On held-out data, at the last look"),
            "accuracy": Gauge("distbelief_accuracy", "On held-out data, at the last look"),
            "life": Gauge("distbelief_life", "Which life of the role this is", ["role"]),
            "up": Gauge("distbelief_up", "Is the role up", ["role"]),
        }

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(EVERY_S)

    def look(self) -> None:
        roles = list(self.membership.roles.values())
        shards = [role.status for role in roles if role_kind(role.name) == "shard"]
        quality = next((role.status for role in roles if role.status.loss is not None), None)
        values = {
            "seconds": self.membership.now(),
            "updates": min((status.updates for status in shards), default=0),
            "staleness": sum(status.staleness for status in shards) / max(1, len(shards)),
        }
        if quality is not None and quality.loss is not None:
            values["loss"] = quality.loss
            if quality.accuracy is not None:
                values["accuracy"] = quality.accuracy
        for name, value in values.items():
            if self.gauges:
                self.gauges[name].set(value)
            if self.board is not None and name != "seconds":
                self.board.add_scalar(name, value, int(values["updates"]))
        for role in roles if self.gauges else ():
            self.gauges["life"].labels(role.name).set(role.life)
            self.gauges["up"].labels(role.name).set(role.state is State.UP)
