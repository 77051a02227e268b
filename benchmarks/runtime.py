"""How fast a merged release answers, beside the other ways to answer as many tasks.

On reference set-ups of BERT's base size (``tools/reference.py``): beside one ONNX Runtime session or
one transformers model per task, the adapters library and peft; and what a task more, mixed lengths,
streaming, int8, a cold start and a change of one task come to. All ways take turns in every round.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    Comparison,
    Goal,
    add_options,
    find_peers,
    goal_table,
    our_versions,
    output,
    peer_versions,
    publish,
    report,
    say,
    system,
    table,
)
from benchmarks.tools.peer import running_worker
from benchmarks.tools.real import find_data
from benchmarks.tools.real_int8 import compare_on_real_tasks
from benchmarks.tools.reference import DEEPEST, LAYERS, TASKS, ReferenceTask, Setup, Setups
from centra.bench import Floor, measure_floor, release_work
from centra.bench.work import layer_work, task_work
from centra.runtime import Release, load_release
from centra.system.processors import processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

RESULTS = ROOT / "benchmarks" / "RUNTIME.md"
PLOT = RESULTS.with_suffix(".png")
PINS = ROOT / "benchmarks" / "models.txt"
ROUNDS, QUICK_ROUNDS = 5, 2
OTHER_ROUNDS = 2
"""Of sizes that no goal is about."""
SECONDS = 0.2
"""For how long each is repeated at its turn, at least."""
MORE = 5
"""Tasks that are added to S to see what one more costs."""

Size = tuple[int, int]
"""Inputs, and tokens of each."""
Times = dict[tuple[str, Size], list[float]]
"""Seconds per round, by what was timed."""

QUICK_SIZES: tuple[Size, ...] = ((1, 32), (8, 32))
SIZES: tuple[Size, ...] = (*QUICK_SIZES, (32, 32))
LONG: tuple[Size, ...] = ((32, 128),)
TABLE: tuple[Size, ...] = ((1, 16), *SIZES, (1, 128), (8, 128))
ONNX = f"{TASKS} models, ONNX Runtime"
EAGER = f"{TASKS} models, transformers"
ADAPTERS = f"{TASKS} adapters in parallel"
ABOVE = f"{TASKS} adapters above layer 8"
PEFT = f"{TASKS} LoRA adapters, mixed batch"
PEERS = {"transformers": EAGER, "adapters": ADAPTERS, "adapters-above": ABOVE, "peft": PEFT}

_COLD = """
import sys
from centra.runtime import load_release
release = load_release(sys.argv[1], engine="onnx", threads=int(sys.argv[2]))
release.predict(["wake me at seven"])
print("answered", flush=True)
"""
_PEAK = """
import json, re, sys
from pathlib import Path
from centra.runtime import load_release
release = load_release(sys.argv[1], engine="onnx", threads=int(sys.argv[2]))
for batch, length in json.loads(sys.argv[3]):
    release.predict([" ".join(["hello"] * (length - 2))] * batch)
# Not what resource.getrusage says: that begins with the memory of the process that started this one.
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
"""


@dataclass(frozen=True)
class Bench:
    """What a run measures with."""

    setups: Setups
    python: Path
    """The interpreter that has the peers."""
    work: Path
    rounds: int
    threads: int
    quick: bool
    floor: Floor

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Of the rows that compare."""
        return QUICK_SIZES if self.quick else SIZES

    def least(self, setup: Setup, size: Size) -> float:
        """The seconds that this machine needs at least."""
        backbone, (batch, length) = self.setups.backbone, size
        work = release_work(
            setup.manifest.tasks, {backbone.digest: backbone}, batch=batch, length=length
        )
        return self.floor.seconds(work)

    def load(self, setup: Setup, base: Release | None = None) -> Release:
        """Load a release of the reference store."""
        return load_release(setup.address, engine="onnx", threads=self.threads, base=base)


@dataclass
class Findings:
    """Everything that was measured so far."""

    times: Times = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Of the report: what a goal's number does not say."""
    arrivals: list[float] = field(default_factory=list)
    """Seconds after which each task of S answered at 1 × 32, streaming; medians."""

    def faster(self, least: float, way: str, than: str, *sizes: Size) -> None:
        """Add a goal for each size that was timed: how many times as fast one way is as another."""
        for size in sizes:
            if (way, size) in self.times:
                ratio = 1 / Comparison.of(self.times[way, size], self.times[than, size]).worse
                name = f"{way[0]}, times as fast as {than}, {_text(size)}"
                self.goals.append(Goal.at_least(least, name, ratio))

    def median(self, way: str, size: Size) -> float:
        """Seconds."""
        return median(self.times[way, size])


