"""What the tests of the command line share: running it, and what a registry holds."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.testing import CliRunner, Result

import cli
from centra.system.files import file_digest
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator

Arg = str | Path


def commands(context: click.Context | None = None) -> Iterator[click.Context]:
    """The program, each group and each command that is shown."""
    context = context or click.Context(cli.main, info_name="centra")
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            if not command.hidden:
                yield from commands(click.Context(command, info_name=name, parent=context))


def centra(*args: Arg, code: int = 0, stdin: str | bytes | None = None) -> Result:
    """Run a command in this process. Whatever would be a traceback is raised."""
    words = [str(arg) for arg in args]
    result = CliRunner().invoke(cli.main, words, input=stdin, catch_exceptions=False)
    assert result.exit_code == code, f"exit code {result.exit_code}: {words}\n{result.output}"
    return result


def read(*args: Arg) -> Any:
    """What a command prints as JSON, without the schemas, which tests/cli/test_documents.py checks."""
    return without_schema(json.loads(centra(*args, "--json").stdout))


def without_schema(printed: Any) -> Any:
    """A document, or an array of documents, without what says which they are."""
    if isinstance(printed, list):
        return [without_schema(document) for document in printed]
    assert printed["schema"].startswith("centra/")
    return {name: value for name, value in printed.items() if name != "schema"}


def read_repeated(*args: Arg) -> tuple[Any, Any]:
    """What a change prints, and prints again when it is repeated, which changes nothing more."""
    first = read(*args)
    events = read("audit")
    again = read(*args)
    assert read("audit") == events
    return first, again


def answers(*args: Arg, stdin: str | None = None) -> list[Any]:
    """What ``centra predict --json`` prints: one document per line."""
    lines = centra("predict", *args, "--json", stdin=stdin).stdout.splitlines()
    return [json.loads(line) for line in lines]


def refused(*args: Arg, code: int, says: str | tuple[str, ...], stdin: Any = None) -> str:
    """Run a command that must fail with this exit code and a message that says this.

    Standard output stays empty. Returns the message.
    """
    result = centra(*args, code=code, stdin=stdin)
    assert result.stdout == ""
    _, found, message = result.stderr.rpartition("Error: ")
    assert found, result.stderr
    for part in (says,) if isinstance(says, str) else says:
        assert part in message, message
    assert "Traceback" not in message
    return message


def demand(home: Path, rules: str) -> None:
    """Add rules to a registry's ``centra.toml``, and put them in force."""
    with (home / "centra.toml").open("a") as file:
        file.write(rules)
    centra("policy", "apply")


def state(home: Path) -> dict[str, str]:
    """All that is in a registry's folder: each row of its database, and every other file."""
    database = home / ".centra" / "registry.db"
    with closing(sqlite3.connect(database)) as connection:
        rows = "\n".join(connection.iterdump())
    files = {
        str(path.relative_to(home)): file_digest(path)
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.name.startswith(database.name)
    }
    return {"rows": rows, **files}


def edit(home: Path, statement: str) -> None:
    """Change a registry's database behind its back."""
    with (
        closing(sqlite3.connect(home / ".centra" / "registry.db")) as connection,
        connection,
    ):
        connection.execute(statement)


def process(
    *args: Arg, stdin: str = "", python: Arg = sys.executable, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m cli`` as a process of its own, from the current folder."""
    return subprocess.run(
        [python, "-m", "cli", *args],
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
        env={**os.environ, "PYTHONPATH": str(support.ROOT), **options},
    )


TEXTS = ("wake me up", "play a song", "will it rain", "at seven", "louder", "an umbrella")


def nearly_right_rows(file: Path) -> Path:
    """Write rows for ``intent`` that its version in release 1 has right, but for one in three."""
    said = [answers(text, "--release", "1", "--task", "intent")[0]["intent"] for text in TEXTS]
    names = ("alarm", "music", "weather")
    labels = [
        one["label"] if i % 3 else next(name for name in names if name != one["label"])
        for i, one in enumerate(said)
    ]
    return support.write_jsonl(
        file, [{"text": text, "label": one} for text, one in zip(TEXTS, labels, strict=True)]
    )
