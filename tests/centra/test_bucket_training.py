"""Training whose data, work and results lie in a bucket: on this machine, and on a cluster."""

from __future__ import annotations

import json
import os
import pickle
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from centra.errors import CentraError, DataError, UnsupportedFormatError
from centra.formats.documents import sha256
from centra.store import LocalStore, open_path
from centra.store.s3.path import S3Path
from centra.system.locking import locked
from centra.training import engines, features, remote_work
from centra.training.engines import LocalEngine
from centra.training.features import MachineCache
from centra.training.jobs import Job, advance, take_module
from centra.training.output import opened_output
from centra.training.pipeline import run_pipeline
from centra.training.plan import Plan
from centra.training.remote_work import opened_work
from tests import support
from tests.centra.test_engines import die, engine_called

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from centra.training.engines import Engine
    from centra.training.history import History

PLAN = Plan.model_validate(
    {
        "task": "topic",
        "backbone": "tiny",
        "data": "topic",
        "search": {"layers": (2, 3), "learning_rates": (1e-2,)},
        "training": {"epochs": 2, "batch_size": 12, "dropout": 0.1},
        "distill": {"layers": (1,)},
        "select": {"threshold": 1000},
    }
)
FILES = ("module.safetensors", "teacher.safetensors", "scores.csv")


@pytest.fixture
def bucket(s3_url: str) -> S3Path:
    """An empty folder in a bucket."""
    place = open_path(s3_url)
    assert isinstance(place, S3Path)
    return place


@pytest.fixture
def data(bucket: S3Path, tiny_data: Callable[[str], Path]) -> S3Path:
    """The tiny topics, in the bucket."""
    for name in ("train.jsonl", "dev.jsonl"):
        (bucket / "data" / name).upload(tiny_data("single") / name)
    return bucket / "data"


@pytest.fixture
def fit(tiny_backbone: support.Backbone) -> Callable[..., None]:
    def fit(data: Path | S3Path, place: Path | S3Path, engine: Engine | None = None) -> None:
        with opened_output(place) as results:
            found = run_pipeline(
                tiny_backbone.spec,
                tiny_backbone.store,
                data,
                PLAN,
                output=results.folder,
                work=results.work,
                engine=engine or LocalEngine(1),
                cache=MachineCache(10**9),
            )
            found.module.write(results.folder / "module.safetensors")

    return fit


@pytest.fixture(scope="module")
def plain(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, bytes]:
    """What the same fit comes to on this machine's disk, without a cache; made once."""
    output = tmp_path_factory.mktemp("plain")
    found = run_pipeline(
        tiny_backbone.spec,
        tiny_backbone.store,
        tiny_data("single"),
        PLAN,
        output=output,
        engine=LocalEngine(1),
    )
    found.module.write(output / "module.safetensors")
    return {name: (output / name).read_bytes() for name in FILES}


def results(output: S3Path) -> dict[str, bytes | None]:
    return {name: (output / name).read_bytes() for name in FILES}


def assert_nothing_is_left_over(output: S3Path) -> None:
    """Neither here nor there: each run has the files of its state, and no machine any."""
    names = [*(output / "work").names()]
    runs = [name.rpartition("/")[0] for name in names if name.endswith("/state.json")]
    assert len(runs) == 3
    for run in runs:
        state = json.loads((output / "work" / run / "state.json").read_bytes() or b"")
        kept = {name.rpartition("/")[2] for name in names if name.startswith(f"{run}/files/")}
        assert kept == {*state["files"].values()}
    assert [*(Path(os.environ["CENTRA_CACHE"]) / "work").iterdir()] == []


# On this machine