def main() -> int:
    """Measure; 0 where everything could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(parser, RESULTS, f"1 × 32 and 8 × 32 alone, {QUICK_ROUNDS} rounds", pins=PINS)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "runtime")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    threads = processors()
    try:
        peers = find_peers(options.peers, PINS)
        options.work.mkdir(parents=True, exist_ok=True)
        say("reference set-ups")
        bench = Bench(
            setups=Setups(options.work),
            python=peers / "bin" / "python",
            work=options.work,
            rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
            threads=threads,
            quick=options.quick,
            floor=measure_floor(threads),
        )
        found = Findings()
        for part in (
            _singles,
            _more,
            _profile,
            _peers,
            _hundred,
            _lengths,
            _stream,
            _int8,
            _isolation,
            _start,
            _memory,
        ):
            part(bench, found)
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if not options.quick:
        _plot(found)
    settings = [
        f"{system()}; {threads} threads for every way; load average {load:.1f} before",
        (
            f"{bench.rounds} rounds after one to warm up, every other in the opposite order, and "
            f"{OTHER_ROUNDS} for sizes that no goal is about; at its turn each is repeated for "
            f"{SECONDS} s; medians"
        ),
        (
            f"floor: {bench.floor.flops / 1e9:.0f} GFLOP/s and {bench.floor.bandwidth / 1e9:.0f} "
            "GB/s, measured at the start of this run"
        ),
        f"ours: {our_versions('onnxruntime', 'tokenizers', 'numpy')}",
        f"theirs: {', '.join(f'{k} {v}' for k, v in peer_versions(peers, PINS).items())}",
    ]
    publish(options, RESULTS, _report(found, settings, quick=options.quick), found.goals)
    return 0


# Measurements


def _singles(bench: Bench, found: Findings) -> None:
    """S and M beside a session per task; the floor."""
    setups = {
        "S": bench.setups.release(bench.setups.sentences()),
        "M": bench.setups.release(bench.setups.mixed()),
    }
    releases = {name: bench.load(setup) for name, setup in setups.items()}
    say(f"beside {ONNX}")
    with _models(bench, "onnx", TASKS) as ask:
        ways = {name: _predict(release) for name, release in releases.items()} | {ONNX: ask}
        for size in bench.sizes if bench.quick else TABLE:
            _take_turns(bench, found, ways, size)
    found.faster(10, "S", ONNX, (1, 32))
    found.faster(12, "S", ONNX, (8, 32), (32, 32))
    found.faster(8.5, "M", ONNX, (8, 32), (32, 32))
    for size in bench.sizes:
        share = bench.least(setups["S"], size) / found.median("S", size)
        goal = 0.65 if size == (1, 32) else 0.75
        found.goals.append(
            Goal.at_least(goal, f"S: share of the machine's floor, {_text(size)}", share)
        )
    first_bytes = 4 * 12 * 768**2 * setups["S"].sentence_tasks
    for size in bench.sizes:
        layer = found.median(ONNX, size) / TASKS / LAYERS
        least = setups["S"].full_layers * layer + first_bytes / bench.floor.bandwidth
        found.goals.append(
            Goal.at_most(
                1.1,
                f"S: its time against its layers in ONNX Runtime, {_text(size)}",
                found.median("S", size) / least,
            )
        )


def _more(bench: Bench, found: Findings) -> None:
    """What a task more costs."""
    say("a task more")
    tasks = bench.setups.sentences()
    more = [ReferenceTask(seed=50 + i, tap=1 + 7 * i // (MORE - 1), depth=1) for i in range(MORE)]
    before = bench.load(bench.setups.release(tasks))
    after = bench.load(bench.setups.release([*tasks, *more]))
    for size, limit, times in (((1, 32), 1.5, 4), ((8, 32), 0.8, 3), ((32, 32), 0.3, 2)):
        if size not in bench.sizes:
            continue
        texts = [_words(size[1])] * size[0]
        # A hundredth is to be seen, so there are more rounds.
        turns = _turns(
            times * bench.rounds, {"S": _timed(before, texts), "S and more": _timed(after, texts)}
        )
        pairs = zip(turns["S and more"], turns["S"], strict=True)
        share = 100 * median((a - b) / MORE / b for a, b in pairs)
        found.goals.append(
            Goal.at_most(limit, f"one more sentence task in S, % of its time, {_text(size)}", share)
        )


def _profile(bench: Bench, found: Findings) -> None:
    """What one thread spends its time on, beside the least that it needs."""
    if bench.quick:
        return
    say("profile")
    setup, backbone = bench.setups.release(bench.setups.sentences()), bench.setups.backbone
    release = load_release(setup.address, engine="onnx", threads=1)
    floor, tasks = measure_floor(1), setup.manifest.tasks
    shallow = next(entry for entry in tasks.values() if entry.depth == 1)
    own = sum(entry.depth - 1 for entry in tasks.values())
    rows = []
    for batch, length in QUICK_SIZES:
        texts = [_words(length)] * batch
        whole = median(_turns(bench.rounds, {"S": _timed(release, texts)})["S"])
        profiles = [release.profile(texts) for _ in range(bench.rounds)]
        first, both = (
            median(
                seconds
                for profile in profiles
                for name, seconds in profile.tasks.items()
                if tasks[name].depth == depth
            )
            for depth in (1, 2)
        )
        layer = floor.seconds([layer_work(backbone.layer(1), batch=batch, length=length)])
        least = floor.seconds([task_work(shallow, backbone, batch=batch, length=length)])
        rows += [
            [_text((batch, length)), part, f"{1000 * seconds:.1f}", needed]
            for part, seconds, needed in (
                (
                    f"{DEEPEST} shared layers, embeddings",
                    median(profile.shared for profile in profiles),
                    f"{1000 * DEEPEST * layer:.1f}",
                ),
                (f"{own} own layers", own * (both - first), f"{1000 * own * layer:.1f}"),
                (
                    f"{TASKS} first-token layers, heads",
                    TASKS * first,
                    f"{1000 * TASKS * least:.1f}",
                ),
                ("everything", whole, ""),
            )
        ]
    headers = ("", "S on one thread", "ms", "at least, ms")
    title = (
        f"What one thread spends its time on. At best it does {floor.flops / 1e9:.0f} GFLOP/s and "
        f"reads {floor.bandwidth / 1e9:.0f} GB/s:"
    )
    found.lines.append("\n".join((title, "", *table(headers, rows))))


def _peers(bench: Bench, found: Findings) -> None:
    """S beside the others, each of which has the machine's memory to itself."""
    release = bench.load(bench.setups.release(bench.setups.sentences()))
    for kind, name in PEERS.items():
        say(f"beside {name}")
        own = f"S, beside {name}"
        with _models(bench, kind, TASKS) as ask:
            for size in QUICK_SIZES:
                _take_turns(bench, found, {own: _predict(release), name: ask}, size)
    one, eight = QUICK_SIZES
    for name, at_one, at_eight in (
        (EAGER, 20, 14),
        (ADAPTERS, 9, 13),
        (ABOVE, 3.5, 3.5),
        (PEFT, 11, 11),
    ):
        found.faster(at_one, f"S, beside {name}", name, one)
        found.faster(at_eight, f"S, beside {name}", name, eight)


