"""What lets ``AutoModel.from_pretrained`` load the trunk of a release folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from centra.formats.backbone import BackboneSpec

if TYPE_CHECKING:
    from centra.formats.manifest import ReleaseManifest
    from centra.store import BlobReader

__all__ = ["transformers_files"]


def transformers_files(manifest: ReleaseManifest, reader: BlobReader) -> dict[str, bytes]:
    """``config.json`` and the index with which ``AutoModel.from_pretrained`` loads the trunk."""
    from safetensors import safe_open

    if len(manifest.trunks) != 1:
        return {}
    trunk = manifest.trunks[0]
    spec = BackboneSpec.fetch(trunk.spec, reader)
    layers = "n_layers" if "n_layers" in spec.config else "num_hidden_layers"
    config = {"model_type": spec.family, **spec.config, layers: len(trunk.layers)}
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][: len(trunk.layers)]
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


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"
