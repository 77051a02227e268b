"""That answers of a merged release depend on nothing else, how it starts and changes, and its memory."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.tools.common import ROOT, BenchmarkError, Comparison, Goal, output, say
from benchmarks.tools.reference import TASKS
from benchmarks.tools.turns import size_text, words
from centra.runtime import load_release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tools.findings import Bench, Findings

__all__ = ["isolation", "memory", "starting"]

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


def isolation(bench: Bench, found: Findings) -> None:
    """Whether an answer depends on anything but its own input and task, to the bit."""
    say("isolation")
    lengths = (5, 17, 64) if bench.quick else (5, 16, 17, 40, 64, 100, 128)
    texts = [words(length) for length in lengths]
    differ = compared = 0
    for tasks in (bench.setups.sentences(), bench.setups.mixed()):
        changed = [
            replace(task, seed=task.seed + 70) if i % 2 else task for i, task in enumerate(tasks)
        ]
        setup = bench.setups.release(tasks)
        release = bench.load(setup)
        expected = release.logits(texts)
        one_thread = load_release(setup.address, engine="onnx", threads=1)
        neighbours = [*reversed(texts), words(90), *texts[:2]]
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


def starting(bench: Bench, found: Findings) -> None:
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


def memory(bench: Bench, found: Findings) -> None:
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
        f"{', '.join(map(size_text, sizes))}."
    )


def _list(numbers: Sequence[int]) -> str:
    *most, last = numbers
    return f"{', '.join(map(str, most))} and {last}"