def _hundred(bench: Bench, found: Findings) -> None:
    """A hundred tasks beside one model."""
    if bench.quick:
        return
    say("a hundred tasks")
    release = bench.load(bench.setups.release(bench.setups.hundred()))
    single = "one model, ONNX Runtime"
    with _models(bench, "onnx", 1) as ask:
        for size, limit in (((32, 32), 1.3), ((32, 128), 0.9)):
            _take_turns(bench, found, {"H": _predict(release), single: ask}, size)
            ratio = Comparison.of(found.times["H", size], found.times[single, size]).worse
            found.goals.append(
                Goal.at_most(limit, f"H: its time against {single}, {_text(size)}", ratio)
            )


def _lengths(bench: Bench, found: Findings) -> None:
    """Inputs of mixed lengths beside the same padded to the longest."""
    if bench.quick:
        return
    say("mixed lengths")
    setup = bench.setups.release(bench.setups.sentences())
    release = bench.load(setup)
    texts, lengths = _mixed(bench, random.Random(0))  # noqa: S311 - any fixed choice
    longest, mean = max(lengths), round(sum(lengths) / len(lengths))
    size = (len(texts), longest)
    padded, even = f"padded to {longest} tokens", f"all of {mean} tokens"
    ways = {
        "mixed lengths": _timed(release, texts),
        padded: _timed(release, [_words(longest)] * len(texts)),
        even: _timed(release, [_words(mean)] * len(texts)),
    }
    for way, seconds in _turns(bench.rounds, ways).items():
        found.times[way, size] = seconds
    found.goals.append(
        Goal.at_least(
            2.5,
            "mixed lengths up to 128, batch 32: against padding to the longest",
            1 / Comparison.of(found.times["mixed lengths", size], found.times[padded, size]).worse,
        )
    )
    rate = sum(lengths) / found.median("mixed lengths", size)
    of_even = len(texts) * mean / found.median(even, size)
    found.goals.append(
        Goal.at_least(
            85, "mixed lengths: real tokens per second, % of equal lengths", 100 * rate / of_even
        )
    )
    found.lines.append(
        f"Mixed lengths: {len(texts)} inputs of {min(lengths)} to {longest} tokens, {mean} in the "
        f"mean: one to eight rows of the `intent` set, joined. "
        f"{1000 * found.median('mixed lengths', size):.0f} ms, "
        f"{1000 * found.median(padded, size):.0f} ms padded, "
        f"{1000 * found.median(even, size):.0f} ms where all have {mean} tokens."
    )


