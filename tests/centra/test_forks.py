"""Processes that are forked from one with a loaded release, and what they must not share with it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

import centra
from centra.errors import UsageError
from centra.runtime import Release
from centra.runtime.pool import Pool
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.store import LocalStore
from centra.store.s3 import S3Store
from centra.system.forks import computing
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule

TEXTS = ["wake me at seven", "play some jazz", "will it rain in new york"]
ENGINES = {
    "onnx": {"engine": "onnx", "threads": 2},
    "torch": {"engine": "torch", "device": "cpu"},
    "batched": {"engine": "torch", "device": "cpu", "dtype": "bf16"},
}
WORKERS = 4
WAIT = 60


@pytest.fixture
def manifest(
    backbone_store: LocalStore,
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
) -> ReleaseManifest:
    modules = {
        "topic": make_module(tap=1, depth=1),
        "tags": make_module("tagging", tap=2, depth=1, seed=1),
        "mood": make_module(tap=1, depth=1, seed=2),
    }
    return support.put_release(modules, [tiny_backbone.spec], backbone_store)


@pytest.fixture(params=ENGINES)
def load(
    request: pytest.FixtureRequest, manifest: ReleaseManifest, backbone_store: LocalStore
) -> Callable[[], Release]:
    return partial(Release.load, manifest, backbone_store, **ENGINES[request.param])


def in_workers(work: Callable[[], bool], count: int = WORKERS) -> list[int | None]:
    """The exit codes of forked processes that do something side by side: 0 where it was true."""

    def run() -> None:
        os._exit(0 if work() else 3)

    children = [multiprocessing.get_context("fork").Process(target=run) for _ in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(WAIT)
    codes = [child.exitcode for child in children]
    for child in children:
        if child.exitcode is None:
            child.kill()
            child.join()
    return codes


def test_workers_that_are_forked_after_predictions_answer_as_their_parent(
    load: Callable[[], Release],
) -> None:
    release = load()
    expected = release.predict(TEXTS)

    def answers() -> bool:
        assert dict(release.stream(TEXTS[:1]))
        assert release.profile(TEXTS).tasks.keys() == {"topic", "tags", "mood"}
        own, _ = release.probe_logits("tags")
        return len(own) > 0 and release.predict(TEXTS) == expected

    assert in_workers(answers) == [0] * WORKERS
    assert release.predict(TEXTS) == expected


def test_a_release_that_has_not_answered_yet_goes_through_a_fork_too(
    load: Callable[[], Release],
) -> None:
    release = load()
    assert in_workers(lambda: len(release.predict(TEXTS)) == 3) == [0] * WORKERS


def test_workers_can_fork_again_and_load_anew(load: Callable[[], Release]) -> None:
    release = load()
    expected = release.predict(TEXTS)

    def forks_again() -> bool:
        return in_workers(lambda: release.predict(TEXTS) == expected, 2) == [0, 0]

    def loads() -> bool:
        return release.predict(TEXTS) == load().predict(TEXTS) == expected

    assert in_workers(forks_again, 1) == [0]
    assert in_workers(loads, 2) == [0, 0]


def test_a_fork_in_the_middle_of_other_threads_requests_hurts_nobody(
    load: Callable[[], Release],
) -> None:
    release = load()
    expected = release.predict(TEXTS)
    stop, wrong = threading.Event(), list[object]()

    def serve() -> None:
        while not stop.is_set():
            found = release.predict(TEXTS)
            if found != expected:
                wrong.append(found)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            assert in_workers(lambda: release.predict(TEXTS) == expected) == [0] * WORKERS
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT)
    assert wrong == []


def test_an_answer_that_the_parent_is_in_the_middle_of_is_refused_in_the_child(
    load: Callable[[], Release],
) -> None:
    release = load()
    running = release.stream(TEXTS)
    first = next(running)

    def goes_on() -> bool:
        with pytest.raises(UsageError, match="ask again here"):
            list(running)
        return len(release.predict(TEXTS)) == 3

    assert in_workers(goes_on, 2) == [0, 0]
    assert len([first, *running]) == 3


def test_a_fork_waits_for_what_is_being_computed_and_keeps_what_comes_after_it_waiting() -> None:
    began, go, order = threading.Event(), threading.Event(), list[str]()
    pool = Pool(1)

    def job() -> None:
        began.set()
        go.wait(WAIT)
        order.append("computed")

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        order.append("forked")
        os.waitpid(pid, 0)

    pool.submit(job, 1.0)
    assert began.wait(WAIT)
    forking = threading.Thread(target=fork)
    forking.start()
    while not computing._forks:
        pass
    pool.submit(lambda: order.append("later"), 0.0)
    assert order == []
    go.set()
    forking.join(WAIT)
    pool.run(lambda: None)
    assert order[0] == "computed"
    assert sorted(order) == ["computed", "forked", "later"]


def test_a_signal_s_handler_may_fork_in_the_middle_of_a_block() -> None:
    with computing:
        assert in_workers(lambda: True, 1) == [0]
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_release_on_a_gpu_is_refused_at_once_in_a_forked_process(
    load: Callable[[], Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    init = BatchedEngine.__init__

    def on_gpu(self: BatchedEngine, *arguments: object) -> None:
        init(self, *arguments)
        self.forks = False

    monkeypatch.setattr(BatchedEngine, "__init__", on_gpu)
    release = load()
    assert len(release.predict(TEXTS)) == 3

    def refused() -> bool:
        for ask in (release.predict, release.logits, release.profile):
            with pytest.raises(UsageError, match="without preloading"):
                ask(TEXTS)
        with pytest.raises(UsageError, match="spawn"):
            release.probe_logits("topic")
        return True

    if release._parts.forks is None:  # An engine of the CPU.
        assert in_workers(lambda: len(release.predict(TEXTS)) == 3, 1) == [0]
    else:
        assert in_workers(refused, 2) == [0, 0]
    assert len(release.predict(TEXTS)) == 3


def test_a_release_says_how_else_it_comes_to_a_process_that_is_not_forked(
    load: Callable[[], Release],
) -> None:
    with pytest.raises(UsageError, match=r"load it there with centra\.load_release"):
        pickle.dumps(load())


def _loads(address: str, expected: object) -> None:
    os._exit(0 if centra.load_release(address).predict(TEXTS) == expected else 3)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_are_not_forked_load_by_the_address(
    method: str, manifest: ReleaseManifest, backbone_store: LocalStore
) -> None:
    address = f"{backbone_store.url}#{manifest.digest}"
    expected = centra.load_release(address).predict(TEXTS)
    child = multiprocessing.get_context(method).Process(target=_loads, args=(address, expected))
    child.start()
    child.join(WAIT)
    assert child.exitcode == 0


_OPENMP = """
import os, sys, torch
from centra.runtime.pool import Pool
torch.set_num_threads(2)
square = torch.ones(600, 600)
(square @ square).sum().exp()          # OpenMP now has a thread for this one ...
pool, children = Pool(1), []
for _ in range(3):
    pid = os.fork()
    if pid == 0:                       # ... which is not here.
        pool.run(lambda: (square @ square).sum().exp())
        os._exit(0)
    children.append(pid)
