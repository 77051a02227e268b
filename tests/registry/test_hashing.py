"""How often the bytes of a module are hashed on their way into a registry."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from centra.formats.tensors import read_metadata
from centra.store import open_store
from centra.system.files import file_digest
from registry import tasks, transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry import Registry


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the SHA-256 digests that are taken from now on, by what they come to."""
    taken: Counter[str] = Counter()
    sha256, file_hash = hashlib.sha256, hashlib.file_digest

    class Counted:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.real = sha256(*args, **options)
            self.update, self.digest = self.real.update, self.real.digest

        def hexdigest(self) -> str:
            taken[self.real.hexdigest()] += 1
            return self.real.hexdigest()

    def counted_file_hash(file: Any, name: str) -> Any:
        found = file_hash(file, name)
        taken[found.hexdigest()] += 1
        return found

    monkeypatch.setattr(hashlib, "sha256", Counted)
    monkeypatch.setattr(hashlib, "file_digest", counted_file_hash)
    return taken


@pytest.fixture(params=["local", "s3"])
def used(request: pytest.FixtureRequest, registry: Registry) -> Registry:
    """A registry with two backbones and no task, on either kind of store."""
    if request.param == "local":
        return registry
    store = open_store(request.getfixturevalue("s3_url"))
    for blob in registry.store.blobs():
        store.put(registry.store.fetch(blob.digest))
    if (document := registry.store.read_document()) is not None:
        store.write_document(document)
    return dataclasses.replace(registry, store=store)


def checksum(file: Path) -> str:
    """The checksum over its content that a module carries."""
    found: str = json.loads(read_metadata(file)["centra"])["checksum"]
    return found


def test_a_new_module_is_hashed_once_for_its_digest_and_once_for_its_checksum(
    used: Registry, module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (
        (tasks.register, module(seed=901)),
        (tasks.update, module(seed=902)),
        (tasks.redefine, module("multilabel", seed=903)),
    )
    for change, file in steps:
        with monkeypatch.context() as patch:
            taken = counted(patch)
            assert change(used, "intent", file).changed
        assert [taken[found] for found in (file_digest(file), checksum(file))] == [1, 1]
        assert used.store.find_problem(file_digest(file)) is None


def test_an_imported_module_is_hashed_once_for_its_digest_and_once_for_its_checksum(
    used: Registry,
    make_registry: Callable[[], Registry],
    module: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    source, file = make_registry(), module(seed=901)
    tasks.register(source, "intent", file)
    transfer.export_file(source, tmp_path / "intent.tar", references=["intent"])
    with monkeypatch.context() as patch:
        taken = counted(patch)
        assert transfer.import_file(used, tmp_path / "intent.tar").changed
    assert [taken[found] for found in (file_digest(file), checksum(file))] == [1, 1]
    assert used.store.find_problem(file_digest(file)) is None
