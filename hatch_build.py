"""What building a wheel adds to the files of the checkout: a man page for each command.

``python hatch_build.py FOLDER`` writes them alone.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ManPages", "man_pages"]

_ROOT = Path(__file__).resolve().parent
_FOLDER = "share/man/man1"


class ManPages(BuildHookInterface[Any]):
    """Puts the pages where ``man`` looks for them beside the program."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the pages, unless the installation is to follow the checkout."""
        self._folder = TemporaryDirectory()
        if version != "editable":
            pages = _write_pages(Path(self._folder.name), self.metadata.version)
            build_data["shared_data"] |= {str(page): f"{_FOLDER}/{page.name}" for page in pages}

    def finalize(self, _version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        """Remove what is in the wheel by now."""
        self._folder.cleanup()


def man_pages(version: str) -> Iterator[tuple[str, str]]:
    """The name and the page, as roff, of the program, each group and each command.

    Args:
        version: Centra's.
    """
    sys.path.insert(0, str(_ROOT))
    from cli import main

    yield from _pages(click.Context(main, info_name="centra"), version)


def _pages(ctx: click.Context, version: str) -> Iterator[tuple[str, str]]:
    commands = dict(_commands(ctx))
    yield _name(ctx), "\n".join([*_page(ctx, commands, version), ""])
    for name, command in commands.items():
        yield from _pages(click.Context(command, info_name=name, parent=ctx), version)


def _commands(ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    """What a group shows, in its order."""
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            command = ctx.command.get_command(ctx, name)
            if command is not None and not command.hidden:
                yield name, command


def _page(ctx: click.Context, commands: dict[str, click.Command], version: str) -> Iterator[str]:
    name = _name(ctx)
    # No date: the same commit gives the same bytes at any time.
    yield f'.TH "{name.upper()}" "1" "" "Centra {version}" "Centra"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(_summary(ctx.command))}"
    yield ".SH SYNOPSIS"
    yield f"\\fB{_text(ctx.command_path)}\\fR {_text(' '.join(ctx.command.collect_usage_pieces(ctx)))}"
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(_help(ctx.command).split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b\n"):  # click's mark of lines that stay as they are
            yield from (".nf", _text(paragraph.removeprefix("\b\n")), ".fi")
        else:
            yield _text(paragraph)
    records = [param.get_help_record(ctx) for param in ctx.command.get_params(ctx)]
    if options := [record for record in records if record and record[1]]:
        yield ".SH OPTIONS"
        for option, meaning in options:
            yield from (".TP", f"\\fB{_text(option)}\\fR", _text(meaning))
    if commands:
        yield ".SH COMMANDS"
        for word, command in commands.items():
            yield from (
                ".TP",
                f"\\fB{_text(name)}\\-{_text(word)}\\fR(1)",
                _text(_summary(command)),
            )
    if ctx.parent:
        yield ".SH SEE ALSO"
        yield f"\\fB{_text(_name(ctx.parent))}\\fR(1)"


def _name(ctx: click.Context) -> str:
    return ctx.command_path.replace(" ", "-")


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or command.short_help or "")


def _summary(command: click.Command) -> str:
    """The first sentence of a command's help, without its full stop."""
    first = " ".join(_help(command).split("\n\n", maxsplit=1)[0].split())
    return re.split(r"\.(?= |$)", first, maxsplit=1)[0].removeprefix("Centra: ")


def _text(text: str) -> str:
    """A text as roff shows it: nothing in it is a request, an escape or a typographic hyphen."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", escaped, flags=re.MULTILINE)


def _write_pages(folder: Path, version: str) -> list[Path]:
    pages = []
    for name, page in man_pages(version):
        pages.append(folder / f"{name}.1")
        pages[-1].write_text(page, encoding="utf-8")
    return pages


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    _write_pages(target, project["version"])
