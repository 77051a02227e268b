"""``centra predict --output``: files of inputs, each answered into a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.errors import DataError
from cli.options import column_option, encoding_option
from cli.output import json_text, print_table, remark, reporting
from cli.streams import mark_done

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.runtime import Release
    from centra.scoring import ScoredFile

__all__ = ["check_printed", "file_options", "predict_files", "scoring_here", "scoring_on_ray"]

_TABLES = ("csv", "tsv", "parquet", "arrow", "json", "conll", "conllu")
_PRINTED = click.Path(exists=True, dir_okay=False, allow_dash=True)


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What can be said of files of answers."""
    output = click.option(
        "--output",
        metavar="DIR",
        help="Write the answers to each --input to a file of its name and format (.jsonl, .csv, .tsv, "
        ".parquet; of .json, .conll and .txt JSONL, of .arrow Parquet) in this folder, or under "
        "s3://BUCKET/PREFIX. Repeated after a kill, it goes on where it stopped.",
    )
    flat = click.option(
        "--flat",
        is_flag=True,
        help="In files of answers columns for each task (intent.label, intent.score) and not one of "
        "JSON.",
    )
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Who answers files: this process, or the Ray cluster of RAY_ADDRESS (or one started "
        "here).",
    )
    cpus = click.option(
        "--worker-cpus",
        type=click.IntRange(min=1),
        help="With Ray: processors of a worker; default 1.",
    )
    gpus = click.option(
        "--worker-gpus",
        type=click.FloatRange(min=0),
        help="With Ray: GPUs of a worker, or a part of one; default 1 where the cluster has any.",
    )
    return output(flat(column_option(encoding_option(engine(cpus(gpus(command)))))))


def check_printed(
    files: Sequence[str], *, flat: bool, columns: Sequence[str], encoding: str | None
) -> None:
    """Refuse what cannot be answered on standard output.

    Raises:
        UsageError: naming the option, or a file that is not there.
    """
    for option, given in (("--flat", flat), ("--column", columns), ("--encoding", encoding)):
        if given:
            raise click.UsageError(f"{option} belongs to --output DIR")
    if len(files) > 1:
        raise click.UsageError("several files of --input need --output DIR")
    for file in files:
        if file.startswith("hf://") or Path(file).is_dir():
            raise click.UsageError(
                f"--input {file} stands for several files: it needs --output DIR"
            )
        _PRINTED.convert(file, None, click.get_current_context())
        if Path(file).suffix.removeprefix(".").lower() in _TABLES:
            raise click.UsageError(
                f"--input {file} is a table, and without --output DIR lines are read"
            )


def scoring_on_ray(
    address: Callable[[], str],
    *,
    device: str | None,
    dtype: str | None,
    worker_cpus: int | None,
    worker_gpus: float | None,
) -> Callable[..., list[ScoredFile]]:
    """What answers files on a cluster.

    Args:
        address: gives that of the release.
        device, dtype: see :func:`centra.load_release`.
        worker_cpus, worker_gpus: see :class:`centra.scoring.ray_engine.WorkerSize`.
    """
    from centra.scoring.ray_engine import WorkerSize, score_files_on_ray

    worker = WorkerSize(cpus=worker_cpus or 1, gpus=worker_gpus)
    return partial(score_files_on_ray, address(), device=device, dtype=dtype, worker=worker)


def scoring_here(load: Callable[[], Release]) -> Callable[..., list[ScoredFile]]:
    """What answers files in this process, by the release that is loaded."""
    from centra.scoring import score_files

    return partial(score_files, load())


def predict_files(
    scoring: Callable[[], Callable[..., list[ScoredFile]]],
    files: Sequence[str],
    output: str,
    *,
    tasks: Sequence[str],
    top_k: int | None,
    flat: bool,
    columns: Sequence[str],
    encoding: str | None,
    as_json: bool,
) -> None:
    """Answer files, and say what became of each.

    Args:
        scoring: gives what answers, once the files have been looked at: this process, or a cluster.
        files: of inputs.
        output, tasks, top_k, flat: see :func:`centra.scoring.score_files`.
        columns: ``FIELD=NAME``.
        encoding: of text files.
        as_json: print documents.
    """
    from centra.data.readers import FIELDS
    from centra.data.source import check_encoding, named_fields
    from centra.scoring.plan import plan_outputs

    if "-" in files:
        raise click.UsageError("--output DIR needs files with names; standard input has none")
    named = named_fields(columns, FIELDS)
    if encoding is not None:
        check_encoding(encoding)
    plan_outputs(files, output)
    score = scoring()
    with reporting() as progress:
        scored = score(
            files,
            output,
            tasks=tasks or None,
            top_k=top_k,
            flat=flat,
            columns=named,
            encoding=encoding,
            progress=progress,
        )
    mark_done()
    _print(scored, as_json=as_json)


def _print(scored: Sequence[ScoredFile], *, as_json: bool) -> None:
    from registry.documents import predictions

    if as_json:
        for file in scored:
            click.echo(json_text(predictions.ScoredFile.of(file).to_json()))
    else:
        print_table(
            ("output", "rows", "failed", "truncated"),
            [(file.output, file.rows, file.failed, file.truncated) for file in scored],
        )
    for file in scored:
        if file.resumed and not file.changed:
            remark(f"{file.output}: was done already")
        elif file.resumed:
            remark(f"{file.output}: went on after {file.resumed:,} rows")
        if file.truncated:
            remark(
                f"{file.output}: truncated: {file.truncated:,} of {file.rows:,} rows; nothing is "
                "answered about their rest"
            )
    failed = sum(file.failed for file in scored)
    if failed:
        rows = sum(file.rows for file in scored)
        raise DataError(
            f"{failed:,} of {rows:,} rows could not be answered; each says why in its column 'error'",
            code="rows-failed",
            failed=failed,
        )
