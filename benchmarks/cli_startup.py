"""How long a listing takes: ``centra task list`` beside MLflow's and GTO's nearest commands.

All of them list the same tasks, which this script registers first, each tool in a registry of its
own. What is timed is a whole process, from its start to its end, as a person at a prompt waits for
it. The commands take turns within every round, and each round's ratios are its own, so that another
job on the machine slows them alike.

MLflow and GTO live in an environment apart, ``build/peers``, made on the first run from
``peers.txt``. The results are printed, and written to ``CLI_STARTUP.md`` unless ``--quick``.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # The script's own folder comes first on the path, and its registry.py would hide the package.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    Comparison,
    Goal,
    add_options,
    clean_environment,
    find_peers,
    goal_table,
    our_versions,
    output,
    peer_versions,
    publish,
    report,
    system,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULTS = Path(__file__).resolve().with_name("CLI_STARTUP.md")

TASKS = tuple(f"task-{number:02}" for number in range(1, 22))
ROUNDS, QUICK_ROUNDS = 15, 3
WARM_UPS, QUICK_WARM_UPS = 3, 1
MLFLOW_GOAL, GTO_GOAL = 0.25, 1.0

_FILL_MLFLOW = """
import sys
from mlflow import MlflowClient
client = MlflowClient()
for name in sys.argv[1:]:
    client.create_registered_model(name)
    client.create_experiment(name)
"""

_LIST_MLFLOW = (
    "from mlflow import MlflowClient; "
    r"print(*(m.name for m in MlflowClient().search_registered_models()), sep='\n')"
)

_FILL_GTO = """
import sys
from gto import api
for name in sys.argv[1:]:
    api.register(".", name, "HEAD")
"""


@dataclass(frozen=True)
class Command:
    """One way of listing the tasks."""

    tool: str
    title: str
    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]


@dataclass
class Times:
    """Seconds of one command, an entry per round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the results.

    Returns:
        The exit code: 0 when everything was measured, whether or not the goals are met.
    """
    options = _parse(arguments)
    try:
        peers = find_peers(options.peers)
        with tempfile.TemporaryDirectory(prefix="centra-startup-") as scratch:
            commands = _prepare(Path(scratch), peers)
            before = os.getloadavg()[0]
            times = _measure(commands, options.rounds, options.warm_ups)
            load = (before, os.getloadavg()[0])
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    goals = _goals(commands, times)
    text = _report(commands, times, goals, _settings(options, peer_versions(peers), load))
    publish(options, RESULTS, text, goals)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_options(parser, RESULTS, f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--rounds", type=int, help=f"timed rounds; default {ROUNDS}")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    options.warm_ups = QUICK_WARM_UPS if options.quick else WARM_UPS
    return options


# Registries with the same tasks


def _prepare(scratch: Path, peers: Path) -> list[Command]:
    """Register the tasks with every tool, and check that each listing shows them all."""
    print(f"registering {len(TASKS)} tasks with each tool", file=sys.stderr)
    commands = [_centra(scratch), *_mlflow(scratch, peers), _gto(scratch, peers)]
    for command in commands:
        shown = output(command.argv, command.folder, command.environment)
        missing = [name for name in TASKS if name not in shown]
        if missing:
            raise BenchmarkError(f"{command.title} does not list {', '.join(missing)}:\n{shown}")
    return commands


def _centra(scratch: Path) -> Command:
    """A SQLite registry as ``centra init`` makes it, with one tiny random module per task."""
    folder = _folder(scratch, "centra")
    program = Path(sys.executable).with_name("centra")
    argv = (str(program),) if program.exists() else (sys.executable, "-m", "cli")
    environment = clean_environment(folder)
    if not program.exists():
        environment["PYTHONPATH"] = str(ROOT)
    output((*argv, "init"), folder, environment)
    _fill_centra(folder)
    return Command("centra", "`centra task list`", (*argv, "task", "list"), folder, environment)


def _fill_centra(folder: Path) -> None:
    from benchmarks.tools.tiny import ModuleMaker, make_encoder
    from registry import Registry, backbones, tasks

    home = folder / ".centra"
    registry = Registry.open(
        database=f"sqlite:///{home / 'registry.db'}",
        store=str(home / "store"),
        actor="nlu/benchmark",
    )
    backbones.register(registry, "tiny", str(make_encoder(folder / "encoder")))
    maker = ModuleMaker(backbones.spec(registry, "tiny"), registry.store)
    path = folder / "module.safetensors"
    for seed, name in enumerate(TASKS):
        maker.write(path, seed, ("alarm", "music", "weather"), accuracy=0.9)
        tasks.register(registry, name, path)
    registry.engine.dispose()


def _mlflow(scratch: Path, peers: Path) -> list[Command]:
    """A SQLite store with a registered model and an experiment per task.

    MLflow's command line cannot list registered models. Its experiments are the nearest that it
    can; the registered models themselves are listed by one line of Python.
    """
    folder = _folder(scratch, "mlflow")
    environment = clean_environment(folder) | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    python = str(peers / "bin" / "python")
    output((python, "-c", _FILL_MLFLOW, *TASKS), folder, environment)
    program = str(peers / "bin" / "mlflow")
    return [
        Command(
            "mlflow",
            "`mlflow experiments search`",
            (program, "experiments", "search"),
            folder,
            environment,
        ),
        Command(
            "mlflow",
            '`python -c "… MlflowClient().search_registered_models() …"`',
            (python, "-c", _LIST_MLFLOW),
            folder,
            environment,
        ),
    ]


def _gto(scratch: Path, peers: Path) -> Command:
    """A git repository with one registered version, that is one tag, per task."""
    folder = _folder(scratch, "gto")
    environment = clean_environment(folder)
    git = ("git", "-c", "init.defaultBranch=main")
    for arguments in (
        ("init", "--quiet"),
        ("config", "user.name", "benchmark"),
        ("config", "user.email", "benchmark@localhost"),
        ("commit", "--quiet", "--allow-empty", "--message", "models"),
    ):
        output((*git, *arguments), folder, environment)
    python = str(peers / "bin" / "python")
    output((python, "-c", _FILL_GTO, *TASKS), folder, environment)
    program = str(peers / "bin" / "gto")
    return Command("gto", "`gto show`", (program, "show"), folder, environment)


def _folder(scratch: Path, name: str) -> Path:
    folder = scratch / name
    folder.mkdir()
    return folder


# Measuring


def _measure(commands: Sequence[Command], rounds: int, warm_ups: int) -> list[Times]:
    """Run every command once a round, in turn; every other round in the opposite order."""
    times = [Times() for _ in commands]
    for number in range(-warm_ups, rounds):
        print("warming up" if number < 0 else f"round {number + 1} of {rounds}", file=sys.stderr)
        pairs = list(zip(commands, times, strict=True))
        for command, own in pairs[:: -1 if number % 2 else 1]:
            wall, cpu = _time(command)
            if number >= 0:
                own.wall.append(wall)
                own.cpu.append(cpu)
    return times


def _time(command: Command) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        command.argv,
        cwd=command.folder,
        env=command.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchmarkError(f"{command.title} failed: {done.stderr.decode(errors='replace')}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _goals(commands: Sequence[Command], times: Sequence[Times]) -> list[Goal]:
    """The two goal lines; MLflow's faster command stands for MLflow."""
    found = {}
    for tool in ("mlflow", "gto"):
        own = [t for command, t in zip(commands, times, strict=True) if command.tool == tool]
        fastest = min(own, key=lambda t: median(t.wall))
        found[tool] = Comparison.of(times[0].wall, fastest.wall).worse
    return [
        Goal.at_most(MLFLOW_GOAL, "listing: centra's time / mlflow's", found["mlflow"]),
        Goal.at_most(GTO_GOAL, "listing: centra's time / gto's", found["gto"]),
    ]


