"""A frozen encoder as a set of blobs: embeddings, one shard per layer, tokenizer, ``backbone.json``.

The shards hold float32 tensors under transformers' own names, written canonically, so the digest of
a layer says whether a fine-tuned checkpoint kept it frozen (paper section 3.1). The backbone's own
digest is that of ``backbone.json``, which names all the others; where it came from is not part of it.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from centra.checkpoints.placing import check_placed, encoder_prefix, harmless
from centra.checkpoints.pretrained import refuse_code
from centra.checkpoints.saved_model import load, read_config, read_headers
from centra.errors import FormatError
from centra.families.settings import (
    check_settings,
    embedding_shapes,
    encoder_config,
    encoder_family,
    encoder_settings,
    encoder_shapes,
    layer_shapes,
    positions,
)
from centra.families.table import Family, family_of
from centra.formats.documents import Count, Digest, FormattedDocument
from centra.formats.manifest import FileName  # noqa: TC001 - pydantic reads the annotations
from centra.formats.tensors import map_tensors, under
from centra.progress import Progress, silent
from centra.store import LocalStore
from centra.system.snapshot import copy_model
from centra.tokenization.tokenizer import checked_encoder, import_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from centra.data.inputs import TextEncoder
    from centra.store import BlobReader, BlobWriter

__all__ = [
    "BackboneSpec",
    "Shards",
    "check_backbone",
    "check_finite_weights",
    "check_shard",
    "import_backbone",
    "shard",
    "text_encoder",
]

_TOKENIZER = "tokenizer.json"


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
        """Refuse a document whose parts are not all there."""
        if len(self.layers) != self.num_layers:
            raise ValueError(f"num_layers is {self.num_layers}, but {len(self.layers)} are named")
        if _TOKENIZER not in self.tokenizer:
            raise ValueError(f"names no {_TOKENIZER}")
        return self

    @property
    def vocab_size(self) -> int:
        """How many token ids the embeddings know."""
        return int(self.config["vocab_size"])

    def blobs(self) -> set[str]:
        """The digests of all its parts, ``backbone.json`` included."""
        return {self.digest, self.embeddings, *self.layers, *self.tokenizer.values()}

    def shapes(self, number: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of each tensor of a shard: of a layer, or 0 for the embeddings."""
        family = family_of(self.family)
        if number == 0:
            return embedding_shapes(self.config, family)
        prefix = f"{family.layer_prefix}{number - 1}."
        return {f"{prefix}{name}": shape for name, shape in self.layer_tensors.items()}

    def weights(self) -> dict[str, int]:
        """Per shard, by its digest, how many bytes its weights take."""
        return {
            digest: sum(4 * math.prod(shape) for shape in self.shapes(number).values())
            for number, digest in enumerate((self.embeddings, *self.layers))
        }

    def check(self, where: str) -> None:
        """Refuse settings that no backbone can have, as far as it shows without the weights.

        Raises:
            FormatError: naming the field.
            IncompatibleError: a family that Centra does not know.
        """
        family = family_of(self.family)
        check_settings(self.config, family, where, "its config")
        limit = positions(self.config, family)
        pad = self.config["pad_token_id"] or 0
        for name, found, expected in (
            ("num_layers", self.num_layers, self.config[family.layers_key]),
            ("hidden_size", self.hidden_size, self.config[family.hidden_key]),
            ("pad_token_id", self.pad_token_id, pad),
        ):
            if found != expected:
                raise FormatError(
                    f"{where}: {name}: found {found!r:.60}, its config needs {expected!r:.60}"
                )
        shapes = layer_shapes(self.config, family)
        for name in sorted(shapes.keys() | self.layer_tensors.keys()):
            if self.layer_tensors.get(name) != shapes.get(name):
                raise FormatError(
                    f"{where}: layer_tensors: found {name!r:.80} {self.layer_tensors.get(name)!r:.60}, "
                    f"its config needs {shapes.get(name)}"
                )
        if self.max_length > limit:
            raise FormatError(
                f"{where}: max_length: found {self.max_length!r:.60}, but there are {limit} positions"
            )
        if self.token_types and not (family.token_types and self.config["type_vocab_size"] > 1):
            raise FormatError(f"{where}: token_types: a {self.family} like this has none")

    @classmethod
    def fetch(cls, digest: str, reader: BlobReader) -> BackboneSpec:
        """Read a registered backbone's spec from a store or a release.

        Raises:
            BlobNotFoundError, CorruptBlobError, StoreError: see :meth:`BlobReader.fetch`.
            FormatError: the blob is no backbone document of a supported version, or makes no sense.
            IncompatibleError: a family that Centra does not know.
        """
        spec = cls._fetched(digest, reader)
        spec.check(f"backbone sha256:{digest}")
        return spec

    @classmethod
    def parts(cls, digest: str, reader: BlobReader) -> set[str]:
        """The :meth:`blobs` of a backbone, whether or not it makes sense.

        Raises:
            BlobNotFoundError, CorruptBlobError, StoreError: see :meth:`BlobReader.fetch`.
            FormatError: the blob is no backbone document of a supported version.
        """
        return cls._fetched(digest, reader).blobs()

    @classmethod
    def _fetched(cls, digest: str, reader: BlobReader) -> BackboneSpec:
        path = reader.fetch(digest)
        return cls.from_bytes(path.read_bytes(), str(path))


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The state dict of an encoder, cut into canonical safetensors bytes."""

    embeddings: bytes
    layers: list[bytes]


def import_backbone(
    source: str, store: BlobWriter, *, revision: str | None = None, progress: Progress = silent
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
        StoreError, StoreNotWritableError: the store refused, or there is no room for a copy.
    """
    with copy_model(source) as copy:
        return _import(copy, store, revision, progress)


