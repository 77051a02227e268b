"""What must stay light; :mod:`tests.test_structure` asserts who may import whom."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from centra.releases.folder_writing import write_folder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore

HEAVY = {"torch", "transformers", "tokenizers", "sklearn", "scipy", "accelerate", "boto3"}


LIGHT = (
    "centra",
    "centra.system.files",
    "centra.store",
    "centra.store.files",
    "centra.store.s3",
    "centra.store.s3.files",
    "centra.formats.documents",
    "centra.formats.tensors",
    "centra.formats.task_module",
    "centra.families",
    "centra.formats.backbone",
    "centra.bench",
    "centra.formats.manifest",
    "centra.releases.folder",
    "centra.data.inputs",
    "centra.kinds",
    "centra.kinds.chain",
    "centra.releases.compose",
    "centra.runtime",
    "centra.formats.sizes",
    "centra.releases.evaluation",
    "centra.releases.int8",
    "centra.serving.ray.coordinator",
    "centra.training.metrics",
    "centra.training.plan",
    "centra.training.recipe",
    "centra.training.select",
    "centra.training.trials",
)


@pytest.fixture
def tiny_release(
    tmp_path: Path,
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> Path:
    modules = {"topic": make_module(tap=1, depth=1)}
    manifest = support.put_release(modules, [tiny_backbone.spec], backbone_store)
    write_folder(manifest, backbone_store, tmp_path / "release")
    return tmp_path / "release"


def test_judging_and_planning_modules_import_nothing_heavy() -> None:
    assert not support.imported_by(f"import {', '.join(LIGHT)}") & HEAVY


def test_importing_the_package_imports_nothing_of_others() -> None:
    assert not support.imported_by("import centra") & (HEAVY | {"numpy", "pydantic"})


def test_answering_needs_nothing_of_training(tmp_path: Path, tiny_release: Path) -> None:
    code = f"""
import sys, centra
with centra.load_release({str(tiny_release)!r}, device="cpu") as release:
    assert release.predict("wake me at seven")["topic"]["label"]
assert not [name for name in sys.modules if name.startswith("centra.training")]
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_every_public_name_is_there_and_no_other() -> None:
    import centra
    from centra.runtime import Release, load_release

    assert (centra.Release, centra.load_release) == (Release, load_release)
    assert all(getattr(centra, name) for name in centra.__all__)
    assert {*centra.__all__} <= {*dir(centra)}
    with pytest.raises(AttributeError, match="nonsense"):
        _ = centra.nonsense
