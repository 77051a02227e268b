"""What Hugging Face's ``Trainer`` trains: a branch over frozen states, with the task's loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from centra.kinds import kind_named
from centra.kinds.tagging import IGNORED
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.formats.task_module import TaskSpec
    from centra.modeling.branch import Branch
    from centra.modeling.shared_state import PositionTables
    from centra.modeling.trunk import Trunk
    from centra.tokenization.text_encoder import Row
    from centra.training.features import Features
    from centra.training.recipe import Distillation
    from centra.training.task_data import Split

__all__ = ["Network", "TrainingSet", "collator"]


class Network(nn.Module):
    """A branch that learns, on a trunk that does not; a dict with a loss comes out.

    Without a trunk the tap's hidden states must come with the batch.
    """

    def __init__(
        self,
        spec: TaskSpec,
        branch: Branch,
        shared_state: PositionTables,
        trunk: Trunk | None,
        distillation: Distillation,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.kind = kind_named(spec.kind)
        self.branch = branch.requires_grad_(requires_grad=True)
        self.shared_state = shared_state
        self.trunk = trunk
        self.distillation = distillation
        # Checkpoints hold what learns; the trunk is in the store.
        self.register_state_dict_post_hook(_drop_trunk)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_excuse_trunk)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> Network:  # noqa: FBT001, FBT002 - torch's own signature
        """Training mode for the branch alone: the trunk's dropout stays off."""
        super().train(mode)
        if self.trunk is not None:
            self.trunk.eval()
        return self

    def forward(
        self,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        *,
        index: torch.Tensor | None = None,  # noqa: ARG002 - Trainer's way to know an example again
        input_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        hidden_states: torch.Tensor | None = None,
        teacher: torch.Tensor | None = None,
        labelled: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The loss of a batch, and its logits.

        Args:
            attention_mask: ``(batch, seq)``, 1 for tokens and 0 for padding.
            labels: as :meth:`centra.kinds.base.Kind.target`, stacked.
            index: ``(batch,)``, the places of the examples in their set; not read.
            input_ids, token_type_ids: ``(batch, seq)``, for the trunk.
            hidden_states: ``(batch, seq, hidden)`` at the tap; instead of those.
            teacher: the teacher's logits, shaped like this branch's own; only while training.
            labelled: with these, ``(batch,)``: which examples have labels to learn from, too; by
                default all.
        """
        tap = self.spec.tap_layer
        if hidden_states is None:
            if self.trunk is None:
                raise ValueError("a network without a trunk needs hidden states")
            with torch.no_grad():
                taps = self.trunk(input_ids, attention_mask, token_type_ids, [tap])
            hidden_states = taps[tap]
        # Dev scores stay those of float32, in which the module is served.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training and _computes_bfloat16()):
            logits = self.branch(hidden_states, self.shared_state(attention_mask))
        logits = logits.float()
        if teacher is None:
            found = self.kind.loss(logits, labels, self.branch.chain)
        elif labelled is None or bool(labelled.all()):
            found = self._taught(logits, labels, teacher, self.distillation.weight)
        else:
            # Who has no label has only a teacher.
            parts = ((labelled, self.distillation.weight), (~labelled, 1.0))
            found = sum(
                (
                    part.sum() * self._taught(logits[part], labels[part], teacher[part], weight)
                    for part, weight in parts
                    if bool(part.any())
                ),
                start=logits.new_zeros(()),
            ) / len(labelled)
        return {"loss": found, "logits": logits}

    def _taught(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, weight: float
    ) -> torch.Tensor:
        """The loss by labels and teacher, of which the teacher has this weight."""
        soft = self.kind.soft_loss(
            logits,
            teacher,
            labels,
            temperature=self.distillation.temperature,
            chain=self.branch.chain,
        )
        if weight == 1:
            return soft
        return (1 - weight) * self.kind.loss(logits, labels, self.branch.chain) + weight * soft


class TrainingSet(torch.utils.data.Dataset[dict[str, Any]]):
    """Encoded examples with their targets and, where there are any, hidden states and teacher."""

    def __init__(
        self,
        split: Split,
        features: Features | None,
        teacher: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.split = split
        self._features = features
        self._teacher = teacher

    def __len__(self) -> int:
        """How many examples."""
        return len(self.split.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example."""
        row = self.split.rows[index]
        # Trainer groups examples of similar length by the key "input_ids".
        item = {
            "row": row,
            "input_ids": row.input_ids,
            "labels": self.split.targets[index],
            "index": np.array(index),
        }
        if self._features is not None:
            item["hidden_states"] = self._features[index]
        if self._teacher is not None:
            item["teacher"] = self._teacher[index]
        if self.split.labelled is not None:
            item["labelled"] = self.split.labelled[index]
        return item


def collator(
    spec: TaskSpec, pad_token_id: int
) -> Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]:
    """The function that pads items of a :class:`TrainingSet` into a batch for :class:`Network`."""
    tokens = spec.reads_every_token

    def collate(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows: list[Row] = [item["row"] for item in items]
        batch = Encoded.pad(rows, pad_token_id)
        width = batch.input_ids.shape[1]
        arrays = {
            "attention_mask": batch.attention_mask,
            "labels": _stack(items, "labels", width if tokens else None, IGNORED),
            "index": _stack(items, "index", None, 0),
        }
        if "hidden_states" in items[0]:
            arrays["hidden_states"] = _stack(items, "hidden_states", width, 0)
        else:
            arrays |= {"input_ids": batch.input_ids, "token_type_ids": batch.token_type_ids}
        if "teacher" in items[0]:
            arrays["teacher"] = _stack(items, "teacher", width if tokens else None, 0)
        if "labelled" in items[0]:
            arrays["labelled"] = _stack(items, "labelled", None, 0)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    return collate


def _stack(
    items: Sequence[dict[str, Any]], name: str, width: int | None, fill: float
) -> np.ndarray:
    """The items' arrays in one, each padded at its end to ``width`` where one is given."""
    arrays = [item[name] for item in items]
    if width is None:
        return np.stack(arrays)
    stacked = np.full((len(arrays), width, *arrays[0].shape[1:]), fill, dtype=arrays[0].dtype)
    for place, array in zip(stacked, arrays, strict=True):
        place[: len(array)] = array
    return stacked


def _computes_bfloat16() -> bool:
    """Whether the CPU multiplies in it at several times float32's speed, rather than emulates it."""
    # Earlier versions of torch than 2.10 do not tell.
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def _drop_trunk(
    _module: nn.Module, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]
) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}trunk.")]:
        del state[name]


def _excuse_trunk(_module: nn.Module, result: Any) -> None:
    result.missing_keys[:] = [k for k in result.missing_keys if not k.startswith("trunk.")]
