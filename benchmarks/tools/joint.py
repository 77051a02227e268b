"""One model for all tasks, the peer of many modules: joint training, and leaving one task out.

Joint training is the paper's MT-DNN (Liu et al. 2019): all tasks share one encoder whose layers all
learn, each has a head of its own, and a batch holds one task's examples. Leaving one out measures
what a task gets that comes later: the encoder of the others stays as it is, and only the new head
learns. Networks, losses, metrics and settings are those of Centra's own training.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benchmarks.tools.joint_run import Metrics, Part, by_length, device, fit, precision
from centra.errors import UsageError
from centra.formats.documents import canonical_json, sha256
from centra.kinds import kind_named
from centra.modeling.branch import Branch
from centra.modeling.trunk import Trunk
from centra.progress import Progress, silent
from centra.system.files import replacing
from centra.tokenization.text_encoder import Encoded
from centra.training.network import Network
from centra.training.recipe import Distillation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader
    from centra.training.recipe import Recipe
    from centra.training.task_data import Split, TaskData

__all__ = ["fit_head", "train_joint", "train_leave_one_out"]


def train_joint(
    backbone: BackboneSpec,
    reader: BlobReader,
    datas: Mapping[str, TaskData],
    recipe: Recipe,
    *,
    work: Path,
    progress: Progress = silent,
) -> dict[str, Metrics]:
    """Train one model on all tasks.

    Like :func:`train_leave_one_out` it goes on from the last finished epoch when called again after
    a kill, and does nothing again that is done: results stay in ``work``, named by all settings.

    Args:
        backbone: what the encoder starts from; its embeddings stay frozen.
        reader: where its blobs are.
        datas: the tasks, encoded at the recipe's ``max_length``.
        recipe: the settings, with tap 0 and all layers; patience goes by the average of the tasks'
            first metrics, as does the choice of the best epoch.
        work: a folder for checkpoints and results, which several calls may share.
        progress: told of each step.

    Returns:
        The dev metrics of each task after the best epoch.

    Raises:
        UsageError: no tasks, or a setting that does not suit the backbone or joint training.
        TrainingDivergedError: the weights became NaN or infinite.
    """
    _check(recipe, backbone, tap=0)
    if not datas:
        raise UsageError("joint training needs at least one task")

    def run(folder: Path) -> dict[str, Metrics]:
        _, parts = _joint(backbone, reader, datas, recipe)
        return fit(parts, recipe, folder, "joint", progress)

    found: dict[str, Metrics] = _once(work, "joint", _settings(backbone, datas, recipe), run)
    return found


def train_leave_one_out(
    backbone: BackboneSpec,
    reader: BlobReader,
    datas: Mapping[str, TaskData],
    recipe: Recipe,
    head: Recipe,
    *,
    work: Path,
    progress: Progress = silent,
) -> dict[str, Metrics]:
    """For each task: train jointly on all others, then only this task's head on that encoder.

    Args:
        backbone, reader, datas, recipe, work, progress: as for :func:`train_joint`; two tasks at
            least.
        head: how the head learns, with a tap above all layers and depth 0. A head alone wants a
            higher learning rate than an encoder.

    Returns:
        The dev metrics of each task as the one left out.

    Raises:
        UsageError: too few tasks, or a setting that does not suit.
        TrainingDivergedError: the weights became NaN or infinite.
    """
    _check(recipe, backbone, tap=0)
    _check(head, backbone, tap=backbone.num_layers)
    if len(datas) < 2:
        raise UsageError("leaving one task out needs at least two tasks")

    def run(task: str, folder: Path) -> Metrics:
        others = {name: data for name, data in datas.items() if name != task}
        encoder, parts = _joint(backbone, reader, others, recipe)
        fit(parts, recipe, folder / "joint", f"without {task}", progress)
        return fit_head(
            backbone, encoder, datas[task], head, work=folder / "head", progress=progress
        )

    settings = _settings(backbone, datas, recipe) | {"head": asdict(head)}
    return {
        task: _once(work, f"without-{task}", settings, partial(run, task)) for task in sorted(datas)
    }


def fit_head(
    backbone: BackboneSpec,
    encoder: Trunk,
    data: TaskData,
    recipe: Recipe,
    *,
    work: Path,
    progress: Progress = silent,
) -> Metrics:
    """Train a head on an encoder that stays as it is; its hidden states are computed once.

    Args:
        backbone: what the encoder was made from.
        encoder: all layers.
        data: the task.
        recipe: the settings.
        work: a folder for checkpoints.
        progress: told of each step.

    Returns:
        The dev metrics after the best epoch.

    Raises:
        TrainingDivergedError: the weights became NaN or infinite.
    """
    torch.manual_seed(recipe.seed)
    branch = _branch(backbone, data, recipe)
    network = Network(data.spec, branch, encoder.shared_state, None, Distillation())
    states = [_hidden_states(encoder, data, split, progress) for split in (data.train, data.dev)]
    part = Part.of(network, data, *states)
    return fit({"head": part}, recipe, work, "head", progress)["head"]


def _joint(
    backbone: BackboneSpec, reader: BlobReader, datas: Mapping[str, TaskData], recipe: Recipe
) -> tuple[Trunk, dict[str, Part]]:
    """The encoder, and for each task a network that shares the encoder's layers."""
    torch.manual_seed(recipe.seed)
    encoder = Trunk(backbone, reader, depth=backbone.num_layers)
    embeddings = Trunk(backbone, reader, depth=0)
    parts = {}
    for task, data in sorted(datas.items()):
        branch = _branch(backbone, data, recipe)
        branch.layers = encoder.layers
        network = Network(data.spec, branch, encoder.shared_state, embeddings, Distillation())
        parts[task] = Part.of(network, data)
    return encoder, parts


