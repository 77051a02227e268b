"""Which layers of a fine-tuned model are still the backbone's own.

A layer whose shard has the backbone's digest was kept frozen. A model that was trained or saved in
float16 or bfloat16 holds the backbone's float32 weights rounded to that: such a layer was frozen
too, and the module stands on the backbone's own float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.checkpoints.shards import canonical_shards, shard_tensors
from centra.errors import IncompatibleError
from centra.formats.documents import sha256
from centra.formats.strict_json import parse_foreign
from centra.system.files import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from centra.families.base import Family
    from centra.formats.backbone import BackboneSpec
    from centra.formats.identities import Digest
    from centra.progress import Progress
    from centra.store import BlobReader

__all__ = ["BackboneMatch", "match_backbones"]


@dataclass(frozen=True, kw_only=True)
class BackboneMatch:
    """The backbone that a model stands on, and how far up."""

    name: str
    backbone: BackboneSpec
    layers: int
    """How many of its leading layers are the backbone's own."""
    depth: int
    """How many layers it has in all."""
    precision: torch.dtype
    """The coarsest in which the frozen parts are the backbone's."""


def match_backbones(
    state: Mapping[str, torch.Tensor],
    family: Family,
    settings: Mapping[str, Any],
    backbones: Mapping[str, BackboneSpec],
    reader: BlobReader,
    *,
    folder: Path,
    progress: Progress,
) -> list[BackboneMatch]:
    """Find the backbones with a model's embeddings; of several, those with most of its layers.

    Args:
        state: the encoder's tensors as they were saved, names without a checkpoint's prefix.
        family: the encoder family.
        settings: the encoder's.
        backbones: those it may stand on, by name.
        reader: where their blobs are.
        folder: the model's, for errors.
        progress: told of each layer.

    Raises:
        IncompatibleError: the embeddings are no backbone's; it says how they differ.
    """
    import torch

    digests = [sha256(shard) for shard in canonical_shards(state, family, settings, progress)]
    parts = shard_tensors(state, family, settings)
    found = []
    for name, spec in backbones.items():
        if spec.family != family.model_type:
            continue
        precisions = _frozen(parts, digests, spec, reader)
        if precisions:
            matched = BackboneMatch(
                name=name,
                backbone=spec,
                layers=len(precisions) - 1,
                depth=settings[family.layers_key],
                precision=max(precisions, key=lambda dtype: torch.finfo(dtype).eps),
            )
            found.append(matched)
    if not found:
        if not backbones:
            raise IncompatibleError(
                f"{folder}: no backbone is registered that it could stand on; first register the one "
                "that it was fine-tuned from",
                code="no-backbone",
            )
        raise IncompatibleError(_unlike(parts[0], family, backbones, reader, folder))
    most = max(matched.layers for matched in found)
    return [matched for matched in found if matched.layers == most]


def _frozen(
    parts: list[dict[str, torch.Tensor]],
    digests: list[Digest],
    spec: BackboneSpec,
    reader: BlobReader,
) -> list[torch.dtype]:
    """The precision of each leading part (embeddings, layers) that is the backbone's own."""
    import torch

    precisions: list[torch.dtype] = []
    for part, own, frozen in zip(parts, digests, (spec.embeddings, *spec.layers), strict=False):
        precision = torch.float32 if own == frozen else _rounded(part, frozen, reader)
        if precision is None:
            break
        precisions.append(precision)
    return precisions


def _rounded(
    part: Mapping[str, torch.Tensor], digest: str, reader: BlobReader
) -> torch.dtype | None:
    """The coarsest precision to which a backbone's shard was rounded to give these tensors."""
    import torch

    frozen = _shard(digest, reader)
    if frozen.keys() != part.keys():
        return None
    found = [_rounding(frozen[name], tensor) for name, tensor in part.items()]
    known = [dtype for dtype in found if dtype is not None]
    if len(known) < len(found):
        return None
    return max(known, key=lambda dtype: torch.finfo(dtype).eps)


