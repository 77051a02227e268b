"""Frozen hidden states on disk: they change nothing, keep to their budget, and are never half."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import read_examples
from centra.errors import StoreNotWritableError
from centra.modeling.trunk import Trunk
from centra.tokenization.text_encoder import Encoded, Row, TextEncoder
from centra.training import features
from centra.training.features import FeatureCache
from centra.training.recipe import Recipe
from centra.training.run import Run
from centra.training.task_data import TaskData
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.training.history import History

PLENTY = 10**9
TAPS = range(support.LAYERS + 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "features"


@pytest.fixture(scope="module")
def rows(tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path]) -> list[Row]:
    """Of many lengths."""
    examples = read_examples(tiny_data("tagging") / "train.jsonl")[:12]
    encoder = TextEncoder.of(tiny_backbone.spec, tiny_backbone.store)
    return encoder.encode(example.input for example in examples)


@pytest.fixture
def ensure(tiny_backbone: support.Backbone, rows: list[Row]) -> Callable[..., None]:
    def ensure(cache: FeatureCache, *taps: int, of: list[Row] = rows, **options: Any) -> None:
        cache.ensure(tiny_backbone.spec, tiny_backbone.store, of, taps, **options)

    return ensure


@pytest.fixture
def holds(tiny_backbone: support.Backbone, rows: list[Row]) -> Callable[..., list[int]]:
    """The taps that a cache has."""

    def holds(cache: FeatureCache, of: list[Row] = rows) -> list[int]:
        return [tap for tap in TAPS if cache.find(tiny_backbone.spec, of, tap) is not None]

    return holds


def size(rows: list[Row]) -> int:
    """Bytes of one tap."""
    return 4 * support.HIDDEN * sum(len(row.input_ids) for row in rows)


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0


def assert_true_states(
    cache: FeatureCache, backbone: support.Backbone, rows: list[Row], tap: int
) -> None:
    found = cache.find(backbone.spec, rows, tap)
    assert found is not None
    trunk = Trunk(backbone.spec, backbone.store, depth=tap)
    for i, row in enumerate(rows):
        alone = {k: torch.from_numpy(v) for k, v in vars(Encoded.pad([row], 0)).items()}
        with torch.inference_mode():
            expected = trunk(**alone, taps=[tap])[tap][0].numpy()
        assert found[i].shape == (len(row.input_ids), support.HIDDEN)
        assert np.allclose(found[i], expected, atol=1e-5)


# Nothing changes


def trained(
    backbone: support.Backbone, data: Path, work: Path, cache: FeatureCache | None, **options: Any
) -> History:
    recipe = Recipe(
        tap=2, depth=1, epochs=2, learning_rate=1e-2, batch_size=8, dropout=0.1, patience=9
    )
    examples = TaskData.load(backbone.spec, backbone.store, data)
    run = Run(backbone.spec, backbone.store, examples, recipe, work=work, cache=cache)
    return run.train(**options)


def assert_same(found: History, expected: History) -> None:
    assert len(found.epochs) == len(expected.epochs) == 2
    for one, other in zip(found.epochs, expected.epochs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-5)


@pytest.mark.parametrize("data", support.DATA_KINDS)
def test_training_is_the_same_whatever_part_of_the_data_is_cached(
    data: str,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In bfloat16 what differs in a batch's padding differs in more digits.
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    examples = TaskData.load(tiny_backbone.spec, tiny_backbone.store, tiny_data(data))
    train, dev = size(examples.train.rows), size(examples.dev.rows)
    assert dev < train
    plain = trained(tiny_backbone, tiny_data(data), tmp_path / "plain", None)
    asked: list[str] = []
    whole = Trunk.forward

    def forward(trunk: Trunk, *args: Any, **kwargs: Any) -> Any:
        asked.append("trunk")
        return whole(trunk, *args, **kwargs)

    monkeypatch.setattr(Trunk, "forward", forward)
    # Room for both splits; for one, so that the second takes the first one's; for dev; for none.
    for budget, files in ((train + dev, 2), (train, 1), (dev, 1), (dev - 1, 0)):
        cache = FeatureCache(tmp_path / f"cache-{budget}", budget)
        over: list[int] = []

        def progress(*_: Any, cache: FeatureCache = cache, over: list[int] = over) -> None:
            over += [held(cache.folder)] if held(cache.folder) > cache.budget else []

        asked.clear()
        found = trained(
            tiny_backbone, tiny_data(data), tmp_path / str(budget), cache, progress=progress
        )

        assert_same(found, plain)
        assert not over
        assert held(cache.folder) <= budget
        assert len([*cache.folder.iterdir()] if cache.folder.is_dir() else []) == files
        if budget >= train:
            assert len(asked) == 2, "one pass for each split, not one for each batch"


def test_states_are_those_of_the_frozen_layers(
    tiny_backbone: support.Backbone,
    rows: list[Row],
    folder: Path,
    ensure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever rows are computed together."""
    monkeypatch.setattr(features, "_BATCH_TOKENS", 40)
    cache = FeatureCache(folder, PLENTY)
    seen: list[tuple[str, int, int]] = []

    ensure(cache, *TAPS, progress=lambda *call: seen.append(call))

    for tap in TAPS:
        assert_true_states(cache, tiny_backbone, rows, tap)
    assert len(seen) == 3, "several batches of other lengths"
    assert seen[-1][1:] == (len(rows), len(rows))


