"""Strangers who are turned away before they have said a word: TLS handshakes that fail.

gRPC tells Python nothing of them; its C core writes a line to standard error.  So that the journal can say that somebody
was at the door, standard error is read on its way: those lines are noted, gRPC's others dropped, all else passes.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable

ENVIRONMENT = {"GRPC_VERBOSITY": "INFO"}
"""For a process that shall hear of them; to be set before it imports grpc."""

FAILED = re.compile(rb"Handshake failed with error [A-Z_]+: (?:error:[0-9a-f]+:SSL routines:OPENSSL_internal:)?([^\n]{1,200})")
OF_GRPC = re.compile(rb"^[IWE][0-9]{4} [0-9:.]+ +[0-9]+ [a-z0-9_]+\.cc:[0-9]+\]")

IN_WORDS = {
    b"PEER_DID_NOT_RETURN_A_CERTIFICATE": "without a certificate",
    b"WRONG_VERSION_NUMBER": "without encryption",
    b"HTTP_REQUEST": "without encryption",
    b"CERTIFICATE_VERIFY_FAILED": "with a certificate that this job's authority did not issue, or that has expired",
}


class Handshakes:
    """Reads standard error of this process until `close`."""

    def __init__(self, on_failed: Callable[[str], None]) -> None:
        """`on_failed`: hears why, in words; called in a thread of its own."""
        self.on_failed = on_failed
        self._stderr = os.dup(2)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        self._thread = threading.Thread(target=self._read, args=(reading,), name="handshakes", daemon=True)
        self._thread.start()

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if (failed := FAILED.search(line)) is not None:
                    self.on_failed(told(failed[1]))
                elif not OF_GRPC.match(line):
                    os.write(self._stderr, line)

    def close(self) -> None:
        """Standard error is what it was; every line that was under way has passed."""
        os.dup2(self._stderr, 2)  # closes the last writing end: the thread reads to the end
        self._thread.join()
        os.close(self._stderr)


def told(reason: bytes) -> str:
    words = next((words for key, words in IN_WORDS.items() if reason.startswith(key)), reason.decode(errors="replace").strip())
    return f"somebody came {words}" if words.startswith("with") else f"a handshake failed: {words}"
