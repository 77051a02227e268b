"""A release as an OCI artifact in the ModelPack layout: every file a layer of its own. Pure: no network.

The layers are a release folder's files as they are, not archives of them, so a layer's digest is a blob's
digest: two releases have the layers of the backbone and of every task that did not change in common, in any
registry and in any cache. Whoever pulls the artifact with another tool gets the release folder. It holds no
time and no person: the same release gives the same artifact, but for the numbers that a registry gave it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from centra.errors import CorruptBlobError, FormatError, InvalidNameError
from centra.formats.documents import canonical_json, sha256
from centra.formats.identities import VersionNumber
from centra.formats.strict_json import LARGEST, parse_foreign
from centra.releases.checksums import PATH
from centra.releases.folder import FIRST_SIGNATURE, MANIFEST, MORE_SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.manifest import ReleaseManifest

__all__ = ["ARTIFACT", "IMAGE_MANIFEST", "INDEX", "LAYOUT", "NAME", "Artifact", "Layer"]

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"
SETTINGS = "application/vnd.cncf.model.weight.config.v1.raw"
"""Of all that is no weights: tokenizers, settings, signatures."""

LAYOUT, INDEX = "oci-layout", "index.json"
"""The files of a folder in OCI's layout; its blobs lie beside them, by digest."""
NAME = "org.opencontainers.image.ref.name"
"""How such a folder calls an artifact, as a registry does with a tag."""

_PATH, _TITLE = "org.cncf.model.filepath", "org.opencontainers.image.title"
"""Where a layer lies in a folder: for ModelPack's tools, and for ORAS."""
_VERSION = "org.opencontainers.image.version"
_MOST = 1 << 50
"""Bytes of a layer."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A file of a release as a layer."""

    path: str
    digest: str
    size: int
    """Bytes."""
    version: str | None = None
    """Of a task, the number of its version, where it is known."""


class _Descriptor(BaseModel):
    """What an OCI manifest says of a blob; what else it may say is not read."""

    model_config = ConfigDict(extra="ignore")

    media_type: str = Field(alias="mediaType")
    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=_MOST)]
    annotations: dict[str, str] = {}


