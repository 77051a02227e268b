"""What may import what, and what must stay light."""

from __future__ import annotations

import ast

import pytest

from tests import support

HEAVY = {"torch", "transformers", "tokenizers", "sklearn", "scipy", "accelerate", "boto3"}


@pytest.mark.parametrize(
    "module",
    [
        "centra",
        "centra.backbone",
        "centra.blobs",
        "centra.compose",
        "centra.data",
        "centra.decoding",
        "centra.documents",
        "centra.families",
        "centra.folder",
        "centra.release",
        "centra.runtime",
        "centra.task_module",
        "centra.tensors",
        "centra.training.metrics",
    ],
)
def test_module_imports_nothing_heavy(module: str) -> None:
    assert not support.imported_by(f"import {module}") & HEAVY


@pytest.mark.parametrize(
    ("package", "above"), [("centra", {"registry", "cli"}), ("registry", {"cli"})]
)
def test_imports_run_from_cli_to_registry_to_centra_only(package: str, above: set[str]) -> None:
    for path in sorted((support.ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            assert not {name.partition(".")[0] for name in names} & above, path


def test_top_level_names_are_the_runtime_s() -> None:
    import centra
    from centra.runtime import Release, load_release

    assert (centra.Release, centra.load_release) == (Release, load_release)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = centra.nonsense
