"""Merging modules: the rules, and the tasks that are named."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from centra.errors import UsageError
from centra.releases.compose import ComposeError, merge
from centra.releases.parity import check_parity
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore


@pytest.fixture
def put(backbone_store: LocalStore, make_module: Callable[..., TaskModule]) -> Callable[..., str]:
    """Put a module into the test's store; the digest of its file comes back."""

    def put(module: TaskModule | None = None, **options: object) -> str:
        return backbone_store.put((module or make_module(**options)).to_bytes())

    return put


def test_merging_gives_the_manifest_and_writes_nothing(
    put: Callable[..., str], backbone_store: LocalStore, tiny_backbone: support.Backbone
) -> None:
    modules = {"slots": put(kind="tagging", tap=2, depth=0), "intent": put(tap=1, depth=2)}
    before = sorted(backbone_store.root.rglob("*"))

    manifest = merge(modules, backbone_store)

    assert list(manifest.tasks) == ["intent", "slots"]
    assert {name: entry.digest for name, entry in manifest.tasks.items()} == modules
    assert manifest.trunks[0].layers == tiny_backbone.spec.layers[:2]
    assert merge(dict(reversed(modules.items())), backbone_store).digest == manifest.digest
    assert sorted(backbone_store.root.rglob("*")) == before


def test_merging_nothing_is_refused(store: LocalStore) -> None:
    with pytest.raises(UsageError, match="no active task"):
        merge({}, store)


def test_missing_module_is_named(put: Callable[..., str], backbone_store: LocalStore) -> None:
    with pytest.raises(ComposeError, match=r"^task slots: blob sha256:0{64} is missing") as caught:
        merge({"intent": put(), "slots": "0" * 64}, backbone_store)
    assert caught.value.task == "slots"


@pytest.mark.parametrize("part", ["module", "backbone", "embeddings", "tokenizer", "layer"])
@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_missing_or_corrupt_blob_names_a_task_that_needs_it(
    part: str,
    damage: str,
    put: Callable[..., str],
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
) -> None:
    modules = {"deep": put(tap=3, depth=0), "shallow": put(tap=1, depth=0, seed=1)}
    spec = tiny_backbone.spec
    digest = {
        "module": modules["deep"],
        "backbone": spec.digest,
        "embeddings": spec.embeddings,
        "tokenizer": spec.tokenizer["tokenizer_config.json"],
        "layer": spec.layers[2],
    }[part]
    path = backbone_store.fetch(digest)
    if damage == "missing":
        path.unlink()
    else:
        support.flip(path, 77)

    with pytest.raises(ComposeError, match=f"^task deep: .*{digest}.*|^task deep: .*{damage}"):
        merge(modules, backbone_store)


def test_second_backbone_is_refused_unless_allowed(
    put: Callable[..., str],
    backbone_store: LocalStore,
    imported: Callable[[str], support.Backbone],
) -> None:
    other = imported("distilbert")
    support.copy_backbone(other, backbone_store)
    moved = put(support.make_module("classification", other.spec, other.store))
    modules = {"intent": put(), "slots": put(kind="tagging"), "moved": moved}

    with pytest.raises(
        ComposeError, match=f"^task moved: is on backbone sha256:{other.spec.digest[:12]}"
    ):
        merge(modules, backbone_store)

    manifest = merge(modules, backbone_store, allow_two_backbones=True)
    assert len(manifest.trunks) == 2
    assert check_parity(manifest, backbone_store, list(modules)).keys() == modules.keys()


def test_third_backbone_is_always_refused(
    put: Callable[..., str],
    backbone_store: LocalStore,
    imported: Callable[[str], support.Backbone],
) -> None:
    modules = {"intent": put()}
    for family in ("distilbert", "electra"):
        other = imported(family)
        support.copy_backbone(other, backbone_store)
        modules[family] = put(support.make_module("classification", other.spec, other.store))

    with pytest.raises(ComposeError, match="at most two"):
        merge(modules, backbone_store, allow_two_backbones=True)


def test_tap_beyond_the_backbone_is_refused(
    put: Callable[..., str], backbone_store: LocalStore, make_module: Callable[..., TaskModule]
) -> None:
    module = make_module()
    beyond = dataclasses.replace(module, spec=module.spec.model_copy(update={"tap_layer": 9}))

    with pytest.raises(ComposeError, match=r"^task intent: taps layer 9, but its backbone has 3"):
        merge({"intent": put(beyond)}, backbone_store)
