"""Releases to be exported, on every family's tiny encoder; made once."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest

from centra.exports import Source
from centra.formats.decision import Decision
from centra.formats.head import HeadSpec
from centra.store import LocalStore
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.task_module import TaskModule


def snippet(section: str) -> str:
    """The Python that docs/exports.md shows for a format, which imports nothing of Centra."""
    page = (support.ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert "import centra" not in code
    return str(code)


class Exported(NamedTuple):
    """A release, and what it was made of."""

    source: Source
    modules: dict[str, TaskModule]
    backbone: support.Backbone


@pytest.fixture(scope="session")
def release_on(
    imported: Callable[[str], support.Backbone], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Exported]:
    """A release with tasks of several kinds, taps, depths and poolings on a family's encoder."""
    root = tmp_path_factory.mktemp("exports")

    @cache
    def release_on(family: str) -> Exported:
        backbone, store = imported(family), LocalStore(root / family)
        support.copy_backbone(backbone, store)

        def module(kind: str, **options: object) -> TaskModule:
            return support.make_module(kind, backbone.spec, backbone.store, **options)

        modules = {
            "intent": module("classification", tap=1, depth=1),
            "mean": module("multilabel", tap=2, depth=0, decision=Decision(pooling="mean")),
            "most": module(
                "classification",
                tap=3,
                depth=1,
                decision=Decision(pooling="max"),
                head=HeadSpec(activation="gelu"),
            ),
            "slots": module("tagging", tap=2, depth=1, seed=1),
            "stars": module("regression", tap=0, depth=2, form="pair"),
        }
        manifest = support.put_release(modules, [backbone.spec], store)
        versions = dict.fromkeys(modules, "1.0")
        source = Source(manifest=manifest, reader=store, release=1, versions=versions)
        return Exported(source, modules, backbone)

    return release_on


@pytest.fixture(scope="session")
def intent(release_on: Callable[[str], Exported]) -> Source:
    """The task ``intent`` of the tiny BERT's release, by itself."""
    _, modules, backbone = release_on("bert")
    store = release_on("bert").source.reader
    assert isinstance(store, LocalStore)
    manifest = support.put_release({"intent": modules["intent"]}, [backbone.spec], store)
    return Source(manifest=manifest, reader=store, task="intent", versions={"intent": "1.0"})


@pytest.fixture(scope="session")
def task_source() -> Callable[[support.Backbone, TaskModule, LocalStore], Source]:
    """A task by itself."""

    def task_source(backbone: support.Backbone, module: TaskModule, store: LocalStore) -> Source:
        support.copy_backbone(backbone, store)
        manifest = support.put_release({"task": module}, [backbone.spec], store)
        return Source(manifest=manifest, reader=store, task="task", versions={"task": "1.0"})

    return task_source