def _stream(bench: Bench, found: Findings) -> None:
    """How early answers arrive."""
    say("streaming")
    release = bench.load(bench.setups.release(bench.setups.sentences()))
    size = (1, 32)
    arrivals: list[list[float]] = []

    def stream() -> float:
        start = time.perf_counter()
        arrivals.append([time.perf_counter() - start for _ in release.stream([_words(32)])])
        return arrivals[-1][-1]

    turns = _turns(bench.rounds, {"S streamed": stream, "S whole": _timed(release, [_words(32)])})
    for way, seconds in turns.items():
        found.times[way, size] = seconds
    found.arrivals = [median(times) for times in zip(*arrivals[1:], strict=True)]
    share = 100 * median(times[0] / times[-1] for times in arrivals[1:])
    found.goals += [
        Goal.at_most(8, "streaming S: first answer, % of the time to all, 1 × 32", share),
        Goal.at_most(
            1.05,
            "streaming S: all answers, against not streaming, 1 × 32",
            Comparison.of(turns["S streamed"], turns["S whole"]).worse,
        ),
    ]


def _int8(bench: Bench, found: Findings) -> None:
    """S in int8 beside itself in fp32, and the answers of trained modules in both."""
    say("int8")
    fp32 = bench.setups.release(bench.setups.sentences())
    int8 = bench.setups.rounded(fp32)
    ways = {"S, again": _predict(bench.load(fp32)), "S in int8": _predict(bench.load(int8))}
    for size, least in zip(QUICK_SIZES, (1.7, 1.4), strict=True):
        _take_turns(bench, found, ways, size)
        ratio = (
            1 / Comparison.of(found.times["S in int8", size], found.times["S, again", size]).worse
        )
        name = f"S in int8, times as fast as in fp32, {_text(size)}"
        found.goals.append(Goal.at_least(least, name, ratio))
    if bench.quick:
        return
    compared = compare_on_real_tasks(bench.work / "real")
    found.goals.append(
        Goal.at_least(
            99,
            f"int8: equal answers on {len(compared)} real tasks, mean %",
            100 * mean(one.agreement for _, one in compared),
        )
    )
    rows = [
        [
            task,
            str(one.examples),
            f"{100 * one.agreement:.2f}",
            one.metric,
            f"{100 * one.fp32:.2f}",
            f"{100 * one.int8:.2f}",
            f"{one.loss:.2f}",
        ]
        for task, one in compared
    ]
    headers = ("task", "dev rows", "equal answers, %", "metric", "fp32", "int8", "points lost")
    found.lines.append(
        "\n".join(("Modules trained on all-MiniLM-L6-v2:", "", *table(headers, rows)))
    )


