"""A merged release of BERT's base size beside the other ways to answer as many tasks."""

from __future__ import annotations

from statistics import median

from benchmarks.tools.common import Comparison, Goal, say
from benchmarks.tools.findings import (
    ABOVE,
    ADAPTERS,
    EAGER,
    ONNX,
    PEERS,
    PEFT,
    QUICK_SIZES,
    TABLE,
    Bench,
    Findings,
    running_models,
    take_turns,
)
from benchmarks.tools.reference import TASKS, ReferenceTask
from benchmarks.tools.turns import predicting, size_text, timed, turns, words

__all__ = ["beside_models", "beside_one_model", "beside_peers", "one_task_more"]

_MORE = 5
"""Tasks that are added to S to see what one more costs."""


def beside_models(bench: Bench, found: Findings) -> None:
    """S and M beside a session per task; the floor."""
    setups = {
        "S": bench.setups.release(bench.setups.sentences()),
        "M": bench.setups.release(bench.setups.mixed()),
    }
    releases = {name: bench.load(setup) for name, setup in setups.items()}
    say(f"beside {ONNX}")
    with running_models(bench, "onnx", TASKS) as ask:
        ways = {name: predicting(release) for name, release in releases.items()} | {ONNX: ask}
        for size in bench.sizes if bench.quick else TABLE:
            take_turns(bench, found, ways, size)
    found.faster(10, "S", ONNX, (1, 32))
    found.faster(12, "S", ONNX, (8, 32), (32, 32))
    found.faster(8.5, "M", ONNX, (8, 32), (32, 32))
    for size in bench.sizes:
        share = bench.least(setups["S"], size) / found.median("S", size)
        goal = 0.65 if size == (1, 32) else 0.75
        found.goals.append(
            Goal.at_least(goal, f"S: share of the machine's floor, {size_text(size)}", share)
        )
    first_bytes = 4 * 12 * 768**2 * setups["S"].sentence_tasks
    for size in bench.sizes:
        layer = found.median(ONNX, size) / TASKS / bench.setups.encoder.layers
        least = setups["S"].full_layers * layer + first_bytes / bench.floor.bandwidth
        found.goals.append(
            Goal.at_most(
                1.1,
                f"S: its time against its layers in ONNX Runtime, {size_text(size)}",
                found.median("S", size) / least,
            )
        )


def one_task_more(bench: Bench, found: Findings) -> None:
    """What a task more costs."""
    say("a task more")
    tasks = bench.setups.sentences()
    more = [ReferenceTask(seed=50 + i, tap=1 + 7 * i // (_MORE - 1), depth=1) for i in range(_MORE)]
    before = bench.load(bench.setups.release(tasks))
    after = bench.load(bench.setups.release([*tasks, *more]))
    for size, limit, times in (((1, 32), 1.5, 4), ((8, 32), 0.8, 3), ((32, 32), 0.3, 2)):
        if size not in bench.sizes:
            continue
        texts = [words(size[1])] * size[0]
        # A hundredth is to be seen, so there are more rounds.
        seconds = turns(
            times * bench.rounds, {"S": timed(before, texts), "S and more": timed(after, texts)}
        )
        pairs = zip(seconds["S and more"], seconds["S"], strict=True)
        share = 100 * median((a - b) / _MORE / b for a, b in pairs)
        found.goals.append(
            Goal.at_most(
                limit, f"one more sentence task in S, % of its time, {size_text(size)}", share
            )
        )


def beside_peers(bench: Bench, found: Findings) -> None:
    """S beside the others, each of which has the machine's memory to itself."""
    release = bench.load(bench.setups.release(bench.setups.sentences()))
    for kind, name in PEERS.items():
        say(f"beside {name}")
        own = f"S, beside {name}"
        with running_models(bench, kind, TASKS) as ask:
            for size in QUICK_SIZES:
                take_turns(bench, found, {own: predicting(release), name: ask}, size)
    one, eight = QUICK_SIZES
    for name, at_one, at_eight in (
        (EAGER, 20, 14),
        (ADAPTERS, 9, 13),
        (ABOVE, 3.5, 3.5),
        (PEFT, 11, 11),
    ):
        found.faster(at_one, f"S, beside {name}", name, one)
        found.faster(at_eight, f"S, beside {name}", name, eight)


def beside_one_model(bench: Bench, found: Findings) -> None:
    """A hundred tasks beside one model."""
    if bench.quick:
        return
    say("a hundred tasks")
    release = bench.load(bench.setups.release(bench.setups.hundred()))
    single = "one model, ONNX Runtime"
    with running_models(bench, "onnx", 1) as ask:
        for size, limit in (((32, 32), 1.3), ((32, 128), 0.9)):
            take_turns(bench, found, {"H": predicting(release), single: ask}, size)
            ratio = Comparison.of(found.times["H", size], found.times[single, size]).worse
            found.goals.append(
                Goal.at_most(limit, f"H: its time against {single}, {size_text(size)}", ratio)
            )
