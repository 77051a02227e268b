"""What changes a task: registering, updating, redefining, retiring, restoring and pinning it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.data.tags import SCHEMES
from centra.kinds import KINDS
from cli.completion import complete_backbone, complete_task, complete_version
from cli.context import json_option, open_registry
from cli.options import data_options, template_option, words_option
from cli.output import print_json, print_table, remark, reporting
from cli.streams import mark_done

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.data.source import DataSource
    from registry.tasks import Checkpoint, TaskOutcome

__all__ = ["calibrate", "pin", "redefine", "register", "restore", "retire", "update"]

_FORCE = click.option("--force", is_flag=True, help="Act for another team; the audit log shows it.")


_NAME = click.argument("name", shell_complete=complete_task)
_FILE = click.argument("file", type=click.Path(), metavar="FILE_OR_CHECKPOINT")


def _source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the three commands that take weights have in common, but for the weights."""
    options = (
        click.option(
            "--backbone",
            shell_complete=complete_backbone,
            help="A checkpoint's backbone; default the one it matches.",
        ),
        click.option("--tap", type=int, help="A checkpoint's tap; default the highest that fits."),
        click.option(
            "--input",
            "form",
            type=click.Choice(["single", "pair"]),
            help="What a checkpoint's task takes; default single.",
        ),
        click.option(
            "--kind",
            type=click.Choice([*KINDS]),
            help="A checkpoint's kind, where its config does not say.",
        ),
        click.option(
            "--labels",
            type=click.Path(path_type=Path),
            help="A file of labels instead of a checkpoint's: one a line, or a JSON list.",
        ),
        click.option(
            "--tags",
            type=click.Choice(SCHEMES),
            help="The scheme of a checkpoint's tags; default what they look like.",
        ),
        words_option,
        template_option,
        _FORCE,
        json_option("registry.documents.tasks:TaskChange"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_NAME
@_FILE
@_source_options
@click.option("--team", help="The owner; default the actor's team.")
def register(
    name: str, file: str, *, team: str | None, force: bool, as_json: bool, **checkpoint: Any
) -> None:
    """Register a new task as version 1.0.

    FILE_OR_CHECKPOINT is a task module ('centra train' makes one), or the folder of a Hugging Face
    checkpoint that was fine-tuned with its lower layers frozen: a path, or models:/NAME/VERSION in
    MLflow's registry, hf://ORGANISATION/MODEL@REVISION on the hub, or s3://BUCKET/KEY.
    """
    from registry import tasks

    with reporting() as progress:
        outcome = tasks.register(
            open_registry(),
            name,
            file,
            team=team,
            checkpoint=_checkpoint(**checkpoint),
            force=force,
            progress=progress,
        )
    _print_outcome(outcome, "registered", as_json=as_json)


@click.command()
@_NAME
@click.argument("file", type=click.Path(), metavar="[FILE_OR_CHECKPOINT]", required=False)
@click.option(
    "--thresholds",
    "thresholds_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="TOML or JSON with 'threshold', a number or an object from label to number, and "
    "'rejection', the score below which no label is given; without FILE_OR_CHECKPOINT for the "
    "weights that the task has.",
)
@_source_options
def update(
    name: str,
    file: str | None,
    *,
    thresholds_file: Path | None,
    force: bool,
    as_json: bool,
    **checkpoint: Any,
) -> None:
    """Give a task new weights under the same labels, kind and input: the next minor version.

    So are other thresholds, which decide how scores become answers.
    """
    from centra.formats.thresholds import read_thresholds
    from registry import tasks

    if file is None and thresholds_file is None:
        raise click.UsageError("give FILE_OR_CHECKPOINT, or --thresholds FILE, or both")
    thresholds = read_thresholds(thresholds_file) if thresholds_file else None
    with reporting() as progress:
        outcome = tasks.update(
            open_registry(),
            name,
            file,
            thresholds=thresholds,
            checkpoint=_checkpoint(**checkpoint),
            force=force,
            progress=progress,
        )
    _print_outcome(outcome, "updated", as_json=as_json)


@click.command()
@_NAME
@data_options(
    required=True,
    help="Rows that the task was not trained on: a file, or a folder with a dev set, of any format that "
    "training takes.",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True),
    help="Fit thresholds too: which share of what is answered shall be right.",
)
@_FORCE
@json_option("registry.documents.tasks:TaskCalibration")
def calibrate(
    name: str, *, data: DataSource, precision: float | None, force: bool, as_json: bool
) -> None:
    """Fit a temperature to data, and thresholds: the next minor version.

    After that a score of 0.9 means that nine of ten such answers are right. With --precision a task
    of one label gives none below the score from which on so many answers are right; of several
    labels each is named from such a score of its own.
    """
    from registry import tasks

    with reporting() as progress:
        found = tasks.calibrate(
            open_registry(),
            name,
            data,
            precision=precision,
            force=force,
            progress=progress,
            remark=remark,
        )
    mark_done()
    remark("calibrated" if found.outcome else "nothing to do: already so")
    if as_json:
        from registry.documents.tasks import TaskCalibration

        print_json(TaskCalibration.of(found))
        return
    if found.outcome:
        click.echo(f"{found.outcome.task}@{found.outcome.version}")
    click.echo(
        f"temperature {found.temperature:g}, calibration error {found.error_before:.4f} → "
        f"{found.error_after:.4f} on {found.examples} rows"
    )
    if found.thresholds:
        print_table(
            ("label", "threshold", "precision", "kept"),
            [
                (
                    "any" if one.label is None else one.label,
                    "-" if one.threshold is None else f"{one.threshold:.4f}",
                    "-" if one.precision is None else f"{one.precision:.4f}",
                    f"{one.kept:.1%}",
                )
                for one in found.thresholds
            ],
        )


@click.command()
@_NAME
@_FILE
@_source_options
def redefine(name: str, file: str, *, force: bool, as_json: bool, **checkpoint: Any) -> None:
    """Give a task another label set, kind or input: the next major version."""
    from registry import tasks

    with reporting() as progress:
        outcome = tasks.redefine(
            open_registry(),
            name,
            file,
            checkpoint=_checkpoint(**checkpoint),
            force=force,
            progress=progress,
        )
    _print_outcome(outcome, "redefined", as_json=as_json)


@click.command()
@click.argument("name", shell_complete=complete_task)
@_FORCE
@json_option("registry.documents.tasks:TaskChange")
def retire(name: str, *, force: bool, as_json: bool) -> None:
    """Take a task out of the live set; nothing is deleted."""
    from registry import tasks

    outcome = tasks.retire(open_registry(), name, force=force)
    _print_outcome(outcome, "retired", as_json=as_json)


@click.command()
@click.argument("name", shell_complete=complete_task)
@_FORCE
@json_option("registry.documents.tasks:TaskChange")
def restore(name: str, *, force: bool, as_json: bool) -> None:
    """Bring a retired task back into the live set."""
    from registry import tasks

    outcome = tasks.restore(open_registry(), name, force=force)
    _print_outcome(outcome, "restored", as_json=as_json)


@click.command()
@click.argument("reference", metavar="NAME@VERSION", shell_complete=complete_version)
@_FORCE
@json_option("registry.documents.tasks:TaskChange")
def pin(reference: str, *, force: bool, as_json: bool) -> None:
    """Make an earlier version the current one again."""
    from registry import tasks

    outcome = tasks.pin(open_registry(), reference, force=force)
    _print_outcome(outcome, "pinned", as_json=as_json)


def _checkpoint(**options: Any) -> Checkpoint:
    from registry.tasks import Checkpoint

    return Checkpoint(**options, remark=remark)


def _print_outcome(outcome: TaskOutcome, done: str, *, as_json: bool) -> None:
    mark_done()
    if outcome.mended:
        remark(
            f"these bytes are version {outcome.version} already; its stored file was "
            f"{outcome.mended}, and is back"
        )
    else:
        remark(done if outcome.changed else "nothing to do: already so")
    for change in outcome.decision:
        remark(f"decided otherwise than before: {change}")
    if outcome.forced:
        remark("forced: recorded in the audit log")
    if outcome.state == "retired" and done != "retired":
        remark(f"the task is retired; back into the live set: centra task restore {outcome.task}")
    if as_json:
        from registry.documents.tasks import TaskChange

        print_json(TaskChange.of(outcome))
    else:
        click.echo(f"{outcome.task}@{outcome.version}")
