"""One training run that can stop after any epoch and go on later, in another process too."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from centra.errors import ConflictError, TrainingDivergedError, UsageError
from centra.formats.documents import canonical_json, sha256
from centra.formats.task_module import TaskModule, TaskSpec
from centra.kinds import kind_named
from centra.modeling.branch import Branch
from centra.modeling.shared_state import PositionTables
from centra.modeling.trunk import Trunk
from centra.progress import Progress, silent
from centra.system.files import file_digest
from centra.tokenization.text_encoder import Encoded
from centra.training.history import History
from centra.training.metrics import check_metric
from centra.training.module import make_module
from centra.training.network import Network, TrainingSet, collator
from centra.training.recipe import Distillation, Recipe, check_reporters
from centra.training.soft_targets import soft_logits
from centra.training.trainer import make_trainer, transformers_silenced
from centra.training.work_folder import WorkFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from transformers import Trainer

    from centra.formats.backbone import BackboneSpec
    from centra.formats.decision import Decision
    from centra.store import BlobReader
    from centra.training.features import FeatureCache, Features
    from centra.training.remote_work import LocalWork
    from centra.training.task_data import Split, TaskData

__all__ = ["Run"]

_log = logging.getLogger(__name__)

_PROBE_SIZE = 8


class Run:
    """The training of one branch by one recipe: everything that decides its result."""

    def __init__(
        self,
        backbone: BackboneSpec,
        reader: BlobReader,
        data: TaskData,
        recipe: Recipe,
        *,
        work: Path,
        cache: FeatureCache | None = None,
        taps: Collection[int] = (),
        teacher: Path | None = None,
        distillation: Distillation | None = None,
        report_to: Sequence[str] = (),
    ) -> None:
        """Prepare a run; nothing is computed yet.

        Args:
            backbone: the frozen encoder.
            reader: where its blobs are.
            data: the task's examples.
            recipe: the settings.
            work: a folder of this run's own, for its checkpoints.
            cache: where hidden states are kept; None runs the frozen layers in every epoch.
            taps: those that the cache is to have after it was needed here; by default the recipe's.
            teacher: the module to distil from.
            distillation: how; by default as :class:`centra.training.recipe.Distillation`.
            report_to: what Trainer reports to, of :data:`centra.training.recipe.REPORTERS`.

        Raises:
            UsageError: a setting that does not suit the backbone, the kind or the teacher, or a
                reporter that is not installed.
            ConflictError: the teacher is of another backbone, kind, label set or tap.
        """
        recipe.check(backbone)
        self.backbone = backbone
        self.reader = reader
        self.data = data
        self.recipe = recipe
        self.folder = WorkFolder(work)
        self.cache = cache
        self.taps = tuple(taps) or (recipe.tap,)
        self.teacher = None if teacher is None else TaskModule.read(teacher)
        self.distillation = distillation or Distillation()
        self.reporters = tuple(report_to)
        check_reporters(self.reporters)
        self.metric = check_metric(data.spec.kind, recipe.metric, agreement=data.dev.agreement)
        head = data.spec.head.model_copy(update={"crf": recipe.crf})
        if self.teacher is not None:
            _check_teacher(self.teacher.spec, str(teacher), data.spec, recipe)
            head = self.teacher.spec.head
        elif recipe.crf and not data.spec.reads_every_token:
            raise UsageError(
                f"crf: a {data.spec.kind} task has no tags to chain",
                code="bad-setting",
                setting="crf",
            )
        if recipe.pooling != "first" and data.spec.reads_every_token:
            raise UsageError(
                f"pooling: a {data.spec.kind} task answers for every token",
                code="bad-setting",
                setting="pooling",
            )
        training: dict[str, Any] = {
            "data": data.fingerprint,
            "examples": len(data.train.rows),
            "recipe": asdict(recipe),
            "versions": {name: version(name) for name in ("torch", "transformers")},
        }
        if data.scheme != "bio":
            training["tags"] = data.scheme
        if data.teacher is not None:
            training["taught_by"] = dict(data.teacher)
        if teacher is not None or data.teacher is not None:
            training["distillation"] = asdict(self.distillation)
        self.spec = data.spec.model_copy(
            update={
                "tap_layer": recipe.tap,
                "depth": recipe.depth,
                "head": head,
                "decision": _decision(data.spec.decision, self.teacher, recipe),
                "training": training,
                "teacher": None if teacher is None else file_digest(teacher),
            }
        )
        if data.thresholds is not None:
            self.spec = data.thresholds.decide(self.spec)

    def train(
        self,
        until: int | None = None,
        progress: Progress = silent,
        kept: LocalWork | None = None,
    ) -> History:
        """Train to the end of an epoch, from wherever an earlier call or process got to.

        The learning rate falls over the whole recipe, wherever the run pauses, so that a run with
        pauses gives the same weights as one without.

        Args:
            until: the epoch to stop after; None for the recipe's last.
            progress: told of each step, and of the dev metric after each epoch.
            kept: the folder where it is one of a bucket, too: gets each epoch.

        Returns:
            All epochs so far.

        Raises:
            StoreNotWritableError: ``work`` or the feature cache cannot be written.
        """
        until = min(until or self.recipe.epochs, self.recipe.epochs)
        run = sha256(canonical_json(json.loads(self.spec.to_bytes())))
        self.folder.prepare(run)
        if (known := self._known_history(until)) is not None:
            return known
        if kept is not None:
            kept.restore_checkpoints()
            self.folder.prepare(run)  # Anew, where they were not whole.
            if (known := self._known_history(until)) is not None:
                return known
        trainer = self._trainer(until, progress, kept.save if kept else None)
        with transformers_silenced():
            trainer.train(resume_from_checkpoint=self.folder.has_checkpoint())
        history = self._history(trainer.state.log_history)
        self.folder.write_history(history)
        if kept is not None:
            kept.save()
        epochs, metric = len(history.epochs), history.metric
        _log.debug("%s: %d epochs, %s %.4f", self.folder.path, epochs, metric, history.score)
        return history

    def module(self, kept: LocalWork | None = None) -> TaskModule:
        """The module of the best epoch, its probe from the dev set; trains what is left to train.

        Args:
            kept: see :meth:`train`.

        Raises:
            TrainingDivergedError: the weights became NaN or infinite.
        """
        history = self.train(kept=kept)
        if kept is not None and not self.folder.has_checkpoint():
            kept.restore_checkpoints()
            history = self.train(kept=kept)  # Where they were not whole, all begins anew.
        weights = load_file(self.folder.best_weights())
        branch = Branch(self.backbone, self.spec).to_empty(device="cpu").eval()
        branch.load_state_dict({k.removeprefix("branch."): v for k, v in weights.items()})
        metrics = {name: round(value, 6) for name, value in history.best.metrics.items()}
        spec = self.spec.model_copy(update={"metrics": metrics})
        trunk = Trunk(self.backbone, self.reader, depth=spec.tap_layer)
        rows = self.data.dev.rows[:_PROBE_SIZE]
        module = make_module(spec, trunk, branch, Encoded.pad(rows, self.data.pad_token_id))
        if not all(bool(tensor.isfinite().all()) for tensor in module.tensors.values()):
            raise TrainingDivergedError(self.recipe.learning_rate)
        return module

    def _branch(self) -> Branch:
        """The branch at the run's start (paper sections 3.1 and 3.2)."""
        # Here, so that the head's random weights depend on the seed alone, and not on what was
        # computed before: the frozen layers, or nothing where the cache has them.
        torch.manual_seed(self.recipe.seed)
        branch = Branch(self.backbone, self.spec, dropout=self.recipe.dropout)
        if self.teacher is not None and self.distillation.start == "teacher":
            # Fewer layers than the teacher has: the lowest of its own.
            return branch.load(self.teacher.tensors)
        branch.start_from(self.backbone, self.reader)
        bias = kind_named(self.spec.kind).first_bias(self.data.train.targets)
        if bias is not None:
            nn.init.constant_(branch.head.get_parameter("out.bias"), bias)
        return branch

    def _trainer(self, until: int, progress: Progress, saved: Callable[[], None] | None) -> Trainer:
        data, spec = self.data, self.spec
        features = [self._features(split, progress) for split in (data.train, data.dev)]
        trunk = None
        if None in features:
            trunk = Trunk(self.backbone, self.reader, depth=spec.tap_layer)
        shared_state = PositionTables.load(self.backbone, self.reader)
        network = Network(spec, self._branch(), shared_state, trunk, self.distillation)
        teacher = self._teacher_logits(features[0], progress)
        return make_trainer(
            network,
            TrainingSet(data.train, features[0], teacher),
            TrainingSet(data.dev, features[1]),
            self.recipe,
            metric=self.metric,
            pad_token_id=data.pad_token_id,
            folder=self.folder,
            read_log=self._history,
            until=until,
            reporters=self.reporters,
            progress=progress,
            saved=saved,
        )

    def _features(self, split: Split, progress: Progress) -> Features | None:
        if self.cache is None:
            return None
        self.cache.ensure(self.backbone, self.reader, split.rows, self.taps, progress)
        return self.cache.find(self.backbone, split.rows, self.spec.tap_layer)

    def _teacher_logits(
        self, features: Features | None, progress: Progress
    ) -> list[np.ndarray] | None:
        """The teacher's answers to the training set, computed once instead of in every epoch.

        Those of a checkpoint, which are among the data, are also the students'.
        """
        if self.data.train.soft is not None:
            return self.data.train.soft
        if self.teacher is None:
            return None
        spec, data = self.teacher.spec, self.data
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        trunk = None
        if features is None:
            trunk = Trunk(self.backbone, self.reader, depth=spec.tap_layer).to(device)
        branch = Branch(self.backbone, spec).load(self.teacher.weights).eval().to(device)
        shared_state = PositionTables.load(self.backbone, self.reader).to(device)
        network = Network(spec, branch, shared_state, trunk, self.distillation).eval()
        examples = TrainingSet(data.train, features)
        collate, found = collator(spec, data.pad_token_id), list[np.ndarray]()
        for start in range(0, len(examples), 2 * self.recipe.batch_size):
            stop = min(start + 2 * self.recipe.batch_size, len(examples))
            batch = {
                name: tensor.to(device)
                for name, tensor in collate([examples[i] for i in range(start, stop)]).items()
            }
            with torch.inference_mode():
                logits = soft_logits(
                    network(**batch)["logits"],
                    batch["labels"],
                    self.distillation.temperature,
                    branch.chain,
                )
            arrays = logits.float().cpu().numpy()
            if spec.reads_every_token:
                rows = data.train.rows[start:stop]
                found += [a[: len(row.input_ids)] for a, row in zip(arrays, rows, strict=True)]
            else:
                found += [*arrays]
            progress("teacher", stop, len(examples))
        return found

    def _history(self, log: Sequence[dict[str, Any]]) -> History:
        return History.of_log(log, kind=self.spec.kind, metric=self.metric, recipe=self.recipe)

    def _known_history(self, until: int) -> History | None:
        """What is known up to an epoch, or the end if that came before; None where it is not yet.

        It is in the file of the epochs, or else in the last checkpoint.
        """
        history = self.folder.read_history()
        if self.folder.has_checkpoint():
            # Killed between a checkpoint and the file, the file is missing or one pause behind.
            logged = self._history(self.folder.last_state()["log_history"])
            if history is None or len(logged.epochs) > len(history.epochs):
                history = logged
        if history is None or not (history.finished or len(history.epochs) >= until):
            return None
        return history.up_to(until)


