"""How fast a large registry answers, beside MLflow's, and how many bytes a recompose moves.

A registry of 10,000 tasks with 100,000 versions, on SQLite and on PostgreSQL, with a local store.
All but 21 tasks are retired, because a live set is what one release holds: the lists are as long
as the registry is large, and a release is as large as a team's. MLflow holds as many models and
versions in a database of the same kind, and both take turns, operation by operation.

MLflow lives in an environment apart, ``build/peers``, made on the first run from ``peers.txt``.
The results are printed, and written to ``REGISTRY.md`` unless ``--quick``.
"""

from __future__ import annotations

import argparse
import math
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # The script's own folder comes first on the path, and this file would hide the package.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools import postgres
from benchmarks.tools.common import (
    BenchmarkError,
    Comparison,
    Goal,
    add_options,
    find_peers,
    goal_table,
    our_versions,
    peer_versions,
    publish,
    report,
    system,
    table,
)
from benchmarks.tools.peer import Worker, running_worker
from benchmarks.tools.rows import NUMBERS, BulkTask, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from registry import Registry

RESULTS = Path(__file__).resolve().with_name("REGISTRY.md")

DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
TASKS, QUICK_TASKS = 10_000, 200
LIVE = 21
ROUNDS, QUICK_ROUNDS = 50, 5
READS_PER_ROUND = 4
WARM_UPS = 2
PAGE, MATCHES = 100, 50
"""Rows of a plain list, and of a filtered one, at most."""
TEAM, ACTOR = "live", "live/benchmark"
LIST_GOAL_MS, RATE_GOAL = 50.0, 10.0

REGISTER, STORED, LIST, SEARCH = "register", "register and store", "list", "search"
FILTERED, BY_METRIC, SHOW = "filtered list", "list by kind and metric", "show"
UPDATE, PLAN, COMPOSE, PULL = "update", "plan", "compose", "pull"

TITLES = {
    FILTERED: f"list by team, kind and metric, at most {MATCHES}",
    BY_METRIC: f"list by kind and metric, at most {MATCHES}",
    LIST: f"list, the first {PAGE}",
    SHOW: f"show, with {len(NUMBERS)} versions",
    REGISTER: "register a task",
    UPDATE: "update a task",
    PLAN: "plan, one task changed",
    COMPOSE: "compose and publish, one task changed",
    PULL: "pull, one task changed",
}

Times = dict[str, list[float]]
"""Seconds per operation, an entry per repetition."""


