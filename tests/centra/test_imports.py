"""What must stay light; :mod:`tests.test_structure` asserts who may import whom."""

from __future__ import annotations

import pytest

from tests import support

HEAVY = {"torch", "transformers", "tokenizers", "sklearn", "scipy", "accelerate", "boto3"}


LIGHT = (
    "centra",
    "centra.system.files",
    "centra.store",
    "centra.store.s3",
    "centra.formats.documents",
    "centra.formats.tensors",
    "centra.formats.task_module",
    "centra.families",
    "centra.formats.backbone",
    "centra.bench",
    "centra.formats.manifest",
    "centra.releases.folder",
    "centra.data.inputs",
    "centra.kinds.decoding",
    "centra.kinds.chain",
    "centra.releases.compose",
    "centra.runtime",
    "centra.formats.sizes",
    "centra.training.metrics",
    "centra.training.plan",
    "centra.training.recipe",
    "centra.training.select",
    "centra.training.trials",
)


def test_judging_and_planning_modules_import_nothing_heavy() -> None:
    assert not support.imported_by(f"import {', '.join(LIGHT)}") & HEAVY


def test_top_level_names_are_the_runtime_s() -> None:
    import centra
    from centra.runtime import Release, load_release

    assert (centra.Release, centra.load_release) == (Release, load_release)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = centra.nonsense