def _decision(decision: Decision, teacher: TaskModule | None, recipe: Recipe) -> Decision:
    """How a module answers: as its teacher does, from as many tokens as it learns from."""
    if teacher is None:
        return decision.model_copy(update={"pooling": recipe.pooling})
    return teacher.spec.decision.model_copy(update={"max_length": decision.max_length})


def _check_teacher(teacher: TaskSpec, path: str, data: TaskSpec, recipe: Recipe) -> None:
    """Refuse a teacher that a student of this recipe cannot learn from."""
    for what, found, expected in (
        ("backbone", f"sha256:{teacher.backbone[:12]}", f"sha256:{data.backbone[:12]}"),
        ("kind", teacher.kind, data.kind),
        ("input", teacher.input, data.input),
        ("labels", teacher.labels, data.labels),
        ("tap", teacher.tap_layer, recipe.tap),
    ):
        if found != expected:
            raise ConflictError(
                f"{path}: a student keeps its teacher's {what}; the teacher has {found}, "
                f"the {'recipe' if what == 'tap' else 'data'} {expected}",
                code="teacher-differs",
                teacher=path,
                differs=what,
            )
    if recipe.crf and not teacher.head.crf:
        raise UsageError(
            f"crf: a student has its teacher's head, and {path} has no CRF",
            code="bad-setting",
            setting="crf",
        )
    for name in ("pooling", "template"):
        own, has = getattr(recipe, name), getattr(teacher.decision, name)
        if own not in (getattr(Recipe, name), has):
            raise UsageError(
                f"{name}: a student has its teacher's, {has!r} of {path}; the recipe says {own!r}",
                code="bad-setting",
                setting=name,
            )
    if recipe.depth > teacher.depth:
        raise UsageError(
            f"depth {recipe.depth}: the teacher {path} has {teacher.depth} layers of its own, "
            "and a student starts from the lowest of them",
            code="bad-setting",
            setting="depth",
        )
