"""Where runs are carried out: results and errors arrive whole, and nothing is left running."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra import errors
from centra.errors import CentraError, UsageError
from centra.store import LocalStore
from centra.store.s3 import S3Store
from centra.training.engines import ENGINES, LocalEngine, RayEngine, gpu_of, open_engine
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.store import BlobStore
    from centra.training.engines import Engine

SEVERAL = ("one process", "two processes", "ray")
MANY = 40


def engine_called(name: str, request: pytest.FixtureRequest) -> Engine:
    """One of the engines above; started once, because that takes seconds."""
    return _started(name, request.getfixturevalue("ray_address") if name == "ray" else "")


@cache
def _started(name: str, address: str) -> Engine:
    if name != "ray":
        return LocalEngine({"one process": 1, "two processes": 2}[name])
    with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
        environment.setenv("RAY_ADDRESS", address)
        warnings.simplefilter("ignore")  # Ray's own, of its own settings
        return RayEngine()


@pytest.fixture(params=SEVERAL)
def engine(request: pytest.FixtureRequest) -> Engine:
    return engine_called(request.param, request)


# Jobs, importable by name


def double(job: int) -> int:
    return 2 * job


def note(job: tuple[Path, int]) -> int:
    """Leave a file that says that the job has begun; the first one fails."""
    folder, number = job
    (folder / str(number)).touch()
    if number == 0:
        raise UsageError("the first job cannot be done")
    time.sleep(0.25)
    return number


def fail(make: tuple[type[Exception], tuple[Any, ...], dict[str, Any]]) -> None:
    kind, args, options = make
    raise kind(*args, **options)


def die(job: int) -> int:
    if job == 1:
        os._exit(9)
    return job


def fetch(job: tuple[BlobStore, str]) -> bytes:
    store, digest = job
    return store.fetch(digest).read_bytes()


def threads(job: int) -> tuple[int, int]:
    import torch

    time.sleep(0.2)
    return os.getpid(), torch.get_num_threads()


def say_and_sleep(job: Path) -> None:
    job.with_suffix(".tmp").write_text(str(os.getpid()))
    job.with_suffix(".tmp").rename(job)
    time.sleep(120)


# Results


def test_every_job_s_result_comes_with_its_number(engine: Engine) -> None:
    assert dict(engine.map(double, [5, 6, 7, 8, 9])) == {0: 10, 1: 12, 2: 14, 3: 16, 4: 18}


def test_no_jobs_have_no_results(engine: Engine) -> None:
    assert [*engine.map(double, [])] == []


def test_results_of_one_process_come_in_order_and_one_at_a_time(tmp_path: Path) -> None:
    results = LocalEngine(1).map(note, [(tmp_path, 1), (tmp_path, 2)])

    assert next(results) == (0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert [*results] == [(1, 2)]


def test_jobs_at_work_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    monkeypatch.delenv("OMP_NUM_THREADS")

    found = dict(_started("two processes", "").map(threads, [0, 1, 2, 3]))

    assert {count for _, count in found.values()} == {max(1, cores // 2)}
    assert len({process for process, _ in found.values()} | {os.getpid()}) == 3
    (_, (_, alone)) = next(_started("two processes", "").map(threads, [0]))
    assert alone == cores
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (_, (_, bounded)) = next(_started("two processes", "").map(threads, [0]))
    assert bounded == 1


# Errors

MADE: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "InvalidNameError": (("task", "A b", "lower case"), {}),
    "UnsupportedFormatError": (("here.json",), {"found": "2.0", "supported": "1.x"}),
    "TrainingDivergedError": ((3e-4,), {}),
    "BlobNotFoundError": (("ab" * 32, "the store"), {}),
    "CorruptBlobError": (("ab" * 32, "cd" * 32, "the store"), {}),
}
"""How to make the errors that do not take just their text."""
KINDS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type)),
    key=lambda kind: kind.__name__,
)


def made(kind: type[Exception]) -> tuple[type[Exception], tuple[Any, ...], dict[str, Any]]:
    return kind, *MADE.get(kind.__name__, ((f"what went wrong, a {kind.__name__}",), {}))


@pytest.mark.parametrize("kind", [k for k in KINDS if issubclass(k, CentraError)])
def test_every_error_can_go_to_another_process(kind: type[CentraError]) -> None:
    _, args, options = made(kind)
    error = kind(*args, **options)

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is kind
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


@pytest.mark.parametrize(
    "kind", [errors.UsageError, errors.BlobNotFoundError, errors.TrainingDivergedError, ValueError]
)
def test_error_of_a_job_reaches_the_caller_as_it_was(kind: type[Exception], engine: Engine) -> None:
    kind, args, options = made(kind)
    expected = kind(*args, **options)

    with pytest.raises(kind) as raised:
        [*engine.map(fail, [(kind, args, options)])]

    assert type(raised.value) is kind
    assert str(raised.value) == str(expected)
    assert getattr(raised.value, "digest", None) == getattr(expected, "digest", None)


def test_jobs_that_have_not_begun_are_given_up_after_an_error(
    engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="the first job cannot be done"):
        [*engine.map(note, [(tmp_path, number) for number in range(MANY)])]

    # What comes later in the queue would have had its turn by now.
    assert dict(engine.map(double, range(8))) == {i: 2 * i for i in range(8)}
    assert not (tmp_path / str(MANY - 1)).exists()
    assert len([*tmp_path.iterdir()]) < MANY / 2


def test_jobs_that_have_not_begun_are_given_up_when_no_more_results_are_taken(
    engine: Engine, tmp_path: Path
) -> None:
    results = engine.map(note, [(tmp_path, number) for number in range(1, MANY)])
    next(results)
    results.close()

    assert dict(engine.map(double, range(8))) == {i: 2 * i for i in range(8)}
    assert not (tmp_path / str(MANY - 1)).exists()


def test_worker_that_was_killed_is_told_and_does_not_spoil_the_engine() -> None:
    engine = LocalEngine(2)

    with pytest.raises(CentraError, match=r"ended from outside.*fewer jobs"):
        [*engine.map(die, [0, 1])]

    assert dict(engine.map(double, [1, 2])) == {0: 2, 1: 4}


# Processes

PARENT = """
import sys
from pathlib import Path
from centra.training.engines import LocalEngine
from tests.centra.test_engines import say_and_sleep

