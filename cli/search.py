"""``centra search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.errors import UsageError
from centra.training.recipe import Recipe, SearchSpace
from cli.context import json_option, open_registry
from cli.options import FOLDER
from cli.output import print_json, print_table, remark, reporting, trial_table
from cli.streams import mark_done
from cli.training import (
    engine_options,
    head_options,
    label_options,
    recipe_options,
    require_extra,
    task_options,
)

if TYPE_CHECKING:
    from centra.data.labelling import Labelling
    from centra.data.source import DataSource
    from centra.store.s3.path import S3Path
    from centra.training.features import MachineCache

_TEACHER = "teacher.safetensors"
_SCORES = "trials.csv"


@click.command()
@task_options
@click.option(
    "--min-layers", type=int, help="Fewest that learn; default a third of the backbone's."
)
@click.option("--max-layers", type=int, help="Most; default five sixths, as the paper's 10 of 12.")
@click.option(
    "--learning-rate",
    "learning_rates",
    multiple=True,
    type=float,
    default=SearchSpace.learning_rates,
    show_default=True,
    help="At its peak. Each one that is given is tried.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=int,
    default=SearchSpace.seeds,
    show_default=True,
    help="Each one that is given is tried.",
)
@click.option("--exhaustive", is_flag=True, help="Train every trial to its end.")
@click.option(
    "--output",
    type=FOLDER,
    metavar="DIR",
    help="Folder, also s3://BUCKET/KEY; default TASK-search.",
)
@head_options
@label_options
@recipe_options
@engine_options
@json_option("registry.documents.training:Search")
def search(
    *,
    task: str,
    backbone: str,
    data: DataSource,
    min_layers: int | None,
    max_layers: int | None,
    learning_rates: tuple[float, ...],
    seeds: tuple[int, ...],
    exhaustive: bool,
    output: Path | S3Path | None,
    labelling: Labelling,
    cache: MachineCache | None,
    report_to: tuple[str, ...],
    engine: str,
    jobs: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Find how many top layers to fine-tune: the teacher of a task.

    Tries every number of layers with every learning rate and seed, gives up early what cannot win,
    and ends in teacher.safetensors and trials.csv. A search that was killed goes on when repeated.
    """
    from centra.formats.names import parse_task_name
    from registry import backbones

    require_extra()
    name = parse_task_name(task)
    registry = open_registry()
    spec = backbones.spec(registry, backbone)
    layers = _layers(spec.num_layers, min_layers, max_layers)

    from centra.training.engines import open_engine
    from centra.training.output import opened_output
    from centra.training.search import search as find
    from centra.training.trials import write_trials

    with opened_output(output or Path(f"{name}-search")) as results:
        with reporting() as progress:
            result = find(
                spec,
                registry.store,
                data,
                Recipe(tap=0, depth=0, **settings),
                SearchSpace(layers=layers, learning_rates=learning_rates, seeds=seeds),
                work=results.work,
                engine=open_engine(engine, jobs),
                labelling=labelling,
                cache=cache,
                exhaustive=exhaustive,
                report_to=report_to,
                progress=progress,
                remark=remark,
            )
        result.module.write(results.folder / _TEACHER)
        write_trials(results.folder / _SCORES, name, result.trials)
    teacher, scores = results.place / _TEACHER, results.place / _SCORES
    mark_done()
    if as_json:
        from registry.documents.training import Search

        print_json(Search.of(result, teacher=teacher, scores=scores))
    else:
        print_table(*trial_table(result.trials, {result.best: "best"}))
        click.echo(str(teacher))


def _layers(size: int, fewest: int | None, most: int | None) -> tuple[int, ...]:
    """How many layers to try; by default as the paper's 4 to 10 of 12, as far as one end allows."""
    if fewest is None:
        fewest = max(1, round(size / 3))
        fewest = fewest if most is None else min(fewest, most)
    if most is None:
        most = max(fewest, round(5 * size / 6))
    if fewest > most:
        raise UsageError(f"--min-layers {fewest} is more than --max-layers {most}")
    return tuple(range(fewest, most + 1))
