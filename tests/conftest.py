"""Hypothesis profiles, chosen by HYPOTHESIS_PROFILE: `dev` (default), `ci` (default where CI=true; the same examples every time), `night`."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from sim import fair, heap

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("night", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "dev"))


def pytest_configure() -> None:
    for module in fair, heap:
        form = Path(module.__file__)
        source = form.with_name(f"{module.__name__.rpartition('.')[2]}.py")
        if form.stat().st_mtime < source.stat().st_mtime:
            raise pytest.UsageError(f"{form} is older than {source}, from which it is compiled: `make` does so anew")


class JobsTogether(LoadScopeScheduling):
    """Whole jobs go to one worker, one after the other; all other tests to whichever is free.

    What `--dist loadgroup` is for.  xdist 3.8 writes a test's group where pytest 9.0.3 no longer looks for it: each worker took half of
    such a module, and set its jobs up anew.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "jobs" if runs_jobs(nodeid.partition("::")[0]) else nodeid


@cache
def runs_jobs(file: str) -> bool:
    """Does it mark its tests as such?"""
    return 'xdist_group("jobs")' in Path(file).read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> JobsTogether:
    return JobsTogether(config, log)
