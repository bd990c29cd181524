"""What every process of a job must know of it: written into the run folder, and handed to agents on their standard input."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from exec.certificates import Credentials
from models.errors import InputError

if TYPE_CHECKING:
    from scenarios.schema import Scenario

NAME = "job.json"
CERTIFICATES = "certificates"


@dataclass(frozen=True, slots=True)
class JobFile:
    """One job.

    `job`: its identity, on every message.  `supervisor`: where it is reached.  `launched_at`: seconds since 1970, from which
    all its times count.  `folder`: the run folder, as the launcher sees it.  `storage`: stands in that folder too, so that a
    machine can tell whether it sees the very same one.  `text`: the scenario, for machines that do not have its file.
    """

    job: str
    scenario: str
    text: str
    overrides: tuple[str, ...]
    supervisor: str
    launched_at: float
    folder: str
    storage: str
    device: str
    secure: bool

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        given = json.loads(text)
        return cls(**{**given, "overrides": tuple(given["overrides"])})

    def write(self) -> None:
        """Into the run folder, whole or not at all; nobody else may read it."""
        path = Path(self.folder) / NAME
        partial = path.with_name(f".{NAME}.partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(self.to_json())
        partial.replace(path)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The job of a run folder, which may have been moved.  Raises InputError."""
        try:
            return replace(cls.from_json((folder / NAME).read_text()), folder=str(folder.absolute()))
        except FileNotFoundError:
            raise InputError(f"{folder} is not the folder of a run of execctl: there is no {NAME} in it") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{folder / NAME} cannot be read: {error}") from None

    def load(self) -> Scenario:
        """The scenario: from its file where that is here, else from the text.  Raises ScenarioError."""
        from scenarios.load import load

        path = Path(self.scenario)
        if not path.is_file() and not self.is_bundled():
            path = Path(self.folder) / f"{path.stem}.toml"
            if not path.is_file():
                path.write_text(self.text)
            return load(str(path), self.overrides)
        return load(self.scenario, self.overrides)

    def is_bundled(self) -> bool:
        from scenarios.load import bundled

        return Path(self.scenario).stem in bundled()

    def credentials(self) -> Credentials | None:
        """Of this machine, for commands that have the run folder; None where the job goes without."""
        return Credentials.load(Path(self.folder) / CERTIFICATES, "operator") if self.secure else None


@dataclass(frozen=True, slots=True)
class Charge:
    """What an agent is told on its standard input, in one line."""

    job: JobFile
    number: int
    credentials: Credentials | None = None

    def to_json(self) -> str:
        return json.dumps(
            {"job": self.job.to_json(), "number": self.number, "credentials": self.credentials.to_json() if self.credentials else None}
        )

    @classmethod
    def from_json(cls, line: str) -> Self:
        given = json.loads(line)
        credentials = Credentials.from_json(given["credentials"]) if given["credentials"] else None
        return cls(JobFile.from_json(given["job"]), given["number"], credentials)
