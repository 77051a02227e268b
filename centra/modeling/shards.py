"""A backbone's weights as torch tensors, checked against its spec on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.torch import load_file

from centra.formats.backbone import check_shard
from centra.formats.tensors import under
from centra.system.processors import bound_torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader

__all__ = ["backbone_layer", "copied_under", "load_shard"]

# Here, because all that computes with torch comes by, and before it computes.
bound_torch()


def load_shard(spec: BackboneSpec, reader: BlobReader, number: int) -> dict[str, torch.Tensor]:
    """The tensors of a backbone's layer, or of its embeddings (0), that are what its spec says.

    Raises:
        FormatError, BlobNotFoundError, CorruptBlobError, StoreError: the shard cannot be had.
    """
    path = reader.fetch((spec.embeddings, *spec.layers)[number])
    check_shard(spec, number, path)
    tensors: dict[str, torch.Tensor] = load_file(path)
    return tensors


def backbone_layer(spec: BackboneSpec, reader: BlobReader, number: int) -> dict[str, torch.Tensor]:
    """The tensors of one backbone layer under their names within the layer, copied as below.

    Args:
        spec: the backbone.
        reader: where its blobs are.
        number: the layer, from 1.
    """
    tensors = spec.within_layer(load_shard(spec, reader, number), number)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def copied_under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under a prefix, copied out of the mapped file.

    Copies begin at aligned addresses. Products with one output add up in an order that depends on
    the alignment, so without copies a value could depend on where in its file a weight lies.
    """
    return {name: tensor.clone() for name, tensor in under(tensors, prefix).items()}
