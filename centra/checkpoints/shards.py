"""An encoder's weights, cut into the canonical shards that a backbone's digests name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.errors import FormatError
from centra.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from centra.families.base import Family

__all__ = ["canonical_shards", "check_finite_weights", "shard_tensors"]


def canonical_shards(
    state: Mapping[str, torch.Tensor],
    family: Family,
    settings: Mapping[str, Any],
    progress: Progress = silent,
) -> list[bytes]:
    """An encoder's shards as canonical safetensors bytes: embeddings, then layer by layer.

    Args:
        state: the encoder's own state dict, names without the family's checkpoint prefix.
        family: the encoder family, which says what belongs together.
        settings: the encoder's.
        progress: told of each layer.
    """
    embeddings, *layers = shard_tensors(state, family, settings)
    written = [_canonical(embeddings)]
    for number, layer in enumerate(layers, 1):
        # One that is the same weights as the layer below it is not written anew.
        same = number > 1 and layer.keys() == layers[number - 2].keys()
        written.append(written[-1] if same else _canonical(layer))
        progress("shard layers", number, len(layers))
    return written


def shard_tensors(
    state: Mapping[str, torch.Tensor], family: Family, settings: Mapping[str, Any]
) -> list[dict[str, torch.Tensor]]:
    """An encoder's tensors, shard by shard; see :func:`canonical_shards`."""
    return [
        {name: state[name] for name in family.shard_shapes(settings, number)}
        for number in range(settings[family.layers_key] + 1)
    ]


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
