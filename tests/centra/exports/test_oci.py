"""Releases as OCI artifacts: to a registry, or to a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from centra.errors import UsageError
from centra.exports import format_named, write_export
from centra.releases.find import find_release
from tests.registries import oci_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.centra.exports.conftest import Exported


def test_a_release_goes_to_a_registry_and_is_named_by_digest(
    release_on: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))
    source = release_on("bert").source
    with oci_server(tmp_path) as registry:
        url = f"oci://{registry.host}/nlu:1"
        export = write_export(source, format_named("oci"), url)
        assert export.output.startswith(f"oci://{registry.host}/nlu@sha256:")
        assert "tasks/intent.safetensors" in export.files
        again = write_export(source, format_named("oci"), url)
        assert again.notes == ("0 files, 0 bytes were not there yet",)
        for address in (url, export.output):
            found = find_release(address)
            assert (found.digest, found.versions["intent"]) == (source.manifest.digest, "1.0")


def test_a_release_goes_to_a_folder(release_on: Callable[[str], Exported], tmp_path: Path) -> None:
    source = release_on("bert").source
    export = write_export(source, format_named("oci"), tmp_path / "out")
    assert {"oci-layout", "index.json"} < export.files.keys()
    assert find_release(tmp_path / "out").digest == source.manifest.digest


def test_a_format_without_addresses_refuses_one(release_on: Callable[[str], Exported]) -> None:
    with pytest.raises(UsageError, match="written to a folder") as refused:
        write_export(release_on("bert").source, format_named("onnx"), "oci://host/nlu:1")
    assert refused.value.code == "format-address"
    with pytest.raises(UsageError, match="expected oci://"):
        write_export(release_on("bert").source, format_named("oci"), "s3://bucket/nlu")
