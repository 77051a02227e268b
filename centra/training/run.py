"""One training run that can stop after any epoch and go on later, in another process too.

Training itself is Hugging Face's ``Trainer``: mixed precision, several GPUs and reports to
TensorBoard, MLflow or Weights & Biases come from it.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from centra.errors import (
    ConflictError,
    StoreNotWritableError,
    TrainingDivergedError,
    UsageError,
)
from centra.formats.documents import canonical_json, sha256
from centra.formats.task_module import TaskModule, TaskSpec
from centra.modeling.branch import Branch
from centra.modeling.shared_state import PositionTables
from centra.modeling.trunk import Trunk
from centra.progress import Progress, silent
from centra.system.files import check_utf8, file_digest, replacing
from centra.tokenization.text_encoder import Encoded
from centra.training.history import Epoch, History
from centra.training.metrics import check_metric
from centra.training.network import Network, TrainingSet, collator
from centra.training.recipe import Distillation, check_reporters
from centra.training.soft_targets import soft_logits
from centra.training.targets import dev_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader
    from centra.training.features import FeatureCache, Features
    from centra.training.recipe import Recipe
    from centra.training.task_data import Split, TaskData

__all__ = ["Run", "discard", "make_module"]

_PROBE_SIZE = 8
_HISTORY = "history.json"
_STATE = "trainer_state.json"
_CHAIN_RATE = 50


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
            teacher: the module to distil from.
            distillation: how; by default as :class:`centra.training.recipe.Distillation`.
            report_to: what Trainer reports to, of :data:`centra.training.recipe.REPORTERS`.
                TensorBoard's files go to ``runs`` beside ``work``.

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
        check_utf8(work.absolute())
        self.work = work
        self.cache = cache
        self.teacher = None if teacher is None else TaskModule.read(teacher)
        self.distillation = distillation or Distillation()
        self.reporters = tuple(report_to)
        check_reporters(self.reporters)
        self.metric = check_metric(data.spec.kind, recipe.metric)
        head = data.spec.head.model_copy(update={"crf": recipe.crf})
        if self.teacher is not None:
            _check_teacher(self.teacher.spec, str(teacher), data.spec, recipe)
            head = self.teacher.spec.head
        elif recipe.crf and data.spec.kind != "tagging":
            raise UsageError(f"crf: a {data.spec.kind} task has no tags to chain")
        training: dict[str, Any] = {
            "data": data.fingerprint,
            "examples": len(data.train.rows),
            "recipe": asdict(recipe),
            "versions": {name: version(name) for name in ("torch", "transformers")},
        }
        if data.scheme != "bio":
            training["tags"] = data.scheme
        if teacher is not None:
            training["distillation"] = asdict(self.distillation)
        self.spec = data.spec.model_copy(
            update={
                "tap_layer": recipe.tap,
                "depth": recipe.depth,
                "head": head,
                "training": training,
                "teacher": None if teacher is None else file_digest(teacher),
            }
        )

    def train(self, until: int | None = None, progress: Progress = silent) -> History:
        """Train to the end of an epoch, from wherever an earlier call or process got to.

        The learning rate falls over the whole recipe, wherever the run pauses, so that a run with
        pauses gives the same weights as one without.

        Args:
            until: the epoch to stop after; None for the recipe's last.
            progress: told of each step, and of the dev metric after each epoch.

        Returns:
            All epochs so far.

        Raises:
            StoreNotWritableError: ``work`` or the feature cache cannot be written.
        """
        until = min(until or self.recipe.epochs, self.recipe.epochs)
        self._prepare()
        history = self._read_history()
        if history is not None and (history.finished or len(history.epochs) >= until):
            return history.up_to(until)
        trainer = self._trainer(until, progress)
        with _quiet():
            trainer.train(resume_from_checkpoint=any(_checkpoints(self.work)))
        history = self._history(trainer.state.log_history)
        with replacing(self.work / _HISTORY) as temporary:
            temporary.write_bytes(canonical_json(asdict(history)))
        return history

    def module(self) -> TaskModule:
        """The module of the best epoch, its probe from the dev set; trains what is left to train.

        Raises:
            TrainingDivergedError: the weights became NaN or infinite.
        """
        history = self.train()
        best = Path(_last_state(self.work)["best_model_checkpoint"]).name
        weights = load_file(self.work / best / "model.safetensors")
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
        if self.spec.kind == "regression":
            # From the mean on: the head need not first learn the scale of the values.
            bias = branch.head.get_parameter("out.bias")
            nn.init.constant_(bias, float(np.mean(self.data.train.targets)))
        return branch

    def _trainer(self, until: int, progress: Progress) -> Trainer:
        recipe, data, spec = self.recipe, self.data, self.spec
        features = [self._features(split, progress) for split in (data.train, data.dev)]
        trunk = None
        if None in features:
            trunk = Trunk(self.backbone, self.reader, depth=spec.tap_layer)
        branch = self._branch()
        shared_state = PositionTables.load(self.backbone, self.reader)
        network = Network(spec, branch, shared_state, trunk, self.distillation)
        collate = collator(spec, data.pad_token_id)
        teacher = self._teacher_logits(features[0], progress)
        cuda = torch.cuda.is_available()
        bf16 = cuda and torch.cuda.is_bf16_supported()
        steps = -(-len(data.train.rows) // recipe.batch_size) * recipe.epochs
        arguments = TrainingArguments(
            output_dir=str(self.work),
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=2 * recipe.batch_size,
            learning_rate=recipe.learning_rate,
            warmup_steps=round(recipe.warmup * steps),
            weight_decay=recipe.weight_decay,
            seed=recipe.seed,
            bf16=bf16,
            fp16=cuda and not bf16,
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model=self.metric,
            greater_is_better=True,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            # Examples of similar length come together, so their order is another than the set's.
            label_names=["labels", "index"],
            dataloader_pin_memory=cuda,
            disable_tqdm=True,
            report_to=[name for name in self.reporters if name != "tensorboard"],
            run_name=self._name,
        )
        trainer = Trainer(
            model=network,
            args=arguments,
            train_dataset=TrainingSet(data.train, features[0], teacher),
            eval_dataset=TrainingSet(data.dev, features[1]),
            data_collator=collate,
            compute_metrics=lambda output: dev_metrics(
                spec,
                output.predictions[output.label_ids[1].argsort()],
                data.dev,
                None if branch.chain is None else branch.chain.numpy(spec.labels),
            ),
            optimizers=(_optimizer(branch, recipe), None),
            callbacks=[
                _Stop(self._history, until),
                _Report(progress, self.metric),
                *self._tensorboard(),
            ],
        )
        # It would print to standard output, which belongs to results.
        trainer.remove_callback(PrinterCallback)
        return trainer

    @property
    def _name(self) -> str:
        return self.work.name.strip(".").removesuffix(".work")

    def _tensorboard(self) -> list[TrainerCallback]:
        """Trainer's own callback, writing beside the work folder, which goes when all is done."""
        if "tensorboard" not in self.reporters:
            return []
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        return [TensorBoardCallback(SummaryWriter(str(self.work.parent / "runs" / self._name)))]

    def _features(self, split: Split, progress: Progress) -> Features | None:
        if self.cache is None:
            return None
        taps = [self.spec.tap_layer]
        self.cache.ensure(self.backbone, self.reader, split.rows, taps, progress)
        return self.cache.find(self.backbone, split.rows, self.spec.tap_layer)

    def _teacher_logits(
        self, features: Features | None, progress: Progress
    ) -> list[np.ndarray] | None:
        """The teacher's answers to the training set, computed once instead of in every epoch."""
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
            if spec.kind == "tagging":
                rows = data.train.rows[start:stop]
                found += [a[: len(row.input_ids)] for a, row in zip(arrays, rows, strict=True)]
            else:
                found += [*arrays]
            progress("teacher", stop, len(examples))
        return found

    def _prepare(self) -> None:
        """Make the work folder; what a run with other settings or data left there is removed."""
        run = sha256(canonical_json(json.loads(self.spec.to_bytes())))
        marker = self.work / "run"
        if marker.is_file() and marker.read_bytes() == run.encode():
            for checkpoint in _checkpoints(self.work):
                # Trainer writes its state last: without it the process died while writing.
                if not _is_json(checkpoint / _STATE):
                    shutil.rmtree(checkpoint)
            return
        try:
            # The marker goes first: half of what it stood for must not be taken for the whole.
            marker.unlink(missing_ok=True)
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True)
            marker.write_bytes(run.encode())
        except OSError as error:
            raise StoreNotWritableError(f"cannot write {self.work}: {error.strerror}") from error

    def _history(self, log: Sequence[dict[str, Any]]) -> History:
        return History.of_log(log, kind=self.spec.kind, metric=self.metric, recipe=self.recipe)

    def _read_history(self) -> History | None:
        """What is known of the epochs so far: from their file, or else from the last checkpoint."""
        try:
            found = json.loads((self.work / _HISTORY).read_text())
            epochs = tuple(Epoch(**epoch) for epoch in found["epochs"])
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            epochs = ()
        if _checkpoints(self.work):
            # Killed between a checkpoint and the file, the file is missing or one pause behind.
            logged = self._history(_last_state(self.work)["log_history"])
            if len(logged.epochs) > len(epochs):
                return logged
        return History(found["metric"], epochs, found["finished"]) if epochs else None


