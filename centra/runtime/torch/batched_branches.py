"""Branches of several tasks at once, from the tap's states to logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch.nn.utils.rnn import pad_sequence

from centra.modeling.heads import head_activation, pooled
from centra.runtime.torch.batched_layers import FirstTokenLayer, Layer
from centra.runtime.torch.stacked import StackedLinear, StackedNorm, unchanged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from centra.families.description import Layer as LayerDescription
    from centra.families.description import Linear
    from centra.formats.head import Head, HeadSteps
    from centra.runtime.torch.shared_layout import SharedLayout

__all__ = ["BranchWeights", "Branches"]


@dataclass(frozen=True, kw_only=True)
class BranchWeights:
    """One task's tensors, where they are computed."""

    layers: Sequence[Mapping[str, torch.Tensor]]
    """By their names within each layer, from the lowest."""
    head: Mapping[str, torch.Tensor]
    """In float32, by their names in a task module."""


class Branches:
    """Branches that read the same tap and have as many layers and the same sort of head."""

    def __init__(
        self,
        branches: Sequence[BranchWeights],
        head: Head,
        described: Sequence[LayerDescription],
        layout: SharedLayout,
    ) -> None:
        """Stack the branches' weights.

        Args:
            branches: at least one; heads may have different numbers of outputs.
            head: of any of them, outputs aside.
            described: how their layers look.
            layout: of what all layers share.
        """
        layers = [*zip(*(branch.layers for branch in branches), strict=True)]
        heads = [branch.head for branch in branches]
        self._pooling = head.pooling
        self._on_tokens, self._on_rows = _Steps(heads, head.on_tokens), _Steps(heads, head.on_rows)
        pairs = [*zip(layers, described, strict=True)]
        self._first = None
        if head.reads_first and pairs:
            self._first = FirstTokenLayer(*pairs.pop(), layout)
        self._layers = [Layer(*pair, layout) for pair in pairs]

    def __call__(self, states: torch.Tensor, *shared: torch.Tensor) -> torch.Tensor:
        """From the tap's states to logits.

        Args:
            states: ``(1, b, l, hidden)``.
            shared: see :meth:`SharedLayout.tensors`.

        Returns:
            ``(t, b, most outputs)``, or ``(t, b, l, most outputs)`` for heads on every token, in
            float32.
        """
        for layer in self._layers:
            states = layer(states, *shared)
        if self._first is not None:
            return self._on_rows(self._first(states, *shared).float())
        batch, length = states.shape[1:3]
        if self._pooling == "first":
            states = states[:, :, :1]
        rows = self._on_tokens(states.flatten(1, 2).float())
        states = rows.view(len(rows), batch, -1, rows.shape[-1])
        if self._pooling is None:
            return states
        real = (shared[0].view(batch, length) == 0).to(states)
        return self._on_rows(pooled(states, self._pooling, real))


class _Steps:
    """Parts of the heads of some tasks, row by row."""

    def __init__(self, heads: Sequence[Mapping[str, torch.Tensor]], steps: HeadSteps) -> None:
        self._norm = unchanged if steps.norm is None else StackedNorm(heads, steps.norm)
        self._dense = None if steps.dense is None else StackedLinear(heads, steps.dense)
        self._activation = head_activation(steps.activation) if steps.dense else None
        self._dense_norm = (
            unchanged if steps.dense_norm is None else StackedNorm(heads, steps.dense_norm)
        )
        self._out = None if steps.out is None else _outputs(heads, steps.out)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """From ``(1 or t, rows, hidden)`` to ``(1 or t, rows, …)``."""
        rows = self._norm(rows)
        if self._dense is not None and self._activation is not None:
            rows = self._activation(self._dense(rows))
        rows = self._dense_norm(rows)
        return rows if self._out is None else self._out(rows)


def _outputs(heads: Sequence[Mapping[str, torch.Tensor]], out: Linear) -> StackedLinear:
    """The output layers, with zeros for outputs that only others have."""
    stacked = {
        end: pad_sequence([head[f"{out.name}.{end}"] for head in heads], batch_first=True)
        for end in ("weight", "bias")
    }
    most = replace(out, outputs=stacked["bias"].shape[1])
    return StackedLinear(
        [{f"{out.name}.{end}": t[i] for end, t in stacked.items()} for i in range(len(heads))], most
    )
