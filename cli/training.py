"""What the commands that train share: their options, the extra they need, the module they end in."""

from __future__ import annotations

from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.data.labelling import Labelling
from centra.data.labels import read_labels
from centra.data.tags import SCHEMES
from centra.errors import UsageError
from centra.kinds import KINDS
from centra.training.recipe import REPORTERS, Recipe
from cli.options import FEATURE_CACHE, words_option
from cli.output import metrics_text, print_json, remark
from cli.streams import mark_done

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.data.tags import Scheme
    from centra.data.words import Segmentation
    from centra.formats.task_module import TaskModule

__all__ = [
    "engine_options",
    "feature_cache_option",
    "label_options",
    "recipe_options",
    "require_extra",
    "task_options",
    "write_module",
]

_EXTRA = ("accelerate", "matplotlib", "optuna", "plotext")
"""What the extra ``train`` brings, as it is imported."""

feature_cache_option = click.option(
    "--feature-cache",
    "cache",
    type=FEATURE_CACHE,
    default="auto",
    show_default="20GB, or half of the memory",
    metavar="SIZE|off",
    help="Room for frozen hidden states in CENTRA_CACHE; off runs the frozen layers every epoch.",
)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What to train: a task, on a backbone, from data."""
    return _add(
        command,
        click.option("--task", required=True, help="The task's name."),
        click.option("--backbone", required=True, help="NAME or NAME@VERSION."),
        click.option(
            "--data",
            required=True,
            type=click.Path(path_type=Path),
            help="Folder with train.jsonl and dev.jsonl.",
        ),
    )


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the data's labels mean; the command gets a :class:`centra.data.labelling.Labelling`."""

    @wraps(command)
    def with_labelling(
        *args: Any,
        kind: str | None,
        labels: Path | None,
        tags: Scheme | None,
        words: Segmentation | None,
        **options: Any,
    ) -> Any:
        names = read_labels(labels) if labels else ()
        labelling = Labelling(kind=kind, labels=names, tags=tags, words=words)
        return command(*args, labelling=labelling, **options)

    return _add(
        with_labelling,
        click.option(
            "--kind",
            type=click.Choice([*KINDS]),
            help="Of the task; default what the labels look like: whole numbers are classes, numbers "
            "with fractions values.",
        ),
        click.option(
            "--labels",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="All labels in their order, one a line or a JSON list; default those of the "
            "training data, sorted. Whole numbers in the data are then places in it, from 0.",
        ),
        click.option(
            "--tags",
            type=click.Choice(SCHEMES),
            help="The scheme of a tagging task's tags, which are converted to BIO; default what "
            "they look like.",
        ),
        words_option,
    )


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to train: fields of :class:`centra.training.recipe.Recipe`, reports and the cache."""
    return _add(
        command,
        click.option("--epochs", default=Recipe.epochs, show_default=True, help="At most."),
        click.option("--batch-size", default=Recipe.batch_size, show_default=True),
        click.option(
            "--patience",
            default=Recipe.patience,
            show_default=True,
            help="Epochs without a better dev metric after which training stops.",
        ),
        click.option("--metric", help="Dev metric to select by, e.g. matthews; default by kind."),
        click.option(
            "--max-length",
            default=Recipe.max_length,
            show_default=True,
            help="Tokens kept of an input; 0 for the backbone's maximum.",
        ),
        feature_cache_option,
        click.option(
            "--report-to",
            multiple=True,
            type=click.Choice(REPORTERS),
            help="What Trainer reports to. May be given several times.",
        ),
    )


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where several runs are carried out; see :func:`centra.training.engines.open_engine`."""
    return _add(
        command,
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="This machine, or the Ray cluster of RAY_ADDRESS.",
        ),
        click.option(
            "--jobs",
            type=int,
            help="Runs at the same time on this machine; default one per GPU, or else one per "
            "core, to eight.",
        ),
    )


def require_extra() -> None:
    """Refuse to begin what would end without a package.

    Raises:
        UsageError: the extra ``train`` is not installed, or not all of it.
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"training needs an extra: pip install 'centra[train]' (missing: {', '.join(missing)})"
        )


def write_module(task: str, module: TaskModule, path: Path, *, as_json: bool) -> None:
    """Write a module, and print where it is and what it reached.

    Raises:
        StoreNotWritableError: the file cannot be written.
    """
    module.write(path)
    mark_done()
    remark(f"{task}: {metrics_text(module.spec.metrics)}")
    if as_json:
        from registry.documents.training import TrainedModule

        print_json(TrainedModule.of(module, path))
    else:
        click.echo(str(path))


def _add(command: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