def _isolation(bench: Bench, found: Findings) -> None:
    """Whether an answer depends on anything but its own input and task, to the bit."""
    say("isolation")
    lengths = (5, 17, 64) if bench.quick else (5, 16, 17, 40, 64, 100, 128)
    texts = [_words(length) for length in lengths]
    differ = compared = 0
    for tasks in (bench.setups.sentences(), bench.setups.mixed()):
        changed = [
            replace(task, seed=task.seed + 70) if i % 2 else task for i, task in enumerate(tasks)
        ]
        setup = bench.setups.release(tasks)
        release = bench.load(setup)
        expected = release.logits(texts)
        one_thread = load_release(setup.address, engine="onnx", threads=1)
        neighbours = [*reversed(texts), _words(90), *texts[:2]]
        answers = [
            release.logits(texts, [task.name for task in tasks[::3]]),
            one_thread.logits(texts),
            bench.load(bench.setups.release(tasks[1::2])).logits(texts),
            bench.load(bench.setups.release(changed)).logits(texts),
            {
                task: list(reversed(a[: len(texts)]))
                for task, a in release.logits(neighbours).items()
            },
            *(
                {task: [None] * i + own for task, own in release.logits([text]).items()}
                for i, text in enumerate(texts)
            ),
        ]
        for answer in answers:
            for task in answer.keys() & expected.keys():
                for own, other in zip(expected[task], answer[task], strict=False):
                    if other is not None:
                        compared += 1
                        differ += own.tobytes() != other.tobytes()
    found.goals.append(
        Goal.at_most(0, f"S and M: of {compared} answers, those that differ in any bit", differ)
    )
    found.lines.append(
        f"Isolation: answers of S and M to inputs of {_list(lengths)} tokens, held against those in a "
        "release of half the tasks, in one whose every other task is another module, for a third of "
        "the tasks, with other inputs in the batch, each input alone, and on one thread."
    )