def test_what_is_there_is_not_computed_again(folder: Path, ensure: Callable[..., None]) -> None:
    cache = FeatureCache(folder, PLENTY)
    ensure(cache, 1, 2)
    seen: list[Any] = []

    ensure(cache, 2, 1, progress=lambda *call: seen.append(call))

    assert not seen


def test_of_several_who_want_it_at_once_one_computes_it(
    folder: Path, ensure: Callable[..., None], holds: Callable[..., list[int]]
) -> None:
    cache = FeatureCache(folder, PLENTY)
    seen: list[Any] = []

    with ThreadPoolExecutor(4) as pool:
        for each in [
            pool.submit(ensure, cache, 1, 2, progress=lambda *call: seen.append(call))
            for _ in range(4)
        ]:
            each.result()

    assert holds(cache) == [1, 2]
    assert len({done for _, done, _ in seen}) == len(seen), "one pass over the rows"


def test_nothing_is_found_where_nothing_was_kept(
    folder: Path, holds: Callable[..., list[int]]
) -> None:
    assert holds(FeatureCache(folder, PLENTY)) == []


# Whose they are


def test_other_texts_never_share_states(
    folder: Path, rows: list[Row], ensure: Callable[..., None], holds: Callable[..., list[int]]
) -> None:
    cache = FeatureCache(folder, PLENTY)
    ensure(cache, 1)
    first = rows[0]
    other_words = Row([*first.input_ids[:-1], first.input_ids[1]], *[*vars(first).values()][1:])
    other_types = Row(first.input_ids, [1] * len(first.input_ids), first.offsets)
    # The same tokens in all, cut at another place.
    cut = [
        Row(first.input_ids + rows[1].input_ids[:1], [*first.token_type_ids, 0], first.offsets),
        Row(rows[1].input_ids[1:], rows[1].token_type_ids[1:], rows[1].offsets),
    ]

    for others in (
        [other_words, *rows[1:]],
        [other_types, *rows[1:]],
        [*cut, *rows[2:]],
        rows[::-1],
        rows[1:],
    ):
        assert holds(cache, others) == []
        ensure(cache, 1, of=others)
    assert len([*folder.iterdir()]) == 6


def test_same_tokens_share_states_wherever_they_came_from(
    folder: Path, rows: list[Row], ensure: Callable[..., None], holds: Callable[..., list[int]]
) -> None:
    ensure(FeatureCache(folder, PLENTY), 1)
    again = [Row([*row.input_ids], [*row.token_type_ids], []) for row in rows]

    assert holds(FeatureCache(folder, PLENTY), again) == [1]


def test_another_backbone_never_shares_states(
    tiny_backbone: support.Backbone,
    rows: list[Row],
    folder: Path,
    store: Any,
    tmp_path: Path,
    ensure: Callable[..., None],
) -> None:
    """One of the same shape, tokenizer and all."""
    other = import_backbone(str(support.make_encoder("bert", tmp_path / "other", seed=1)), store)
    cache = FeatureCache(folder, PLENTY)
    ensure(cache, 1)
    assert cache.find(other, rows, 1) is None

    cache.ensure(other, store, rows, [1])

    assert_true_states(cache, support.Backbone(other, store, tmp_path), rows, 1)
    assert_true_states(cache, tiny_backbone, rows, 1)


# The budget


def test_deepest_taps_are_kept_where_there_is_not_room_for_all(
    folder: Path, rows: list[Row], ensure: Callable[..., None], holds: Callable[..., list[int]]
) -> None:
    cache = FeatureCache(folder, 3 * size(rows) - 1)

    ensure(cache, *TAPS)

    assert holds(cache) == [2, 3]
    assert held(folder) == 2 * size(rows)


def kept(cache: FeatureCache, tap: int, ensure: Callable[..., None]) -> Path:
    """Keep a tap; the file that it is in."""
    before = {*cache.folder.iterdir()} if cache.folder.is_dir() else set()
    ensure(cache, tap)
    (new,) = {*cache.folder.iterdir()} - before
    return new


