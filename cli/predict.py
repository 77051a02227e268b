"""``centra predict``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

import click

from cli.context import json_option, release_or_default
from cli.options import device_options
from cli.output import json_text, print_table, reporting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.data import Input


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--release",
    "reference",
    help="A number, channel or digest; a release folder; or STORE#CHANNEL. Default what the channel "
    "production serves, or else latest.",
)
@click.option("--task", "tasks", multiple=True, help="Only these; default all that fit the input.")
@click.option("--text-pair", help="The second text, for tasks on pairs.")
@click.option(
    "--input",
    "file",
    type=click.File(encoding="utf-8"),
    help="Lines of text, or of JSON objects with 'text' (and 'text_pair') or 'tokens'.",
)
@device_options
@json_option
def predict(
    *,
    texts: tuple[str, ...],
    reference: str | None,
    tasks: tuple[str, ...],
    text_pair: str | None,
    file: TextIO | None,
    device: str | None,
    precision: str | None,
    as_json: bool,
) -> None:
    """Answer texts with a release.

    With --json one object per line and input: task name to answer.
    """
    from centra.data import Input
    from registry import releases

    given = [text if text_pair is None else (text, text_pair) for text in texts]
    inputs = [Input.parse(item, f"input {number}") for number, item in enumerate(given, 1)]
    inputs += _lines(file) if file else []
    if not inputs:
        raise click.UsageError("give a TEXT or --input FILE (- for standard input)")
    if text_pair is not None and not texts:
        raise click.UsageError("--text-pair belongs to a TEXT; lines of --input name their own")
    registry, reference = release_or_default(reference)
    with reporting() as progress:
        loaded = releases.load(
            registry,
            reference,
            tasks=tasks or None,
            device=device,
            precision=precision,
            progress=progress,
        )
    answers = loaded.predict(inputs, tasks or None)
    if as_json:
        for answer in answers:
            click.echo(json_text(answer))
        return
    rows = [
        (_shown(item) if number == 0 else "", task, *answer_text(value))
        for item, answer in zip(inputs, answers, strict=True)
        for number, (task, value) in enumerate(answer.items())
    ]
    print_table(("input", "task", "answer", "score"), rows)


def answer_text(answer: dict[str, Any]) -> tuple[str, str]:
    """An answer and its score, for people."""
    if "value" in answer:
        return f"{answer['value']:.3f}", ""
    if "label" in answer:
        return answer["label"], f"{answer['score']:.3f}"
    if "labels" in answer:
        found = answer["labels"]
        return ", ".join(a["label"] for a in found) or "-", _scores(found)
    spans = answer["spans"]
    return ", ".join(f"{s['label']}: {s['text']}" for s in spans) or "-", _scores(spans)


def _scores(answers: list[dict[str, Any]]) -> str:
    return ", ".join(f"{answer['score']:.3f}" for answer in answers)


def _lines(file: TextIO) -> Iterator[Input]:
    """The inputs of a file; the errors of each name its line."""
    from centra.data import Input
    from centra.errors import DataError

    try:
        lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name}: cannot be read as UTF-8 text ({error})") from error
    for number, line in enumerate(lines, 1):
        where = f"{file.name}:{number}"
        try:
            value = json.loads(line) if line.startswith("{") else line
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error})") from error
        if line:
            yield Input.parse(value, where)


def _shown(item: Input) -> str:
    text = " | ".join(filter(None, (item.text, item.text_pair)))
    return text if len(text) <= 48 else text[:47] + "…"
