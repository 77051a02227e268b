"""One training run of tasks that may share weights; it can be cut anywhere and goes on later.

Optimizer, schedule, clipping, batches of similar length and mixed precision are as in Centra's own
training. A checkpoint after each epoch is one safetensors file, so a kill loses at most one epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers.trainer_pt_utils import get_length_grouped_indices

from centra.errors import TrainingDivergedError
from centra.kinds import kind_named
from centra.system.files import replacing
from centra.training.metrics import dev_metrics
from centra.training.network import TrainingSet, collator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from centra.progress import Progress
    from centra.tokenization.text_encoder import Row
    from centra.training.network import Network
    from centra.training.recipe import Recipe
    from centra.training.task_data import TaskData

__all__ = ["Metrics", "Part", "by_length", "device", "fit", "precision"]

Metrics = dict[str, float]


@dataclass(frozen=True)
class Part:
    """One task of a run."""

    network: Network
    train: TrainingSet
    dev: TrainingSet
    collate: Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]

    @classmethod
    def of(
        cls,
        network: Network,
        data: TaskData,
        train: Sequence[np.ndarray] | None = None,
        dev: Sequence[np.ndarray] | None = None,
    ) -> Part:
        """A task with its data; a network without a trunk needs the hidden states of their rows."""
        return cls(
            network,
            TrainingSet(data.train, cast("Any", train)),
            TrainingSet(data.dev, cast("Any", dev)),
            collator(data.spec, data.pad_token_id),
        )

    def run(self, examples: TrainingSet, indices: Iterable[int]) -> dict[str, torch.Tensor]:
        """Labels, loss and logits of some examples."""
        batch = self.collate([examples[i] for i in indices])
        batch = {name: tensor.to(device()) for name, tensor in batch.items()}
        with precision():
            return {"labels": batch["labels"], **self.network(**batch)}

    @torch.inference_mode()
    def evaluate(self, batch_size: int) -> Metrics:
        """The metrics on the dev set; they do not depend on the order of its examples."""
        batches = by_length(self.dev.split.rows, batch_size)
        logits = {
            index: row.float().cpu()
            for indices in batches
            for index, row in zip(indices, self.run(self.dev, indices)["logits"], strict=True)
        }
        ordered = [logits[index] for index in range(len(logits))]
        padded = pad_sequence(ordered, batch_first=True)
        return dev_metrics(self.network.spec, padded.numpy(), self.dev.split)


def device() -> torch.device:
    """Where everything runs."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision() -> torch.autocast:
    """bfloat16 on a GPU that has it."""
    enabled = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=enabled)