def _branch(backbone: BackboneSpec, data: TaskData, recipe: Recipe) -> Branch:
    """A head without layers, at the start that Centra's own training gives it."""
    branch = Branch(backbone, data.spec, dropout=recipe.dropout)
    bias = kind_named(data.spec.kind).first_bias(data.train.targets)
    if bias is not None:
        nn.init.constant_(branch.head.get_parameter("out.bias"), bias)
    return branch


@torch.inference_mode()
def _hidden_states(
    encoder: Trunk, data: TaskData, split: Split, progress: Progress
) -> list[np.ndarray]:
    """Per row ``(seq, hidden)`` after the last layer; its first token where a head reads no more."""
    encoder.to(device()).eval()
    last = len(encoder.layers)
    states: list[np.ndarray] = [np.empty(0)] * len(split.rows)
    done = 0
    for part in by_length(split.rows, 64):
        batch = Encoded.pad([split.rows[i] for i in part], data.pad_token_id)
        inputs = {name: torch.from_numpy(array).to(device()) for name, array in vars(batch).items()}
        with precision():
            hidden = encoder(**inputs, taps=[last])[last].float().cpu().numpy()
        for i, row in zip(part, hidden, strict=True):
            read = len(split.rows[i].input_ids) if data.spec.head.activation is None else 1
            states[i] = row[:read].copy()
        done += len(part)
        progress("hidden states", done, len(split.rows))
    return states


def _check(recipe: Recipe, backbone: BackboneSpec, *, tap: int) -> None:
    recipe.check(backbone)
    depth = backbone.num_layers - tap
    if (recipe.tap, recipe.depth, recipe.metric, recipe.crf) != (tap, depth, None, False):
        raise UsageError(f"expected tap {tap}, depth {depth}, no metric and no crf; found {recipe}")


def _settings(
    backbone: BackboneSpec, datas: Mapping[str, TaskData], recipe: Recipe
) -> dict[str, Any]:
    """All that decides a result."""
    return {
        "backbone": backbone.digest,
        "recipe": asdict(recipe),
        "data": {
            task: [data.fingerprint, len(data.train.rows), len(data.dev.rows)]
            for task, data in datas.items()
        },
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


def _once(work: Path, name: str, settings: dict[str, Any], make: Callable[[Path], Any]) -> Any:
    """A result from its file, or made now in a folder of its own and written down."""
    folder = work / f"{name}-{sha256(canonical_json(settings))[:12]}"
    file = work / f"{folder.name}.json"
    if not file.is_file():
        metrics = make(folder)
        with replacing(file) as temporary:
            temporary.write_bytes(canonical_json({"settings": settings, "metrics": metrics}))
    shutil.rmtree(folder, ignore_errors=True)
    return json.loads(file.read_bytes())["metrics"]
