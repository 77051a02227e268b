"""What the benchmarks share: goals, the environment of the peers, child processes, the report."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "PINS",
    "ROOT",
    "BenchmarkError",
    "Comparison",
    "Goal",
    "absolute_path",
    "add_options",
    "clean_environment",
    "find_peers",
    "goal_table",
    "our_versions",
    "output",
    "peer_versions",
    "publish",
    "report",
    "say",
    "system",
    "table",
]

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "benchmarks" / "peers.txt"

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


class BenchmarkError(Exception):
    """Nothing could be measured; the message says why and what to do."""


@dataclass(frozen=True)
class Comparison:
    """Centra's time as a share of another tool's, in rounds that both took part in."""

    of_medians: float
    by_round: tuple[float, ...]

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
        """Compare the seconds of two that ran in the same rounds."""
        return cls(
            median(ours) / median(theirs), tuple(a / b for a, b in zip(ours, theirs, strict=True))
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

    @classmethod
    def at_least(cls, limit: float, name: str, value: float) -> Goal:
        """A value that must not be smaller than its limit."""
        return cls(name, round(value, 4), f">= {limit:g}", value >= limit)


# Options and results


def add_options(
    parser: argparse.ArgumentParser, results: Path, quick: str, *, pins: Path | None = PINS
) -> None:
    """Add the options that every benchmark has.

    Args:
        parser: the script's own.
        results: the file that a full run writes.
        quick: what ``--quick`` makes smaller.
        pins: the tools that it compares with, in an environment of their own; None for none.
    """
    parser.add_argument(
        "--quick", action="store_true", help=f"{quick}, and {results.name} is left as it is"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the goals there too")
    if pins:
        parser.add_argument(
            "--peers",
            type=Path,
            metavar="DIR",
            help=(
                f"an environment that holds {pins.name} already; default build/{pins.stem}, made "
                "if need be"
            ),
        )


def absolute_path(text: str) -> Path:
    """A folder that is also named so to processes which run elsewhere."""
    return Path(text).absolute()


def publish(options: argparse.Namespace, results: Path, text: str, goals: Sequence[Goal]) -> None:
    """Print the results; keep them unless the run was quick; write the goals where asked."""
    print(text)
    if not options.quick:
        results.write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(
            json.dumps([asdict(goal) for goal in goals], indent=2) + "\n", encoding="utf-8"
        )


def report(title: str, script: str, body: Iterable[str], settings: Iterable[str]) -> str:
    """The results as Markdown: what wrote them, the body's lines, and the settings as a list."""
    return "\n".join(
        (
            f"# {title}",
            "",
            f"Written by `benchmarks/{script}`; [README.md](README.md) says how to read it.",
            "",
            *body,
            "",
            "## Settings",
            "",
            *(f"- {line}" for line in settings),
            "",
        )
    )


def say(text: str) -> None:
    """A line on standard error with the time, for scripts that take long."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def goal_table(goals: Sequence[Goal]) -> list[str]:
    """The goal lines as a Markdown table."""
    rows = [
        [goal.name, f"{goal.value:.2f}", goal.goal, "yes" if goal.met else "no"] for goal in goals
    ]
    return table(("goal", "value", "wanted", "met"), rows)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; all columns but the first are numbers."""
    rule = ["---", *("---:" for _ in headers[1:])]
    return [f"| {' | '.join(row)} |" for row in (headers, rule, *rows)]


def system() -> str:
    """The machine in a few words."""
    return f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()}"


def our_versions(*names: str) -> str:
    """Python's version, Centra's, and those of some packages beside it."""
    found = [f"Python {platform.python_version()}"]
    for name in ("centra", *names):
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


# What is compared with


def find_peers(given: Path | None, pins: Path = PINS) -> Path:
    """The environment of what is compared with, at the pinned versions; made unless it is given.

    Raises:
        BenchmarkError: it cannot be made, or the given one holds something else.
    """
    folder = (given or ROOT / "build" / pins.stem).absolute()
    if given is None:
        _make_peers(folder, pins)
    if not (folder / "bin" / "python").exists():
        raise BenchmarkError(f"{folder} is no virtual environment: it has no bin/python")
    found = peer_versions(folder, pins)
    for name, wanted in _pinned(pins).items():
        if found[name].partition("+")[0] != wanted:
            raise BenchmarkError(
                f"{folder}: {name} is {found[name]}, but {pins.name} says {wanted}"
            )
    return folder


def peer_versions(folder: Path, pins: Path = PINS) -> dict[str, str]:
    """The versions of an environment's Python and of what is pinned."""
    argv = (str(folder / "bin" / "python"), "-c", _VERSIONS, *_pinned(pins))
    found: dict[str, str] = json.loads(output(argv, folder, clean_environment(folder)))
    return found


def _make_peers(folder: Path, pins: Path) -> None:
    """Make the environment unless it was made from the same pins."""
    ready = folder / "ready"
    wanted = pins.read_text(encoding="utf-8")
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return
    print(f"making {folder} from {pins.name}, once", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install")
    for argv in (
        (sys.executable, "-m", "venv", str(folder)),
        (*pip, "--quiet", "--retries", "2", "--requirement", str(pins)),
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            # pip's retries say nothing that its errors do not.
            lines = (done.stderr or done.stdout).strip().splitlines()
            said = [line for line in lines if "WARNING: Retrying" not in line][-4:]
            raise BenchmarkError(
                f"cannot install what {pins.name} names, which needs a network or a package index "
                "that pip is configured for. Where there is none, name an environment that has "
                "it: --peers DIR. The installer said:\n  " + "\n  ".join(said)
            )
    ready.write_text(wanted, encoding="utf-8")


def _pinned(pins: Path) -> dict[str, str]:
    lines = pins.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {name.strip(): number.strip() for name, number in pairs}


# Child processes


def clean_environment(home: Path) -> dict[str, str]:
    """This process's variables without those that would configure one of the tools.

    ``PYTHON…`` go too: without compiled bytecode every start would be slower.
    """
    ours = ("CENTRA_", "GIT_", "MLFLOW_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        # It would tell its makers of every run.
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def output(argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a command prints, which must succeed.

    Raises:
        BenchmarkError: it cannot be run, or failed.
    """
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
