"""Attack for a given time, and write down what became of it: ``make torture``.

Each part is a function that takes seconds and a seed and returns counts, ``losses`` among them. A
part that does not start, ends in an exception, or has losses, is recorded with the way to repeat it,
and the next goes on. The exit code is 1 where there was any such.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

import pytest

from tests.torture import report
from tests.torture.losses import LOSSES, lose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PARTS", "Part", "Result", "main"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of attack."""

    name: str
    module: str
    """In this package."""
    share: int
    """Of the time, beside the others'."""
    function: str = "run"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a part."""

    part: str
    command: str
    """The command that runs it again."""
    seconds: float
    counts: dict[str, int]
    losses: int
    not_done: str | None = None
    """Why there are no counts."""


PARTS: tuple[Part, ...] = (
    Part(name="crashes", module="crashes", share=30),
    Part(name="random kills", module="crashes", function="run_random", share=8),
    Part(name="power cuts", module="power", share=10),
    Part(name="races", module="races", share=20),
    Part(name="store faults", module="test_store_faults", share=8),
    Part(name="database restarts", module="crashes", function="run_restarts", share=5),
    Part(name="full disks", module="crashes", function="run_full", share=5),
    Part(name="hostile input", module="fuzz", share=8),
    Part(name="no code from data", module="test_no_code", share=6),
    Part(name="history", module="test_history", share=14),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, one after the other.

    Returns:
        The exit code: 1 where something was lost, or a part did not start.
    """
    options = _parse(arguments)
    chosen = [part for part in PARTS if not options.part or part.name in options.part]
    whole = sum(part.share for part in chosen)
    start, load = time.monotonic(), os.getloadavg()[0]
    results = []
    for number, part in enumerate(chosen):
        # Of the time that is left: what one part took too long, the others make up for, by half.
        left = options.seconds - (time.monotonic() - start)
        fair = options.seconds * part.share / whole
        seconds = max(fair / 2, left * part.share / sum(other.share for other in chosen[number:]))
        _say(f"{part.name}: {seconds:.0f} seconds")
        results.append(_run(part, seconds, options.seed))
        _say(f"{part.name}: {_outcome(results[-1])}")
        # After each part: a run that is cut off has not been for nothing.
        if options.json:
            text = json.dumps(
                {
                    "seed": options.seed,
                    "parts": [*map(asdict, results)],
                    "losses": [*map(asdict, LOSSES)],
                },
                indent=2,
            )
            options.json.write_text(text + "\n", encoding="utf-8")
        if options.report:
            took = time.monotonic() - start
            options.report.write_text(
                report.text(results, LOSSES, took, load, options.seed), encoding="utf-8"
            )
    return bool(LOSSES)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0, help="default an hour in all")
    parser.add_argument("--seed", type=int, default=0, help="of every choice (default 0)")
    parser.add_argument(
        "--part", action="append", choices=[part.name for part in PARTS], help="default all"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and losses")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write them as Markdown")
    options = parser.parse_args(arguments)
    options.seconds = (options.hours * 60 + options.minutes or 60) * 60
    return options


def _run(part: Part, seconds: float, seed: int) -> Result:
    command = (
        f"python -m tests.torture --part {shlex.quote(part.name)} "
        f"--minutes {max(1, round(seconds / 60))} --seed {seed}"
    )
    before, start = len(LOSSES), time.monotonic()
    counts: dict[str, int] = {}
    not_done = None
    try:
        module = importlib.import_module(f"tests.torture.{part.module}")
        function: Callable[[float, int], dict[str, int]] = getattr(module, part.function)
    except Exception:  # noqa: BLE001 - any failure is a result
        not_done = "it did not start"
        lose(f"{part.name} did not start: {traceback.format_exc()}", command)
    else:
        try:
            counts = dict(function(seconds, seed))
            not_done = None if counts else "what it needs is not there"
        except pytest.skip.Exception as missing:
            not_done = str(missing.msg)
        except Exception:  # noqa: BLE001 - likewise
            not_done = "it broke off"
            lose(f"{part.name} broke off: {traceback.format_exc()}", command)
    lost = counts.pop("losses", 0)
    if lost and len(LOSSES) == before:
        lose(f"{part.name}: {lost} losses", command)
    return Result(
        part=part.name,
        command=command,
        seconds=time.monotonic() - start,
        counts=counts,
        losses=len(LOSSES) - before,
        not_done=not_done,
    )


def _outcome(result: Result) -> str:
    if result.not_done:
        return f"not done: {result.not_done}; losses: {result.losses}"
    counts = ", ".join(f"{count:,} {name}" for name, count in result.counts.items() if count)
    return f"{counts or 'no counts'}; losses: {result.losses}"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