@dataclass(frozen=True, kw_only=True)
class Modules:
    """Real module files, all of different bytes."""

    encoder: Path
    live: list[list[Path]]
    """Per live task a file for each version."""
    changes: list[Path]
    """One update per round."""
    new: list[Path]
    """One new task per round."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all measurements share."""

    scratch: Path
    server: str
    """The PostgreSQL server's URL; empty where there is none."""
    peers: Path | None
    """The environment that has MLflow; None to measure Centra alone."""
    rounds: int
    modules: Modules
    retired: list[BulkTask]

    def some_task(self, number: int) -> BulkTask:
        """One retired task after another, far apart: no row is in a cache for a neighbour's sake."""
        return self.retired[number * 7919 % len(self.retired)]

    def database(self, kind: str, name: str) -> str:
        """The URL of an empty database."""
        if kind == "postgresql":
            return postgres.make_database(self.server, name)
        return f"sqlite:///{self.scratch / name}.db"


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Bytes that came to lie anew in a folder."""

    expected: int
    """Of the changed module, the manifest and the like."""
    other: int
    """Of anything else."""


@dataclass(kw_only=True)
class Findings:
    """What was measured on one database."""

    database: str
    fill_s: float = 0.0
    ours: Times = field(default_factory=dict)
    paired: Times = field(default_factory=dict)
    """Ours again, in the rounds that MLflow took part in."""
    theirs: Times = field(default_factory=dict)
    moved: dict[str, list[Moved]] = field(default_factory=dict)
    """Per step of a recompose."""
    release_size: int = 0
    """Bytes of the whole release."""
    events: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the results.

    Returns:
        The exit code: 0 when everything was measured, whether or not the goals are met.
    """
    options = _parse(arguments)
    start, load = time.monotonic(), os.getloadavg()[0]
    try:
        peers = None if options.no_mlflow else find_peers(options.peers)
        with ExitStack() as stack:
            scratch = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="centra-registry-"))
            )
            server = ""
            if "postgresql" in options.databases:
                server = stack.enter_context(postgres.running_server())
            bench = _prepare(options, scratch, server, peers)
            found = [_measure(database, bench) for database in options.databases]
            facts = [_disk(scratch), *_versions(server, peers)]
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    goals = [goal for findings in found for goal in _goals(findings)]
    settings = _settings(options, facts, load, time.monotonic() - start)
    publish(options, RESULTS, _report(found, goals, settings), goals)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_options(parser, RESULTS, f"{QUICK_TASKS} tasks and {QUICK_ROUNDS} rounds")
    parser.add_argument("--tasks", type=int, help=f"default {TASKS}")
    parser.add_argument("--live", type=int, help=f"those of them in use; default {LIVE}")
    parser.add_argument("--rounds", type=int, help=f"timed rounds; default {ROUNDS}")
    parser.add_argument(
        "--database",
        action="append",
        choices=list(DATABASES),
        dest="databases",
        help="one database alone; default both",
    )
    parser.add_argument("--no-mlflow", action="store_true", help="measure Centra alone")
    options = parser.parse_args(arguments)
    options.tasks = options.tasks or (QUICK_TASKS if options.quick else TASKS)
    options.live = options.live or LIVE
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    options.databases = options.databases or list(DATABASES)
    if options.rounds < 1 or options.live < 1 or options.tasks <= options.live:
        parser.error("--rounds and --live: at least 1; --tasks: more than are in use")
    return options


# A large registry