# Reporting


def _report(
    commands: Sequence[Command],
    times: Sequence[Times],
    goals: Sequence[Goal],
    settings: Sequence[str],
) -> str:
    """The results as Markdown."""
    rows = []
    for command, own in zip(commands, times, strict=True):
        ratios = ["-", "-"]
        if command.tool != "centra":
            comparison = Comparison.of(times[0].wall, own.wall)
            low, high = min(comparison.by_round), max(comparison.by_round)
            ratios = [
                f"{comparison.of_medians:.2f}",
                f"{median(comparison.by_round):.2f} ({low:.2f} to {high:.2f})",
            ]
        seconds = (median(own.wall), min(own.wall), max(own.wall), median(own.cpu))
        rows.append([command.title, *(f"{value:.2f}" for value in seconds), *ratios])
    headers = ("command", "median s", "min s", "max s", "CPU s", "centra / it", "by round")
    body = (
        *table(headers, rows),
        "",
        "Wall time of whole processes; CPU is the median of user and system time. `centra / it`",
        "is the ratio of the medians, `by round` the median of each round's own ratio, and their",
        "range.",
        "",
        *goal_table(goals),
        "",
        "A value is the larger of both ratios, and MLflow's faster command stands for MLflow.",
    )
    return report("Start-up of the command line", "cli_startup.py", body, settings)


def _settings(
    options: argparse.Namespace, peers: Mapping[str, str], load: tuple[float, float]
) -> list[str]:
    """What was run on what, a line each."""
    remark = "its command line lists experiments but no registered models, a line of Python does"
    order = "in turn, every other round in the opposite order"
    theirs = ", ".join(f"{name} {peers[name]}" for name in ("mlflow", "gto"))
    return [
        f"{len(TASKS)} tasks in each tool: Centra and MLflow on SQLite, GTO in git tags",
        f"{options.rounds} rounds after {options.warm_ups} of warming up; {order}",
        f"{system()}; load average {load[0]:.1f} before the rounds and {load[1]:.1f} after them",
        f"Centra: {our_versions('click', 'sqlalchemy')}",
        f"the others, in an environment of their own: Python {peers['python']}, {theirs}",
        f"MLflow: {remark}; telemetry off",
    ]


if __name__ == "__main__":
    sys.exit(main())
