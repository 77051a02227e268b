"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import click

import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["command_pages"]

_INTRODUCTION = """\
# Commands

Generated from the program itself; `centra COMMAND --help` says the same in the terminal.

"""


def command_pages() -> dict[str, str]:
    """The pages by their names: one that lists all commands, and one for each noun or flat verb."""
    context = click.Context(cli.main, info_name="centra")
    pages = {"commands.md": _INTRODUCTION + _overview(context)}
    for name, command in _subcommands(context):
        inner = click.Context(command, info_name=name, parent=context)
        pages[f"commands/{name}.md"] = "\n".join(_sections(inner, level=1)) + "\n"
    return pages


def _overview(context: click.Context) -> str:
    rows = [
        f"| [`centra {name}`](commands/{name}.md) | {_prose(command.get_short_help_str(200))} |"
        for name, command in _subcommands(context)
    ]
    lines = ["| command | does |", "| --- | --- |", *rows, "", *_described(context)]
    return "\n".join(lines) + "\n"


def _subcommands(context: click.Context) -> Iterator[tuple[str, click.Command]]:
    assert isinstance(context.command, click.Group)
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        if command is not None and not command.hidden:
            yield name, command


def _sections(context: click.Context, *, level: int) -> Iterator[str]:
    """A command's section, and those of the commands below it."""
    yield f"{'#' * level} {context.command_path}\n"
    yield from _described(context)
    if isinstance(context.command, click.Group):
        for name, command in _subcommands(context):
            inner = click.Context(command, info_name=name, parent=context)
            yield from _sections(inner, level=level + 1)


def _described(context: click.Context) -> Iterator[str]:
    command = context.command
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield _paragraph(paragraph.partition("\f")[0])
    options = [p.get_help_record(context) for p in command.get_params(context)]
    rows = [f"| {_option(o)} | {_prose(said)} |" for o, said in filter(None, options)]
    if rows:
        yield "\n".join(["| option | |", "| --- | --- |", *rows]) + "\n"


def _paragraph(text: str) -> str:
    """A paragraph of a help text; what click is told not to wrap keeps its lines."""
    if text.startswith("\b"):
        text = text.removeprefix("\b").strip("\n")
        return f"```text\n{text}\n```\n"
    return _prose(" ".join(text.split())) + "\n"


def _option(names: str) -> str:
    return f"`{names}`".replace("|", "\\|")


def _prose(text: str) -> str:
    """Text of the terminal as Markdown: what Markdown would take for its own is escaped."""
    text = re.sub(r"([<>*_`\[\]|])", r"\\\1", text)
    return re.sub(r"'(centra [^']+)'", r"`\1`", text.replace("\n", " "))