def _prepare(options: argparse.Namespace, scratch: Path, server: str, peers: Path | None) -> Bench:
    teams = max(1, options.tasks // 100)
    return Bench(
        scratch=scratch,
        server=server,
        peers=peers,
        rounds=options.rounds,
        modules=_make_modules(scratch, options),
        retired=[BulkTask(number=i, teams=teams) for i in range(options.tasks - options.live)],
    )


def _make_modules(scratch: Path, options: argparse.Namespace) -> Modules:
    """Write the files of every real version; the same ones serve both databases."""
    import torch

    from benchmarks.tools.tiny import ModuleMaker, make_encoder
    from centra.checkpoints.backbone import import_backbone
    from centra.store import LocalStore

    # Tensors this small are slower on several threads.
    torch.set_num_threads(1)
    folder = scratch / "modules"
    folder.mkdir()
    encoder = make_encoder(scratch / "encoder")
    store = LocalStore(scratch / "backbone")
    maker = ModuleMaker(import_backbone(str(encoder), store), store)
    count = 0

    def write(labels: int) -> Path:
        nonlocal count
        count += 1
        names = [f"label-{i}" for i in range(labels)]
        return maker.write(folder / f"{count}.safetensors", count, names, accuracy=0.9)

    _say("making module files")
    extra = WARM_UPS + options.rounds
    return Modules(
        encoder=encoder,
        live=[[write(_labels(number)) for number in NUMBERS] for _ in range(options.live)],
        changes=[write(_labels(NUMBERS[-1])) for _ in range(extra)],
        new=[write(3) for _ in range(extra)],
    )


def _labels(number: str) -> int:
    """How many labels a version of a live task has: a redefinition brings one more."""
    return 2 + int(number.partition(".")[0])


def _open(database: str, url: str, folder: Path) -> Registry:
    from registry import Registry

    _say(f"{DATABASES[database]}: making the registry")
    folder.mkdir()
    return Registry.create(folder, database=url, store=str(folder / "store"), actor=ACTOR)


def _fill(registry: Registry, bench: Bench) -> None:
    """The retired tasks in bulk; those in use one change after the other, with their files."""
    from registry import backbones, tasks

    backbones.register(registry, "tiny", str(bench.modules.encoder))
    fill(registry, bench.retired)
    for index, files in enumerate(bench.modules.live):
        for number, file in zip(NUMBERS, files, strict=True):
            if number == "1.0":
                tasks.register(registry, _live(index), file, team=TEAM)
            elif number.endswith(".0"):
                tasks.redefine(registry, _live(index), file)
            else:
                tasks.update(registry, _live(index), file)


def _live(index: int) -> str:
    return f"live-{index:03}"


# Measuring


def _measure(database: str, bench: Bench) -> Findings:
    """All of it on one kind of database."""
    from registry import audit

    found = Findings(database=DATABASES[database])
    folder, url = bench.scratch / database, bench.database(database, "centra")
    registry = _open(database, url, folder)
    start = time.monotonic()
    _fill(registry, bench)
    found.fill_s = time.monotonic() - start
    if database == "postgresql":
        postgres.analyze(url)
    _say(f"{found.database}: reading")
    found.ours |= _reads(registry, bench)
    _say(f"{found.database}: composing")
    _recompose(registry, folder, bench, found)
    if bench.peers is None:
        _say(f"{found.database}: registering")
        found.ours |= _alone(registry, bench)
    else:
        _say(f"{found.database}: filling MLflow's registry")
        theirs = bench.database(database, "mlflow")
        scratch = bench.scratch / f"mlflow-{database}"
        mlflow = (bench.peers / "bin" / "python", "mlflow_worker.py", theirs, scratch)
        with running_worker(*mlflow, folder=scratch) as worker:
            _fill_mlflow(worker, bench)
            if database == "postgresql":
                postgres.analyze(theirs)
            _say(f"{found.database}: registering, listing and searching by turns")
            _in_turns(registry, worker, bench, found)
        found.ours[REGISTER] = found.paired[REGISTER]
    _say(f"{found.database}: verifying the log")
    found.events = audit.verify(registry).events
    registry.engine.dispose()
    return found


def _reads(registry: Registry, bench: Bench) -> Times:
    """Lists and shows of one task after another, each kind of reading by turns."""
    from centra.kinds import kind_named
    from registry import tasks
    from registry.database.listing import MetricBound

    def bound(task: BulkTask) -> list[MetricBound]:
        return [MetricBound(name=kind_named(task.kind).metrics[0], comparison=">=", value=0.8)]

    operations: dict[str, Callable[[BulkTask], object]] = {
        FILTERED: lambda task: tasks.list(
            registry, team=task.team, kind=task.kind, metrics=bound(task), limit=MATCHES
        ),
        BY_METRIC: lambda task: tasks.list(
            registry, kind=task.kind, metrics=bound(task), limit=MATCHES
        ),
        LIST: lambda _: tasks.list(registry, limit=PAGE),
        SHOW: lambda task: tasks.show(registry, task.name),
    }
    times: Times = {name: [] for name in operations}
    for number in range(-WARM_UPS, bench.rounds * READS_PER_ROUND):
        task = bench.some_task(number)
        for name, operation in operations.items():
            seconds, _ = _timed(partial(operation, task))
            if number >= 0:
                times[name].append(seconds)
    return times


def _recompose(registry: Registry, folder: Path, bench: Bench, found: Findings) -> None:
    """Change one live task after another; plan, publish and pull the new release each time."""
    from registry import releases, tasks

    modules, store, pulled = bench.modules, folder / "store", folder / "pulled"
    releases.compose(registry, publish=True)
    releases.pull(registry, "latest", pulled)
    found.ours |= {name: [] for name in (UPDATE, PLAN, COMPOSE, PULL)}
    found.moved |= {name: [] for name in (UPDATE, PLAN, COMPOSE, PULL)}
    for number, file in enumerate(modules.changes, -WARM_UPS):
        name = _live(number % len(modules.live))
        steps: list[tuple[str, Path, Callable[[], Any]]] = [
            (UPDATE, store, partial(tasks.update, registry, name, file)),
            (PLAN, store, partial(releases.compose, registry)),
            (COMPOSE, store, partial(releases.compose, registry, publish=True)),
            (PULL, pulled, partial(releases.pull, registry, "latest", pulled)),
        ]
        for step, place, run in steps:
            before = _files(place)
            seconds, _ = _timed(run)
            moved = _moved(before, _files(place))
            if number >= 0:
                found.ours[step].append(seconds)
                found.moved[step].append(_account(step, moved, registry, name))
    release = releases.show(registry, "latest")
    _expect(len(release.tasks) == len(modules.live), "the release does not hold the live set")
    found.release_size = sum(size for _, _, size in _files(pulled).values())


def _new(number: int) -> str:
    return f"new-{number:04}"


def _alone(registry: Registry, bench: Bench) -> Times:
    from registry import tasks

    times = [
        _timed(partial(tasks.register, registry, _new(number), file, team=TEAM))[0]
        for number, file in enumerate(bench.modules.new)
    ]
    return {REGISTER: times[WARM_UPS:]}


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


# Bytes


def _files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file below a folder: its inode, when it was put there, and its size in bytes.

    Files are put in place by renaming, so one that was written again has another inode or time.
    """
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            key = path.relative_to(folder).as_posix()
            found[key] = (status.st_ino, status.st_ctime_ns, status.st_size)
    return found


def _moved(
    before: Mapping[str, tuple[int, int, int]], after: Mapping[str, tuple[int, int, int]]
) -> dict[str, int]:
    """The bytes of each file that is new or was written again."""
    return {path: value[2] for path, value in after.items() if before.get(path) != value}


def _account(step: str, moved: Mapping[str, int], registry: Registry, name: str) -> Moved:
    """Which of the moved bytes the step may move; the rest should be none."""
    from registry import channels, tasks

    manifest = channels.show(registry, "latest").digest
    version = tasks.show(registry, name).versions[-1]
    wanted = {
        UPDATE: {_blob(version.digest)},
        PLAN: set(),
        COMPOSE: {_blob(manifest), "channels/latest.json", *_witnesses(moved)},
        PULL: {f"tasks/{name}.safetensors", "release.json", "SHA256SUMS"},
    }[step]
    missing = wanted - moved.keys()
    _expect(not missing, f"{step} did not write {', '.join(sorted(missing))}")
    return Moved(
        expected=sum(size for path, size in moved.items() if path in wanted),
        other=sum(size for path, size in moved.items() if path not in wanted),
    )


def _witnesses(paths: Iterable[str]) -> set[str]:
    """What a store notes of the audit log's end as it is published to: one line."""
    return {path for path in paths if path.startswith("witnesses/")}


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest[:2]}/{digest}"


