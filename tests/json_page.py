"""The reference page of what ``--json`` prints, ``docs/json.md``, from the commands and the models.

``python -m tests.json_page > docs/json.md``, or ``make docs``, which first takes the examples anew.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import cli
from cli.context import JsonOption
from registry.documents import base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.context import Form

EXAMPLES = Path(__file__).with_name("json_examples.json")
"""What commands have really printed, by command; see ``tests/cli/test_documents.py``."""

INTRODUCTION = """\
# JSON

What commands print with `--json`, document by document. This page is generated (`make docs`); change
the models in `registry/documents/` instead. A server on top of the registry sends the same documents.

## Words

{words}

## Schema

Every document says in `schema` what it is: `centra/NAME/{version}`. The number is that of the whole set. It
grows when a field is renamed, leaves or means something else, and then for all of them; new fields and new
documents do not change it, so ignore fields that you do not know. A command that lists prints an array of
such documents. `centra predict` prints one object a line and input, without `schema`, because any name in
it may be a task's. As JSON Schema, the whole set: `python -m registry.documents`.

A field of which a table below says no meaning is one of these words, or says it itself.

A command that fails prints `Error: …` on standard error and ends with its exit code; what it has on
standard output by then, as the gates of a promotion that was refused, is a document all the same.

## Commands
"""


class Printed(NamedTuple):
    """What a command prints with ``--json``."""

    command: str
    """Without ``centra``: ``task show``."""
    model: Any
    form: Form


def printed() -> list[Printed]:
    """Every command that has ``--json``, in the order of the command line."""
    return [*_printed(cli.main)]


def _printed(command: click.Command, *path: str) -> Iterator[Printed]:
    for option in command.params:
        if "--json" in option.opts:
            assert isinstance(option, JsonOption), " ".join(path)
            yield Printed(" ".join(path), find_model(option.document), option.form)
            for other, document in option.others.items():
                yield Printed(" ".join((*path, f"--{other}")), find_model(document), option.form)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _printed(found, *path, name)


def find_model(document: str) -> Any:
    """The model that ``module:Class`` names."""
    module, _, name = document.partition(":")
    return getattr(importlib.import_module(module), name)


def page(examples: dict[str, Any]) -> str:
    """The whole page.

    Args:
        examples: see :data:`EXAMPLES`.
    """
    found = printed()
    models = list({entry.model: None for entry in found})
    parts: dict[str, Any] = {}
    for model in models:
        parts |= _schema(model).get("$defs", {})
    for model in models:
        parts.pop(model.__name__, None)
    sections = [
        INTRODUCTION.format(words=_words(), version=base.SCHEMA_VERSION),
        _table(("command", "prints"), [(f"`centra {e.command}`", _prints(e)) for e in found]),
        "\n## Documents\n",
        *(_document(model, found, examples) for model in models),
        "## Parts of documents\n",
        *(_section(parts[name], name) for name in sorted(parts)),
    ]
    return "\n".join(sections).rstrip() + "\n"


def _words() -> str:
    _, _, text = cleandoc(base.__doc__ or "").partition("\n\n")
    return _code(text)


def _prints(entry: Printed) -> str:
    link = f"[{entry.model.__name__}](#{entry.model.__name__.lower()})"
    return {"object": link, "array": f"array of {link}", "lines": f"{link} on each line"}[
        entry.form
    ]


def _schema(model: Any) -> dict[str, Any]:
    schema: dict[str, Any] = model.model_json_schema(mode="serialization")
    return schema


def _document(model: Any, found: list[Printed], examples: dict[str, Any]) -> str:
    entries = [entry for entry in found if entry.model is model]
    commands = ", ".join(f"`centra {entry.command}`" for entry in entries)
    text = _section(_schema(model), model.__name__, f"Printed by {commands}.\n\n")
    example = examples[entries[0].command]
    shown = json.dumps(example["printed"], indent=2, ensure_ascii=False)
    return f"{text}`centra {example['words']} --json`:\n\n```json\n{shown}\n```\n"


def _section(schema: dict[str, Any], name: str, more: str = "") -> str:
    fields = schema.get("properties", {})
    rows = [
        (f"`{field}`", _type(kind), _code(" ".join(kind.get("description", "").split())))
        for field, kind in fields.items()
    ]
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        rows.append(("any other", _type(extra), "Under a task's name its answer."))
    description = _code(cleandoc(schema["description"]))
    return f"### {name}\n\n{description}\n\n{more}{_table(('field', 'type', 'meaning'), rows)}\n"


def _type(kind: dict[str, Any]) -> str:
    """A field's type in words: ``array of string, or null``."""
    match kind:
        case {"$ref": str() as reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": list() as several}:
            return ", or ".join(dict.fromkeys(map(_type, several)))
        case {"allOf": [one]}:
            return _type(one)
        case {"type": "array", "prefixItems": [first, *_]}:
            return f"pair of {_type(first)}"
        case {"type": "array", "items": items}:
            return f"array of {_type(items)}"
        case {"type": "object", "additionalProperties": dict() as values}:
            return f"object of {_type(values)}"
        case {"format": "date-time"}:
            return "time"
        case {"type": name}:
            return str(name)
        case _:
            return "any"


def _code(text: str) -> str:
    """Code as Markdown has it."""
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return (
        "\n".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
        )
        + "\n"
    )


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(EXAMPLES.read_text(encoding="utf-8"))))
