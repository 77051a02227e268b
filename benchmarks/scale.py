"""What goes beyond one process costs: replicas behind Ray's proxy and past it, and files of texts.

A plain server, and one and two replicas of Ray Serve on the same processors, take turns, asked by the load
generator of ``centra bench --url``. Files are scored beside ``Release.predict`` in a loop over the same
texts. From what a plain server can do follows what 4,000 queries a second take.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    Comparison,
    Goal,
    absolute_path,
    add_options,
    goal_table,
    our_versions,
    publish,
    report,
    say,
    system,
    table,
)
from benchmarks.tools.doors import CLIENTS, Asked, Door, plain_server, ray_server
from benchmarks.tools.encoders import BASE, MINILM, TINY, Encoder
from benchmarks.tools.reference import TASKS, Setups
from benchmarks.tools.servers import peak_memory
from benchmarks.tools.sizing import Assumptions, ServerRate, sizing_rows
from centra.runtime import load_release
from centra.scoring import score_files
from centra.system.processors import processors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from centra.runtime import Release

RESULTS = ROOT / "benchmarks" / "SCALE.md"
TOKENS = 16
_WORDS = ("hello", "time", "music", "tomorrow", "play", "the", "weather", "some", "in", "london")
"""Each is one token."""
_BATCH = 32
"""Texts of one call in the loop: as many as file scoring computes together on two processors."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How long it is measured."""

    tasks: int
    rounds: int
    seconds: float
    """Of a turn."""
    warm_up: float
    alone: float
    """Seconds of a turn with one client."""
    shares: tuple[float, ...]
    """Of what a plain server can do, that it is then asked for."""
    shared: float
    """Seconds at each of these."""
    rows: int
    """Of the file that is scored beside the loop."""
    many: int
    """Rows of the file on which memory is measured."""


FULL = Size(
    tasks=TASKS,
    rounds=3,
    seconds=4,
    warm_up=1,
    alone=1,
    shares=(0.5, 0.7, 0.85),
    shared=8,
    rows=1000,
    many=1_000_000,
)
QUICK = replace(FULL, rounds=1, seconds=2, shares=(0.5,), shared=4, rows=400, many=50_000)
TRIAL = Size(
    tasks=3,
    rounds=1,
    seconds=0.3,
    warm_up=0,
    alone=0.1,
    shares=(0.5,),
    shared=0.3,
    rows=64,
    many=2000,
)
"""That shows that it runs."""


@dataclass(kw_only=True)
class Served:
    """Servers of one size of encoder, beside each other."""

    name: str
    asked: dict[str, Asked] = field(default_factory=dict)
    """By door."""
    plain: dict[str, list[float]] = field(default_factory=dict)
    """Requests a second of the plain server in the rounds that a door took part in."""


@dataclass(kw_only=True)
class Scored:
    """Files of texts."""

    files: list[float] = field(default_factory=list)
    """Seconds for a row, by round."""
    loop: list[float] = field(default_factory=list)
    """Likewise of the loop over the same texts."""
    memory: dict[int, int] = field(default_factory=dict)
    """Bytes that a process had at most, by the number of rows."""
    many_seconds: float = 0
    """For the most rows."""


@dataclass(kw_only=True)
class Findings:
    """All that was measured."""

    served: list[Served]
    rates: list[ServerRate]
    scored: Scored
    name: str
    """Of the encoder whose files were scored."""

    def goals(self) -> list[Goal]:
        """What the issue of this benchmark asks for."""
        share = 1 / Comparison.of(self.scored.files, self.scored.loop).worse
        (_, one), (many, most) = self.scored.memory.items()
        return [
            Goal.at_least(0.95, f"{self.name}: scoring a file, share of the rate of a loop", share),
            Goal.at_most(5, f"memory at {many:,} rows, % more than at one", 100 * (most / one - 1)),
        ]