# Beside MLflow


def _fill_mlflow(worker: Worker, bench: Bench) -> None:
    """The same tasks as registered models, with as many versions each."""
    everything = [[task.name, task.team, task.kind] for task in bench.retired]
    live = [[_live(i), TEAM, "classification"] for i in range(len(bench.modules.live))]
    worker.ask(do="fill", tasks=everything + live, versions=len(NUMBERS))


def _in_turns(registry: Registry, worker: Worker, bench: Bench, found: Findings) -> None:
    """Register, list and search with both, each operation right after the other tool's.

    Every other round goes in the opposite order. What both find must be the same.
    """
    from registry import tasks

    for number, file in enumerate(bench.modules.new):
        task = bench.some_task(number)
        new = {"name": _new(number), "team": TEAM, "kind": "classification", "source": str(file)}
        match: dict[str, Any] = {"team": task.team, "kind": task.kind, "limit": MATCHES}
        operations: list[tuple[str, Callable[[], Any], Callable[[], dict[str, Any]]]] = [
            (
                REGISTER,
                partial(tasks.register, registry, new["name"], file, team=TEAM),
                partial(worker.ask, do="register", **new),
            ),
            (
                LIST,
                partial(tasks.list, registry, limit=PAGE),
                partial(worker.ask, do="list_first", limit=PAGE),
            ),
            (
                SEARCH,
                partial(tasks.list, registry, **match),
                partial(worker.ask, do="search", **match),
            ),
        ]
        for operation, ours, theirs in operations:
            if number % 2:
                answer = theirs()
            our_s, result = _timed(ours)
            if not number % 2:
                answer = theirs()
            if operation != REGISTER:
                common = [name for name in answer["found"] if not name.startswith("stored-")]
                same = [row.name for row in result] == common
                _expect(same, f"{operation}: MLflow found other tasks than Centra")
            if number >= WARM_UPS:
                found.paired.setdefault(operation, []).append(our_s)
                found.theirs.setdefault(operation, []).append(answer["seconds"])
        answer = worker.ask(do="register_file", **{**new, "name": f"stored-{number:04}"})
        if number >= WARM_UPS:
            found.theirs.setdefault(STORED, []).append(answer["seconds"])
    found.paired[STORED] = found.paired[REGISTER]


