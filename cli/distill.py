"""``centra distill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.training.recipe import Distillation
from cli.context import json_option, open_registry
from cli.output import remark, reporting
from cli.training import (
    label_options,
    learning_rate_option,
    print_trained,
    recipe_options,
    require_extra,
    seed_option,
    setting_option,
    task_options,
)

if TYPE_CHECKING:
    from centra.data.labelling import Labelling
    from centra.data.source import DataSource
    from centra.training.features import MachineCache


@click.command()
@task_options
@click.option(
    "--teacher",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE",
    help="The module to learn from; the student keeps its tap.",
)
@click.option("--layers", required=True, type=int, help="Of the student, above the tap.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Module file; default TASK-student-LAYERS.safetensors.",
)
@setting_option(Distillation, "temperature")
@setting_option(Distillation, "weight")
@setting_option(Distillation, "start", type=click.Choice(["teacher", "backbone"]))
@learning_rate_option
@seed_option
@label_options
@recipe_options
@json_option("registry.documents.training:TrainedModule")
def distill(
    *,
    task: str,
    backbone: str,
    data: DataSource,
    teacher: Path,
    layers: int,
    output: Path | None,
    labelling: Labelling,
    cache: MachineCache | None,
    report_to: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Distil a fine-tuned module into one of fewer layers.

    The student learns from the labels and from its teacher's logits on the same data. A run that
    was killed goes on when repeated.
    """
    from centra.formats.names import parse_task_name
    from registry import backbones

    require_extra()
    name = parse_task_name(task)
    registry = open_registry()
    spec = backbones.spec(registry, backbone)

    from centra.training import distill as distilling
    from centra.training.backbone import Backbone

    with reporting() as progress:
        trained = distilling.distill(
            Backbone(spec=spec, reader=registry.store),
            data,
            teacher=teacher,
            layers=layers,
            output=output or Path(f"{name}-student-{layers}.safetensors"),
            **settings,
            **vars(labelling),
            cache=cache,
            report_to=report_to,
            progress=progress,
            remark=remark,
        )
    print_trained(name, trained, as_json=as_json)
