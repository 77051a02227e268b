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
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "CLI_STARTUP.md"
PINS = HERE / "peers.txt"

TASKS = tuple(f"task-{number:02}" for number in range(1, 22))
ROUNDS, QUICK_ROUNDS = 15, 3
WARM_UPS, QUICK_WARM_UPS = 3, 1
MLFLOW_GOAL, GTO_GOAL = 0.25, 1.0

_VERSIONS = """
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        found[name] = "missing"
print(json.dumps(found))
"""

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


class BenchmarkError(Exception):
    """Nothing could be measured; the message says why and what to do."""


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


@dataclass(frozen=True)
class Comparison:
    """Centra's wall time as a share of another command's."""

    of_medians: float
    by_round: tuple[float, ...]

    @classmethod
    def of(cls, ours: Times, theirs: Times) -> Comparison:
        """Compare two commands that ran in the same rounds."""
        return cls(
            median(ours.wall) / median(theirs.wall),
            tuple(a / b for a, b in zip(ours.wall, theirs.wall, strict=True)),
        )

    @property
    def worse(self) -> float:
        """The larger of the two summaries; a goal must hold for both."""
        return max(self.of_medians, median(self.by_round))


@dataclass(frozen=True)
class Goal:
    """A goal line, as ``--json`` writes it."""

    name: str
    value: float
    goal: str
    met: bool

    @classmethod
    def at_most(cls, limit: float, name: str, value: float) -> Goal:
        """A value that must not be larger than its limit."""
        return cls(name, round(value, 4), f"<= {limit:g}", value <= limit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the results.

    Returns:
        The exit code: 0 when everything was measured, whether or not the goals are met.
    """
    options = _parse(arguments)
    try:
        peers = _peers(options.peers)
        with tempfile.TemporaryDirectory(prefix="centra-startup-") as scratch:
            commands = _prepare(Path(scratch), peers)
            before = os.getloadavg()[0]
            times = _measure(commands, options.rounds, options.warm_ups)
            load = (before, os.getloadavg()[0])
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    goals = _goals(commands, times)
    text = _report(commands, times, goals, _settings(options, _versions(peers), load))
    print(text)
    if not options.quick:
        RESULTS.write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(
            json.dumps([asdict(goal) for goal in goals], indent=2) + "\n", encoding="utf-8"
        )
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_ROUNDS} rounds, and {RESULTS.name} is left as it is",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the goals there too")
    parser.add_argument("--rounds", type=int, help=f"timed rounds; default {ROUNDS}")
    parser.add_argument(
        "--peers",
        type=Path,
        metavar="DIR",
        help=f"an environment that holds {PINS.name} already; default build/peers, made if need be",
    )
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    options.warm_ups = QUICK_WARM_UPS if options.quick else WARM_UPS
    return options


# What is compared with


def _peers(given: Path | None) -> Path:
    """The environment of MLflow and GTO, at the pinned versions; made unless it is given."""
    folder = (given or ROOT / "build" / "peers").absolute()
    if given is None:
        _make_peers(folder)
    if not (folder / "bin" / "python").exists():
        raise BenchmarkError(f"{folder} is no virtual environment: it has no bin/python")
    found = _versions(folder)
    for name, wanted in _pins().items():
        if found[name] != wanted:
            raise BenchmarkError(
                f"{folder}: {name} is {found[name]}, but {PINS.name} says {wanted}"
            )
    return folder


def _make_peers(folder: Path) -> None:
    """Make the environment unless it was made from the same pins."""
    ready = folder / "ready"
    pins = PINS.read_text(encoding="utf-8")
    if ready.is_file() and ready.read_text(encoding="utf-8") == pins:
        return
    print(f"making {folder} from {PINS.name}, once", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install")
    for argv in (
        (sys.executable, "-m", "venv", str(folder)),
        (*pip, "--quiet", "--retries", "2", "--requirement", str(PINS)),
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            # pip's retries say nothing that its errors do not.
            lines = (done.stderr or done.stdout).strip().splitlines()
            said = [line for line in lines if "WARNING: Retrying" not in line][-4:]
            raise BenchmarkError(
                "cannot install MLflow and GTO, which needs a network or a package index that pip "
                "is configured for. Where there is none, name an environment that has them: "
                "--peers DIR. The installer said:\n  " + "\n  ".join(said)
            )
    ready.write_text(pins, encoding="utf-8")


def _pins() -> dict[str, str]:
    lines = PINS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {name.strip(): number.strip() for name, number in pairs}


def _versions(folder: Path) -> dict[str, str]:
    """The versions of an environment's Python and of what is pinned."""
    argv = (str(folder / "bin" / "python"), "-c", _VERSIONS, *_pins())
    found: dict[str, str] = json.loads(_output(argv, folder, _environment(folder)))
    return found


# Registries with the same tasks


def _prepare(scratch: Path, peers: Path) -> list[Command]:
    """Register the tasks with every tool, and check that each listing shows them all."""
    print(f"registering {len(TASKS)} tasks with each tool", file=sys.stderr)
    commands = [_centra(scratch), *_mlflow(scratch, peers), _gto(scratch, peers)]
    for command in commands:
        shown = _output(command.argv, command.folder, command.environment)
        missing = [name for name in TASKS if name not in shown]
        if missing:
            raise BenchmarkError(f"{command.title} does not list {', '.join(missing)}:\n{shown}")
    return commands


def _centra(scratch: Path) -> Command:
    """A SQLite registry as ``centra init`` makes it, with one tiny random module per task."""
    folder = _folder(scratch, "centra")
    program = Path(sys.executable).with_name("centra")
    argv = (str(program),) if program.exists() else (sys.executable, "-m", "cli")
    environment = _environment(folder)
    if not program.exists():
        environment["PYTHONPATH"] = str(ROOT)
    _output((*argv, "init"), folder, environment)
    _fill_centra(folder)
    return Command("centra", "`centra task list`", (*argv, "task", "list"), folder, environment)


def _fill_centra(folder: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from registry import Registry, backbones, tasks
    from tests import support

    home = folder / ".centra"
    registry = Registry.open(
        database=f"sqlite:///{home / 'registry.db'}",
        store=str(home / "store"),
        actor="nlu/benchmark",
    )
    encoder = support.make_encoder("bert", folder / "encoder")
    backbones.register(registry, "tiny", str(encoder))
    spec = backbones.spec(registry, "tiny")
    path = folder / "module.safetensors"
    for seed, name in enumerate(TASKS):
        module = support.make_module(
            "classification", spec, registry.store, seed=seed, metrics={"accuracy": 0.9}
        )
        module.write(path)
        tasks.register(registry, name, path)
    registry.engine.dispose()


def _mlflow(scratch: Path, peers: Path) -> list[Command]:
    """A SQLite store with a registered model and an experiment per task.

    MLflow's command line cannot list registered models. Its experiments are the nearest that it
    can; the registered models themselves are listed by one line of Python.
    """
    folder = _folder(scratch, "mlflow")
    environment = _environment(folder) | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        # It would tell its makers of every run.
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    python = str(peers / "bin" / "python")
    _output((python, "-c", _FILL_MLFLOW, *TASKS), folder, environment)
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
    environment = _environment(folder)
    git = ("git", "-c", "init.defaultBranch=main")
    for arguments in (
        ("init", "--quiet"),
        ("config", "user.name", "benchmark"),
        ("config", "user.email", "benchmark@localhost"),
        ("commit", "--quiet", "--allow-empty", "--message", "models"),
    ):
        _output((*git, *arguments), folder, environment)
    python = str(peers / "bin" / "python")
    _output((python, "-c", _FILL_GTO, *TASKS), folder, environment)
    program = str(peers / "bin" / "gto")
    return Command("gto", "`gto show`", (program, "show"), folder, environment)


def _folder(scratch: Path, name: str) -> Path:
    folder = scratch / name
    folder.mkdir()
    return folder


def _environment(home: Path) -> dict[str, str]:
    """This process's variables without those that would configure one of the tools.

    ``PYTHON…`` go too: without compiled bytecode every start would be slower.
    """
    ours = ("CENTRA_", "GIT_", "MLFLOW_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"HOME": str(home), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def _output(argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a command prints, which must succeed."""
    try:
        done = subprocess.run(
            argv, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BenchmarkError(f"cannot run {argv[0]}: {error.strerror}") from error
    if done.returncode:
        name = " ".join((Path(argv[0]).name, *argv[1:2]))
        raise BenchmarkError(f"{name!r} failed ({done.returncode}):\n{done.stderr.strip()}")
    return done.stdout


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
        found[tool] = Comparison.of(times[0], fastest).worse
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
            comparison = Comparison.of(times[0], own)
            low, high = min(comparison.by_round), max(comparison.by_round)
            ratios = [
                f"{comparison.of_medians:.2f}",
                f"{median(comparison.by_round):.2f} ({low:.2f} to {high:.2f})",
            ]
        seconds = (median(own.wall), min(own.wall), max(own.wall), median(own.cpu))
        rows.append([command.title, *(f"{value:.2f}" for value in seconds), *ratios])
    headers = ("command", "median s", "min s", "max s", "CPU s", "centra / it", "by round")
    verdicts = [
        [goal.name, f"{goal.value:.2f}", goal.goal, "yes" if goal.met else "no"] for goal in goals
    ]
    return "\n".join(
        (
            "# Start-up of the command line",
            "",
            "Written by `benchmarks/cli_startup.py`; [README.md](README.md) says how to read it.",
            "",
            *_table(headers, rows),
            "",
            "Wall time of whole processes; CPU is the median of user and system time. `centra / it`",
            "is the ratio of the medians, `by round` the median of each round's own ratio, and their",
            "range.",
            "",
            *_table(("goal", "value", "wanted", "met"), verdicts),
            "",
            "A value is the larger of both ratios, and MLflow's faster command stands for MLflow.",
            "",
            "## Settings",
            "",
            *(f"- {line}" for line in settings),
            "",
        )
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in headers[1:])]
    return [f"| {' | '.join(row)} |" for row in (headers, rule, *rows)]


def _settings(
    options: argparse.Namespace, peers: Mapping[str, str], load: tuple[float, float]
) -> list[str]:
    """What was run on what, a line each."""
    remark = "its command line lists experiments but no registered models, a line of Python does"
    order = "in turn, every other round in the opposite order"
    system = f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()}"
    theirs = ", ".join(f"{name} {number}" for name, number in peers.items() if name != "python")
    return [
        f"{len(TASKS)} tasks in each tool: Centra and MLflow on SQLite, GTO in git tags",
        f"{options.rounds} rounds after {options.warm_ups} of warming up; {order}",
        f"{system}; load average {load[0]:.1f} before the rounds and {load[1]:.1f} after them",
        f"Centra: Python {platform.python_version()}, {_our_versions()}",
        f"the others, in an environment of their own: Python {peers['python']}, {theirs}",
        f"MLflow: {remark}; telemetry off",
    ]


def _our_versions() -> str:
    found = []
    for name in ("centra", "click", "sqlalchemy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} from a checkout")
    return ", ".join(found)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


if __name__ == "__main__":
    sys.exit(main())
