"""An encoder's weights, cut into the canonical shards that a backbone's digests name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import FormatError
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from centra.families.table import Family

__all__ = ["Shards", "check_finite_weights", "shard"]


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The state dict of an encoder, cut into canonical safetensors bytes."""

    embeddings: bytes
    layers: list[bytes]


def shard(state: Mapping[str, torch.Tensor], family: Family, progress: Progress = silent) -> Shards:
    """Cut an encoder's state dict into canonical shards.

    Args:
        state: the encoder's own state dict, names without the family's checkpoint prefix.
        family: which names are layers.
        progress: told of each layer.
    """
    embeddings = {name: t for name, t in state.items() if name.startswith("embeddings")}
    layers: list[dict[str, torch.Tensor]] = []
    while part := _layer(state, family, len(layers)):
        layers.append(part)
    written = []
    for number, layer in enumerate(layers, 1):
        written.append(_canonical(layer))
        progress("shard layers", number, len(layers))
    return Shards(embeddings=_canonical(embeddings), layers=written)


def check_finite_weights(state: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        FormatError: naming the first such tensor.
    """
    import torch

    for name, tensor in state.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise FormatError(
                f"{source}: tensor {name} holds NaN or infinite values ({bad} of "
                f"{tensor.numel()}). The training run diverged; train again, for example with a "
                "lower learning rate."
            )


def _layer(
    state: Mapping[str, torch.Tensor], family: Family, index: int
) -> dict[str, torch.Tensor]:
    prefix = f"{family.layer_prefix}{index}."
    return {name: tensor for name, tensor in state.items() if name.startswith(prefix)}


def _canonical(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Safetensors bytes that depend on names and values alone (float32, no metadata)."""
    import torch
    from safetensors.torch import save

    return save(
        {
            name: tensors[name].detach().to("cpu", torch.float32).contiguous().clone()
            for name in sorted(tensors)
        }
    )