def _optimizer(branch: Branch, recipe: Recipe) -> torch.optim.AdamW | None:
    """For a head with a CRF; None leaves the choice to Trainer.

    A chain begins at zero and its scores must come to the size of logits, which AdamW, whose steps
    are of the size of the learning rate, would not reach with the layers' rate.
    """
    if branch.chain is None:
        return None
    chain = [*branch.chain.parameters()]
    own = {id(parameter) for parameter in chain}
    others = [parameter for parameter in branch.parameters() if id(parameter) not in own]
    return torch.optim.AdamW(
        [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
            {"params": chain, "weight_decay": 0.0, "lr": _CHAIN_RATE * recipe.learning_rate},
        ],
        lr=recipe.learning_rate,
    )


def discard(work: Path) -> None:
    """Remove a run's checkpoints: it is given up, or its module has been taken."""
    for checkpoint in _checkpoints(work):
        shutil.rmtree(checkpoint, ignore_errors=True)


def _checkpoints(work: Path) -> list[Path]:
    return list(work.glob("checkpoint-*"))


def _last_state(work: Path) -> dict[str, Any]:
    """Trainer's state in the last checkpoint."""
    last = max(_checkpoints(work), key=lambda path: int(path.name.rpartition("-")[2]))
    state: dict[str, Any] = json.loads((last / _STATE).read_text())
    return state


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
                f"the {'recipe' if what == 'tap' else 'data'} {expected}"
            )
    if recipe.crf and not teacher.head.crf:
        raise UsageError(f"crf: a student has its teacher's head, and {path} has no CRF")
    if recipe.depth > teacher.depth:
        raise UsageError(
            f"depth {recipe.depth}: the teacher {path} has {teacher.depth} layers of its own, "
            "and a student starts from the lowest of them"
        )


