"""Inputs that are long beside a layer's window: looked at block by block, with the answers of all pairs."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.formats.decision import Decision
from centra.formats.task_module import HeadSpec
from centra.runtime import Release
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.store import LocalStore
from tests import support
from tests.centra.checkpoints import configure, copied
from tests.centra.states import reference_states, trunk_states
from tests.centra.test_families import assert_states
from tests.centra.test_onnx_engine import (
    TOLERANCE,
    assert_same_bits,
    encoded,
    onnx_states,
    tensors,
)
from tests.centra.test_torch_engine import NEAR, assert_near, states_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest

LONGEST = 1024
"""Eight blocks, each with four tokens before and behind it."""


@pytest.fixture(scope="module")
def long(
    make_encoder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> support.Backbone:
    """The tiny ModernBERT, one layer of three full, for inputs of so many tokens."""
    root = tmp_path_factory.mktemp("long")
    folder, store = copied(make_encoder("modernbert"), root / "model"), LocalStore(root / "store")
    configure(folder, max_position_embeddings=LONGEST)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": LONGEST}))
    return support.Backbone(import_backbone(str(folder), store), store, folder)


def text(tokens: int) -> str:
    """A text of so many tokens, the special ones among them."""
    words = ["wake", "me", "play", "some", "jazz", "rain", "go", "to", "rome", "is", "snow"]
    return " ".join(words[i * i % 11] for i in range(tokens - 2))


# The last of a block and the first behind it; of one bucket; the longest, cut; short.
TOKENS = (385, 700, 384, 256, 257, 1500, 20, 513)
INPUTS = [text(tokens) for tokens in TOKENS]
BATCHES = {"ragged": INPUTS, "one": INPUTS[1:2], "whole": [text(512)]}


@pytest.mark.parametrize("inputs", BATCHES.values(), ids=BATCHES)
def test_states_are_those_of_transformers_at_every_layer(
    inputs: list[str], long: support.Backbone
) -> None:
    batch = encoded(long, [Input(text) for text in inputs])
    assert len(inputs) == 1 or batch.attention_mask.sum(axis=1).tolist() == [
        min(tokens, LONGEST) for tokens in TOKENS
    ]
    theirs = reference_states(long.folder, tensors(batch))

    assert_states([*trunk_states(long, tensors(batch))], theirs, batch, TOLERANCE)
    assert_states([*onnx_states(long.spec, long.store, batch)], theirs, batch, TOLERANCE)
    for dtype, near in NEAR.items():
        engine = BatchedEngine(torch.device("cpu"), dtype)
        ours = states_of(engine, long.spec, long, batch)
        assert_states(ours, theirs, batch, near, relative=True)


# Kind, tap, depth, pooling: last layers that look everywhere and at a window.
TASKS: dict[str, tuple[Any, int, int, str]] = {
    "first-in-window": ("classification", 1, 1, "first"),
    "also-in-window": ("multilabel", 1, 1, "first"),
    "first-of-all": ("classification", 3, 1, "first"),
    "mean": ("regression", 1, 2, "mean"),
    "tags": ("tagging", 2, 1, "first"),
}


@pytest.fixture
def merged(long: support.Backbone, store: LocalStore) -> ReleaseManifest:
    modules = {
        name: support.make_module(
            *(kind, long.spec, long.store),
            tap=tap,
            depth=depth,
            seed=seed,
            head=HeadSpec(activation=None if kind == "tagging" else "tanh"),
            decision=Decision(pooling=pooling),
        )
        for seed, (name, (kind, tap, depth, pooling)) in enumerate(TASKS.items())
    }
    support.copy_backbone(long, store)
    return support.put_release(modules, [long.spec], store)


def test_tasks_answer_as_the_reference_and_the_same_bits_in_any_company(
    merged: ReleaseManifest, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Release.load(merged, store, engine="torch", device="cpu").logits(INPUTS)

    together = {
        threads: Release.load(merged, store, engine="onnx", threads=threads).logits(INPUTS)
        for threads in (1, 3)
    }

    assert_near(together[1], theirs, TOLERANCE)
    assert_same_bits(together[1], together[3])
    for name in TASKS:
        alone = Release.load(merged, store, engine="onnx", tasks=[name], threads=2)
        found = [alone.logits([text])[name][0] for text in INPUTS]
        assert_same_bits({name: found}, {name: together[1][name]})
    engine = BatchedEngine(torch.device("cpu"), "fp32")
    monkeypatch.setattr("centra.runtime.parts.open_engine", lambda *_, **__: engine)
    assert_near(Release.load(merged, store).logits(INPUTS), theirs, 2 * NEAR["fp32"])


class Largest(TorchDispatchMode):
    """Counts the values of the largest tensor that any operator gives."""

    values = 0

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for given in found if isinstance(found, tuple | list) else [found]:
            if isinstance(given, torch.Tensor):
                stored = given.untyped_storage().nbytes() // given.element_size()
                self.values = max(self.values, min(given.numel(), stored))
        return found


@pytest.mark.parametrize("inputs", [INPUTS[5:6], INPUTS[5:7]], ids=["one", "padded"])
def test_no_table_of_all_pairs_is_made(inputs: list[str], long: support.Backbone) -> None:
    batch = encoded(long, [Input(text) for text in inputs])
    onnx_states(long.spec, long.store, batch)  # What is made once.

    with Largest() as torch_made:
        trunk_states(long, tensors(batch))
        states_of(BatchedEngine(torch.device("cpu"), "fp32"), long.spec, long, batch)
    tracemalloc.start()
    try:
        onnx_states(long.spec, long.store, batch)
        _, made = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert torch_made.values < LONGEST**2
    assert made < 4 * LONGEST**2