def main() -> int:
    """Measure; 0 where everything could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(parser, RESULTS, "one round, fewer rows, without S", pins=None)
    parser.add_argument("--work", type=absolute_path, default=ROOT / "build" / "scale")
    parser.add_argument(
        "--base",
        type=absolute_path,
        default=ROOT / "build" / "runtime",
        help="the folder of runtime.py",
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--rows", type=int, help="on which memory is measured; default 1,000,000")
    parser.add_argument("--core-price", type=float, help="dollars of a virtual CPU for an hour")
    parser.add_argument("--gpu-price", type=float, help="dollars of a V100 for an hour")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray Serve out")
    parser.add_argument("--trial", action="store_true", help="a tiny encoder, to show that it runs")
    options = parser.parse_args()
    options.quick |= options.trial
    size = TRIAL if options.trial else QUICK if options.quick else FULL
    size = replace(
        size, rounds=options.rounds or size.rounds, many=max(2, options.rows or size.many)
    )
    assumed = Assumptions()
    assumed = replace(
        assumed,
        core_price=options.core_price or assumed.core_price,
        gpu_price=options.gpu_price or assumed.gpu_price,
    )
    load = os.getloadavg()[0]
    begun = time.perf_counter()
    try:
        tiny = Bench("trivial work", TINY, options.work / "tiny", replace(size, tasks=3))
        main_bench = (
            tiny if options.trial else Bench("MiniLM", MINILM, options.work / "minilm", size)
        )
        benches = [tiny] if options.trial else [tiny, main_bench]
        served = [] if options.no_ray else [bench.serve() for bench in benches]
        rates = main_bench.shares()
        if not options.quick:
            rates += Bench("S", BASE, options.base, replace(size, rounds=2)).shares()
        scored = main_bench.score()
        tiny.measure_memory(scored)
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    settings = [
        (
            f"{system()}; {processors()} threads for every way: one replica has all of them, each of two "
            f"half; load average {load:.1f} before; the load generator has no machine of its own; all of "
            f"this took {(time.perf_counter() - begun) / 60:.0f} minutes"
        ),
        (
            f"{size.rounds} rounds of {size.seconds:g} s a way after {size.warm_up:g} s to warm up, every "
            f"other in the opposite order; {CLIENTS} clients, one text of {TOKENS} tokens a request; "
            "medians"
        ),
        f"Ray Serve: {our_versions('ray')}",
        f"ours: {our_versions('onnxruntime', 'fastapi', 'uvicorn', 'numpy', 'pyarrow')}",
    ]
    found = Findings(served=served, rates=rates, scored=scored, name=main_bench.name)
    publish(options, RESULTS, _report(found, assumed, settings), found.goals())
    return 0


class Bench:
    """Measures on one size of encoder."""

    def __init__(self, name: str, encoder: Encoder, folder: Path, size: Size) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._folder = folder
        self._size = size
        chance = random.Random(0)  # noqa: S311 - any fixed choice
        self._texts = [" ".join(chance.choices(_WORDS, k=TOKENS - 2)) for _ in range(64)]
        say(f"{name}: set-ups")
        self._setups = Setups(folder, encoder)
        self._release = self._setups.release(self._setups.sentences()[: size.tasks])

    # Servers

    def serve(self) -> Served:
        """A plain server, and one and two replicas by both of their doors."""
        found = Served(name=self.name)
        with self._plain() as plain:
            for number in (1, 2):
                say(f"{self.name}: Ray Serve, replicas: {number}")
                folder = self._folder / "servers" / f"ray-{number}"
                with ray_server(self._release.address, self._texts, number, folder) as doors:
                    take_turns(found, [plain, *doors], self._size)
        return found

    def shares(self) -> list[ServerRate]:
        """A plain server at shares of what it can do."""
        size = self._size
        with self._plain() as plain:
            say(f"{self.name}: what a server can do")
            # On a machine that others use too the least is what can be asked for.
            saturated = min(plain.saturated(size.seconds, size.warm_up) for _ in range(size.rounds))
            found = []
            for share in size.shares:
                say(f"{self.name}: {share:.0%} of {saturated:.0f} texts a second")
                latency = plain.at_rate(share * saturated, size.shared, size.warm_up)
                found.append(
                    ServerRate(
                        name=self.name,
                        cores=processors(),
                        saturated=saturated,
                        share=share,
                        median=latency.median,
                        p99=latency.p99,
                    )
                )
        return found

    def _plain(self) -> AbstractContextManager[Door]:
        folder = self._folder / "servers" / "plain"
        return plain_server(self._release.address, self._texts, folder)

    # Files

    def score(self) -> Scored:
        """A file of texts, and ``Release.predict`` in a loop over the same texts, by turns."""
        found = Scored()
        release = load_release(self._release.address, engine="onnx", threads=processors())
        texts = [self._texts[i % len(self._texts)] for i in range(self._size.rows)]
        file = _write_texts(self._folder / "texts.jsonl", texts)
        release.predict(texts[:_BATCH])
        for number in range(self._size.rounds):
            for way in [_score, _loop][:: -1 if number % 2 else 1]:
                say(f"{self.name}: {way.__name__.strip('_')}, round {number + 1}")
                start = time.perf_counter()
                way(release, texts, file)
                seconds = (time.perf_counter() - start) / len(texts)
                (found.files if way is _score else found.loop).append(seconds)
        return found

    def measure_memory(self, found: Scored) -> None:
        """What ``centra predict`` has in memory at most, on one row and on many."""
        one_task = self._setups.release(self._setups.sentences()[:1])
        for number in (1, self._size.many):
            say(f"{self.name}: a file of {number:,} rows")
            name = f"rows-{number}.jsonl"
            file = _write_texts(self._folder / name, ["hello time music"] * number)
            output = self._folder / "scored"
            shutil.rmtree(output, ignore_errors=True)
            start = time.perf_counter()
            found.memory[number] = _peak(
                *("--release", one_task.address, "--input", str(file), "--output", str(output)),
                folder=self._folder,
            )
            found.many_seconds = time.perf_counter() - start
            with (output / name).open("rb") as lines:
                answered = sum(1 for _ in lines)
            if answered != number:
                raise BenchmarkError(f"{answered} of {number} rows were answered")
            file.unlink()
            shutil.rmtree(output)


def take_turns(found: Served, doors: Sequence[Door], size: Size) -> None:
    """Ask each of some doors, the first of them the plain server's, round after round."""
    for number in range(size.rounds):
        rates = {}
        for door in [*doors][:: -1 if number % 2 else 1]:
            say(f"{found.name}: {door.name}, round {number + 1}")
            asked = found.asked.setdefault(door.name, Asked())
            rates[door.name] = door.ask(asked, size.seconds, size.warm_up, size.alone)
        for door in doors[1:]:
            found.plain.setdefault(door.name, []).append(rates[doors[0].name])


