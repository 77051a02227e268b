"""How to train: every setting with its default, its meaning and its bounds, in one place.

Command lines and recipe files take all three from here. Nothing heavy is imported, so that settings
are refused before anything is loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from centra.errors import UsageError
from centra.families.heads import POOLINGS
from centra.formats.template import PLAIN, parse_templates

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from centra.formats.backbone import BackboneSpec

__all__ = [
    "DEFAULT_HYPOTHESIS",
    "REPORTERS",
    "Distillation",
    "Recipe",
    "SearchSpace",
    "check_reporters",
    "meaning_of",
]

REPORTERS = ("tensorboard", "mlflow", "wandb")
"""What training can report to, by the callbacks of Hugging Face's ``Trainer``."""

DEFAULT_HYPOTHESIS = "This example is {}."
"""Of a teacher of natural-language inference, as transformers' own zero-shot pipeline has it."""

_SHORTEST = 8
"""Tokens: the special ones of a pair and a few words."""


def _positive(value: float) -> str | None:
    return None if 0 < value < math.inf else "must be greater than 0"


def _share(value: float) -> str | None:
    return None if 0 <= value <= 1 else "must lie between 0 and 1"


def _tokens(value: int) -> str | None:
    fits = value == 0 or value >= _SHORTEST
    return None if fits else f"must be 0 or at least {_SHORTEST} tokens"


def _pooling(value: str) -> str | None:
    return None if value in POOLINGS else f"must be one of {', '.join(POOLINGS)}"


def _template(value: str | tuple[str, str]) -> str | None:
    try:
        parse_templates(value)
    except ValueError as error:
        return str(error)
    return None


def _seed(value: int) -> str | None:
    return None if 0 <= value < 2**32 else "must not be negative, and be below 2^32"


def _setting(default: Any, meaning: str, refusal: Callable[[Any], str | None] | None = None) -> Any:
    """A field.

    Args:
        default: what it is where nobody says.
        meaning: for people, in a line of help.
        refusal: what is wrong with a value; nothing of a good one.
    """
    return field(default=default, metadata={"meaning": meaning, "refusal": refusal})


def meaning_of(settings: type, name: str) -> str:
    """What a setting of :class:`Recipe` or :class:`Distillation` means, in a line of help."""
    meaning: str = next(f.metadata["meaning"] for f in fields(settings) if f.name == name)
    return meaning


def _check_values(settings: Recipe | Distillation) -> None:
    for each in fields(settings):
        refusal = each.metadata.get("refusal")
        problem = refusal and refusal(getattr(settings, each.name))
        if problem:
            raise UsageError(f"{each.name} {problem}", code="bad-setting", setting=each.name)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one task."""

    tap: int
    """The frozen layer to read, from 0."""
    depth: int
    """How many layers learn."""
    epochs: int = _setting(10, "At most; early stopping may end sooner.", _positive)
    learning_rate: float = _setting(1e-4, "At its peak, after the warm-up.", _positive)
    batch_size: int = _setting(32, "Examples that are learnt from at once.", _positive)
    warmup: float = _setting(0.1, "Share of the steps over which the rate rises.", _share)
    weight_decay: float = _setting(0.01, "Of AdamW.", _share)
    dropout: float = _setting(0.1, "Before the output layer.", _share)
    """Inside the layers the backbone's own setting holds."""
    patience: int = _setting(
        3, "Epochs without a better dev metric after which training stops.", _positive
    )
    metric: str | None = _setting(None, "Dev metric to select by, e.g. matthews; default by kind.")
    """None takes the kind's first in :attr:`centra.kinds.base.Kind.metrics`."""
    max_length: int = _setting(0, "Tokens kept of an input; 0 for the backbone's maximum.", _tokens)
    crf: bool = _setting(default=False, meaning="Decode tags with a linear-chain CRF.")
    pooling: str = _setting(
        "first", "How a text's tokens become one row: first, mean, max or late.", _pooling
    )
    """See :data:`centra.families.heads.Pooling`. A student has its teacher's."""
    template: str | tuple[str, str] = _setting(
        PLAIN,
        "What each text is put in, in training and in every answer, e.g. 'query: {text}'.",
        _template,
    )
    """Or one for each text of a pair; see :mod:`centra.formats.template`. A student has its teacher's."""
    seed: int = _setting(0, "Of the head's first weights and the order of examples.", _seed)

    def check(self, backbone: BackboneSpec) -> None:
        """Refuse settings that cannot be trained.

        Raises:
            UsageError: naming the setting.
        """
        layers = backbone.num_layers
        if not 0 <= self.tap <= layers:
            raise UsageError(
                f"tap {self.tap}: the backbone has layers 0 to {layers}",
                code="bad-setting",
                setting="tap",
            )
        if not 0 <= self.depth <= layers - self.tap:
            raise UsageError(
                f"depth {self.depth}: above tap {self.tap} the backbone has "
                f"{layers - self.tap} layers to start from",
                code="bad-setting",
                setting="depth",
            )
        _check_values(self)


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a student learns from its teacher (paper section 3.2; Hinton et al. 2015)."""

    temperature: float = _setting(
        2.0, "Divides the logits of both before they are compared.", _positive
    )
    """Regression has none."""
    weight: float = _setting(
        0.5, "Of the teacher's answers in the loss; the labels have the rest.", _share
    )
    start: Literal["teacher", "backbone"] = _setting(
        "teacher", "Whose layers above the tap the student starts from."
    )
    """Lowest first. From its teacher it takes the head, too; the backbone is the comparison of the
    paper's appendix C."""

    def check(self) -> None:
        """Refuse settings that cannot be used.

        Raises:
            UsageError: naming the setting.
        """
        _check_values(self)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The trials of a search: every combination."""

    layers: Sequence[int]
    """How many top layers learn; the paper tries 4 to 10 of 12."""
    learning_rates: tuple[float, ...] = (1e-4, 3e-4)
    seeds: tuple[int, ...] = (Recipe.seed,)

    def recipes(self, recipe: Recipe, backbone: BackboneSpec) -> list[Recipe]:
        """The recipe of each trial.

        Raises:
            UsageError: a number of layers that the backbone does not have, or nothing to try.
        """
        for name in ("layers", "learning_rates", "seeds"):
            if not getattr(self, name):
                raise UsageError(
                    f"{name}: expected at least one to try", code="bad-setting", setting=name
                )
        for layers in self.layers:
            if not 1 <= layers <= backbone.num_layers:
                raise UsageError(
                    f"layers: {layers} cannot be fine-tuned; the backbone has "
                    f"{backbone.num_layers}",
                    code="bad-setting",
                    setting="layers",
                )
        return [
            replace(
                recipe,
                tap=backbone.num_layers - layers,
                depth=layers,
                learning_rate=rate,
                seed=seed,
            )
            for layers, rate, seed in product(
                sorted(set(self.layers)),
                dict.fromkeys(self.learning_rates),
                dict.fromkeys(self.seeds),
            )
        ]


def check_reporters(names: Collection[str]) -> None:
    """Refuse a reporter that is unknown or not installed.

    Raises:
        UsageError: naming it.
    """
    for name in names:
        if name not in REPORTERS:
            raise UsageError(
                f"report_to: {name!r} is none of {', '.join(REPORTERS)}",
                code="unknown-reporter",
                reporter=name,
            )
        if find_spec(name) is None:
            raise UsageError(
                f"report_to: {name} is not installed; pip install {name}",
                code="reporter-missing",
                reporter=name,
            )
