"""``centra predict``."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from centra.errors import DataError
from centra.kinds import kind_named
from cli.completion import complete_path, complete_release, complete_task
from cli.context import json_option, release_or_default
from cli.options import device_options
from cli.output import json_text, print_table, remark, reporting
from cli.predict_files import (
    check_printed,
    file_options,
    predict_files,
    scoring_here,
    scoring_on_ray,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from centra.data.inputs import Input
    from centra.runtime import Release

_NAMED = 3
"""How many truncated inputs are named."""
_WIDTH = 48
"""Characters of an input that the table shows."""


@dataclass
class _Row:
    """One input of a request, and what comes of it."""

    where: str
    shown: str
    """The input as it was given, for people."""
    given: dict[str, Any] = field(default_factory=dict)
    """``id``, where the input has one."""
    input: Input | None = None
    answers: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--release",
    "reference",
    shell_complete=complete_release,
    help="A number, channel or digest; a release folder; STORE#CHANNEL; or oci://HOST/REPOSITORY:TAG. Default "
    "what the channel production serves, or else latest.",
)
@click.option(
    "--task",
    "tasks",
    shell_complete=complete_task,
    multiple=True,
    help="Only these; default all that fit the input.",
)
@click.option("--text-pair", help="The second text, for tasks on pairs.")
@click.option(
    "--input",
    "files",
    shell_complete=complete_path,
    multiple=True,
    metavar="FILE",
    help="Lines of text, or of JSON objects with 'text' (and 'text_pair') or 'tokens', and perhaps "
    "an 'id'. With --output also tables, and several; folders, those that datasets saved, too, patterns, "
    "s3://BUCKET/PREFIX, and hf://ORG/NAME on the hub.",
)
@file_options
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="N",
    help="Besides its answer the N best labels of each task that ranks labels.",
)
@device_options
@json_option(
    "centra.formats.answers:Prediction", "lines", output="registry.documents.predictions:ScoredFile"
)
def predict(
    *,
    texts: tuple[str, ...],
    reference: str | None,
    tasks: tuple[str, ...],
    text_pair: str | None,
    files: tuple[str, ...],
    output: str | None,
    flat: bool,
    columns: tuple[str, ...],
    encoding: str | None,
    engine: str,
    worker_cpus: int | None,
    worker_gpus: float | None,
    top_k: int | None,
    device: str | None,
    dtype: str | None,
    as_json: bool,
) -> None:
    """Answer texts with a release.

    With --json one object per input, in order: task name to answer, and 'id' where the input has
    one. An input that cannot be answered has 'error' instead; the command then ends with 1.

    With --output the answers go to files, beside the columns of their inputs, and what is printed is
    what became of each file.
    """
    if not texts and not files:
        raise click.UsageError("give a TEXT or --input FILE (- for standard input)")
    if text_pair is not None and not texts:
        raise click.UsageError("--text-pair belongs to a TEXT; lines of --input name their own")
    if output is not None and texts:
        raise click.UsageError("--output belongs to --input; the answers to a TEXT are printed")
    if engine == "ray" and output is None:
        raise click.UsageError("--engine ray answers files: it needs --output DIR")
    if engine == "local" and (worker_cpus or worker_gpus is not None):
        raise click.UsageError("--worker-cpus and --worker-gpus belong to --engine ray")
    load = partial(_load, reference, tasks, device=device, dtype=dtype)
    if output is not None:
        on_ray = partial(
            scoring_on_ray,
            partial(_address, reference),
            device=device,
            dtype=dtype,
            worker_cpus=worker_cpus,
            worker_gpus=worker_gpus,
        )
        predict_files(
            on_ray if engine == "ray" else partial(scoring_here, load),
            files,
            output,
            tasks=tasks,
            top_k=top_k,
            flat=flat,
            columns=columns,
            encoding=encoding,
            as_json=as_json,
        )
        return
    check_printed(files, flat=flat, columns=columns, encoding=encoding)
    rows = [
        _row(text if text_pair is None else (text, text_pair), f"input {number}")
        for number, text in enumerate(texts, 1)
    ]
    rows += [row for file in files for row in _lines(file)]
    loaded = load()
    _check_forms(loaded, rows, tasks)
    for row in rows[: len(texts)]:
        if row.error is not None:  # What was typed can be typed again; a file's other rows count.
            raise DataError(row.error)
    _answer(loaded, rows, tasks, top_k)
    if as_json:
        from centra.formats.answers import prediction

        for row in rows:
            click.echo(json_text(prediction(row.answers, given=row.given, error=row.error)))
    else:
        kinds = {task: entry.kind for task, entry in loaded.manifest.tasks.items()}
        print_table(
            ("input", "task", "answer", "score"), [line for r in rows for line in _table(r, kinds)]
        )
    _remark_cuts(rows)
    failed = sum(row.error is not None for row in rows)
    if failed:
        raise DataError(f"{failed} of {len(rows)} inputs could not be answered; each says why")


def _load(
    reference: str | None, tasks: Sequence[str], *, device: str | None, dtype: str | None
) -> Release:
    from registry import releases

    registry, reference = release_or_default(reference)
    with reporting() as progress:
        return releases.load(
            registry,
            reference,
            tasks=tasks or None,
            device=device,
            dtype=dtype,
            progress=progress,
        )


def _address(reference: str | None) -> str:
    from registry import releases

    return releases.address(*release_or_default(reference))


def _lines(path: str) -> Iterator[_Row]:
    """The rows of a file, one per line."""
    from centra.system.files import decode_text

    name = "<stdin>" if path == "-" else path
    with click.open_file(path, "rb") as file:
        data = file.read()
    lines: Sequence[str | bytes]
    try:
        lines = decode_text(data).removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        lines = data.removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines if data else (), 1):
        where = f"{name}:{number}"
        try:
            text = line if isinstance(line, str) else line.decode()
        except UnicodeDecodeError as fault:
            yield _Row(where, ascii(line), error=f"{where}: cannot be read as UTF-8 text ({fault})")
            continue
        if "\0" in text:
            error = "holds NUL characters, as UTF-16 without a byte-order mark does; expected UTF-8"
            yield _Row(where, ascii(text), error=f"{where}: {error}")
        else:
            # A file of texts has texts, whatever they begin with.
            yield _row(text.removesuffix("\r"), where, line=not name.endswith(".txt"))


def _row(value: Any, where: str, *, line: bool = False) -> _Row:
    """A row of an input, or of the error that it is; offsets count a line's leading spaces, too."""
    from centra.data.inputs import Input
    from centra.formats.strict_json import parse_json

    row = _Row(where, value if isinstance(value, str) else " | ".join(value))
    try:
        if line and value.lstrip().startswith("{"):
            value = parse_json(value)
            row.given = {"id": value["id"]} if "id" in value else {}
        row.input = Input.parse(value, where)
        row.shown = " | ".join(filter(None, (row.input.text, row.input.text_pair)))
    except DataError as error:
        row.error = str(error)
    except ValueError as error:
        row.error = f"{where}: not JSON ({error})"
    return row


