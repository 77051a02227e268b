"""What a merged release spends its time on, and what lengths, streaming and int8 do to it."""

from __future__ import annotations

import json
import random
import time
from statistics import mean, median

from benchmarks.tools.common import Comparison, Goal, say, table
from benchmarks.tools.findings import QUICK_SIZES, Bench, Findings, take_turns
from benchmarks.tools.real import find_data
from benchmarks.tools.real_int8 import compare_on_real_tasks
from benchmarks.tools.reference import TASKS
from benchmarks.tools.turns import predicting, size_text, timed, turns, words
from centra.bench import measure_floor
from centra.bench.work import layer_work, task_work
from centra.runtime import load_release

__all__ = ["int8", "mixed_lengths", "profile", "streaming"]


def profile(bench: Bench, found: Findings) -> None:
    """What one thread spends its time on, beside the least that it needs."""
    if bench.quick:
        return
    say("profile")
    setup, backbone = bench.setups.release(bench.setups.sentences()), bench.setups.backbone
    deepest = bench.setups.encoder.deepest
    release = load_release(setup.address, engine="onnx", threads=1)
    floor, tasks = measure_floor(1), setup.manifest.tasks
    shallow = next(entry for entry in tasks.values() if entry.depth == 1)
    own = sum(entry.depth - 1 for entry in tasks.values())
    rows = []
    for batch, length in QUICK_SIZES:
        texts = [words(length)] * batch
        whole = median(turns(bench.rounds, {"S": timed(release, texts)})["S"])
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
            [size_text((batch, length)), part, f"{1000 * seconds:.1f}", needed]
            for part, seconds, needed in (
                (
                    f"{deepest} shared layers, embeddings",
                    median(profile.shared for profile in profiles),
                    f"{1000 * deepest * layer:.1f}",
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


def mixed_lengths(bench: Bench, found: Findings) -> None:
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
        "mixed lengths": timed(release, texts),
        padded: timed(release, [words(longest)] * len(texts)),
        even: timed(release, [words(mean)] * len(texts)),
    }
    for way, seconds in turns(bench.rounds, ways).items():
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


def streaming(bench: Bench, found: Findings) -> None:
    """How early answers arrive."""
    say("streaming")
    release = bench.load(bench.setups.release(bench.setups.sentences()))
    size = (1, 32)
    arrivals: list[list[float]] = []

    def stream() -> float:
        start = time.perf_counter()
        arrivals.append([time.perf_counter() - start for _ in release.stream([words(32)])])
        return arrivals[-1][-1]

    times = turns(bench.rounds, {"S streamed": stream, "S whole": timed(release, [words(32)])})
    for way, seconds in times.items():
        found.times[way, size] = seconds
    found.arrivals = [median(each) for each in zip(*arrivals[1:], strict=True)]
    share = 100 * median(each[0] / each[-1] for each in arrivals[1:])
    found.goals += [
        Goal.at_most(8, "streaming S: first answer, % of the time to all, 1 × 32", share),
        Goal.at_most(
            1.05,
            "streaming S: all answers, against not streaming, 1 × 32",
            Comparison.of(times["S streamed"], times["S whole"]).worse,
        ),
    ]


def int8(bench: Bench, found: Findings) -> None:
    """S in int8 beside itself in fp32, and the answers of trained modules in both."""
    say("int8")
    fp32 = bench.setups.release(bench.setups.sentences())
    int8 = bench.setups.rounded(fp32)
    ways = {"S, again": predicting(bench.load(fp32)), "S in int8": predicting(bench.load(int8))}
    for size, least in zip(QUICK_SIZES, (1.7, 1.4), strict=True):
        take_turns(bench, found, ways, size)
        ratio = (
            1 / Comparison.of(found.times["S in int8", size], found.times["S, again", size]).worse
        )
        name = f"S in int8, times as fast as in fp32, {size_text(size)}"
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