def test_what_was_used_longest_ago_makes_room(
    tiny_backbone: support.Backbone, folder: Path, rows: list[Row], ensure: Callable[..., None]
) -> None:
    cache = FeatureCache(folder, 3 * size(rows))
    files = [kept(cache, tap, ensure) for tap in (0, 1, 2)]
    for age, path in zip((30, 20, 10), files, strict=True):
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    cache.find(tiny_backbone.spec, rows, 0)

    ensure(cache, 3)

    assert [path.is_file() for path in files] == [True, False, True]
    assert held(folder) == 3 * size(rows)


def test_what_is_asked_for_does_not_make_room_for_itself(
    folder: Path, rows: list[Row], ensure: Callable[..., None], holds: Callable[..., list[int]]
) -> None:
    cache = FeatureCache(folder, 2 * size(rows))
    os.utime(kept(cache, 2, ensure), (0, 0))
    ensure(cache, 1)

    ensure(cache, 3, 2)

    assert holds(cache) == [2, 3]


def test_states_in_use_stay_readable_when_they_have_made_room(
    tiny_backbone: support.Backbone, folder: Path, rows: list[Row], ensure: Callable[..., None]
) -> None:
    cache = FeatureCache(folder, size(rows))
    ensure(cache, 1)
    found = cache.find(tiny_backbone.spec, rows, 1)
    assert found is not None
    before = [np.array(found[i]) for i in range(len(rows))]

    ensure(cache, 2)

    assert cache.find(tiny_backbone.spec, rows, 1) is None
    assert all(np.array_equal(found[i], states) for i, states in enumerate(before))


def test_files_of_others_are_neither_counted_nor_removed(
    folder: Path, rows: list[Row], ensure: Callable[..., None], holds: Callable[..., list[int]]
) -> None:
    folder.mkdir()
    theirs = [folder / name for name in ("notes.txt", ".hidden", "states.f32")]
    for path in theirs:
        path.write_bytes(b"x" * 2 * size(rows))
        os.utime(path, (0, 0))
    cache = FeatureCache(folder, size(rows))
    ensure(cache, 1)

    ensure(cache, 2)

    assert holds(cache) == [2]
    assert all(path.is_file() for path in theirs)


# Interrupted


def test_interrupted_pass_leaves_nothing(folder: Path, ensure: Callable[..., None]) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(FeatureCache(folder, PLENTY), 1, 2, progress=stop)

    assert not [*folder.iterdir()]


KILLED = """
import os, signal, sys
from pathlib import Path
from centra.formats.backbone import BackboneSpec
from centra.data.inputs import read_examples
from centra.tokenization.text_encoder import TextEncoder
from centra.store import LocalStore
from centra.training import features

folder, data, root, digest = sys.argv[1:]
features._BATCH_TOKENS = 40
store = LocalStore(Path(root))
backbone = BackboneSpec.from_bytes(store.fetch(digest).read_bytes(), digest)
examples = read_examples(Path(data) / "train.jsonl")[:12]
rows = TextEncoder.of(backbone, store).encode(example.input for example in examples)
kill = lambda what, done, total: done > 5 and os.kill(os.getpid(), signal.SIGKILL)
features.FeatureCache(Path(folder), 10**9).ensure(backbone, store, rows, [1, 2], kill)
"""


def test_killed_pass_leaves_nothing_that_is_taken_for_whole(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    folder: Path,
    rows: list[Row],
    ensure: Callable[..., None],
    holds: Callable[..., list[int]],
    warm_python: Path,
) -> None:
    arguments = [folder, tiny_data("tagging"), tiny_backbone.store.root, tiny_backbone.spec.digest]
    done = subprocess.run(
        [warm_python, "-c", KILLED, *arguments],
        check=False,
        capture_output=True,
    )
    assert done.returncode == -9, done.stderr.decode()
    left = [*folder.iterdir()]
    assert len(left) == 2, "both were being written"
    cache = FeatureCache(folder, 2 * size(rows))
    assert holds(cache) == []

    for path in left:
        os.utime(path, (0, 0))
    ensure(cache, 1, 2)

    assert held(folder) <= cache.budget, "what the dead process left makes room, too"
    for tap in (1, 2):
        assert_true_states(cache, tiny_backbone, rows, tap)


def test_pass_goes_on_without_when_another_process_takes_its_room(
    folder: Path, ensure: Callable[..., None], holds: Callable[..., list[int]]
) -> None:
    def take(*_: Any) -> None:
        for path in folder.iterdir():
            path.unlink()

    cache = FeatureCache(folder, PLENTY)
    ensure(cache, 1, 2, progress=take)

    assert holds(cache) == []
    assert not [*folder.iterdir()]


def test_cache_that_cannot_be_written_is_refused(
    tmp_path: Path, ensure: Callable[..., None]
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreNotWritableError, match=r"feature cache .*file.*free") as caught:
        ensure(FeatureCache(tmp_path / "file", PLENTY), 1)
    assert caught.value.code == "feature-cache-not-writable"
    assert caught.value.data == {"folder": str(tmp_path / "file")}
