"""What training led to: a module, a search's trials, a fit, a choice by scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.documents.base import Document, Layers, schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from centra.store.s3.path import S3Path
    from centra.training import pipeline, search, select, train, trials

__all__ = ["Choice", "Fit", "Search", "Selection", "TaughtBy", "TrainedModule", "Trial"]


class TrainedModule(Document):
    """A module that was trained and written."""

    schema_: str = schema("trained-module")
    output: str
    """The file."""
    metrics: dict[str, float]
    """On the dev set."""

    @classmethod
    def of(cls, trained: train.TrainedModule) -> TrainedModule:
        """The document of a module that was trained and written."""
        return cls(output=str(trained.path), metrics=trained.metrics)


class Trial(Document):
    """One training run of a search."""

    role: str
    """``teacher`` or ``student``."""
    frozen_layers: int
    """How many lower layers are kept frozen: the tap."""
    task_layers: int
    """How many layers the module has of its own: its depth."""
    learning_rate: float
    seed: int
    metric: str
    """What the score is of."""
    score: float
    """The best on the dev set, in points: 100 is perfect."""
    epochs: int
    """How many were trained."""
    pruned: bool
    """Given up because it could not win."""

    @classmethod
    def of(cls, trial: trials.Trial) -> Trial:
        """The document of a trial."""
        return cls(
            role=trial.role,
            frozen_layers=trial.frozen_layers,
            task_layers=trial.task_layers,
            learning_rate=trial.learning_rate,
            seed=trial.seed,
            metric=trial.metric,
            score=trial.score,
            epochs=trial.epochs,
            pruned=trial.pruned,
        )


class Search(Document):
    """What a search for a teacher led to."""

    schema_: str = schema("search")
    teacher: str
    """The file of the best module."""
    scores: str
    """The file of all trials' scores."""
    best: Trial
    trials: list[Trial]

    @classmethod
    def of(cls, search: search.Search, *, teacher: Path | S3Path, scores: Path | S3Path) -> Search:
        """The document of a search and the files that it wrote."""
        return cls(
            teacher=str(teacher),
            scores=str(scores),
            best=Trial.of(search.best),
            trials=[Trial.of(trial) for trial in search.trials],
        )


class TaughtBy(Document):
    """The checkpoint whose answers a fit's runs have learnt from."""

    digest: str
    """Over its weights, settings and tokenizer."""
    architecture: str
    """transformers' class."""
    labels: list[str]
    """What its logits stand for."""
    hypothesis: str | None
    """That it held against each text; null where it gave labels of its own."""
    texts: int
    """How many it answered."""
    labelled: int
    """How many of them had a label."""
    dev: int
    """How many of them were set aside to measure on."""
    metrics: dict[str, float]
    """Its own on the dev set, where that has labels."""

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> TaughtBy:
        """The document of what a module's training record says of it."""
        return cls(
            digest=said["digest"],
            architecture=said["class"],
            labels=said["labels"],
            hypothesis=said.get("hypothesis"),
            texts=said["texts"],
            labelled=said["labelled"],
            dev=said["dev"],
            metrics=said.get("metrics", {}),
        )


class Fit(Document):
    """What a fit led to: the files that it wrote, and its trials."""

    schema_: str = schema("fit")
    module: str
    """The file of the chosen module."""
    teacher: str
    """The file of the best teacher."""
    scores: str
    """The file of all trials' scores."""
    picture: str
    """The file of the scores drawn against layers."""
    card: str
    """The file of the module's card."""
    chosen: Trial
    """The run that the chosen module comes from."""
    metrics: dict[str, float]
    """The chosen module's, on the dev set; ``agreement_…`` where that is measured by the answers of
    ``taught_by``."""
    taught_by: TaughtBy | None
    """Null where the fit learnt from labels alone."""
    trials: list[Trial]
    """Teachers, then students."""

    @classmethod
    def of(cls, fit: pipeline.PipelineResult, files: Mapping[str, Path | S3Path]) -> Fit:
        """The document of a fit and the files that it wrote, by the names of these fields."""
        said = fit.module.spec.training.get("taught_by")
        return cls(
            module=str(files["module"]),
            teacher=str(files["teacher"]),
            scores=str(files["scores"]),
            picture=str(files["picture"]),
            card=str(files["card"]),
            chosen=Trial.of(fit.chosen),
            metrics=fit.module.spec.metrics,
            taught_by=None if said is None else TaughtBy.of(said),
            trials=[Trial.of(trial) for trial in fit.trials],
        )


class Choice(Document):
    """The module that a task is served with."""

    task: str
    frozen_layers: int
    task_layers: int
    role: str
    """``teacher`` or ``student``."""
    score: float
    """In the unit of the scores that were given."""

    @classmethod
    def of(cls, choice: select.Choice) -> Choice:
        """The document of a choice."""
        return cls(
            task=choice.task,
            frozen_layers=choice.frozen_layers,
            task_layers=choice.task_layers,
            role=choice.role,
            score=float(choice.score),
        )


class Selection(Document):
    """What was chosen by measured scores, and what it costs."""

    schema_: str = schema("selection")
    choices: list[Choice]
    """One a task, in the order in which the tasks first appear."""
    layers: Layers
    """Of a release of what was chosen."""

    @classmethod
    def of(cls, selection: select.Selection) -> Selection:
        """The document of a selection."""
        return cls(
            choices=[Choice.of(choice) for choice in selection.choices],
            layers=Layers.of(selection.layers),
        )