def test_a_fit_in_a_bucket_goes_on_anywhere_and_ends_in_what_it_comes_to_on_disk(
    fit: Callable[..., None],
    data: S3Path,
    bucket: S3Path,
    plain: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = bucket / "fit"
    save = remote_work.LocalWork.save
    saved = 0

    def save_or_stop(work: remote_work.LocalWork) -> None:
        nonlocal saved
        saved += 1
        if saved in (2, 5):
            raise KeyboardInterrupt
        save(work)

    monkeypatch.setattr(remote_work.LocalWork, "save", save_or_stop)
    for machine in ("first", "second"):
        monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / machine))
        with pytest.raises(KeyboardInterrupt):
            fit(data, output)
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "third"))
    fit(data, output)

    assert results(output) == plain
    assert_nothing_is_left_over(output)
    # What is known is not trained again, and needs no checkpoint, whose files are large.
    monkeypatch.setattr("centra.training.run.make_trainer", None)
    monkeypatch.setattr(remote_work.LocalWork, "restore_checkpoints", None)
    fit(data, output)
    assert results(output) == plain


def test_a_module_whose_checkpoint_is_lost_is_trained_again(
    bucket: S3Path, tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path]
) -> None:
    job = Job(
        backbone=tiny_backbone.spec,
        reader=tiny_backbone.store,
        data=tiny_data("single"),
        recipe=replace(PLAN.recipe, tap=2, depth=1, learning_rate=1e-2, seed=0),
        work=bucket / "run",
    )
    advance(job)
    expected = take_module(replace(job, work=bucket / "whole"))
    state = json.loads((bucket / "run" / "state.json").read_bytes() or b"")
    for name, digest in state["files"].items():
        if name.endswith("/model.safetensors"):
            (bucket / "run" / "files" / digest).unlink()

    assert take_module(job).to_bytes() == expected.to_bytes()


@pytest.fixture
def work(bucket: S3Path) -> S3Path:
    """A run's work folder in the bucket, with a checkpoint and a note."""
    with opened_work(bucket / "work" / "run") as local:
        for name in ("checkpoint-1/weights", "note"):
            file = local.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
        local.save()
    return bucket / "work" / "run"


def held(work: S3Path) -> list[str]:
    with opened_work(work) as local:
        local.restore_checkpoints()
        files = [path for path in local.path.rglob("*") if path.is_file()]
        return sorted(path.relative_to(local.path).as_posix() for path in files)


def test_what_was_not_kept_is_gone_and_what_is_given_up_keeps_no_checkpoint(work: S3Path) -> None:
    with opened_work(work) as local:
        (local.path / "lost").touch()
    assert held(work) == ["checkpoint-1/weights", "note"]

    remote_work.discard_checkpoints(work)

    assert held(work) == ["note"]
    assert len([*(work / "files").names()]) == 1


@pytest.mark.parametrize("change", ["damaged", "missing"])
@pytest.mark.parametrize("name", ["note", "checkpoint-1/weights"])
def test_a_run_whose_files_are_not_whole_begins_anew(name: str, change: str, work: S3Path) -> None:
    file = work / "files" / sha256(name.encode())
    file.write_bytes(b"other") if change == "damaged" else file.unlink()

    assert held(work) == []
    assert [*(work / "files").names()] == []


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "a//b", "."])
def test_a_state_that_names_files_elsewhere_counts_for_nothing(name: str, work: S3Path) -> None:
    state = json.loads((work / "state.json").read_bytes() or b"")
    state["files"][name] = state["files"].pop("note")
    (work / "state.json").write_bytes(json.dumps(state).encode())

    assert held(work) == []


def test_checkpoints_of_another_run_are_not_brought(work: S3Path) -> None:
    with opened_work(work) as local:
        (local.path / "note").write_text("of another run")
        local.restore_checkpoints()
        assert [path.name for path in local.path.iterdir()] == ["note"]
        local.save()

    assert held(work) == ["note"]
    assert len([*(work / "files").names()]) == 1


def test_a_state_of_another_version_is_refused(work: S3Path) -> None:
    state = json.loads((work / "state.json").read_bytes() or b"") | {"format_version": "2.0"}
    (work / "state.json").write_bytes(json.dumps(state).encode())

    with pytest.raises(UnsupportedFormatError, match=r"centra/run-state 2\.0"):
        held(work)


