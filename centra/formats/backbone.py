"""A frozen encoder as a set of blobs: embeddings, one shard per layer, tokenizer, ``backbone.json``.

The shards hold float32 tensors under transformers' own names, written canonically, so the digest of
a layer says whether a fine-tuned checkpoint kept it frozen (paper section 3.1). The backbone's own
digest is that of ``backbone.json``, which names all the others; where it came from is not part of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from centra.errors import FormatError
from centra.families import family_named
from centra.families.settings import check_settings, position_count
from centra.formats.documents import Count, DigestField, FormattedDocument
from centra.formats.manifest import FileName  # noqa: TC001 - pydantic reads the annotations
from centra.formats.tensors import map_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from centra.families.description import Embeddings, Layer, Shapes
    from centra.formats.identities import Digest
    from centra.store import BlobReader

__all__ = ["BackboneSpec", "check_shard"]

T = TypeVar("T")

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
    embeddings: DigestField
    layers: tuple[DigestField, ...]
    """The digest of each layer's shard; layer i of the paper is ``layers[i - 1]``."""
    layer_tensors: dict[str, tuple[Count, ...]]
    """Name and shape of each tensor of the first layer, as in transformers."""
    tokenizer: dict[FileName, DigestField]
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

    def blobs(self) -> set[Digest]:
        """The digests of all its parts, ``backbone.json`` included."""
        return {self.digest, self.embeddings, *self.layers, *self.tokenizer.values()}

    @property
    def description(self) -> Embeddings:
        """How its embeddings look."""
        return family_named(self.family).embeddings(self.config)

    def layer(self, number: int) -> Layer:
        """How the layer of a number looks, from 1; above the last, the layer of a task there."""
        return family_named(self.family).layer(self.config, number)

    def layer_shapes(self, number: int) -> Shapes:
        """Name and shape of each tensor of a layer, by names within it; see :meth:`layer`."""
        if family_named(self.family).layers_alike:
            return self.layer_tensors
        return self.layer(number).shapes

    def within_layer(self, shard: Mapping[str, T], number: int) -> dict[str, T]:
        """The tensors of a layer's shard by their names within the layer."""
        family = family_named(self.family)
        return {
            name: shard[family.encoder_name(self.config, number, name)]
            for name in self.layer_shapes(number)
        }

    def shapes(self, number: int) -> Shapes:
        """Name and shape of each tensor of a shard: of a layer, or 0 for the embeddings."""
        family = family_named(self.family)
        if number and family.layers_alike and family.final_norm is None:
            return {
                family.encoder_name(self.config, number, name): shape
                for name, shape in self.layer_tensors.items()
            }
        return family.shard_shapes(self.config, number)

    @property
    def head_norm_shapes(self) -> Shapes:
        """Name and shape of each tensor of the norm that heads on this backbone begin with."""
        norm = family_named(self.family).head_norm(self.config)
        return {} if norm is None else norm.shapes

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
        family = family_named(self.family)
        check_settings(self.config, family, where, "its config")
        limit = position_count(self.config, family)
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
        shapes = self.layer(1).shapes
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
    def parts(cls, digest: str, reader: BlobReader) -> set[Digest]:
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
