"""The recipe of ``centra fit``: one short TOML file from data to a chosen module."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from centra.data.labelling import Labelling
from centra.data.labels import check_labels, read_labels
from centra.data.source import DataSource
from centra.data.tags import Scheme  # noqa: TC001 - pydantic reads annotations
from centra.data.words import Segmentation  # noqa: TC001
from centra.errors import UsageError
from centra.families.heads import Pooling  # noqa: TC001 - pydantic reads it
from centra.formats.documents import Document
from centra.formats.task_module import KindName  # noqa: TC001
from centra.formats.template import parse_templates
from centra.formats.thresholds import read_thresholds
from centra.formats.toml import read_toml
from centra.formats.validation import explain
from centra.training.recipe import Distillation, Recipe, SearchSpace

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Plan"]

Rates = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]


def _checked(template: str | tuple[str, str]) -> str | tuple[str, str]:
    parse_templates(template)
    return template


Templates = Annotated[str | tuple[str, str], AfterValidator(_checked)]


class _Training(Document):
    """What all runs share; :class:`centra.training.recipe.Recipe` says what each means."""

    epochs: Annotated[int, Field(ge=1)] = Recipe.epochs
    batch_size: Annotated[int, Field(ge=1)] = Recipe.batch_size
    warmup: Annotated[float, Field(ge=0, le=1)] = Recipe.warmup
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Recipe.weight_decay
    dropout: Annotated[float, Field(ge=0, le=1)] = Recipe.dropout
    patience: Annotated[int, Field(ge=1)] = Recipe.patience
    metric: str | None = Recipe.metric
    max_length: Annotated[int, Field(ge=0)] = Recipe.max_length
    crf: bool = Recipe.crf
    pooling: Pooling = "first"
    template: Templates = Recipe.template


class _Data(Document):
    """Where data are, and how to read them; see :class:`centra.data.source.DataSource`."""

    path: str
    columns: dict[str, str] = Field(default_factory=dict)
    """By field the name of its column."""
    splits: dict[str, str] = Field(default_factory=dict)
    """By part, ``train`` or ``dev``, the name of its split or file."""
    encoding: str | None = None


class _Search(Document):
    """The teachers to try."""

    layers: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    """The fewest and the most layers."""
    learning_rates: Rates = SearchSpace.learning_rates
    seeds: Seeds = SearchSpace.seeds

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.layers[0] > self.layers[1]:
            raise ValueError(f"layers: expected [fewest, most], found {[*self.layers]}")
        return self


class _Distill(Document):
    """The students to try; :class:`centra.training.recipe.Distillation` says how they learn."""

    layers: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 3)
    temperature: Annotated[float, Field(gt=0)] = Distillation.temperature
    weight: Annotated[float, Field(ge=0, le=1)] = Distillation.weight
    start: Literal["teacher", "backbone"] = Distillation.start
    learning_rates: Rates | None = None
    """None for the teacher's own."""
    seeds: Seeds | None = None
    """None for the teacher's own."""


class _Select(Document):
    """The mixed rule; see :func:`centra.training.select.select`."""

    threshold: Annotated[float, Field(ge=0)] = 1.0
    """Points of the metric that each added layer must gain."""