def test_what_killed_runs_left_on_a_machine_is_removed_by_the_next(work: S3Path) -> None:
    root = Path(os.environ["CENTRA_CACHE"]) / "work"
    for name in ("abandoned", "at work"):
        (root / name / "run").mkdir(parents=True)

    with locked(root / "at work"):
        held(work)
        assert [path.name for path in root.iterdir()] == ["at work"]
    held(work)
    assert [*root.iterdir()] == []


def test_data_that_are_not_in_a_bucket_are_told(fit: Callable[..., None], bucket: S3Path) -> None:
    (bucket / "data" / "train.xml").write_bytes(b"")

    with pytest.raises(
        DataError, match=r"^s3://.*/data/train\.jsonl: no such file; .* train\.xml;"
    ):
        fit(bucket / "data", bucket / "fit")


# On a cluster


@dataclass(frozen=True)
class OnMachines:
    """A cluster whose jobs believe to be on two machines, and which loses a worker.

    Each machine has a cache and AWS settings of its own.
    """

    engine: Engine
    notes: Path
    """Says what happened: a folder that the jobs write to, for this test's sake."""
    victim: str = ""
    """The run whose worker is killed, in its second epoch."""
    one_machine = False

    def map(self, function: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
        assert function is advance
        settings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        messages = []
        for i, job in enumerate(jobs):
            # The data's folder is named for people alone.
            sent = replace(job, data=job.data.blobs)
            assert str(self.notes.parent).encode() not in pickle.dumps(sent), (
                "a path of this machine"
            )
            machine = settings | {"CENTRA_CACHE": str(self.notes / f"machine {i % 2}")}
            messages.append((job, machine, self.notes, self.victim))
        yield from self.engine.map(advance_on_machine, messages)


def advance_on_machine(message: tuple[Job, dict[str, str], Path, str]) -> History:
    job, settings, notes, victim = message
    os.environ.update(settings)
    save, compute = remote_work.LocalWork.save, features._compute

    def save_and_die(work: remote_work.LocalWork) -> None:
        save(work)
        if job.work.name == victim and not (notes / "killed").exists():
            (notes / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def noted(*arguments: Any) -> None:
        with (notes / "computed").open("a") as file:
            print(settings["CENTRA_CACHE"], sorted(arguments[3]), file=file)
        compute(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_work.LocalWork, "save", save_and_die)
        patch.setattr(features, "_compute", noted)
        return advance(job)


def test_a_fit_on_a_cluster_that_loses_a_worker_ends_as_on_this_machine(
    fit: Callable[..., None],
    tiny_data: Callable[[str], Path],
    bucket: S3Path,
    plain: dict[str, bytes],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = bucket / "fit"
    ray = engine_called("ray", request)

    # Data and backbone are on this machine's disk.
    fit(tiny_data("single"), output, OnMachines(ray, tmp_path, victim="layers-3-rate-0.01-seed-0"))

    assert (tmp_path / "killed").exists()
    assert "run 1 of 2 lost its worker, and is carried out again" in caplog.text
    assert results(output) == plain
    computed = (tmp_path / "computed").read_text().splitlines()
    # All taps at once, of train and dev: once on each machine, though several runs wanted them.
    assert sorted(computed) == sorted(
        f"{tmp_path}/machine {i} {taps}" for i in (0, 1) for taps in ([0, 1], [0, 1])
    )
    for machine in (tmp_path / "machine 0", tmp_path / "machine 1"):
        assert [*LocalStore(machine).blobs()], "its own copies"
        assert [*(machine / "work").iterdir()] == []


def test_what_loses_its_worker_again_and_again_is_given_up(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_LOSSES", 1)
    ray = engine_called("ray", request)

    with pytest.raises(
        CentraError, match=r"run 1 of 1 lost its worker 2 times, and is given up.* died"
    ):
        [*ray.map(die, [1])]

    assert dict(ray.map(die, [0, 2])) == {0: 0, 1: 2}
