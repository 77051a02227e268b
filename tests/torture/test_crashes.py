"""A sample of the kills of `make torture`: always the same calls of a few commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT
from tests.torture import crashes, shim, starts
from tests.torture.commands import (
    COMMANDS,
    READING,
    TRAINING,
    Command,
    available,
    by_name,
    path_of,
)
from tests.torture.shim import Fault

if TYPE_CHECKING:
    from tests.torture.crashes import Attacked

_REGISTER = Command(
    name="a first module",
    line="task register topics {given}/topics.safetensors",
    start="empty",
    before=("backbone register tiny {given}/encoder",),
)
"""Also on the servers, where a start with three releases takes long."""

_CHANGES = (
    "creat|openat|open|write|pwrite64|writev|rename|renameat2?|linkat?|symlink|unlink|unlinkat|"
    "mkdir|mkdirat|ftruncate|truncate|fallocate|fsync|fdatasync|chmod|fchmod|utimensat|sendfile"
)


def sample(attacked: Attacked, command: Command, count: int) -> list[Fault]:
    """So many of a command's kills, evenly apart; and the one before the last rename."""
    found = crashes.reference(attacked, command)
    every = [*crashes.faults(found)]
    step = len(every) // count
    renames = [number for number, call in enumerate(found.calls, 1) if call.name == "rename"]
    return every[step // 2 :: step][:count] + [
        Fault(mode="before", call=number) for number in renames[-1:]
    ]


def lost(attacked: Attacked, command: Command, fault: Fault) -> list[str]:
    """What does not hold after a command was struck."""
    struck, found = crashes.attack(attacked, command, fault)
    assert struck or attacked.world.name != "SQLite + folder"
    return [f"{command.name}, {fault.mode} call {fault.call}: {line}" for line in found]


def test_every_changing_call_is_counted(on_sqlite: Attacked) -> None:
    strace = shutil.which("strace")
    if (
        strace is None
        or subprocess.run([strace, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("there is no strace to compare with, or it may not trace")
    world = on_sqlite.world
    command = by_name("init")
    starts.begin(world, command)
    counted = len(world.run("init").calls)
    starts.begin(world, command)
    log = world.root / "strace"
    subprocess.run(
        [
            strace,
            "-f",
            "-y",
            "-qq",
            "-o",
            log,
            "-e",
            "trace=%file,%desc",
            sys.executable,
            "-m",
            "cli",
            "init",
        ],
        cwd=world.work,
        env={**world.environment, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
    )
    changes = [
        line
        for line in log.read_text().splitlines()
        if re.match(rf"\d+ +({_CHANGES})\(", line)
        and str(world.work) in line
        and "-shm" not in line
        and not (
            re.match(r"\d+ +open(at)?\(", line) and not re.search("O_WRONLY|O_RDWR|O_CREAT", line)
        )
    ]
    assert len(changes) == counted


@pytest.mark.parametrize("name", [command.name for command in COMMANDS if command.cheap])
def test_a_killed_command_is_finished_by_repeating_it(on_sqlite: Attacked, name: str) -> None:
    command = by_name(name)
    assert not [
        line for fault in sample(on_sqlite, command, 1) for line in lost(on_sqlite, command, fault)
    ]


def test_a_killed_command_is_finished_by_repeating_it_on_servers(on_servers: Attacked) -> None:
    assert not [
        line
        for fault in sample(on_servers, _REGISTER, 2)
        for line in lost(on_servers, _REGISTER, fault)
    ]


def test_a_command_goes_on_after_the_disk_was_full(on_sqlite: Attacked) -> None:
    command = by_name("task register")
    every = [*crashes.faults(crashes.reference(on_sqlite, command), ("full",))]
    assert not [line for fault in every[5::30] for line in lost(on_sqlite, command, fault)]


def test_a_command_goes_on_after_the_database_went_away(on_servers: Attacked) -> None:
    every = [*crashes.faults(crashes.reference(on_servers, _REGISTER), ("pause",))]
    assert not [line for fault in every[5::40] for line in lost(on_servers, _REGISTER, fault)]


def test_every_command_that_is_attacked_is_there() -> None:
    missing = [command.name for command in COMMANDS if not available(command)]
    assert not missing


def test_every_command_that_changes_something_is_attacked() -> None:
    import click

    import cli

    def leaves(command: click.Command, path: str) -> list[str]:
        if not isinstance(command, click.Group):
            return [path]
        return [
            leaf
            for word in command.list_commands(context)
            if (found := command.get_command(context, word))
            for leaf in leaves(found, f"{path} {word}".strip())
        ]

    with click.Context(cli.main) as context:
        there = {*leaves(cli.main, "")}
    attacked = {path_of(command) for command in COMMANDS}
    assert attacked - there == set()
    assert there - attacked == {*READING, *TRAINING} & there


def test_a_kill_that_loses_something_is_seen(on_sqlite: Attacked) -> None:
    """The attack itself: a blob that vanishes, a log that is broken, a file beside the others."""
    world, command = on_sqlite.world, by_name("task register")
    expected = crashes.reference(on_sqlite, command)
    starts.begin(world, command)
    assert crashes.look(world, command, expected) == []
    next((world.work / ".centra" / "store" / "blobs").rglob("?" * 64)).unlink()
    found = crashes.look(world, command, expected)
    assert any("is missing" in line for line in found)
    assert any(line.endswith("is gone") for line in found)


def test_the_clock_of_a_process_is_moved(on_sqlite: Attacked) -> None:
    from datetime import datetime, timedelta

    world = on_sqlite.world
    starts.begin(world, by_name("task register"))
    done = world.run("task retire intent", clock=3600)
    assert done.code == 0
    last = world.run("audit --json").out
    at = max(datetime.fromisoformat(time) for time in re.findall(r'"created_at": "([^"]+)"', last))
    assert at > datetime.now(at.tzinfo) + timedelta(minutes=30)


def test_the_library_is_where_the_compiler_is() -> None:
    assert (shim.built() is None) == (shutil.which("cc") is None and shutil.which("gcc") is None)
    assert Path(shim.__file__).with_name("shim.c").is_file()
