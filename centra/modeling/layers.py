"""Layers of an encoder as torch modules: transformers' own classes, and the weights for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from centra.families.table import family_of, transformers_class
from centra.formats.backbone import check_shard
from centra.formats.tensors import under
from centra.system.processors import bound_torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader

__all__ = [
    "attention_bias",
    "backbone_layer",
    "copied_under",
    "empty_layer",
    "load_shard",
    "transformers_config",
]

# Here, because all that computes with torch comes by, and before it computes.
bound_torch()


def attention_bias(attention_mask: torch.Tensor) -> torch.Tensor | None:
    """The mask that every layer takes.

    Args:
        attention_mask: ``(batch, seq)``, 1 for tokens and 0 for padding.

    Returns:
        Booleans ``(batch, 1, seq, seq)``, True where a token may look; None where there is no
        padding. These are the masks that transformers itself makes, so results equal its own.
    """
    if bool(attention_mask.all()):
        return None
    batch, length = attention_mask.shape
    return attention_mask.bool()[:, None, None, :].expand(batch, 1, length, length)


def backbone_layer(spec: BackboneSpec, reader: BlobReader, number: int) -> dict[str, torch.Tensor]:
    """The tensors of one backbone layer under their names within the layer.

    Args:
        spec: the backbone.
        reader: where its blobs are.
        number: the layer, from 1.
    """
    prefix = f"{family_of(spec.family).layer_prefix}{number - 1}."
    return copied_under(load_shard(spec, reader, number), prefix)


def load_shard(spec: BackboneSpec, reader: BlobReader, number: int) -> dict[str, torch.Tensor]:
    """The tensors of a backbone's layer, or of its embeddings (0), that are what its spec says."""
    path = reader.fetch((spec.embeddings, *spec.layers)[number])
    check_shard(spec, number, path)
    tensors: dict[str, torch.Tensor] = load_file(path)
    return tensors


def transformers_config(spec: BackboneSpec) -> Any:
    """Transformers' config of a backbone's layers."""
    family = family_of(spec.family)
    return transformers_class(family, family.config)(**spec.config, attn_implementation="sdpa")


def empty_layer(spec: BackboneSpec, config: Any) -> nn.Module:
    """A layer without weights, in evaluation mode."""
    family = family_of(spec.family)
    with torch.device("meta"):
        layer: nn.Module = transformers_class(family, family.layer)(config)
    return layer.eval()


def copied_under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under a prefix, copied out of the mapped file.

    Copies begin at aligned addresses. Products with one output add up in an order that depends on
    the alignment, so without copies a value could depend on where in its file a weight lies.
    """
    return {name: tensor.clone() for name, tensor in under(tensors, prefix).items()}
