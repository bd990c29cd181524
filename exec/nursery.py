"""Where an agent's processes come from: one process that has loaded torch already, and forks.

A role so begins in some 50 ms instead of two seconds, which is what makes the loss of a shard a short one; and the libraries
are in memory once.  Nothing here starts a thread, opens a channel or touches a GPU before it forks: neither survives that.

It reads one JSON object a line from standard input, {"key", "charge", "log"} to begin a process or {"key", "signal"} for one
that runs, and writes {"key", "pid"} and {"key", "status"} (of waitpid) to standard output.  It ends, and all its processes
with it, when its input does; they are also told to end when it is killed, and it is killed when its agent is.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
"""Of Linux's sys/prctl.h."""


def end_with(parent: int, how: int) -> None:
    """Get that signal when the process that started this one ends, however it ends.  Linux; elsewhere its input ends."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, how, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it ended before we asked


class Nursery:
    """Forks, and reaps what it forked."""

    def __init__(self, live: Callable[[str], int]) -> None:
        """`live`: what a process does with its charge; its exit code."""
        self.live = live
        self.children: dict[int, str] = {}
        self.wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Until the input ends."""
        pending = b""
        while True:
            readable, _, _ = select.select([0, self.wake], [], [])
            if self.wake in readable:
                os.read(self.wake, 4096)
                self.reap()
            if 0 in readable:
                data = os.read(0, 1 << 16)
                if not data:
                    break
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self.obey(json.loads(line))
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)

    def obey(self, order: dict[str, Any]) -> None:
        if "signal" in order:
            for pid, key in self.children.items():
                if key == order["key"]:
                    os.kill(pid, order["signal"])
            return
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self.become(order, parent)
        self.children[pid] = order["key"]
        self.tell(key=order["key"], pid=pid)

    def become(self, order: dict[str, Any], parent: int) -> None:
        """In the new process: its own session, output and signals; never returns."""
        code = 1
        try:
            end_with(parent, signal.SIGTERM)  # a shard writes down what it has
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            for fd, target in ((null, 0), (log, 1), (log, 2)):
                os.dup2(fd, target)
            for fd in (log, null, self.wake, self._woken):
                os.close(fd)
            code = self.live(order["charge"])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
            if isinstance(leaving.code, str):
                sys.stderr.write(f"{leaving.code}\n")
        except BaseException:  # noqa: BLE001  last words
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self.tell(key=self.children.pop(pid), status=status)

    def tell(self, **what: Any) -> None:
        os.write(1, json.dumps(what).encode() + b"\n")


def main() -> None:
    """Load what takes long, say so, and serve."""
    end_with(int(sys.argv[1]), signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from exec.device import keep_memory

    keep_memory()
    import exec.tensors
    import models.data
    import models.torch_network
    from exec.role import live

    assert exec.tensors
    assert models.data
    assert models.torch_network
    Nursery(live).run()


if __name__ == "__main__":
    main()
