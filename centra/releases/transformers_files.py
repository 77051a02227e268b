"""What lets ``AutoModel.from_pretrained`` load the trunk of a release folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from centra.families import family_named
from centra.formats.backbone import BackboneSpec

if TYPE_CHECKING:
    from centra.formats.manifest import ReleaseManifest
    from centra.store import BlobReader

__all__ = ["transformers_files"]


def transformers_files(manifest: ReleaseManifest, reader: BlobReader) -> dict[str, bytes]:
    """``config.json`` and the index with which ``AutoModel.from_pretrained`` loads the trunk.

    None where no such model is the trunk: of two backbones, without the norm behind the last layer, or of
    groups of layers that are cut in two.
    """
    from safetensors import safe_open

    if len(manifest.trunks) != 1:
        return {}
    trunk = manifest.trunks[0]
    spec = BackboneSpec.fetch(trunk.spec, reader)
    settings = _cut(spec, len(trunk.layers))
    if settings is None:
        return {}
    config = {"model_type": spec.family, **settings}
    weights: dict[str, str] = {}
    total = 0
    for path, digest in manifest.files().items():
        if path.startswith("backbone/") and path.endswith(".safetensors"):
            blob = reader.fetch(digest)
            total += blob.stat().st_size
            with safe_open(blob, framework="numpy") as file:
                weights |= dict.fromkeys(file.keys(), path)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.items()))}
    return {
        "config.json": _pretty(config),
        "model.safetensors.index.json": _pretty(index),
    }


def _cut(spec: BackboneSpec, depth: int) -> dict[str, Any] | None:
    """The settings of a backbone's first layers; None where there are none for just these."""
    family = family_named(spec.family)
    if family.final_norm is not None and depth < spec.num_layers:
        # transformers would make one up.
        return None
    settings = {**spec.config, family.layers_key: depth}
    if family.groups_key is not None:
        stored = [family.stored_layer(spec.config, number) for number in range(1, depth + 1)]
        settings[family.groups_key] = len({*stored})
        if stored != [family.stored_layer(settings, number) for number in range(1, depth + 1)]:
            return None
    return settings


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"
