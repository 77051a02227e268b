"""What a student takes from its teacher: vanilla distillation of logits (Hinton et al. 2015)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.formats.documents import canonical_json
from centra.kinds.tagging import IGNORED
from centra.modeling.words import log_marginals

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from centra.modeling.crf import LinearChain

__all__ = ["SOFT_TARGETS", "SoftTargets", "soft_logits"]

SOFT_TARGETS = "answers.safetensors"
"""The name of a teacher's answers beside the data."""


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """A teacher's answers to a training set, as they lie beside it."""

    logits: list[np.ndarray]
    """Per example ``(1, outputs)``, or ``(words, outputs)``."""
    labelled: np.ndarray
    """``(examples,)``: whether its label is one that was given, and not the teacher's answer."""
    agreement: bool
    """Whether the dev set's labels are the teacher's answers."""
    teacher: dict[str, Any]
    """What a module's record says of the teacher."""

    def to_bytes(self) -> bytes:
        """The file."""
        from safetensors.numpy import save

        tensors = {
            "logits": np.concatenate(self.logits),
            "lengths": np.array([len(array) for array in self.logits], dtype=np.int64),
            "labelled": self.labelled.astype(np.uint8),
        }
        said = {"agreement": self.agreement, "teacher": self.teacher}
        return save(tensors, metadata={"centra": canonical_json(said).decode()})

    @classmethod
    def read(cls, path: Path) -> SoftTargets:
        """Read a file that :meth:`to_bytes` gave."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            said = json.loads(file.metadata()["centra"])
            stored = {name: file.get_tensor(name) for name in ("logits", "lengths", "labelled")}
        return cls(
            logits=np.split(stored["logits"], np.cumsum(stored["lengths"])[:-1]),
            labelled=stored["labelled"].astype(bool),
            **said,
        )


def soft_logits(
    logits: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    chain: LinearChain | None = None,
) -> torch.Tensor:
    """A teacher's logits as a student without its chain can follow them.

    Args:
        logits: the teacher's, ``(batch, outputs)`` or ``(batch, seq, outputs)``.
        targets: as :meth:`centra.kinds.base.Kind.target`, stacked; they tell which tokens carry
            tags.
        temperature: the student's.
        chain: of a teacher with a CRF.

    Returns:
        The logits themselves; of a CRF such logits of each token that their softmax at this
        temperature is the token's marginal distribution.
    """
    if chain is None:
        return logits
    return temperature * log_marginals(logits, targets, targets != IGNORED, temperature, chain)
