"""Addresses of this machine: which one others reach it at, and which ports are free."""

from __future__ import annotations

import socket

from report.exits import StartError


def split(address: str) -> tuple[str, int]:
    """Host and port of "10.0.0.1:4000" or "[::1]:4000"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def towards(address: str) -> str:
    """This machine's own address on the way to that one: where its processes serve, and nowhere else.

    Raises StartError where the name does not resolve or no way leads there.
    """
    host, port = split(address)
    try:
        family, kind, _, _, to = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(to)  # of a datagram socket: looks the way up, and sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise StartError(f"the supervisor's address {address} cannot be reached from {socket.gethostname()}: {error}") from None


def free_port(listen: str, wanted: int) -> int:
    """The port itself if it is free, or any free one for 0.  Raises StartError."""
    try:
        family, _, _, _, to = socket.getaddrinfo(listen, wanted, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(to)
            return int(probe.getsockname()[1])
    except socket.gaierror as error:
        raise StartError(f"exec.listen = {listen!r} is no address of this machine: {error}") from None
    except OSError as error:
        reason = f"cannot listen at port {wanted} of {listen}: {error.strerror}; allowed: another exec.port, or 0 for any"
        raise StartError(reason.replace("Address already in use", "it is in use")) from None


def is_loopback(host: str) -> bool:
    """May a job whose supervisor is there go without certificates?"""
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(str(address).startswith("127.") or address == "::1" for address in addresses)