def _start(bench: Bench, found: Findings) -> None:
    """A new process to its first answer; a full load, and a change of one task."""
    say("starting and changing")
    tasks = bench.setups.sentences()
    setup = bench.setups.release(tasks)
    changed = [replace(task, seed=60) if task.seed == TASKS // 2 else task for task in tasks]
    after = bench.setups.release(changed)
    cold, full, swap = [], [], []
    for _ in range(bench.rounds):
        cold.append(_cold(setup.address, bench.threads))
        gc.collect()
        start = time.perf_counter()
        release = bench.load(setup)
        full.append(time.perf_counter() - start)
        start = time.perf_counter()
        bench.load(after, base=release)
        swap.append(time.perf_counter() - start)
        del release
    found.goals += [
        Goal.at_most(2, f"a new process to its first answers, {TASKS} tasks, s", median(cold)),
        Goal.at_most(
            1 / 15, "changing one task, share of a full load", Comparison.of(swap, full).worse
        ),
    ]
    found.lines.append(
        f"Loading S takes {median(full):.2f} s, changing one of its tasks {1000 * median(swap):.0f} ms."
    )


def _cold(address: str, threads: int) -> float:
    """Seconds until a new process has answered for the first time."""
    argv = (sys.executable, "-c", _COLD, address, str(threads))
    start = time.perf_counter()
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as process:
        line = process.stdout.readline() if process.stdout else b""
        seconds = time.perf_counter() - start
    if line.strip() != b"answered":
        raise BenchmarkError("a new process did not answer; see above")
    return seconds


def _memory(bench: Bench, found: Findings) -> None:
    """The most that a process needed, after batches of every size."""
    say("memory")
    setup = bench.setups.release(bench.setups.sentences())
    sizes = [*bench.sizes, (8, 128)]
    argv = (
        *(sys.executable, "-c", _PEAK, setup.address),
        *(str(bench.threads), json.dumps(sizes)),
    )
    peak = int(output(argv, ROOT, os.environ))
    found.goals.append(
        Goal.at_most(
            1.3, "S: peak memory of its process against its blobs", peak / setup.blob_bytes
        )
    )
    found.lines.append(
        f"S has {setup.blob_bytes / 1e6:.0f} MB of blobs; its process took at most "
        f"{peak / 1e6:.0f} MB, Python included, through batches of "
        f"{', '.join(map(_text, sizes))}."
    )


# Timing


@contextmanager
def _models(bench: Bench, kind: str, tasks: int) -> Iterator[Callable[[Size], float]]:
    """A peer in its own process: what asks it for the seconds of a size."""
    # transformers' own model runs in our environment, with the version that we run on.
    python = Path(sys.executable) if kind == "transformers" else bench.python
    arguments = (kind, tasks, bench.threads, bench.work)
    with running_worker(
        python, "models_worker.py", *arguments, folder=bench.work / "peers"
    ) as worker:
        yield lambda size: float(worker.ask(batch=size[0], length=size[1])["seconds"])


def _take_turns(
    bench: Bench, found: Findings, ways: Mapping[str, Callable[[Size], float]], size: Size
) -> None:
    """Time ways to answer inputs of a size, and note the seconds."""
    bound = {name: (lambda way=way: way(size)) for name, way in ways.items()}
    rounds = bench.rounds if size in (*SIZES, *LONG) else OTHER_ROUNDS
    for name, seconds in _turns(rounds, bound).items():
        found.times[name, size] = seconds


def _turns(rounds: int, ways: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """The seconds of each way per round; every other round goes in the opposite order."""
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in [*ways][:: -1 if number % 2 else 1]:
            seconds = [ways[name]()]
            while sum(seconds) < SECONDS:
                seconds.append(ways[name]())
            found[name].append(median(seconds))
    return found


def _predict(release: Release) -> Callable[[Size], float]:
    return lambda size: _timed(release, [_words(size[1])] * size[0])()


def _timed(release: Release, texts: list[str]) -> Callable[[], float]:
    """Whole answers, tokenizing and decoding included."""

    def run() -> float:
        start = time.perf_counter()
        release.predict(texts)
        return time.perf_counter() - start

    return run


def _words(tokens: int) -> str:
    """A text of so many tokens, the special ones included."""
    return " ".join(["hello"] * (tokens - 2))


def _mixed(bench: Bench, chance: random.Random) -> tuple[list[str], list[int]]:
    """Inputs of mixed lengths up to 128 tokens, and their lengths."""
    from centra.data.inputs import Input
    from centra.tokenization.text_encoder import TextEncoder

    lines = (find_data() / "intent" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line)["text"] for line in lines]
    encoder = TextEncoder.of(bench.setups.backbone, bench.setups.store)
    texts: list[str] = []
    lengths: list[int] = []
    while len(texts) < 32:
        text = " ".join(chance.choices(rows, k=chance.choice((1, 1, 2, 4, 8))))
        (row,), _ = encoder.batch([Input(text)])
        if len(row.input_ids) <= 128:
            texts.append(text)
            lengths.append(len(row.input_ids))
    return texts, lengths


# Report


def _report(found: Findings, settings: list[str], *, quick: bool) -> str:
    sizes = [size for size in TABLE if ("S", size) in found.times]
    rows = [
        [
            way,
            *(
                f"{1000 * found.median(way, size):.0f}" if (way, size) in found.times else ""
                for size in sizes
            ),
        ]
        for way in ("S", "M", ONNX, *PEERS.values(), "H")
        if any((way, size) in found.times for size in sizes)
    ]
    body = [
        *goal_table(found.goals),
        "",
        "Milliseconds for a batch, all tasks answered, by inputs × tokens:",
        "",
        *table(("", *map(_text, sizes)), rows),
        "",
        *(line for text in found.lines for line in (text, "")),
    ]
    if not quick:
        body += [f"![times and streaming]({PLOT.name})"]
    return report("How fast a merged release answers", "runtime.py", body, settings)


def _plot(found: Findings) -> None:
    """Times by way, and when the answers of S arrive."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    ways = ("S", "M", ONNX, EAGER, ADAPTERS, ABOVE, PEFT)
    for number, size in enumerate(QUICK_SIZES):
        places = [i + 0.38 * number for i in range(len(ways))]
        times = [1000 * found.median(way, size) for way in ways]
        left.barh(places, times, height=0.36, label=_text(size))
    left.set_yticks([i + 0.19 for i in range(len(ways))], ways)
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_xlabel("milliseconds for all tasks")
    left.legend(title="inputs × tokens")
    shares = [100 * (i + 1) / len(found.arrivals) for i in range(len(found.arrivals))]
    right.step([1000 * t for t in found.arrivals], shares, where="post")
    right.set_xlim(left=0)
    right.set_xlabel("milliseconds, S streamed, 1 × 32")
    right.set_ylabel("% of tasks answered")
    figure.savefig(PLOT, dpi=110)


def _list(numbers: Sequence[int]) -> str:
    *most, last = numbers
    return f"{', '.join(map(str, most))} and {last}"


def _text(size: Size) -> str:
    return f"{size[0]} × {size[1]}"


if __name__ == "__main__":
    sys.exit(main())
