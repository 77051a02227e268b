"""``centra train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.context import json_option, open_registry
from cli.output import remark, reporting
from cli.training import (
    head_options,
    label_options,
    learning_rate_option,
    print_trained,
    recipe_options,
    require_extra,
    seed_option,
    task_options,
)

if TYPE_CHECKING:
    from centra.data.labelling import Labelling
    from centra.data.source import DataSource
    from centra.training.features import MachineCache


@click.command()
@task_options
@click.option("--tap", required=True, type=int, help="Frozen layer to read; 0 is the embeddings.")
@click.option("--depth", required=True, type=int, help="Layers that learn, above the tap.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Module file; default TASK.safetensors.",
)
@learning_rate_option
@seed_option
@head_options
@label_options
@recipe_options
@json_option("registry.documents.training:TrainedModule")
def train(
    *,
    task: str,
    backbone: str,
    data: DataSource,
    output: Path | None,
    labelling: Labelling,
    cache: MachineCache | None,
    report_to: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Fine-tune the layers above a tap and write a task module.

    The kind follows from the data: 'label' is a class, or a value where there are fractions;
    'labels' beside 'text' are several classes, 'labels' beside 'tokens' tags. A run that was killed
    goes on when repeated.
    """
    from centra.formats.names import parse_task_name
    from registry import backbones

    require_extra()
    name = parse_task_name(task)
    registry = open_registry()
    spec = backbones.spec(registry, backbone)

    from centra.training.backbone import Backbone
    from centra.training.finetune import finetune

    with reporting() as progress:
        trained = finetune(
            Backbone(spec=spec, reader=registry.store),
            data,
            output=output or Path(f"{name}.safetensors"),
            **settings,
            **vars(labelling),
            cache=cache,
            report_to=report_to,
            progress=progress,
            remark=remark,
        )
    print_trained(name, trained, as_json=as_json)
