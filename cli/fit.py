"""``centra fit``."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from centra.errors import NotFoundError, StoreNotWritableError, UsageError
from centra.system.files import replacing
from centra.training.recipe import DEFAULT_HYPOTHESIS
from cli.context import json_option, open_registry
from cli.options import FOLDER, LABELS
from cli.output import print_json, print_table, remark, reporting, trial_table
from cli.plots import draw, write_png
from cli.streams import mark_done
from cli.training import engine_options, feature_cache_option, require_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.store.s3.path import S3Path
    from centra.training.features import MachineCache
    from centra.training.pipeline import PipelineResult
    from centra.training.plan import Plan
    from centra.training.trials import Trial


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.toml")
@click.option(
    "--output",
    type=FOLDER,
    metavar="DIR",
    help="Folder, also s3://BUCKET/KEY; default TASK-fit.",
)
@click.option(
    "--teacher",
    metavar="CHECKPOINT",
    help="A transformers checkpoint, folder or hub name, whose answers are learnt from; then no row "
    "need have a label.",
)
@click.option(
    "--labels",
    type=LABELS,
    metavar="A,B,…|FILE",
    help="All labels in their order, apart by commas, or a file of them; any, where the teacher is a "
    "model of natural-language inference.",
)
@click.option(
    "--hypothesis",
    metavar="TEXT",
    help="What such a teacher holds against each text, with {} for the label; default "
    f"'{DEFAULT_HYPOTHESIS}'",
)
@feature_cache_option
@engine_options
@json_option("registry.documents.training:Fit")
def fit(
    recipe: Path,
    *,
    output: Path | S3Path | None,
    teacher: str | None,
    labels: tuple[str, ...] | None,
    hypothesis: str | None,
    cache: MachineCache | None,
    engine: str,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Find a task's module: search a teacher, distil students, choose what its layers are worth.

    The recipe names task, backbone and data, and the layers to search; docs/fit.md has all of it.
    The folder gets the chosen module, its card, the teacher, and the scores as table and picture.
    A fit that was killed goes on when repeated, and one that is done ends at once. The options for a
    teacher stand instead of the recipe's own.
    """
    from centra.formats.names import parse_task_name
    from centra.training.plan import Plan
    from registry import backbones

    require_extra()
    if teacher is not None and Path(teacher).is_dir():
        teacher = str(Path(teacher).absolute())
    plan = Plan.read(recipe, teacher=teacher, labels=labels and [*labels], hypothesis=hypothesis)
    registry = open_registry()
    with _errors_naming(f"{recipe}: task"):
        name = parse_task_name(plan.task)
        if name == "teacher":
            raise UsageError("teacher.safetensors is the teacher's file; choose another name")
    with _errors_naming(f"{recipe}: backbone"):
        backbone = backbones.show(registry, plan.backbone).reference
    spec = backbones.spec(registry, backbone)
    labelling = plan.labelling(recipe.parent)
    with _errors_naming(f"{recipe}: data"):
        data = plan.data_source(recipe.parent)
    with _errors_naming(str(recipe)):
        source = plan.teacher_source(recipe.parent)

    from centra.training.engines import open_engine
    from centra.training.output import opened_output
    from centra.training.pipeline import run_pipeline

    workers = open_engine(engine, jobs)
    with opened_output(output or Path(f"{name}-fit")) as results:
        with reporting() as progress, _errors_naming(str(recipe)):
            result = run_pipeline(
                spec,
                registry.store,
                data,
                plan,
                output=results.folder,
                work=results.work,
                engine=workers,
                labelling=labelling,
                teacher=source,
                cache=cache,
                progress=progress,
                remark=remark,
            )
        written = {part: results.folder / file for part, file in _files(name).items()}
        result.module.write(written["module"])
        write_png(written["picture"], name, result.trials, result.chosen)
        _write_card(written, plan, backbone, result)
    files = {part: results.place / file for part, file in _files(name).items()}
    mark_done()
    if as_json:
        from registry.documents import training as documents

        print_json(documents.Fit.of(result, files))
    else:
        _print(result, name)
        click.echo(str(files["module"]))
    file = files["module"]
    first = "" if isinstance(file, Path) else f"bring {file} here, then "
    remark(f"{first}register it with: centra task register {name} {file.name if first else file}")


def _files(name: str) -> dict[str, str]:
    """What a fit ends in, by what it is."""
    return {
        "module": f"{name}.safetensors",
        "teacher": "teacher.safetensors",
        "scores": "scores.csv",
        "picture": "scores.png",
        "card": "card.md",
    }


@contextmanager
def _errors_naming(where: str) -> Iterator[None]:
    """Say in which file, and at which field, a setting is wrong."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    except NotFoundError as error:
        raise NotFoundError(f"{where}: {error}") from error


def _marks(result: PipelineResult) -> dict[Trial, str]:
    return {result.teacher: "best teacher", result.chosen: "chosen"}


def _write_card(files: dict[str, Path], plan: Plan, backbone: str, result: PipelineResult) -> None:
    from centra.formats.task_module import check_module
    from cli.card import module_markdown

    card = module_markdown(
        plan.task,
        backbone,
        check_module(files["module"]),
        trials=result.trials,
        marks=_marks(result),
        rule=(
            f"Chosen among {len(result.trials)} trained modules: from the shallowest on, a deeper "
            "one is taken where each layer that it adds gains at least "
            f"{plan.select.threshold:g} in points of {result.chosen.metric}."
        ),
        picture=files["picture"].name,
    )
    try:
        with replacing(files["card"]) as temporary:
            temporary.write_text(card + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {files['card']}: {error.strerror}") from error


def _print(result: PipelineResult, task: str) -> None:
    """The table of trials; for people, who see it in a terminal, also the plot."""
    print_table(*trial_table(result.trials, _marks(result)))
    if sys.stdout.isatty():
        click.echo(draw(task, result.trials, result.chosen))
