"""What the commands that train share: their options, the extra they need, the module they end in."""

from __future__ import annotations

from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from centra.data.labelling import Labelling
from centra.data.tags import SCHEMES
from centra.errors import UsageError
from centra.families.heads import POOLINGS
from centra.kinds import KINDS
from centra.training.recipe import REPORTERS, Recipe, meaning_of
from cli.completion import complete_backbone, complete_task
from cli.options import FEATURE_CACHE, LABELS, data_options, template_option, words_option
from cli.output import metrics_text, print_json, remark
from cli.streams import mark_done

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.data.tags import Scheme
    from centra.data.words import Segmentation
    from centra.training.train import TrainedModule

__all__ = [
    "engine_options",
    "feature_cache_option",
    "head_options",
    "label_options",
    "learning_rate_option",
    "print_trained",
    "recipe_options",
    "require_extra",
    "seed_option",
    "setting_option",
    "task_options",
]

_EXTRA = ("accelerate", "matplotlib", "plotext")
"""What the extra ``train`` brings, as it is imported."""


def setting_option(settings: type, name: str, **options: Any) -> Callable[..., Any]:
    """The option of a training setting, with its default and what it means.

    Args:
        settings: :class:`centra.training.recipe.Recipe` or ``Distillation``.
        name: of the field.
        options: further ones of :func:`click.option`.
    """
    default = getattr(settings, name)
    shown = {"is_flag": True} if isinstance(default, bool) else {"show_default": True}
    return click.option(
        f"--{name.replace('_', '-')}",
        **{"default": default, "help": meaning_of(settings, name), **shown, **options},
    )


learning_rate_option = setting_option(Recipe, "learning_rate")
seed_option = setting_option(Recipe, "seed")
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
        click.option(
            "--task", shell_complete=complete_task, required=True, help="The task's name."
        ),
        click.option(
            "--backbone",
            shell_complete=complete_backbone,
            required=True,
            help="NAME or NAME@VERSION.",
        ),
        data_options(required=True),
    )


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the data's labels mean; the command gets a :class:`centra.data.labelling.Labelling`."""

    @wraps(command)
    def with_labelling(
        *args: Any,
        kind: str | None,
        labels: tuple[str, ...],
        tags: Scheme | None,
        words: Segmentation | None,
        thresholds: Path | None,
        **options: Any,
    ) -> Any:
        from centra.formats.thresholds import read_thresholds

        labelling = Labelling(
            kind=kind,
            labels=labels,
            tags=tags,
            words=words,
            thresholds=read_thresholds(thresholds) if thresholds else None,
        )
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
            type=LABELS,
            default=(),
            metavar="A,B,…|FILE",
            help="All labels in their order, apart by commas, or a file of them, one a line or a JSON "
            "list; default those of the training data, sorted. Whole numbers in the data are then places in it, from 0.",
        ),
        click.option(
            "--tags",
            type=click.Choice(SCHEMES),
            help="The scheme of a tagging task's tags, which are converted to BIO; default what "
            "they look like.",
        ),
        words_option,
        click.option(
            "--thresholds",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="TOML or JSON with 'threshold', a number or an object from label to number, and "
            "'rejection', the score below which no label is given; a part of the module.",
        ),
    )


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to train: fields of :class:`centra.training.recipe.Recipe`, reports and the cache."""
    return _add(
        command,
        setting_option(Recipe, "epochs"),
        setting_option(Recipe, "batch_size"),
        setting_option(Recipe, "patience"),
        setting_option(Recipe, "metric"),
        setting_option(Recipe, "max_length"),
        feature_cache_option,
        click.option(
            "--report-to",
            multiple=True,
            type=click.Choice(REPORTERS),
            help="What Trainer reports to. May be given several times.",
        ),
    )


def head_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a task's head is, and what its module does with texts; a student has its teacher's."""
    return _add(
        command,
        setting_option(Recipe, "crf"),
        setting_option(Recipe, "pooling", type=click.Choice(POOLINGS)),
        template_option,
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


def print_trained(task: str, trained: TrainedModule, *, as_json: bool) -> None:
    """Print where a module is and what it reached."""
    mark_done()
    remark(f"{task}: {metrics_text(trained.metrics)}")
    if as_json:
        from registry.documents import training as documents

        print_json(documents.TrainedModule.of(trained))
    else:
        click.echo(str(trained.path))


def _add(command: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