def _check_forms(release: Release, rows: Sequence[_Row], tasks: Sequence[str]) -> None:
    """Give the rows an error that a task which was named does not take, or that no task takes."""
    forms = {name: release.manifest.tasks[name].input for name in tasks or release.tasks}
    for row in rows:
        if row.input is None:
            continue
        unfit = [name for name, form in forms.items() if form != row.input.form]
        if unfit and (tasks or len(unfit) == len(forms)):
            takes = "a pair of texts" if forms[unfit[0]] == "pair" else "a single text"
            row.error = f"{row.where}: task {unfit[0]} takes {takes}"


def _answer(
    release: Release, rows: Sequence[_Row], tasks: Sequence[str], top_k: int | None
) -> None:
    """Answer what can be answered, all of it together."""
    good = [(row, row.input) for row in rows if row.input is not None and row.error is None]
    answers = release.predict([item for _, item in good], tasks or None, top_k=top_k)
    for (row, _), answer in zip(good, answers, strict=True):
        row.answers = answer


def _table(row: _Row, kinds: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The lines of a row for people.

    Args:
        row: answered, or with an error.
        kinds: the kind of each task.
    """
    shown = row.shown if len(row.shown) <= _WIDTH else row.shown[: _WIDTH - 1] + "…"
    if row.error is not None:
        return [(shown, "-", row.error, "")]
    lines: list[tuple[str, ...]] = []
    for task, answer in row.answers.items():
        lines.append(("" if lines else shown, task, *kind_named(kinds[task]).answer_text(answer)))
        lines += [
            ("", "", f"{place}. {best['label']}", f"{best['score']:.3f}")
            for place, best in enumerate(answer.get("top", ()), 1)
        ]
    return lines


def _remark_cuts(rows: Sequence[_Row]) -> None:
    """Say which inputs were longer than what was read of them."""
    cut = [
        (row.where, answer["truncated"])
        for row in rows
        for answer in row.answers.values()
        if "truncated" in answer
    ]
    if cut:
        named = dict(cut)
        first = [
            f"{where} ({kept['kept']} of {kept['tokens']} tokens were read)"
            for where, kept in [*named.items()][:_NAMED]
        ]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        remark(f"truncated: {', '.join(first)}{more}; nothing is answered about the rest")
