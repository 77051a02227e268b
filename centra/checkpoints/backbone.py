"""Taking a transformers encoder into a store as a backbone, and checking one that is there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from centra.checkpoints.placing import (
    check_placed,
    encoder_prefix,
    ignored_names,
    named_by_class,
)
from centra.checkpoints.pretrained import refuse_code
from centra.checkpoints.saved_model import load, read_config, read_headers
from centra.checkpoints.shards import canonical_shards, check_finite_weights
from centra.families.settings import (
    encoder_shapes,
    read_family,
    read_settings,
    transformers_config,
)
from centra.formats.backbone import BackboneSpec, check_shard
from centra.formats.tensors import under
from centra.progress import Progress, silent
from centra.store import LocalStore
from centra.system.snapshot import copy_model
from centra.tokenization.checks import checked_text_encoder
from centra.tokenization.importing import import_tokenizer
from centra.tokenization.trial import try_tokenizer

if TYPE_CHECKING:
    from centra.store import BlobReader, BlobWriter

__all__ = ["check_backbone", "import_backbone"]


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
    family = read_family(raw, source)
    headers = named_by_class(read_headers(source, revision), family, source)
    prefix = encoder_prefix(headers, family, source)
    stored = under(headers, prefix)
    settings = read_settings(
        raw, family, {name: tensor.shape for name, tensor in stored.items()}, source
    )
    shapes = encoder_shapes(settings, family)
    check_placed(
        headers,
        {prefix + name: shape for name, shape in shapes.items()},
        ignored_names(family, prefix, heads=True),
        source,
        family.class_name,
    )
    config = transformers_config(raw, family, source)
    tokenizer = import_tokenizer(source, family, settings, config=config, revision=revision)
    state = {name: tensor.float() for name, tensor in load({n: stored[n] for n in shapes}).items()}
    check_finite_weights(state, source)
    embeddings, *layers = canonical_shards(state, family, settings, progress)
    with tempfile.TemporaryDirectory(prefix="centra-") as scratch:
        # Checked as any other is, and before anything is stored.
        parts = LocalStore(Path(scratch))
        spec = BackboneSpec(
            family=family.model_type,
            config=settings,
            num_layers=settings[family.layers_key],
            hidden_size=settings[family.hidden_key],
            max_length=tokenizer.max_length,
            pad_token_id=settings["pad_token_id"] or 0,
            token_types=tokenizer.token_types,
            embeddings=parts.put(embeddings),
            layers=tuple(parts.put(layer) for layer in layers),
            layer_tensors=family.layer(settings, 1).shapes,
            tokenizer={name: parts.put(data) for name, data in tokenizer.files.items()},
        )
        parts.put(spec.to_bytes())
        check_backbone(spec, parts)
        for digest in sorted(spec.blobs()):
            store.put(parts.path(digest), digest)
    return spec


def check_backbone(
    spec: BackboneSpec,
    reader: BlobReader,
    progress: Progress = silent,
    *,
    tokenizer_tried: bool = False,
) -> None:
    """Check all of a backbone against its own weights and its tokenizer, without torch.

    Every backbone passes here before it is written to a database, wherever it comes from.

    Args:
        spec: what ``backbone.json`` says.
        reader: has all its parts.
        progress: told of each part.
        tokenizer_tried: whether its tokenizer was tried when it came to this registry; otherwise it
            is now, in a process of its own, before anything here reads it.

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
    if not tokenizer_tried:
        tokenizer = reader.fetch(spec.tokenizer["tokenizer.json"])
        try_tokenizer(tokenizer.read_bytes(), where)
    # Now that its length is known to be that of a tensor.
    checked_text_encoder(spec, reader)