class _Stop(TrainerCallback):  # type: ignore[misc]
    """Stops where the run is to pause or is finished; the epoch's checkpoint comes first.

    Trainer's own early stopping forgets over a pause how long there was no better epoch.
    """

    def __init__(self, history: Callable[[Sequence[dict[str, Any]]], History], until: int) -> None:
        self._history = history
        self._until = until

    def on_evaluate(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        history = self._history(state.log_history)
        if history.finished or len(history.epochs) >= self._until:
            control.should_training_stop = True


class _Report(TrainerCallback):  # type: ignore[misc]
    """Trainer's events as calls of a :data:`centra.progress.Progress`."""

    def __init__(self, progress: Progress, metric: str) -> None:
        self._progress = progress
        self._metric = metric
        self._best = ""

    def on_step_end(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        epoch = -(-state.global_step * args.num_train_epochs // state.max_steps)
        what = f"epoch {epoch:.0f}/{args.num_train_epochs:.0f}{self._best}"
        self._progress(what, state.global_step, state.max_steps)

    def on_evaluate(self, _args: Any, _state: Any, _control: Any, metrics: Any, **_: Any) -> None:
        self._best = f" · dev {self._metric} {metrics[f'eval_{self._metric}']:.4f}"

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        best = state.best_metric or 0.0
        self._progress(
            f"trained, best dev {self._metric} {best:.4f}", state.max_steps, state.max_steps
        )


@torch.inference_mode()
def make_module(spec: TaskSpec, trunk: Trunk, branch: Branch, probe: Encoded) -> TaskModule:
    """Put a trained branch and its probe together into a module.

    Args:
        spec: what it says about itself.
        trunk: a trunk at least as deep as the tap.
        branch: in evaluation mode, on the CPU.
        probe: the inputs to record, ``(batch, seq)`` each.
    """
    inputs = {
        name: torch.from_numpy(getattr(probe, name))
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    hidden = trunk(**inputs, taps=[spec.tap_layer])[spec.tap_layer]
    logits = branch(hidden, trunk.shared_state(inputs["attention_mask"]))
    return TaskModule(
        spec,
        branch.tensors()
        | {f"probe.{name}": tensor for name, tensor in inputs.items()}
        | {"probe.logits": logits},
    )


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own log lines out; its errors come as exceptions."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
