"""``centra`` as a process: results on standard output, all else on standard error, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.cli.helpers import process, read

if TYPE_CHECKING:
    from pathlib import Path


def test_progress_and_remarks_stay_out_of_standard_output(
    home: Path, modules: dict[str, Path], warm_python: Path
) -> None:
    registered = process("task", "register", "stars", modules["stars"], python=warm_python)
    assert (registered.stdout, registered.stderr) == ("stars@1.0\n", "registered\n")
    composed = process("compose", "--release", "--json", "--output", "out", python=warm_python)
    assert composed.returncode == 0, composed.stderr
    assert json.loads(composed.stdout)["release"] == 2
    for stage in ("check modules (4/4)", "written to out"):
        assert stage in composed.stderr
    # All the way through what is imported for it, which must not print there either.
    verified = process("release", "verify", "2", "--json")
    assert (
        json.loads(verified.stdout)["parity"].keys() == json.loads(composed.stdout)["tasks"].keys()
    )
    assert "check parity (4/4)" in verified.stderr
    shown = process("release", "show", "2", python=warm_python)
    assert (shown.stderr, shown.stdout[:9]) == ("", "release 2")


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (0, "task list"),
        (0, "--version"),
        (1, "--database postgresql://127.0.0.1:1/centra task list"),
        (2, "task show ../evil"),
        (3, "task show nope"),
        (4, "--actor dialog/bob task retire intent"),
        (5, "task register intent {stars}"),
        (6, "task register new {truncated}"),
    ],
)
def test_the_exit_code_says_what_kind_of_fault_it_was(
    home: Path,
    modules: dict[str, Path],
    tmp_path: Path,
    warm_python: Path,
    code: int,
    command: str,
) -> None:
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(modules["stars"].read_bytes()[:-100])
    words = command.format(stars=modules["stars"], truncated=truncated).split()
    done = process(*words, python=warm_python)
    assert done.returncode == code, done.stderr
    if code == 0:
        assert (bool(done.stdout), done.stderr) == (True, "")
    else:
        assert done.stdout == ""
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_ends_the_command_quietly(home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "audit", "--json"],
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(support.ROOT)},
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_names_are_printed_whatever_the_terminal_s_encoding(home: Path) -> None:
    done = process("channel", "move", "production", "1", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stdout) == (0, "production → release 1\n")
    assert read("channel", "show", "production")["revision"] == 1