class _Manifest(BaseModel):
    """An OCI manifest, as far as it is read."""

    model_config = ConfigDict(extra="ignore")

    artifact_type: str | None = Field(default=None, alias="artifactType")
    config: _Descriptor
    layers: list[_Descriptor]
    annotations: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A release as an artifact."""

    layers: tuple[Layer, ...]
    release: int | None = None
    """The release's number, where it is known."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What ModelPack's config says of the model; of an artifact that was read nothing."""

    @classmethod
    def build(
        cls,
        manifest: ReleaseManifest,
        layers: tuple[Layer, ...],
        *,
        family: str,
        release: int | None,
    ) -> Self:
        """An artifact of a release's files."""
        precisions = {str(precision) for precision in manifest.precisions.values()}
        settings = {
            "descriptor": {
                "family": family,
                "title": f"Centra release of {', '.join(manifest.tasks)}"[:200],
                "revision": f"sha256:{manifest.digest}",
                **({} if release is None else {"version": str(release)}),
            },
            "config": {
                "architecture": "transformer",
                "format": "safetensors",
                "precision": precisions.pop() if len(precisions) == 1 else "mixed",
                "capabilities": {"inputTypes": ["text"]},
            },
        }
        return cls(layers=layers, release=release, settings=settings)

    @property
    def config_bytes(self) -> bytes:
        """ModelPack's config, canonical."""
        layers = [f"sha256:{layer.digest}" for layer in self.layers]
        return canonical_json({**self.settings, "modelfs": {"type": "layers", "diffIds": layers}})

    def to_bytes(self) -> bytes:
        """The OCI manifest, canonical."""
        config = self.config_bytes
        version = {} if self.release is None else {_VERSION: str(self.release)}
        return canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": IMAGE_MANIFEST,
                "artifactType": ARTIFACT,
                "config": _descriptor(CONFIG, sha256(config), len(config)),
                "layers": [_of_layer(layer) for layer in self.layers],
                **({"annotations": version} if version else {}),
            }
        )

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read an OCI manifest.

        Args:
            data: its bytes.
            where: what to call it in errors.

        Raises:
            FormatError: it is no manifest, another artifact's, or holds no release.
        """
        try:
            content = parse_foreign(data.decode())
            found = _Manifest.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise FormatError(
                f"{where}: is no OCI image manifest ({place}: {first['msg']})",
                code="no-oci-manifest",
            ) from error
        except ValueError as error:
            raise FormatError(
                f"{where}: is no OCI image manifest ({error})", code="no-oci-manifest"
            ) from error
        kind = found.artifact_type or found.config.media_type
        if kind not in (ARTIFACT, CONFIG):
            raise FormatError(
                f"{where}: is an artifact of type {kind!r:.120}, expected {ARTIFACT}",
                code="another-artifact",
            )
        layers = tuple(_to_layer(layer, where) for layer in found.layers)
        if len({layer.path for layer in layers}) < len(layers):
            raise FormatError(f"{where}: two of its layers have one path")
        number = found.annotations.get(_VERSION, "")
        artifact = cls(layers=layers, release=int(number) if _is_number(number) else None)
        artifact.release_layer(where)
        return artifact

    def release_layer(self, where: str) -> Layer:
        """The layer of the release's own manifest.

        Raises:
            FormatError: there is none, or it is too large for one.
        """
        for layer in self.layers:
            if layer.path == MANIFEST and layer.size <= LARGEST:
                return layer
        raise FormatError(
            f"{where}: is a model, but no release of Centra: it has no {MANIFEST}",
            code="no-release-in-artifact",
        )

    def check(self, manifest: ReleaseManifest, where: str) -> None:
        """Refuse layers that are not the files of the release that they claim to be.

        Raises:
            FormatError: a file is missing.
            CorruptBlobError: a layer is another one.
        """
        layers = {layer.path: layer.digest for layer in self.layers}
        for path, digest in manifest.files().items():
            if path not in layers:
                raise FormatError(f"{where}: lacks {path}", code="artifact-incomplete")
            if layers[path] != digest:
                raise CorruptBlobError(digest, layers[path], f"{where}: {path}", "push it again")

    @property
    def signatures(self) -> list[Layer]:
        """The layers of the release's signatures, in their order."""
        order = {FIRST_SIGNATURE: 1}
        for layer in self.layers:
            if number := re.fullmatch(rf"{MORE_SIGNATURES}/([0-9]{{1,9}})\.sig", layer.path):
                order[layer.path] = int(number[1])
        found = [layer for layer in self.layers if layer.path in order and layer.size <= LARGEST]
        return sorted(found, key=lambda layer: order[layer.path])

    @property
    def versions(self) -> dict[str, str]:
        """The numbers of tasks' versions, where they are known."""
        tasks = {
            layer.path.removeprefix("tasks/").removesuffix(".safetensors"): layer.version
            for layer in self.layers
            if layer.path.startswith("tasks/")
        }
        return {task: version for task, version in tasks.items() if version}


def _descriptor(media_type: str, digest: str, size: int, **annotations: str) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}
    return {**found, "annotations": annotations} if annotations else found


def _of_layer(layer: Layer) -> dict[str, Any]:
    media_type = WEIGHTS if layer.path.endswith(".safetensors") else SETTINGS
    annotations = {_PATH: layer.path, _TITLE: layer.path}
    if layer.version:
        annotations[_VERSION] = layer.version
    return _descriptor(media_type, layer.digest, layer.size, **annotations)


def _to_layer(found: _Descriptor, where: str) -> Layer:
    path = found.annotations.get(_PATH) or found.annotations.get(_TITLE, "")
    if not re.fullmatch(PATH, path):
        raise FormatError(
            f"{where}: a layer has the path {path!r:.120}, which is none in a release's folder"
        )
    if found.media_type not in (WEIGHTS, SETTINGS):
        raise FormatError(
            f"{where}: its {path} is of type {found.media_type!r:.120}, expected a file as it is: "
            f"{WEIGHTS} or {SETTINGS}",
            code="layer-is-archive",
        )
    return Layer(
        path=path,
        digest=found.digest.removeprefix("sha256:"),
        size=found.size,
        version=_version(found.annotations.get(_VERSION)),
    )


def _version(text: str | None) -> str | None:
    try:
        return None if text is None else str(VersionNumber.parse(text))
    except InvalidNameError:
        return None


def _is_number(text: str) -> bool:
    return re.fullmatch("[1-9][0-9]{0,8}", text) is not None