sys.exit(max(os.waitpid(pid, 0)[1] for pid in children))
"""


def test_what_torch_computes_in_a_child_needs_no_thread_of_the_parent() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", _OPENMP]
    subprocess.run(command, env=environment, timeout=WAIT, check=True)


def test_whatever_computes_does_so_in_threads_of_the_pool(
    load: Callable[[], Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    release, names = load(), set[str]()
    for task in release._parts.tasks.values():
        run = task.branch.run

        def noted(*given: object, run: Callable[..., object] = run) -> object:
            names.add(threading.current_thread().name)
            return run(*given)

        monkeypatch.setattr(task.branch, "run", noted)
    release.predict(TEXTS)
    release.profile(TEXTS)
    release.probe_logits("topic")
    assert names == {"centra"}


@pytest.fixture
def s3_store(tmp_path: Path, s3_url: str) -> Iterator[S3Store]:
    yield S3Store(s3_url, cache=LocalStore(tmp_path / "cache"))


def test_workers_have_connections_of_their_own_to_an_s3_store(s3_store: S3Store) -> None:
    blobs = {s3_store.put(bytes([i]) * 5000): bytes([i]) * 5000 for i in range(WORKERS)}
    parents = s3_store.client.boto

    def reads() -> bool:
        cache = LocalStore(s3_store.cache.root / str(os.getpid()))
        s3_store.cache = cache
        assert s3_store.client.boto is not parents
        return all(s3_store.fetch(d).read_bytes() == data for d, data in blobs.items())

    assert in_workers(reads) == [0] * WORKERS
    assert s3_store.client.boto is parents
    assert pickle.loads(pickle.dumps(s3_store)).url == s3_store.url
