"""The run folder: new for each run, never written over, and one clear message where it cannot be made."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from models.errors import DataError
from report.exits import Exit, StartError, clear_errors
from report.folder import FolderError, RunFolder
from scenarios.load import Mistake, ScenarioError


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = RunFolder.new(tmp_path / "a" / "b")
    assert folder.path.is_dir()
    assert not folder.journal.exists()


def test_an_empty_folder_or_one_of_other_files_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.new(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("left", ["journal.tsv", "summary.json"])
def test_a_folder_with_a_run_in_it_is_not_written_over(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("precious")
    with pytest.raises(FolderError, match="holds a run already"):
        RunFolder.new(tmp_path)
    assert (tmp_path / left).read_text() == "precious"


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FolderError, match="cannot make the run folder"):
            RunFolder.new(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FolderError, match="Permission denied"):
        RunFolder.new(tmp_path / "run")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES], ids=["read-only", "full", "forbidden"])
def test_a_disk_that_takes_no_folder_is_told(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FolderError, match=os.strerror(number)):
        RunFolder.new(tmp_path / "run")


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [RunFolder.fresh("mine", "sim", None).path for _ in range(4)]
    assert len(set(folders)) == 4
    assert all(folder.parent == Path("runs") and folder.name.startswith("mine-sim-") for folder in folders)


def test_out_is_used_as_it_is(tmp_path: Path) -> None:
    assert RunFolder.fresh("mine", "sim", tmp_path / "here").path == tmp_path / "here"


def test_the_summary_is_written_as_json(tmp_path: Path) -> None:
    folder = RunFolder.new(tmp_path)
    folder.write_summary({"scenario": "mine", "loss": None})
    assert json.loads(folder.summary.read_text()) == {"scenario": "mine", "loss": None}


# how errors reach a person


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("data.source: bad"), Exit.WRONG_INPUT, ["error: data.source: bad"]),
        (ScenarioError([Mistake("f", "a", "x"), Mistake("f", "b", "y")]), Exit.WRONG_INPUT, ["error: f: a: x", "error: f: b: y"]),
        (StartError("no port"), Exit.NOT_STARTED, ["error: no port"]),
        (FolderError("no folder"), Exit.NOT_WRITTEN, ["error: no folder"]),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a"),
            Exit.NOT_WRITTEN,
            ["error: cannot write runs/a: No space left on device"],
        ),
        (OSError(errno.EROFS, "Read-only file system"), Exit.NOT_WRITTEN, ["error: cannot write the run folder: Read-only file system"]),
    ],
    ids=["data", "scenario", "start", "folder", "full disk", "read-only disk"],
)
def test_an_error_that_someone_can_do_something_about_is_a_message_and_a_code(
    error: Exception, code: Exit, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, clear_errors():
        raise error
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", said)


@pytest.mark.parametrize(
    "error", [AssertionError("ours"), OSError(errno.ECONNRESET, "reset"), ValueError("ours")], ids=lambda e: type(e).__name__
)
def test_a_mistake_of_ours_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)), clear_errors():
        raise error