def _expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise BenchmarkError(f"the measurement is wrong: {otherwise}")


def _say(what: str) -> None:
    print(what, file=sys.stderr)


# Goals and report


def _goals(found: Findings) -> list[Goal]:
    """The goal lines of one database."""
    on = found.database
    goals = [
        Goal.at_most(
            LIST_GOAL_MS,
            f"{on}: filtered list, 95th percentile, ms",
            _ms(_p95(found.ours[FILTERED])),
        )
    ]
    goals += [
        Goal.at_least(
            RATE_GOAL,
            f"{on}: {operation}, centra's rate / mlflow's",
            1 / _comparison(found, operation).worse,
        )
        for operation in (REGISTER, SEARCH)
        if found.theirs
    ]
    steps = {"recompose": (UPDATE, PLAN, COMPOSE), "pull after it": (PULL,)}
    return goals + [
        Goal.at_most(
            0,
            f"{on}: {what}, bytes moved beside the change",
            sum(moved.other for step in own for moved in found.moved[step]),
        )
        for what, own in steps.items()
    ]


def _comparison(found: Findings, operation: str) -> Comparison:
    return Comparison.of(found.paired[operation], found.theirs[operation])


def _p95(times: Sequence[float]) -> float:
    """The 95th percentile, by nearest rank."""
    return sorted(times)[math.ceil(0.95 * len(times)) - 1]


def _ms(seconds: float) -> float:
    return 1000 * seconds


def _report(found: Sequence[Findings], goals: Sequence[Goal], settings: Sequence[str]) -> str:
    """The results as Markdown."""
    lines = goal_table(goals)
    for findings in found:
        lines += ["", f"## {findings.database}", "", *_operations(findings)]
        if findings.theirs:
            lines += ["", *_beside_mlflow(findings)]
        lines += ["", *_bytes(findings)]
    return report("A large registry", "registry.py", lines, settings)


def _operations(found: Findings) -> list[str]:
    rows = []
    for operation, title in TITLES.items():
        times = found.ours[operation]
        figures = [_ms(value) for value in (median(times), _p95(times), max(times))]
        rows.append([title, *(f"{value:.1f}" for value in figures), str(len(times))])
    return table(("operation", "median ms", "95 % ms", "max ms", "times"), rows)