def by_length(rows: Sequence[Row], size: int) -> list[list[int]]:
    """The indices of the rows, shortest first, in batches."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    return [order[i : i + size] for i in range(0, len(order), size)]


def fit(
    parts: Mapping[str, Part], recipe: Recipe, work: Path, what: str, progress: Progress
) -> dict[str, Metrics]:
    """Train all parts together, or go on from the last finished epoch.

    Each batch holds one task's examples. The batches of all tasks come in random order, so that
    each task has its share of the steps (MT-DNN, Liu et al. 2019, algorithm 1).

    Args:
        parts: by the tasks' names, always in the same order.
        recipe: the settings; patience and the best epoch go by the average of the tasks' first
            metrics.
        work: a folder of this run's own, for its checkpoints.
        what: what the progress is called.
        progress: told of each step.

    Returns:
        The dev metrics after the best epoch, whose weights the networks have.

    Raises:
        TrainingDivergedError: the weights became NaN or infinite.
    """
    work.mkdir(parents=True, exist_ok=True)
    model = nn.ModuleList(part.network for part in parts.values()).to(device())
    weights = {name: w for name, w in model.named_parameters() if w.requires_grad}
    groups: list[dict[str, Any]] = [
        {"params": [w for w in weights.values() if w.ndim > 1]},
        {"params": [w for w in weights.values() if w.ndim < 2], "weight_decay": 0.0},
    ]
    # Fused: all of its state lies beside the weights, and is saved and loaded as they are.
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    each = sum(-(-len(part.train) // recipe.batch_size) for part in parts.values())
    steps = each * recipe.epochs
    history = _restore(work, weights, optimizer)
    best = _best(parts, history)
    while len(history) < recipe.epochs and len(history) - best < recipe.patience:
        epoch = len(history)
        # From seed and epoch alone, so that an epoch is the same wherever the run was cut.
        seed = np.random.SeedSequence((recipe.seed, epoch)).generate_state(1)
        torch.manual_seed(int(seed[0]))
        model.train()
        for step, (part, indices) in enumerate(_batches(parts, recipe.batch_size), each * epoch):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _share(step, steps, recipe.warmup)
            part.run(part.train, indices)["loss"].backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(weights.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            progress(f"{what}: epoch {epoch + 1}/{recipe.epochs}", step + 1, steps)
        if not all(bool(weight.isfinite().all()) for weight in weights.values()):
            raise TrainingDivergedError(recipe.learning_rate)
        model.eval()
        history.append({t: part.evaluate(2 * recipe.batch_size) for t, part in parts.items()})
        best = _best(parts, history)
        _save(work, weights, optimizer, history)
        for path in work.glob("epoch-*.safetensors"):
            if path not in (_checkpoint(work, len(history)), _checkpoint(work, best)):
                path.unlink()
    _load(_checkpoint(work, best), weights)
    model.eval()
    return history[best - 1]


def _share(step: int, steps: int, warmup: float) -> float:
    """Of the peak learning rate: up over the warm-up, then down to 0 in a straight line."""
    rise = round(warmup * steps)
    return step / rise if step < rise else (steps - step) / (steps - rise)


def _batches(parts: Mapping[str, Part], size: int) -> Iterator[tuple[Part, list[int]]]:
    """An epoch: each task's examples in batches of similar length, the batches in random order."""
    found = []
    for part in parts.values():
        lengths = [len(row.input_ids) for row in part.train.split.rows]
        order = get_length_grouped_indices(lengths, size)
        found += [(part, order[i : i + size]) for i in range(0, len(order), size)]
    return (found[i] for i in torch.randperm(len(found)))


def _best(parts: Mapping[str, Part], history: Sequence[dict[str, Metrics]]) -> int:
    """The number, from 1, of the first best epoch; 0 before there is any."""
    first = {task: kind_named(part.network.spec.kind).metrics[0] for task, part in parts.items()}
    scores = [sum(metrics[task][name] for task, name in first.items()) for metrics in history]
    return scores.index(max(scores)) + 1 if scores else 0


def _checkpoint(work: Path, epoch: int) -> Path:
    return work / f"epoch-{epoch:04}.safetensors"


def _save(
    work: Path,
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    history: Sequence[dict[str, Metrics]],
) -> None:
    """Weights, the optimizer's moments and the metrics so far, in one file and one step."""
    tensors = {f"weight/{name}": weight.detach() for name, weight in weights.items()}
    for name, weight in weights.items():
        tensors |= {f"{key}/{name}": value for key, value in optimizer.state[weight].items()}
    with replacing(_checkpoint(work, len(history))) as temporary:
        save_file(tensors, temporary, {"history": json.dumps(history)})


def _restore(
    work: Path, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> list[dict[str, Metrics]]:
    """Take the last epoch's checkpoint back, where there is one."""
    latest = max(work.glob("epoch-*.safetensors"), default=None)
    if latest is None:
        return []
    for name, tensor in _load(latest, weights).items():
        key, _, weight = name.partition("/")
        optimizer.state[weights[weight]][key] = tensor
    with safe_open(latest, "pt") as file:
        history: list[dict[str, Metrics]] = json.loads(file.metadata()["history"])
    return history


@torch.no_grad()
def _load(path: Path, weights: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Fill the weights from a checkpoint; returns its other tensors."""
    tensors = load_file(path, device=str(device()))
    for name, weight in weights.items():
        weight.copy_(tensors.pop(f"weight/{name}"))
    return tensors