if __name__ == "__main__":
    [*LocalEngine(2).map(say_and_sleep, [Path(name) for name in sys.argv[1:]])]
"""


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    files = [tmp_path / name for name in ("first", "second")]
    with subprocess.Popen(
        [sys.executable, script, *files],
        cwd=support.ROOT,
        env=os.environ | {"PYTHONPATH": str(support.ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as parent:
        try:
            began = wait_until(lambda: all(path.is_file() for path in files), seconds=120)
        finally:
            parent.kill()
    assert began
    workers = [int(path.read_text()) for path in files]

    assert len({*workers, parent.pid}) == 3
    assert wait_until(lambda: not any(runs(worker) for worker in workers), seconds=30)


def test_local_store_can_go_to_another_process(store: LocalStore) -> None:
    digest = store.put(b"weights")

    assert [*_started("two processes", "").map(fetch, [(store, digest)])] == [(0, b"weights")]


def test_s3_store_can_go_to_another_process(s3_url: str, tmp_path: Path) -> None:
    """After it was used, too: its connection stays here."""
    store = S3Store(s3_url, cache=LocalStore(tmp_path / "cache"))
    digest = store.put(b"weights")

    again = pickle.loads(pickle.dumps(store))

    assert again.fetch(digest).read_bytes() == b"weights"
    assert again.url == store.url
    other = S3Store(s3_url, cache=LocalStore(tmp_path / "other"))
    assert other.has(digest)
    # Workers that begin now have this test's credentials.
    assert [*LocalEngine(2).map(fetch, [(other, digest)])] == [(0, b"weights")]


# GPUs


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", ["0", "1", "0", "1"]),
        ("4,6", ["4", "6", "4", "6"]),
        ("GPU-5f3a, GPU-77b1", ["GPU-5f3a", "GPU-77b1", "GPU-5f3a", "GPU-77b1"]),
        ("3,1,-1,0", ["3", "1", "3", "1"]),  # CUDA looks no further than -1.
    ],
)
def test_each_process_has_one_gpu_of_those_that_the_caller_has(
    visible: str, expected: list[str]
) -> None:
    assert [gpu_of(place, 2, visible) for place in range(4)] == expected


# Opening


@pytest.mark.parametrize("processes", [0, -1])
def test_fewer_than_one_process_are_refused(processes: int) -> None:
    with pytest.raises(UsageError, match=f"jobs must be at least 1, found {processes}"):
        open_engine("local", processes)


def test_local_engine_has_the_processes_asked_for_or_some() -> None:
    engine = open_engine("local", 3)
    default = open_engine("local")

    assert isinstance(engine, LocalEngine)
    assert engine.processes == 3
    assert isinstance(default, LocalEngine)
    assert default.processes >= 1


@pytest.mark.parametrize("name", ["", "Local", "slurm"])
def test_unknown_engine_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"engine '{name}': expected one of local, ray"):
        open_engine(name)
    assert ENGINES == ("local", "ray")


def test_processes_that_were_seeded_alike_are_not_one_to_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []
    monkeypatch.setattr("ray.init", lambda **_: drawn.append(random.random()))
    for _ in range(2):
        random.seed(0)
        state = random.getstate()
        RayEngine()
        assert random.getstate() == state
    assert drawn[0] != drawn[1]


def test_ray_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(UsageError, match=r"pip install 'centra\[ray\]'"):
        open_engine("ray")
