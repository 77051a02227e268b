"""The benchmarks run, and what they measure on is a registry as people make one.

Nothing here depends on how long anything takes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from benchmarks import gpu
from benchmarks.tools.doors import ray_command
from benchmarks.tools.encoders import FAMILIES
from benchmarks.tools.family import own_layer
from benchmarks.tools.reference import Setup, Setups, sentence_tasks
from benchmarks.tools.rows import NUMBERS, BulkTask, fill
from benchmarks.tools.sizing import Assumptions, ServerRate, needed
from centra.runtime import load_release
from centra.runtime.devices import has_gpu
from cli.serve import serve
from registry import Registry, audit, backbones, tasks
from registry.database.models import AuditEvent, Base, Task, TaskVersion
from tests import support
from tests.support import ROOT, version_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore

SCRIPTS = sorted((ROOT / "benchmarks").glob("[a-z]*.py"))
RESULTS = ROOT / "benchmarks" / "REGISTRY.md"
DATA = Path(os.environ.get("CENTRA_DATA", ROOT.parent / "shared" / "data"))

needs_data = pytest.mark.skipif(
    not (DATA / "trec").is_dir(), reason=f"no labelled data sets in {DATA} (see CENTRA_DATA)"
)


@pytest.fixture
def registry(make_encoder: Callable[[str], Path], tmp_path: Path) -> Iterator[Registry]:
    """A registry that holds one backbone."""
    made = Registry.create(
        tmp_path,
        database=f"sqlite:///{tmp_path / 'registry.db'}",
        store=str(tmp_path / "store"),
        actor="nlu/ada",
    )
    backbones.register(made, "tiny", str(make_encoder("bert")))
    yield made
    made.engine.dispose()


def written(registry: Registry, name: str) -> dict[str, list[Any]]:
    """What is written about a task, without what is a matter of chance: all but digests and such."""

    def kinds(row: Base) -> dict[str, type]:
        return {c.key: type(getattr(row, c.key)) for c in row.__table__.columns}

    with registry.read() as uow:
        task = uow.task(name)
        events = select(AuditEvent).where(AuditEvent.subject == name).order_by(AuditEvent.id)
        versions = (
            select(TaskVersion).where(TaskVersion.task_id == task.id).order_by(TaskVersion.id)
        )
        return {
            "task": [(kinds(task), task.state)],
            "versions": [
                (kinds(v), v.number, v.current_of == v.task_id, v.kind, v.input, v.backbone_id)
                for v in uow.session.scalars(versions)
            ],
            "events": [
                (kinds(e), e.action, e.forced, {k: type(x) for k, x in e.details.items()})
                for e in uow.session.scalars(events)
            ],
            "times": [
                [v.created_at for v in task.versions] == sorted(v.created_at for v in task.versions)
            ],
        }


def test_bulk_rows_are_those_that_the_registry_writes_itself(
    registry: Registry, make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    bulk = BulkTask(number=0, teams=1)
    assert bulk.kind == "classification"
    fill(registry, [bulk, BulkTask(number=1, teams=1)])
    for seed, number in enumerate(NUMBERS):
        labels = ["a", "b", "c"][: 1 + int(number[0])]
        path = tmp_path / f"{seed}.safetensors"
        make_module(seed=seed, labels=labels, metrics={"accuracy": 0.9}).write(path)
        verb = "register" if seed == 0 else "redefine" if number.endswith(".0") else "update"
        getattr(tasks, verb)(registry, "own", path)
    tasks.retire(registry, "own")

    assert written(registry, bulk.name) == written(registry, "own")
    # 1 for the backbone; the chain goes on from what was filled in.
    assert audit.verify(registry).events == 1 + 3 * (len(NUMBERS) + 1)


def test_every_team_has_bulk_tasks_of_every_kind(registry: Registry) -> None:
    fill(registry, [BulkTask(number=number, teams=3) for number in range(24)])
    rows = tasks.list(registry)
    assert len({(row.team, row.kind) for row in rows}) == 3 * 4
    assert {row.version for row in rows} == {version_number(NUMBERS[-1])}
    with registry.read() as uow:
        assert len(uow.session.scalars(select(Task.id)).all()) == 24


def test_the_registry_benchmark_measures_both_databases_and_counts_bytes(
    tmp_path: Path, warm_python: Path
) -> None:
    before = RESULTS.read_bytes()
    done = subprocess.run(
        [
            *(str(warm_python), str(ROOT / "benchmarks" / "registry.py"), "--quick", "--no-mlflow"),
            *("--tasks", "6", "--live", "2", "--rounds", "1"),
            *("--json", str(tmp_path / "goals.json")),
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 tasks with 60 versions, 2 of the tasks active" in done.stdout
    goals = json.loads((tmp_path / "goals.json").read_text())
    assert all(goal.keys() == {"name", "value", "goal", "met"} for goal in goals)
    values = {goal["name"]: goal["value"] for goal in goals}
    for database in ("SQLite", "PostgreSQL"):
        assert values[f"{database}: filtered list, 95th percentile, ms"] > 0
        assert values[f"{database}: recompose, bytes moved beside the change"] == 0
        assert values[f"{database}: pull after it, bytes moved beside the change"] == 0
    # A quick run leaves the last full run's results alone.
    assert RESULTS.read_bytes() == before


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_run_as_a_script_finds_our_packages(script: Path) -> None:
    """Those that run below are started where the packages have been imported already."""
    path, *rest = re.split(
        r"^from (?:benchmarks|centra|registry)\b",
        script.read_text(),
        maxsplit=1,
        flags=re.MULTILINE,
    )
    assert "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))\n" in path
    assert rest[0].endswith('if __name__ == "__main__":\n    sys.exit(main())\n')


@needs_data
@pytest.mark.parametrize(
    ("script", "goals", "says"),
    [
        (
            "study",
            [
                "% of full fine-tuning's average",
                "% of its layers",
            ],
            (
                "| full fine-tuning |",
                "| KD-2 from the backbone |",
                "| joint |",
                "| leave one out |",
            ),
        ),
        (
            "choosing",
            [
                "time to choose, in full fine-tunings, at most",
                "time to choose, in full fine-tunings, mean",
                "points below the exhaustive search",
            ],
            ("| trec |",),
        ),
    ],
)
def test_the_benchmarks_of_quality_run_all_that_they_report(
    script: str, goals: list[str], says: tuple[str, ...], tmp_path: Path, warm_python: Path
) -> None:
    results = {file: file.read_bytes() for file in (ROOT / "benchmarks").glob("*.md")}
    done = subprocess.run(
        [
            *(str(warm_python), str(ROOT / "benchmarks" / f"{script}.py"), "--quick"),
            # In that very process: others would have to import torch again.
            *("--jobs", "1"),
            *("--work", str(tmp_path / "work"), "--json", str(tmp_path / "goals.json")),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "goals.json").read_text())
    assert all(a in b["name"] for a, b in zip(goals, found, strict=True))
    assert all(goal.keys() == {"name", "value", "goal", "met"} for goal in found)
    for line in says:
        assert line in done.stdout
    assert all(file.read_bytes() == before for file, before in results.items())


def test_the_gpu_benchmark_says_where_there_is_none(tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("there is one")
    done = subprocess.run(
        [
            *(
                sys.executable,
                str(ROOT / "benchmarks" / "gpu.py"),
                "--work",
                str(tmp_path / "work"),
            ),
            *("--json", str(tmp_path / "goals.json")),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "no GPU here: nothing measured\n"), done.stderr
    assert not [*tmp_path.iterdir()]


def test_the_gpu_benchmark_measures_all_ways(
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    make_module: Callable[..., TaskModule],
) -> None:
    modules = {f"task-{i}": make_module(tap=1 + i % 2, depth=i % 3, seed=i) for i in range(4)}
    manifest = support.put_release(modules, [tiny_backbone.spec], backbone_store)
    sizes = gpu.Sizes(batches=(1, 2), clients=(1, 2), seconds=0.02, matrix=64)

    found = gpu.measure(Setup(manifest, backbone_store), tiny_backbone.spec, "cpu", sizes)

    assert [*found.best] == [gpu.TEXTS, gpu.TOKENS, f"4 {gpu.SINGLES}"]
    assert all(load.rate > 0 and load.p99 > 0 for load in found.best.values())
    assert found.peak > 0
    merged, _, single = found.operations.values()
    assert single > merged > 0
    assert "| S, texts to answers |" in gpu._report(found, [], [])


def test_the_gpu_benchmark_takes_the_highest_rate_within_the_limit() -> None:
    loads = [
        gpu.Load(batch=1, clients=1, rate=rate, p99=p99)
        for rate, p99 in ((10, 0.001), (30, 0.009), (20, 0.002), (90, 0.011))
    ]

    assert gpu._best(loads).rate == 30
    assert gpu._best(loads[3:]).rate == 90


def goals_of(
    python: Path, script: str, tmp_path: Path, *options: str
) -> tuple[dict[str, float], str]:
    """The values that a trial of a benchmark finds, and what it prints."""
    results = {file: file.read_bytes() for file in (ROOT / "benchmarks").glob("*.md")}
    done = subprocess.run(
        [
            *(str(python), str(ROOT / "benchmarks" / f"{script}.py"), "--trial", *options),
            *("--work", str(tmp_path / "work"), "--json", str(tmp_path / "goals.json")),
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(file.read_bytes() == before for file, before in results.items())
    goals = json.loads((tmp_path / "goals.json").read_text())
    assert all(goal.keys() == {"name", "value", "goal", "met"} for goal in goals)
    return {goal["name"]: goal["value"] for goal in goals}, done.stdout


def test_the_benchmark_of_servers_runs_all_that_it_reports(
    tmp_path: Path, warm_python: Path
) -> None:
    values, printed = goals_of(warm_python, "serving", tmp_path, "--no-peers")

    assert len(values) == 4
    assert values["tiny: saturated, share of the runtime's own rate"] > 0
    assert values["tiny: saturated, times the rate of a full model per task"] > 0
    for line in ("| ours, merged |", "| offline |", "| ours, a full model per task |"):
        assert line in printed


def test_a_short_soak_loses_no_request_and_gives_no_wrong_answer(
    tmp_path: Path, warm_python: Path
) -> None:
    values, printed = goals_of(warm_python, "soak", tmp_path)

    failed, wrong, good, bad, _memory = values.values()
    assert (failed, wrong, good, bad) == (0, 0, 3, 0), printed
    for line in (
        "corrupt | ",
        "unsigned | ",
        "it is not signed",
        "is corrupt",
        "the store is back",
    ):
        assert line in printed
    assert "not noticed" not in printed


def test_the_benchmark_of_scale_scores_files_and_says_what_a_rate_takes(
    tmp_path: Path, warm_python: Path
) -> None:
    """Without Ray Serve, whose doors test_ray_serve.py asks: another cluster would take long."""
    values, printed = goals_of(warm_python, "scale", tmp_path, "--no-ray")

    share, _memory = values.values()
    assert share > 0
    for line in (
        "| `centra predict --output` |",
        "MB for 2,000, which took",
        "| trivial work, ",
        "| the paper: a model a task |",
    ):
        assert line in printed


def test_the_benchmark_of_scale_starts_replicas_by_options_that_there_are() -> None:
    words = ray_command("store#latest", 8080, 8081, 2)
    context = serve.make_context("serve", words[words.index("serve") + 1 :])
    assert (context.params["engine"], context.params["replicas"]) == ("ray", 2)
    assert (context.params["port"], context.params["replica_port"]) == (8080, 8081)


def test_what_a_rate_takes_is_counted_in_whole_machines() -> None:
    measured = ServerRate(name="S", cores=2, saturated=100, share=0.5, median=0.05, p99=0.2)
    assumed = Assumptions(rate=1000, core_price=0.1, machine_cores=8, spare_machines=1)

    need = needed(measured, assumed)

    # 20 servers, 4 on a machine, and a machine to spare.
    assert (need.servers, need.machines, need.cores) == (20, 6, 48)
    assert need.hour == pytest.approx(4.8)
    assert need.million == pytest.approx(4.8 / 3.6)


def test_the_set_up_of_a_family_is_as_large_a_share_of_its_layers_as_of_twelve() -> None:
    for family, layers in {"bert": 40, "deberta": 40, "modernbert": 74, "mpnet": 40}.items():
        tasks = sentence_tasks(FAMILIES[family])
        assert len(tasks) == 21
        assert max(task.tap for task in tasks) + sum(task.depth for task in tasks) == layers
        assert layers / FAMILIES[family].layers == pytest.approx(40 / 12, abs=0.05)


def test_the_benchmark_of_families_has_a_release_and_layers_of_each(tmp_path: Path) -> None:
    setups = Setups(tmp_path, replace(FAMILIES["modernbert"], hidden=32, heads=2, inner=64))
    setup = setups.release(setups.sentences()[:2])

    (answers,) = load_release(setup.address, engine="onnx").predict(["wake me at seven"])

    assert {*answers} == {"sort-000-1-3", "sort-001-1-2"}
    assert own_layer(setups, 2, (2, 32))() > 0


def test_the_registry_benchmark_refuses_a_registry_smaller_than_its_live_set() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "registry.py"), "--tasks", "21"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--tasks" in done.stderr