def _rounding(frozen: torch.Tensor, own: torch.Tensor) -> torch.dtype | None:
    import torch

    # What was rounded once may have been saved in float32 again.
    for dtype in (own.dtype, torch.float16, torch.bfloat16):
        rounded = frozen.to(dtype).to(own.dtype).contiguous()
        if rounded.shape == own.shape and torch.equal(
            rounded.view(torch.uint8), own.contiguous().view(torch.uint8)
        ):
            return dtype
    return None


def _shard(digest: str, reader: BlobReader) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = load_file(reader.fetch(digest))
    return tensors


# How embeddings differ


def _unlike(
    own: Mapping[str, torch.Tensor],
    family: Family,
    backbones: Mapping[str, BackboneSpec],
    reader: BlobReader,
    folder: Path,
) -> str:
    mend = "Freeze the embeddings while fine-tuning, or register the backbone it started from."
    reasons = []
    for name, spec in backbones.items():
        if spec.family != family.model_type:
            reasons.append(f"{name} is a {spec.family}, this a {family.model_type}")
            continue
        frozen = _shard(spec.embeddings, reader)
        reason, resized = _difference(own, frozen, family.word_embeddings, folder)
        reasons.append(reason)
        if resized:
            mend = (
                "All tasks share the backbone's tokenizer, so none has tokens of its own. If no "
                "text of this task needs the added ones, drop them: model.resize_token_embeddings"
                f"({len(frozen[family.word_embeddings])}), and save the model with the backbone's tokenizer. If "
                "texts need them, resize the pre-trained encoder first, register that as a "
                "backbone, and fine-tune it with its embeddings frozen."
            )
    return (
        f"{folder}: its embeddings (layer 0) differ from those of {', '.join(backbones)}: "
        f"{'; '.join(reasons[:3])}. {mend}"
    )


def _difference(
    own: Mapping[str, torch.Tensor],
    frozen: Mapping[str, torch.Tensor],
    words: str,
    folder: Path,
) -> tuple[str, bool]:
    """How embeddings differ, and whether it is by added rows alone."""
    rows, given = len(own[words]), len(frozen[words])
    for name, tensor in own.items():
        shape = tuple(frozen[name].shape) if name in frozen else "missing"
        if name != words and tuple(tensor.shape) != shape:
            return f"{name} is {tuple(tensor.shape)}, the backbone's is {shape}", False
    changed = {name: _changed_rows(tensor, frozen[name]) for name, tensor in own.items()}
    if rows == given:
        name = next((name for name, count in changed.items() if count), words)
        return f"{name} was changed in {changed[name]} of {len(own[name])} rows", False
    what = f"its vocabulary has {rows} rows, the backbone's {given}"
    if rows > given:
        what += f": {rows - given} were added ({_added_tokens(folder, given)})"
    if changed[words]:
        what += f", and {changed[words]} of the rows that both have were changed"
    return what, rows > given and not any(changed.values())


def _changed_rows(own: torch.Tensor, frozen: torch.Tensor) -> int:
    """How many of the rows that both have differ in more than their precision."""
    if own.shape[1:] != frozen.shape[1:]:
        return max(len(own), len(frozen))
    both = min(len(own), len(frozen))
    if _rounding(frozen[:both], own[:both]) is not None:
        return 0
    differ = frozen[:both].to(own.dtype) != own[:both]
    return int(differ.reshape(both, -1).any(dim=1).sum())


def _added_tokens(folder: Path, first: int) -> str:
    """The tokens from an id on that the folder's tokenizer names."""
    try:
        text = read_text(folder / "tokenizer.json")
        content = parse_foreign(text, len(text))
        tokens = [t["content"] for t in content["added_tokens"] if t["id"] >= first]
        tokens += [token for token, i in content["model"]["vocab"].items() if i >= first]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "its tokenizer.json does not tell which"
    names = list(dict.fromkeys(ascii(token) for token in tokens))
    if not names:
        return "its tokenizer uses none of them"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
