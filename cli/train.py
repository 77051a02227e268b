"""``centra train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.training.recipe import Recipe
from cli.context import json_option, open_registry
from cli.output import remark, reporting
from cli.training import label_options, recipe_options, require_extra, task_options, write_module

if TYPE_CHECKING:
    from centra.data.labelling import Labelling
    from centra.training.features import FeatureCache


@click.command()
@task_options
@click.option("--tap", required=True, type=int, help="Frozen layer to read; 0 is the embeddings.")
@click.option("--depth", required=True, type=int, help="Layers that learn, above the tap.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Module file; default TASK.safetensors.",
)
@click.option(
    "--learning-rate", default=Recipe.learning_rate, show_default=True, help="At its peak."
)
@click.option("--seed", default=Recipe.seed, show_default=True)
@click.option("--crf", is_flag=True, help="Decode a tagging task's tags with a linear-chain CRF.")
@label_options
@recipe_options
@json_option("registry.documents.training:TrainedModule")
def train(
    *,
    task: str,
    backbone: str,
    data: Path,
    output: Path | None,
    labelling: Labelling,
    cache: FeatureCache | None,
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
    target = output or Path(f"{name}.safetensors")
    registry = open_registry()
    spec = backbones.spec(registry, backbone)

    from centra.training.finetune import finetune

    with reporting() as progress:
        module = finetune(
            spec,
            registry.store,
            data,
            Recipe(**settings),
            work=target.with_name(f".{target.name}.work"),
            labelling=labelling,
            cache=cache,
            report_to=report_to,
            progress=progress,
            remark=remark,
        )
    write_module(name, module, target, as_json=as_json)
