"""The proof of parity."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from centra.releases.compose import ComposeError, merge
from centra.releases.parity import check_parity, check_parity_once
from centra.releases.verified import VerifiedBlobs

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


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "tagging"])
def test_parity_on_the_machine_that_made_the_module_is_exact(
    kind: str, put: Callable[..., str], backbone_store: LocalStore
) -> None:
    manifest = merge({"task": put(kind=kind, tap=2, depth=1, seed=3)}, backbone_store)

    assert check_parity(manifest, backbone_store, ["task"]) == {"task": 0.0}


def test_parity_of_nothing_loads_nothing(
    put: Callable[..., str], backbone_store: LocalStore
) -> None:
    manifest = merge({"task": put()}, backbone_store)
    backbone_store.fetch(manifest.trunks[0].embeddings).unlink()

    assert check_parity(manifest, backbone_store, []) == {}


def test_module_that_was_changed_after_its_probe_fails_parity(
    put: Callable[..., str], backbone_store: LocalStore, make_module: Callable[..., TaskModule]
) -> None:
    module = make_module()
    bias = module.tensors["head.out.bias"] + 0.01
    changed = dataclasses.replace(module, tensors=module.tensors | {"head.out.bias": bias})
    manifest = merge({"fine": put(module), "odd": put(changed)}, backbone_store)

    with pytest.raises(ComposeError, match=r"^task odd: parity failed.* up to 0\.01 ") as caught:
        check_parity(manifest, backbone_store, ["fine", "odd"])
    assert caught.value.task == "odd"


def test_module_that_cannot_run_fails_parity_by_name(
    put: Callable[..., str], backbone_store: LocalStore, make_module: Callable[..., TaskModule]
) -> None:
    """Registering would have refused it, but a store may hold anything."""
    module = make_module()
    tensors = {name: t for name, t in module.tensors.items() if name != "head.dense.weight"}
    broken = put(dataclasses.replace(module, tensors=tensors))

    with pytest.raises(ComposeError, match=r"^task broken"):
        check_parity(merge({"broken": broken}, backbone_store), backbone_store, ["broken"])


def test_parity_of_a_module_is_checked_once(
    put: Callable[..., str], backbone_store: LocalStore
) -> None:
    verified, told = VerifiedBlobs(backbone_store), list[str]()
    manifest = merge({"one": put()}, backbone_store, verified=verified)
    for _ in range(2):
        differences = check_parity_once(
            manifest, ["one"], verified, lambda step, *_: told.append(step)
        )
        assert differences == {"one": 0.0}
    assert told == ["check parity"]