def _import(
    source: str, store: BlobWriter, revision: str | None, progress: Progress
) -> BackboneSpec:
    raw = read_config(source, revision)
    refuse_code(source, revision)
    family = encoder_family(raw, source)
    headers = read_headers(source, revision)
    prefix = encoder_prefix(headers, family, source)
    stored = under(headers, prefix)
    config = encoder_config(
        raw, family, {name: tensor.shape for name, tensor in stored.items()}, source
    )
    settings = encoder_settings(config, family)
    shapes = encoder_shapes(settings, family)
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
    with tempfile.TemporaryDirectory(prefix="centra-") as scratch:
        # Checked as any other is, and before anything is stored.
        parts = LocalStore(Path(scratch))
        spec = BackboneSpec(
            family=family.model_type,
            config=settings,
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            max_length=tokenizer.max_length,
            pad_token_id=config.pad_token_id or 0,
            token_types=tokenizer.token_types,
            embeddings=parts.put(shards.embeddings),
            layers=tuple(parts.put(layer) for layer in shards.layers),
            layer_tensors=_layer_tensors(state, family),
            tokenizer={name: parts.put(data) for name, data in tokenizer.files.items()},
        )
        parts.put(spec.to_bytes())
        check_backbone(spec, parts)
        for digest in sorted(spec.blobs()):
            store.put(parts.path(digest))
    return spec


def check_backbone(spec: BackboneSpec, reader: BlobReader, progress: Progress = silent) -> None:
    """Check all of a backbone against its own weights and its tokenizer, without torch.

    Every backbone passes here before it is written to a database, wherever it comes from.

    Args:
        spec: what ``backbone.json`` says.
        reader: has all its parts.
        progress: told of each part.

    Raises:
        FormatError: the spec makes no sense, or a part is damaged or not what the spec says; it is
            named.
        IncompatibleError: a family that Centra does not know, or a tokenizer whose ids do not fit.
        BlobNotFoundError, CorruptBlobError, StoreError: a part cannot be had.
    """
    where = f"backbone sha256:{spec.digest}"
    spec.check(where)
    for number, digest in enumerate((spec.embeddings, *spec.layers)):
        check_shard(spec, number, reader.fetch(digest))
        progress("check backbone", number + 1, len(spec.layers) + 1)
    # Now that its length is known to be that of a tensor.
    text_encoder(spec, reader)


def text_encoder(spec: BackboneSpec, reader: BlobReader) -> TextEncoder:
    """What turns texts into the ids of a backbone, checked against its vocabulary.

    Raises:
        FormatError, IncompatibleError: see :func:`centra.tokenization.tokenizer.checked_encoder`.
        BlobNotFoundError, CorruptBlobError, StoreError: a file cannot be had.
    """
    files = {name: reader.fetch(digest) for name, digest in spec.tokenizer.items()}
    return checked_encoder(
        files[_TOKENIZER],
        f"backbone sha256:{spec.digest}",
        vocab_size=spec.vocab_size,
        type_vocab_size=spec.config.get("type_vocab_size", 1),
        max_length=spec.max_length,
        pad_token_id=spec.pad_token_id,
        token_types=spec.token_types,
    )


def check_shard(spec: BackboneSpec, number: int, path: Path) -> None:
    """Check that a shard holds just the tensors that its backbone's spec says, all of them finite.

    Args:
        spec: the backbone's.
        number: the layer that it should be, or 0 for the embeddings.
        path: the shard's file.

    Raises:
        FormatError: it does not; the first tensor that differs is named.
    """
    part = f"layer {number}" if number else "embeddings"
    where = f"backbone sha256:{spec.digest}: {part}"
    tensors, expected = map_tensors(path), spec.shapes(number)
    for name in sorted(tensors.keys() | expected.keys()):
        tensor, wanted = tensors.get(name), expected.get(name)
        if tensor is None or wanted is None:
            what = f"lacks tensor {name}" if tensor is None else f"has an unknown tensor {name}"
            raise FormatError(f"{where}: {what}")
        if tensor.shape != wanted or tensor.dtype != "float32":
            raise FormatError(
                f"{where}: tensor {name} is {tensor.dtype} {tensor.shape}, "
                f"its backbone.json says float32 {wanted}"
            )
        # The least and the greatest show NaN and infinity, and take no memory.
        if not (math.isfinite(tensor.min()) and math.isfinite(tensor.max())):
            raise FormatError(f"{where}: tensor {name} holds NaN or infinite values")


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
