"""No command waits for a library that it has no use for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.cli.helpers import state

if TYPE_CHECKING:
    from pathlib import Path

# Runs commands one after the other in a fresh interpreter. Prints for each its exit code and which
# of the heavy libraries are imported when it ends; what one leaves behind shows at all after it.
_PROBE = """
import json, sys

import click
from click.testing import CliRunner

import cli

HEAVY = {"torch", "transformers", "boto3", "alembic", "sqlalchemy", "pydantic", "numpy", "rich"}
HEAVY |= {"matplotlib", "plotext", "ray"}


def every_help(command, words):
    yield [*words, "--help"]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from every_help(command.get_command(context, name), [*words, name])


commands = json.loads(sys.argv[1]) or list(every_help(cli.main, []))
for words in commands:
    result = CliRunner().invoke(cli.main, words)
    imported = sorted(HEAVY & {name.partition(".")[0] for name in sys.modules})
    print(json.dumps([" ".join(words), result.exit_code, imported]))
"""


def imported_by_commands(*commands: tuple[str, ...]) -> list[tuple[str, int, set[str]]]:
    """Command, exit code and heavy libraries; without commands, of every ``--help``."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, json.dumps(commands)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(support.ROOT)},
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [(command, code, set(imported)) for command, code, imported in found]


def test_no_help_imports_more_than_click() -> None:
    found = imported_by_commands()
    shown = {command.removesuffix(" --help") for command, _, _ in found}
    expected = {"backbone register", "search", "distill", "fit", "task update", "compose", "demo"}
    assert expected <= shown
    assert found == [(command, 0, set()) for command, _, _ in found]


def test_listing_commands_import_the_database_alone(home: Path) -> None:
    found = imported_by_commands(
        ("task", "list"),
        ("task", "list", "--json", "--team", "nlu", "--metric", "accuracy>=0.5"),
        ("task", "list", "--since", "7d", "--sort", "accuracy", "--limit", "1"),
        ("task", "show", "intent"),
        ("task", "history", "intent"),
        ("release", "list", "--json", "--task", "intent@1.0", "--limit", "1"),
        ("channel", "list", "--task", "intent"),
        ("channel", "show", "latest"),
        ("backbone", "list"),
        ("audit",),
        ("db", "current"),
    )
    heavy = {"torch", "transformers", "boto3", "alembic"}
    assert [(command, code, imported & heavy) for command, code, imported in found] == [
        (command, 0, set()) for command, _, _ in found
    ]


def test_a_listing_of_a_registry_on_s3_does_not_import_boto3(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CENTRA_STORE", "s3://bucket/prefix")
    ((_, code, imported),) = imported_by_commands(("task", "list"))
    assert (code, imported & {"boto3", "torch", "transformers"}) == (0, set())


def test_registering_a_module_and_composing_what_is_proven_import_no_torch(
    home: Path, modules: dict[str, Path]
) -> None:
    found = imported_by_commands(
        ("release", "show", "1"),
        ("release", "diff", "1", "latest"),
        ("release", "graph", "1", "--output", "model.svg"),
        ("task", "show", "intent@1.0", "--markdown"),
        ("compose",),
        ("compose", "--release", "--json"),
        ("release", "pull", "1", "--output", "out"),
        ("channel", "move", "production", "1"),
        ("task", "register", "stars", str(modules["stars"])),
        ("task", "update", "intent", str(modules["intent update"])),
        ("task", "redefine", "intent", str(modules["intent redefinition"])),
        ("task", "diff", "intent@1.0", "intent"),
        ("task", "pin", "intent@1.0"),
        ("task", "retire", "stars"),
        ("task", "restore", "stars"),
        ("task", "retire", "stars"),
        ("compose", "--json"),
        ("db", "check"),
        ("db", "upgrade"),
        ("init",),
    )
    heavy = {"torch", "transformers", "boto3"}
    assert [(command, code, imported & heavy) for command, code, imported in found] == [
        (command, 0, set()) for command, _, _ in found
    ]


def test_a_refused_module_imports_no_torch(home: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"PK\x03\x04")
    before = state(home)
    found = imported_by_commands(("task", "register", "new", str(tmp_path / "bad.safetensors")))
    ((_, code, imported),) = found
    assert (code, imported & {"torch", "transformers", "boto3"}) == (6, set())
    assert state(home) == before


def test_importing_centra_imports_nothing_heavy_and_no_other_package() -> None:
    imported = support.imported_by("import centra")
    assert not imported & {"torch", "transformers", "boto3", "sqlalchemy", "click"}
    assert not imported & {"registry", "cli", "migrations"}


def test_importing_the_registry_imports_no_torch_and_no_command_line() -> None:
    modules = "audit, backbones, channels, connection, releases, settings, tasks"
    imported = support.imported_by(
        f"import registry.database.engine; from registry import {modules}"
    )
    assert not imported & {"torch", "transformers", "boto3", "alembic", "cli", "click"}
