"""A frozen encoder as a set of blobs: embeddings, one shard per layer, tokenizer, ``backbone.json``.

The shards hold float32 tensors under transformers' own names, written canonically, so the digest of
a layer says whether a fine-tuned checkpoint kept it frozen (paper section 3.1). The backbone's own
digest is that of ``backbone.json``, which names all the others; where it came from is not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from centra.documents import Count, Digest, FormattedDocument
from centra.encoder_config import encoder_config, encoder_family, encoder_shapes
from centra.errors import FormatError
from centra.families import Family, family_of
from centra.placing import check_placed, encoder_prefix, harmless
from centra.pretrained import refuse_code
from centra.progress import Progress, silent
from centra.release import FileName  # noqa: TC001 - pydantic reads the annotations
from centra.saved_model import load, read_config, read_headers
from centra.tensors import under
from centra.tokenizer import import_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from centra.blobs import BlobReader, BlobStore

__all__ = [
    "BackboneSpec",
    "Shards",
    "check_finite_weights",
    "check_shards",
    "import_backbone",
    "shard",
]


class BackboneSpec(FormattedDocument):
    """What ``backbone.json`` says: the encoder's shape and the digests of its parts."""

    FORMAT: ClassVar[str] = "centra/backbone"

    family: str
    """transformers' ``model_type``."""
    config: dict[str, Any]
    """The transformers settings that the layers depend on."""
    num_layers: Annotated[int, Field(ge=1)]
    hidden_size: Annotated[int, Field(ge=1)]
    max_length: Annotated[int, Field(ge=1)]
    """Tokens an input may have, special tokens included."""
    pad_token_id: Count
    token_types: bool
    embeddings: Digest
    layers: tuple[Digest, ...]
    """The digest of each layer's shard; layer i of the paper is ``layers[i - 1]``."""
    layer_tensors: dict[str, tuple[Count, ...]]
    """Name and shape of each tensor of one layer, as in transformers."""
    tokenizer: dict[FileName, Digest]
    """Tokenizer files by name; ``tokenizer.json`` is always among them."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse a number of layers that is not that of the layers which are named."""
        if len(self.layers) != self.num_layers:
            raise ValueError(f"num_layers is {self.num_layers}, but {len(self.layers)} are named")
        if "tokenizer.json" not in self.tokenizer:
            raise ValueError("names no tokenizer.json")
        return self

    @property
    def vocab_size(self) -> int:
        """How many token ids the embeddings know."""
        return int(self.config["vocab_size"])

    def blobs(self) -> set[str]:
        """The digests of all its parts, ``backbone.json`` included."""
        return {self.digest, self.embeddings, *self.layers, *self.tokenizer.values()}

    @classmethod
    def fetch(cls, digest: str, reader: BlobReader) -> BackboneSpec:
        """Read a registered backbone's spec from a store or a release.

        Raises:
            BlobNotFoundError, CorruptBlobError, StoreError: see :meth:`BlobReader.fetch`.
            FormatError: the blob is no backbone document of a supported version.
        """
        path = reader.fetch(digest)
        return cls.from_bytes(path.read_bytes(), str(path))


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The state dict of an encoder, cut into canonical safetensors bytes."""

    embeddings: bytes
    layers: list[bytes]


def import_backbone(
    source: str, store: BlobStore, *, revision: str | None = None, progress: Progress = silent
) -> BackboneSpec:
    """Take a transformers encoder into a store.

    Args:
        source: a folder written by ``save_pretrained``, or a Hugging Face hub name.
        store: receives the shards, the tokenizer files and ``backbone.json``.
        revision: the hub's branch, tag or commit.
        progress: told of each part.

    Returns:
        The spec; its digest names the backbone.

    Raises:
        NotFoundError: there is no such folder or hub repository.
        IncompatibleError: a family that Centra does not know, a decoder, relative positions; a
            tensor that has no place in the encoder (it is named); code of its own (``auto_map``);
            a tokenizer whose ids Centra cannot repeat.
        FormatError: config.json or the weights are damaged, contradict each other or are pickled,
            or the tokenizer has no fast form.
        StoreError, StoreNotWritableError: the store refused.
    """
    raw = read_config(source, revision)
    refuse_code(source, revision)
    family = encoder_family(raw, source)
    headers = read_headers(source, revision)
    prefix = encoder_prefix(headers, family, source)
    stored = under(headers, prefix)
    config = encoder_config(
        raw, family, {name: tensor.shape for name, tensor in stored.items()}, source
    )
    shapes = encoder_shapes(config, family)
    check_placed(
        headers,
        {prefix + name: shape for name, shape in shapes.items()},
        harmless(family, prefix, heads=True),
        source,
        family.model,
    )
    tokenizer = import_tokenizer(source, config, family, revision)
    state = {name: tensor.float() for name, tensor in load({n: stored[n] for n in shapes}).items()}
    check_finite_weights(state, source)
    shards = shard(state, family, progress)
    settings = {key: getattr(config, key) for key in family.config_keys}
    spec = BackboneSpec(
        family=family.model_type,
        config=settings,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        max_length=tokenizer.max_length,
        pad_token_id=config.pad_token_id or 0,
        token_types=tokenizer.token_types,
        embeddings=store.put(shards.embeddings),
        layers=tuple(store.put(layer) for layer in shards.layers),
        layer_tensors=_layer_tensors(state, family),
        tokenizer={name: store.put(data) for name, data in tokenizer.files.items()},
    )
    store.put(spec.to_bytes())
    return spec


def check_shards(spec: BackboneSpec, reader: BlobReader) -> None:
    """Check without torch that a backbone's parts are what its spec says, for one made elsewhere.

    Args:
        spec: what ``backbone.json`` says.
        reader: has all its parts.

    Raises:
        FormatError: a part is damaged, or not what the spec says; it is named.
        IncompatibleError: a family that Centra does not know.
        BlobNotFoundError, CorruptBlobError, StoreError: a part cannot be had.
    """
    from centra.tensors import check_finite, read_raw

    where, family = f"backbone sha256:{spec.digest}", family_of(spec.family)
    prefix = family.layer_prefix
    if len(spec.layers) != spec.num_layers or "tokenizer.json" not in spec.tokenizer:
        raise FormatError(f"{where}: lacks layers or its tokenizer")
    for key in {"vocab_size", "type_vocab_size"}.intersection(family.config_keys):
        if type(spec.config.get(key)) is not int:
            raise FormatError(f"{where}: config.{key}: expected a whole number")
    for index, digest in enumerate((spec.embeddings, *spec.layers)):
        part = f"{where}: layer {index}" if index else f"{where}: embeddings"
        tensors = read_raw(reader.fetch(digest))
        check_finite(tensors, part)
        expected = {
            f"{prefix}{index - 1}.{name}": shape for name, shape in spec.layer_tensors.items()
        }
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if any(t.dtype != "F32" for t in tensors.values()) or (index and found != expected):
            raise FormatError(f"{part}: does not hold the tensors that its spec names")


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


def _layer(
    state: Mapping[str, torch.Tensor], family: Family, index: int
) -> dict[str, torch.Tensor]:
    prefix = f"{family.layer_prefix}{index}."
    return {name: tensor for name, tensor in state.items() if name.startswith(prefix)}


def _layer_tensors(state: Mapping[str, torch.Tensor], family: Family) -> dict[str, tuple[int, ...]]:
    prefix = f"{family.layer_prefix}0."
    return {
        name.removeprefix(prefix): tuple(tensor.shape)
        for name, tensor in sorted(_layer(state, family, 0).items())
    }


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