class Plan(Document):
    """What ``centra fit`` does for one task."""

    task: str
    backbone: str
    """NAME or NAME@VERSION."""
    data: str | _Data
    """A folder; a relative one counts from the recipe's own. Or ``s3://BUCKET/KEY`` or ``hf://ORG/NAME``.
    With a teacher also what :func:`centra.training.texts.read_texts` takes. A table where there is more
    to say of it."""
    teacher: str | None = None
    """A checkpoint whose answers are learnt from: a folder, a relative one beside the recipe, or a name
    on the hub."""
    hypothesis: str | None = None
    """For a teacher of natural-language inference, with ``{}`` for the label."""
    kind: KindName | None = None
    """None for what the labels look like; see :func:`centra.training.contract_inference.infer_contract`."""
    labels: str | tuple[str, ...] | None = None
    """All labels in their order, or a file of them; a relative one counts from the recipe's folder."""
    tags: Scheme | None = None
    """The scheme of a tagging task's tags; None to find it."""
    words: Segmentation | None = None
    """How a tagging task's texts are cut into words; None for Unicode's."""
    thresholds: str | None = None
    """A file of thresholds; see :func:`centra.formats.thresholds.read_thresholds`. A relative one counts
    from the recipe's folder."""
    search: _Search
    training: _Training = _Training()
    distill: _Distill = _Distill()
    select: _Select = _Select()
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Where a run tells its metrics while it goes on."""

    @classmethod
    def read(cls, path: Path, **instead: Any) -> Plan:
        """Read a recipe.

        Args:
            path: the file.
            instead: fields that hold instead of the file's, where they are not None.

        Raises:
            UsageError: there is no such file, it is not TOML, or a field is unknown, missing or
                wrong; the file and the field are named.
        """
        try:
            fields = read_toml(path) | {k: v for k, v in instead.items() if v is not None}
            # As JSON: there a list is a tuple and 1 is a number, but "1", true and 1.0 are no 1.
            return cls.model_validate_json(json.dumps(fields, default=str), strict=True)
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be read ({error.strerror})", code="bad-recipe", recipe=str(path)
            ) from error
        except ValidationError as error:
            raise UsageError(
                f"{path}: " + "; ".join(explain(error, cls)), code="bad-recipe", recipe=str(path)
            ) from error
        except ValueError as error:
            raise UsageError(
                f"{path}: not a TOML file ({error}); expected lines such as epochs = 10",
                code="bad-recipe",
                recipe=str(path),
            ) from error

    def data_source(self, folder: Path) -> DataSource:
        """Where the data are, and how to read them.

        Args:
            folder: the recipe's own.

        Raises:
            UsageError: see :meth:`centra.data.source.DataSource.of`.
        """
        data = self.data if isinstance(self.data, _Data) else _Data(path=self.data)
        source = DataSource.of(
            data.path,
            columns=map("=".join, data.columns.items()),
            splits=map("=".join, data.splits.items()),
            encoding=data.encoding,
        )
        return source.beside(folder)

    def teacher_source(self, folder: Path) -> str | None:
        """Where the teacher is: a folder, or a name on the hub.

        Args:
            folder: the recipe's own.

        Raises:
            UsageError: a hypothesis without a teacher.
        """
        if self.teacher is None:
            if self.hypothesis is not None:
                raise UsageError(
                    "hypothesis: is for a teacher, and there is none",
                    code="bad-setting",
                    setting="hypothesis",
                )
            return None
        local = folder / self.teacher
        return str(local) if local.is_dir() else self.teacher

    def labelling(self, folder: Path) -> Labelling:
        """What the data's labels mean.

        Args:
            folder: the recipe's own.

        Raises:
            DataError: see :func:`centra.data.labels.read_labels` and
                :func:`centra.formats.thresholds.read_thresholds`.
        """
        labels = self.labels or ()
        if isinstance(labels, str):
            labels = read_labels(folder / labels)
        elif labels:
            check_labels(labels, "labels")
        thresholds = None if self.thresholds is None else read_thresholds(folder / self.thresholds)
        return Labelling(
            kind=self.kind,
            labels=labels,
            tags=self.tags,
            words=self.words,
            thresholds=thresholds,
        )

    @property
    def recipe(self) -> Recipe:
        """What all runs share; tap, depth, learning rate and seed are each run's own."""
        return Recipe(tap=0, depth=0, **self.training.model_dump())

    @property
    def distillation(self) -> Distillation:
        """How the students learn."""
        chosen = {"temperature", "weight", "start"}
        return Distillation(**self.distill.model_dump(include=chosen))