def _score(release: Release, texts: Sequence[str], file: Path) -> None:
    """Each time into a new folder: what is done is not done again."""
    output = file.parent / "scored"
    shutil.rmtree(output, ignore_errors=True)
    (scored,) = score_files(release, [file], output)
    if (scored.rows, scored.failed) != (len(texts), 0):
        raise BenchmarkError(f"{scored.rows} of {len(texts)} rows scored, {scored.failed} failed")


def _loop(release: Release, texts: Sequence[str], _file: Path) -> None:
    for place in range(0, len(texts), _BATCH):
        release.predict(texts[place : place + _BATCH])


def _write_texts(file: Path, texts: Sequence[str]) -> Path:
    with file.open("w", encoding="utf-8") as lines:
        for number, text in enumerate(texts):
            lines.write(json.dumps({"id": number, "text": text}) + "\n")
    return file


def _peak(*options: str, folder: Path) -> int:
    """The most bytes that ``centra predict`` has in memory.

    Raises:
        BenchmarkError: it failed.
    """
    log = folder / "predict.log"
    most = 0
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "predict", *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    # The system's own account, of a process that has ended, begins with what this one has.
    while process.poll() is None:
        most = max(most, peak_memory(process.pid))
        time.sleep(0.02)
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        raise BenchmarkError(f"centra predict ended with {process.returncode}:\n{said[-1000:]}")
    return most


