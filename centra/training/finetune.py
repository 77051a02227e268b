"""Partial fine-tuning (paper section 3.1): the layers above the tap learn, those below stay frozen.

The branch starts as a copy of the backbone's own layers tap + 1 … tap + depth. Training itself is
Hugging Face's ``Trainer``: mixed precision and several GPUs come from it where there are any.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from centra.data import Encoded, Example, Row, TextEncoder, fingerprint, read_examples
from centra.documents import canonical_json, sha256
from centra.encoder import Branch, Trunk, backbone_layer
from centra.errors import (
    DataError,
    FormatError,
    StoreNotWritableError,
    TrainingDivergedError,
    UsageError,
)
from centra.progress import Progress, silent
from centra.task_module import HeadSpec, TaskModule, TaskSpec
from centra.training.metrics import check_metric
from centra.training.targets import IGNORED, dev_metrics, infer_contract, loss, target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from centra.backbone import BackboneSpec
    from centra.blobs import BlobReader

__all__ = ["Recipe", "finetune", "make_module"]

_PROBE_SIZE = 8
_SHORTEST = 8
"""Tokens: the special ones of a pair and a few words."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one task."""

    tap: int
    """The frozen layer to read, from 0."""
    depth: int
    """How many layers learn."""
    epochs: int = 10
    """At most; early stopping may end sooner."""
    learning_rate: float = 1e-4
    """At its peak, after the warm-up."""
    batch_size: int = 32
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = 0.01
    dropout: float = 0.1
    """Before the output layer; inside the layers the backbone's own setting holds."""
    patience: int = 3
    """Epochs without a better dev metric after which training stops."""
    metric: str | None = None
    """The dev metric to select by; None takes the kind's first in
    :data:`centra.training.metrics.METRICS`."""
    max_length: int = 0
    """Tokens kept of each training input; 0 for the backbone's maximum."""
    seed: int = 0

    def check(self, backbone: BackboneSpec) -> None:
        """Refuse settings that cannot be trained.

        Raises:
            UsageError: naming the setting.
        """
        layers = backbone.num_layers
        if not 0 <= self.tap <= layers:
            raise UsageError(f"tap {self.tap}: the backbone has layers 0 to {layers}")
        if not 0 <= self.depth <= layers - self.tap:
            raise UsageError(
                f"depth {self.depth}: above tap {self.tap} the backbone has "
                f"{layers - self.tap} layers to start from"
            )
        for name in ("epochs", "batch_size", "learning_rate", "patience"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be greater than 0")
        for name in ("warmup", "weight_decay", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie between 0 and 1")
        if self.max_length != 0 and self.max_length < _SHORTEST:
            raise UsageError(f"max_length must be 0 or at least {_SHORTEST} tokens")
        if not 0 <= self.seed < 2**32:
            raise UsageError("seed must not be negative, and be below 2^32")


def finetune(
    backbone: BackboneSpec,
    reader: BlobReader,
    data: Path,
    recipe: Recipe,
    *,
    work: Path,
    progress: Progress = silent,
) -> TaskModule:
    """Train a task module.

    A run that was killed goes on from its last finished epoch when called again with the same
    arguments and data; ``work`` holds its checkpoints until it is done.

    Args:
        backbone: the frozen encoder.
        reader: where its blobs are.
        data: a folder with ``train.jsonl`` and ``dev.jsonl``; see
            :func:`centra.data.read_examples`.
        recipe: the settings.
        work: a folder of this run's own; removed at the end.
        progress: told of each step and of the dev metric after each epoch.

    Returns:
        The module with the best dev metric, its probe taken from the dev set.

    Raises:
        UsageError: a setting that does not suit the backbone or the kind.
        DataError: missing, empty or malformed data; a dev label that is not in train.
        TrainingDivergedError: the weights became NaN or infinite.
        StoreNotWritableError: ``work`` cannot be written.
    """
    recipe.check(backbone)
    files = [data / "train.jsonl", data / "dev.jsonl"]
    train, dev = (read_examples(path) for path in files)
    kind, form, labels = infer_contract(train)
    spec = TaskSpec(
        kind=kind,
        input=form,
        labels=labels,
        backbone=backbone.digest,
        tap_layer=recipe.tap,
        depth=recipe.depth,
        head=HeadSpec(activation=None if kind == "tagging" else "tanh"),
        training={
            "data": fingerprint(files),
            "examples": len(train),
            "recipe": asdict(recipe),
            "versions": {name: version(name) for name in ("torch", "transformers")},
        },
    )
    try:
        spec.check(str(files[0]))
    except FormatError as error:
        raise DataError(str(error)) from error
    metric = check_metric(kind, recipe.metric)
    if infer_contract(dev)[:2] != (kind, form):
        raise DataError(f"{files[1]}: its examples are of another kind or form than {files[0]}")
    encoder = TextEncoder.of(backbone, reader, max_length=recipe.max_length)
    datasets = [_Dataset(spec, examples, encoder) for examples in (train, dev)]
    torch.manual_seed(recipe.seed)
    model = _Model(spec, backbone, reader, recipe)
    if kind == "regression":
        # From the mean on: the head need not first learn the scale of the values.
        bias = model.branch.head.get_parameter("out.bias")
        nn.init.constant_(bias, float(np.mean(datasets[0].targets)))
    resume = _prepare(work, spec)
    trainer = _trainer(
        model,
        datasets,
        recipe,
        metric=metric,
        work=work,
        pad_token_id=encoder.pad_token_id,
        progress=progress,
    )
    with _quiet():
        trainer.train(resume_from_checkpoint=resume)
        predicted = trainer.predict(datasets[1])
    scores = dev_metrics(spec, predicted.predictions, predicted.label_ids)
    spec = spec.model_copy(update={"metrics": {k: round(v, 6) for k, v in scores.items()}})
    model.eval().to("cpu")
    rows = datasets[1].rows[:_PROBE_SIZE]
    module = make_module(spec, model.trunk, model.branch, Encoded.pad(rows, encoder.pad_token_id))
    if not all(bool(tensor.isfinite().all()) for tensor in module.tensors.values()):
        raise TrainingDivergedError(recipe.learning_rate)
    shutil.rmtree(work, ignore_errors=True)
    return module


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
    logits = branch(hidden, inputs["attention_mask"])
    return TaskModule(
        spec,
        branch.tensors()
        | {f"probe.{name}": tensor for name, tensor in inputs.items()}
        | {"probe.logits": logits},
    )


class _Dataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Encoded examples with their targets."""

    def __init__(self, spec: TaskSpec, examples: Sequence[Example], encoder: TextEncoder) -> None:
        self.rows = encoder.encode(example.input for example in examples)
        self.targets = [
            target(spec, example, row) for example, row in zip(examples, self.rows, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        # Trainer groups examples of similar length by the key "input_ids".
        return {"row": row, "input_ids": row.input_ids, "labels": self.targets[index]}


class _Model(nn.Module):
    """Frozen trunk and learning branch, as Trainer wants them: a dict with a loss comes out."""

    def __init__(
        self, spec: TaskSpec, backbone: BackboneSpec, reader: BlobReader, recipe: Recipe
    ) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = Trunk(backbone, reader, depth=spec.tap_layer)
        self.branch = Branch(backbone, spec, dropout=recipe.dropout)
        for i, layer in enumerate(self.branch.layers, 1):
            weights = backbone_layer(backbone, reader, spec.tap_layer + i)
            layer.load_state_dict(weights, assign=True)
        self.branch.requires_grad_(requires_grad=True)
        # Checkpoints hold what learns; the trunk is in the store.
        self.register_state_dict_post_hook(_drop_trunk)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_excuse_trunk)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> _Model:  # noqa: FBT001, FBT002 - torch's own signature
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        labels: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        tap = self.spec.tap_layer
        with torch.no_grad():
            hidden = self.trunk(input_ids, attention_mask, token_type_ids, [tap])[tap]
        logits = self.branch(hidden, attention_mask)
        return {"loss": loss(self.spec.kind, logits, labels), "logits": logits}


def _drop_trunk(
    _module: nn.Module, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]
) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}trunk.")]:
        del state[name]


def _excuse_trunk(_module: nn.Module, result: Any) -> None:
    result.missing_keys[:] = [k for k in result.missing_keys if not k.startswith("trunk.")]


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


def _trainer(
    model: _Model,
    datasets: Sequence[_Dataset],
    recipe: Recipe,
    *,
    metric: str,
    work: Path,
    pad_token_id: int,
    progress: Progress,
) -> Trainer:
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows: list[Row] = [item["row"] for item in items]
        batch = Encoded.pad(rows, pad_token_id)
        targets = [item["labels"] for item in items]
        if model.spec.kind == "tagging":
            width = batch.input_ids.shape[1]
            targets = [np.pad(t, (0, width - len(t)), constant_values=IGNORED) for t in targets]
        arrays = {**vars(batch), "labels": np.stack(targets)}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    steps = -(-len(datasets[0]) // recipe.batch_size) * recipe.epochs
    arguments = TrainingArguments(
        output_dir=str(work),
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
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=True,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        report_to=[],
        logging_strategy="no",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=datasets[0],
        eval_dataset=datasets[1],
        data_collator=collate,
        compute_metrics=lambda output: dev_metrics(
            model.spec, output.predictions, output.label_ids
        ),
        callbacks=[EarlyStoppingCallback(recipe.patience), _Report(progress, metric)],
    )
    # It would print to standard output, which belongs to results.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _prepare(work: Path, spec: TaskSpec) -> bool:
    """Make the work folder; true where a run with the same settings and data left a checkpoint."""
    run = sha256(canonical_json(json.loads(spec.to_bytes())))
    marker = work / "run"
    if marker.is_file() and marker.read_bytes() == run.encode():
        whole = False
        for checkpoint in work.glob("checkpoint-*"):
            # Trainer writes its state last: without it the process died while writing.
            if _is_json(checkpoint / "trainer_state.json"):
                whole = True
            else:
                shutil.rmtree(checkpoint)
        return whole
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        marker.write_bytes(run.encode())
    except OSError as error:
        raise StoreNotWritableError(f"cannot write {work}: {error.strerror}") from error
    return False


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError):
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
