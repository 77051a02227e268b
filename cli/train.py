"""``centra train``."""

from __future__ import annotations

from pathlib import Path

import click

from cli.context import json_option, open_registry
from cli.output import metrics_text, print_json, remark, reporting


@click.command()
@click.option("--task", required=True, help="The task's name.")
@click.option("--backbone", required=True, help="NAME or NAME@VERSION.")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with train.jsonl and dev.jsonl.",
)
@click.option("--tap", required=True, type=int, help="Frozen layer to read; 0 is the embeddings.")
@click.option("--depth", required=True, type=int, help="Layers that learn, above the tap.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Module file; default TASK.safetensors.",
)
@click.option("--epochs", type=int, help="At most. Default 10.")
@click.option("--learning-rate", type=float, help="At its peak. Default 1e-4.")
@click.option("--batch-size", type=int, help="Default 32.")
@click.option("--patience", type=int, help="Epochs without a better dev metric. Default 3.")
@click.option("--metric", help="Dev metric to select by, e.g. matthews; default by kind.")
@click.option("--max-length", type=int, help="Tokens kept of an input; default the backbone's.")
@click.option("--seed", type=int, help="Default 0.")
@json_option
def train(
    *,
    task: str,
    backbone: str,
    data: Path,
    output: Path | None,
    as_json: bool,
    **settings: float | str | None,
) -> None:
    """Fine-tune the layers above a tap and write a task module.

    The kind follows from the data: 'label' is a class or a number, 'labels' beside 'text' several
    classes, 'labels' beside 'tokens' BIO tags. A run that was killed goes on when repeated.
    """
    from centra.names import parse_name
    from registry import backbones

    name = parse_name(task, "task name")
    target = output or Path(f"{name}.safetensors")
    registry = open_registry()
    spec = backbones.spec(registry, backbone)

    from centra.training.finetune import finetune
    from centra.training.recipe import Recipe

    recipe = Recipe(**{k: v for k, v in settings.items() if v is not None})  # type: ignore[arg-type]
    with reporting() as progress:
        module = finetune(
            spec,
            registry.store,
            data,
            recipe,
            work=target.with_name(f".{target.name}.work"),
            progress=progress,
        )
    module.write(target)
    remark(f"{name}: {metrics_text(module.spec.metrics)}")
    if as_json:
        print_json({"output": str(target), "metrics": module.spec.metrics})
    else:
        click.echo(str(target))
