"""``centra distill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from centra.errors import UsageError
from centra.training.recipe import Distillation, Recipe
from cli.context import json_option, open_registry
from cli.output import remark, reporting
from cli.training import label_options, recipe_options, require_extra, task_options, write_module

if TYPE_CHECKING:
    from centra.data.labelling import Labelling
    from centra.training.features import FeatureCache


@click.command()
@task_options
@click.option(
    "--teacher",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="The module to learn from; the student keeps its tap.",
)
@click.option("--layers", required=True, type=int, help="Of the student, above the tap.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Module file; default TASK-student-LAYERS.safetensors.",
)
@click.option(
    "--temperature",
    default=Distillation.temperature,
    show_default=True,
    help="Divides the logits of both before they are compared.",
)
@click.option(
    "--weight",
    default=Distillation.weight,
    show_default=True,
    help="Of the teacher's answers in the loss; the labels have the rest.",
)
@click.option(
    "--start",
    type=click.Choice(["teacher", "backbone"]),
    default=Distillation.start,
    show_default=True,
    help="Whose layers above the tap the student starts from.",
)
@click.option(
    "--learning-rate", default=Recipe.learning_rate, show_default=True, help="At its peak."
)
@click.option("--seed", default=Recipe.seed, show_default=True)
@label_options
@recipe_options
@json_option("registry.documents.training:TrainedModule")
def distill(
    *,
    task: str,
    backbone: str,
    data: Path,
    teacher: Path,
    layers: int,
    output: Path | None,
    temperature: float,
    weight: float,
    start: Literal["teacher", "backbone"],
    labelling: Labelling,
    cache: FeatureCache | None,
    report_to: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Distil a fine-tuned module into one of fewer layers.

    The student learns from the labels and from its teacher's logits on the same data. A run that
    was killed goes on when repeated.
    """
    from centra.formats.names import parse_task_name
    from centra.formats.task_module import read_spec
    from registry import backbones

    require_extra()
    name = parse_task_name(task)
    target = output or Path(f"{name}-student-{layers}.safetensors")
    if target.resolve() == teacher.resolve():
        raise UsageError(f"{target}: the student would take its teacher's place; give --output")
    registry = open_registry()
    spec = backbones.spec(registry, backbone)
    recipe = Recipe(tap=read_spec(teacher).tap_layer, depth=layers, **settings)

    from centra.training.distill import distill as learn

    with reporting() as progress:
        module = learn(
            spec,
            registry.store,
            data,
            recipe,
            teacher=teacher,
            distillation=Distillation(temperature=temperature, weight=weight, start=start),
            work=target.with_name(f".{target.name}.work"),
            labelling=labelling,
            cache=cache,
            report_to=report_to,
            progress=progress,
            remark=remark,
        )
    write_module(name, module, target, as_json=as_json)