def _beside_mlflow(found: Findings) -> list[str]:
    titles = {
        REGISTER: "register: MLflow a row that points at a path",
        STORED: "register: MLflow with the file as a run's artifact",
        LIST: TITLES[LIST],
        SEARCH: f"search by team and kind, at most {MATCHES}",
    }
    rows = []
    for operation, title in titles.items():
        comparison = _comparison(found, operation)
        low, high = 1 / max(comparison.by_round), 1 / min(comparison.by_round)
        ours, theirs = found.paired[operation], found.theirs[operation]
        rows.append(
            [
                title,
                *(f"{_ms(value):.1f}" for value in (median(ours), _p95(ours))),
                *(f"{_ms(value):.1f}" for value in (median(theirs), _p95(theirs))),
                *(f"{1 / median(times):.0f}" for times in (ours, theirs)),
                f"{1 / comparison.of_medians:.1f}",
                f"{1 / median(comparison.by_round):.1f} ({low:.1f} to {high:.1f})",
            ]
        )
    headers = (
        *("by turns", "Centra ms", "95 %", "MLflow ms", "95 %", "Centra /s", "MLflow /s"),
        *("rate / MLflow's", "by round"),
    )
    return table(headers, rows)


def _bytes(found: Findings) -> list[str]:
    titles = {
        UPDATE: "update, into the store: the changed module",
        PLAN: "plan, into the store: nothing",
        COMPOSE: "compose, into the store: manifest and pointer",
        PULL: "pull, into the folder: the changed module, manifest and SHA256SUMS",
    }
    rows = []
    for step, title in titles.items():
        moved = found.moved[step]
        wanted = [item.expected for item in moved]
        other = sum(item.other for item in moved)
        rows.append([title, f"{median(wanted):,.0f}", f"{sum(wanted):,}", f"{other:,}"])
    return [
        *table(("one task of the live set changed", "bytes, median", "all", "any others"), rows),
        "",
        (
            f"The whole release is {found.release_size:,} bytes. The log has {found.events:,} "
            f"events, and its chain holds. Filling took {found.fill_s:.0f} seconds."
        ),
    ]


def _settings(
    options: argparse.Namespace, facts: Sequence[str], load: float, seconds: float
) -> list[str]:
    """What was run on what, a line each."""
    tasks, count = options.tasks, len(NUMBERS)
    size = f"{tasks:,} tasks with {tasks * count:,} versions, {options.live} of the tasks active"
    reads = f"{READS_PER_ROUND} of each read in every round"
    order = "with MLflow by turns, every other round in the opposite order"
    after = os.getloadavg()[0]
    lines = [
        f"{size}; a local store",
        f"{options.rounds} rounds after {WARM_UPS} of warming up, {reads}; {order}",
        f"{system()}; load average {load:.1f} before and {after:.1f} after; {seconds:.0f} seconds",
        *facts,
    ]
    if not options.no_mlflow:
        lines.append(
            "MLflow: as many models and versions, its client on the database without a server, its "
            "own settings; telemetry off"
        )
    return lines


def _disk(folder: Path) -> str:
    """How long the disk takes to keep a file the size of a module."""
    times = []
    for _ in range(30):
        with (folder / "waited-for").open("wb") as file:
            file.write(bytes(40_000))
            file.flush()
            times.append(_timed(partial(os.fsync, file.fileno()))[0])
    return (
        f"every commit and every stored file waits for the disk, {_ms(median(times)):.1f} ms each"
    )


def _versions(server: str, peers: Path | None) -> list[str]:
    names = ("sqlalchemy", "psycopg", "torch")
    ours = f"Centra: {our_versions(*names)} on one thread, SQLite {sqlite3.sqlite_version}"
    if server:
        ours += f", PostgreSQL {postgres.server_version(server)}"
    if peers is None:
        return [ours]
    found = peer_versions(peers)
    theirs = f"MLflow's environment: Python {found['python']}, mlflow {found['mlflow']}"
    return [ours, f"{theirs}, psycopg {found['psycopg']}"]


if __name__ == "__main__":
    sys.exit(main())