# Report


def _report(found: Findings, assumed: Assumptions, settings: Sequence[str]) -> str:
    scored, rates = found.scored, found.rates
    body = goal_table(found.goals())
    for one in found.served:
        headers = (
            *(one.name, "requests/s", "share of the plain server's", "p99 ms then"),
            *("one client, ms", "memory, MB", "ready after, s"),
        )
        rows = [_served_row(name, asked, one.plain.get(name)) for name, asked in one.asked.items()]
        body += ["", *table(headers, rows)]
    (_, one_row), (many, most) = scored.memory.items()
    body += [
        "",
        *table(
            ("a file of texts, all tasks", "rows/s"),
            [
                ["`centra predict --output`", f"{1 / median(scored.files):.1f}"],
                ["`Release.predict` in a loop", f"{1 / median(scored.loop):.1f}"],
            ],
        ),
        "",
        (
            f"`centra predict` with one small task had {one_row / 1e6:.0f} MB at most for one row, "
            f"{most / 1e6:.0f} MB for {many:,}, which took {scored.many_seconds:.0f} s."
        ),
        "",
        f"## {assumed.rate:,.0f} queries a second for {TASKS} tasks",
        "",
        *table(
            (
                *("a query is one text for all tasks", "median ms", "p99 ms", "servers"),
                *("machines", "$ an hour", "$ a million queries"),
            ),
            sizing_rows(rates, assumed),
        ),
        "",
        *_assumed(rates, assumed),
    ]
    return report("Beyond one process", "scale.py", body, settings)


def _served_row(name: str, asked: Asked, plain: Sequence[float] | None) -> list[str]:
    shares = [ours / other for ours, other in zip(asked.rates, plain, strict=True)] if plain else []
    return [
        name,
        f"{median(asked.rates):.0f}",
        f"{median(shares):.0%}" if shares else "",
        f"{1000 * median(asked.p99):.0f}",
        f"{1000 * median(asked.alone):.1f}",
        f"{asked.memory / 1e6:.0f}",
        f"{asked.ready:.1f}",
    ]


def _assumed(rates: Sequence[ServerRate], assumed: Assumptions) -> list[str]:
    """What the calculation rests on."""
    saturated = dict.fromkeys((one.name, one.saturated, one.cores) for one in rates)
    measured = "; ".join(
        f"{name} {rate:.0f} a second on {cores} processors" for name, rate, cores in saturated
    )
    return [
        "Measured here:",
        "",
        f"- what a plain server can do, in float32: {measured}; the load generator's part is missing in it;",
        "- median and 99th percentile at a share of that, requests coming by chance (a Poisson process).",
        "",
        "Assumed:",
        "",
        f"- texts of {TOKENS} tokens, each asked for all tasks; the time grows in proportion to the tokens;",
        (
            "- servers of this size side by side, as many as a machine has processors for: they share "
            "nothing but memory's bandwidth, so that as many times as many answer as many times as much; "
            "processors are as fast as this machine's;"
        ),
        (
            f"- {assumed.core_price:g} dollars of a virtual CPU for an hour, {assumed.gpu_price:g} of a V100 "
            f"(on demand, more or less; `--core-price`, `--gpu-price`), machines of {assumed.machine_cores} CPUs, "
            f"and {assumed.spare_machines} of them to spare;"
        ),
        (
            "- the rate is that of the busiest hour; at other times fewer would do. Load balancers and "
            "traffic are not counted, for GPUs neither."
        ),
        "",
        (
            "The paper has 21 tasks on a BERT of base size, 40 layers of which 8 are shared, at fp16; it does not "
            "say how long its queries are. S is of that size; MiniLM is what the same takes on a "
            "smaller encoder."
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
