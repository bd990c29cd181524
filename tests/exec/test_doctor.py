"""What `execctl doctor` finds on machines that are well, and on those that are not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from exec.certificates import write_certificates
from exec.cli import main
from exec.doctor import Line, findings, pairs
from scenarios.load import load
from scenarios.plan import plan

THROUGH = ("placement.on='ssh'", "placement.hosts=['localhost']", "placement.through=['env', 'MACHINE={host}']")
"""A command that leads no further than here."""


def found(*overrides: str) -> dict[tuple[str, str], Line]:
    scenario = load("quickstart", overrides)

    async def collect() -> list[Line]:
        return [line async for line in findings(scenario, plan(scenario, numerics="real"))]

    return {(line.machine, line.what): line for line in asyncio.run(collect())}


def wrong(lines: dict[tuple[str, str], Line]) -> dict[tuple[str, str], Line]:
    return {key: line for key, line in lines.items() if line.advice}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_a_healthy_machine_passes_everything_and_leaves_no_file_behind(tmp_path):
    said = CliRunner().invoke(main, ["doctor", "quickstart", "--set", "protocol.durability='log'"], env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    for what in ("exec.listen", "certificates", "reached", "package", "supervisor", "clock", "disk", "cores", "room", "loopback"):
        assert what in said.output
    assert "is logged in" in said.output
    assert "[placement] says nothing" in said.output
    assert "check:" not in said.output
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("elsewhere")
def test_a_machine_is_reached_through_the_command_of_its_agent():
    lines = found(*THROUGH)
    assert wrong(lines) == {}
    assert "round trip" in lines["localhost", "reaches the supervisor"].found
    assert "MB/s" in lines["localhost", "network"].found


@pytest.mark.usefixtures("elsewhere")
def test_a_machine_that_is_not_reached_is_named_with_what_to_try_by_hand():
    line = found("placement.on='ssh'", "placement.hosts=['nowhere.invalid']", "placement.through=['false', '{host}']")[
        "nowhere.invalid", "reached"
    ]
    assert line.found == "exit code 1"
    assert "its name does not resolve here" in line.advice
    assert "false nowhere.invalid" in line.advice


@pytest.mark.usefixtures("elsewhere")
def test_a_python_without_this_package_is_told_from_one_that_is_not_there():
    bare = subprocess.run([sys._base_executable, "-P", "-c", "import exec.agent"], capture_output=True, check=False, cwd="/")
    if not bare.returncode:
        pytest.skip("the base Python has the package too")
    lines = found(*THROUGH, f"placement.python='{sys._base_executable}'")
    assert wrong(lines).keys() == {("localhost", "package")}
    assert "install opendistbelief" in lines["localhost", "package"].advice
    assert "exit code 127" in found(*THROUGH, "placement.python='/no/python'")["localhost", "reached"].found


@pytest.mark.usefixtures("elsewhere")
def test_a_port_in_use_and_an_address_of_somebody_else_are_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "it is in use" in found(f"exec.port={port}")["here", "exec.listen"].advice
    assert "cannot listen" in found("exec.listen='192.0.2.1'")["here", "exec.listen"].advice


@pytest.mark.usefixtures("elsewhere")
def test_roles_that_have_no_room_are_named():
    lines = found("placement.shard={ cores = 1000 }")
    assert "cores: 1000 wanted" in lines["all", "room"].advice


@pytest.mark.usefixtures("elsewhere")
def test_certificates_are_verified(tmp_path):
    given = tmp_path / "certificates"
    write_certificates(given, ["one"], 30)
    assert found(f"exec.certificates='{given}'")["one", "certificate"].found == "valid"
    (given / "one.key").chmod(0o644)
    assert "others can read this key" in found(f"exec.certificates='{given}'")["one", "certificate"].advice


def test_of_few_machines_every_pair_is_tried_and_of_many_each_with_the_next():
    assert pairs(["a"]) == [("a", "a")]
    assert pairs(["a", "b", "c"]) == [("a", "b"), ("a", "c"), ("b", "c")]
    many = [str(number) for number in range(40)]
    assert pairs(many) == list(zip(many, [*many[1:], many[0]], strict=True))
