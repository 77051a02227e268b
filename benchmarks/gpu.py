"""How many texts a merged release answers on a GPU, beside a model per task.

Set-up S of ``tools/reference.py``, inputs of 16 tokens, in bf16: the most queries per second of which
99 in 100 are answered within 10 ms, and which share of the GPU's rate of matrix products that is.
A query is one text, answered for all tasks.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.tools.common import (
    ROOT,
    Goal,
    add_options,
    goal_table,
    our_versions,
    publish,
    report,
    say,
    system,
    table,
)
from benchmarks.tools.reference import Setup, Setups
from centra.bench import release_work
from centra.bench.requests import make_input
from centra.bench.work import embeddings_work, layer_work
from centra.runtime import load_release
from centra.runtime.devices import choose_device, has_gpu
from centra.runtime.engines import open_engine
from centra.runtime.schedule import Job, compute
from centra.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from centra.formats.backbone import BackboneSpec

RESULTS = ROOT / "benchmarks" / "GPU.md"
LENGTH, LIMIT, GOAL = 16, 0.010, 20_000
"""Tokens, seconds, queries per second."""
TEXTS = "S, texts to answers"
TOKENS = "S, tokens to logits"
SINGLES = "models, transformers, tokens to logits"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Texts of a request."""
    clients: tuple[int, ...] = (1, 2, 4, 8)
    """Who each ask for the next when they have an answer."""
    seconds: float = 3.0
    """For each batch and number of clients."""
    matrix: int = 8192
    """Rows and columns of the product whose rate is the peak."""


QUICK = Sizes(batches=(1, 32), clients=(1, 4), seconds=0.5)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came of some clients asking for some seconds."""

    batch: int
    clients: int
    rate: float
    """Queries per second."""
    p99: float
    """Seconds within which 99 in 100 requests were answered."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that was measured."""

    best: dict[str, Load]
    """By way, the load of the highest rate among those within the limit, or else the fastest."""
    operations: dict[str, float]
    """Of a query, by way."""
    peak: float
    """Operations per second of a large matrix product."""


def main() -> int:
    """Measure, where there is a GPU; 0 where there is none, too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(parser, RESULTS, f"{len(QUICK.batches)} batches, half a second each", pins=None)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "runtime")
    parser.add_argument(
        "--device", default="cuda", help="'cpu' shows that the script runs; nothing is kept then"
    )
    options = parser.parse_args()
    if options.device != "cpu" and not has_gpu():
        print("no GPU here: nothing measured")
        return 0
    options.quick = options.quick or options.device == "cpu"
    options.work.mkdir(parents=True, exist_ok=True)
    say("reference set-up")
    setups = Setups(options.work)
    setup = setups.release(setups.sentences())
    sizes = QUICK if options.quick else Sizes()
    found = measure(setup, setups.backbone, options.device, sizes)
    settings = [
        f"{system()}; {_device_name(options.device)}",
        (
            f"{len(setup.manifest.tasks)} tasks, {LENGTH} tokens, bf16; {sizes.seconds:g} s each, "
            "after as long to warm up"
        ),
        f"the peak: a product of matrices of {sizes.matrix} rows and columns in bf16, in this run",
        f"versions: {our_versions('torch', 'transformers', 'tokenizers')}",
    ]
    goals = [
        Goal.at_least(
            GOAL,
            f"S: queries per second, {LENGTH} tokens, p99 <= {1000 * LIMIT:g} ms",
            found.best[TEXTS].rate if found.best[TEXTS].p99 <= LIMIT else 0,
        )
    ]
    publish(options, RESULTS, _report(found, goals, settings), goals)
    return 0


def measure(setup: Setup, backbone: BackboneSpec, device: str, sizes: Sizes) -> Findings:
    """Measure a release and as many single models.

    Args:
        setup: the release; all its tasks take single texts.
        backbone: of its tasks, a BERT.
        device: where.
        sizes: how much.
    """
    tasks = setup.manifest.tasks
    one = release_work(tasks, {backbone.digest: backbone}, batch=1, length=LENGTH)
    merged = float(sum(work.flops for work in one))
    layers = sum(
        layer_work(backbone.layer(number), batch=1, length=LENGTH).flops
        for number in range(1, backbone.num_layers + 1)
    )
    single = embeddings_work(backbone, batch=1, length=LENGTH).flops + layers
    ways: dict[str, tuple[Callable[[int], Callable[[], object]], float]] = {
        TEXTS: (_texts(setup, backbone, device), merged),
        TOKENS: (_tokens(setup, backbone, device), merged),
        f"{len(tasks)} {SINGLES}": (
            _singles(len(tasks), backbone, device),
            float(len(tasks) * single),
        ),
    }
    loads: dict[str, list[Load]] = {way: [] for way in ways}
    for batch, clients in product(sizes.batches, sizes.clients):
        say(f"{clients} clients, {batch} texts a request")
        for way, (prepare, _) in ways.items():
            ask = prepare(batch)
            _loaded(ask, batch, clients, sizes.seconds)
            loads[way].append(_loaded(ask, batch, clients, sizes.seconds))
    return Findings(
        best={way: _best(found) for way, found in loads.items()},
        operations={way: operations for way, (_, operations) in ways.items()},
        peak=_peak(device, sizes.matrix),
    )


# What is asked


def _texts(
    setup: Setup, backbone: BackboneSpec, device: str
) -> Callable[[int], Callable[[], object]]:
    """Requests as callers make them."""
    release = load_release(setup.address, engine="torch", device=device, dtype="bf16")
    encoder = TextEncoder.of(backbone, setup.store)
    item = make_input([encoder], LENGTH, pair=False)
    return lambda batch: lambda: release.predict([item] * batch)


def _tokens(
    setup: Setup, backbone: BackboneSpec, device: str
) -> Callable[[int], Callable[[], object]]:
    """What a release does between tokenizing and decoding."""
    engine = open_engine("torch", device=device, dtype="bf16")
    entries = setup.manifest.tasks
    taps = {entry.tap_layer for entry in entries.values()}
    trunk = engine.load_trunk(backbone, setup.store, depth=max(taps))
    branches = {
        name: engine.load_task(entry.digest, backbone, setup.store).branch
        for name, entry in entries.items()
    }
    encoder = TextEncoder.of(backbone, setup.store)
    item = make_input([encoder], LENGTH, pair=False)

    def prepare(batch: int) -> Callable[[], object]:
        _, encoded = encoder.batch([item] * batch)
        every = np.arange(batch)
        readers = {tap: [every] for tap in taps}
        jobs = [
            Job(
                name=name,
                tap=entry.tap_layer,
                length=entry.depth,
                run=partial(branches[name].run, inputs=every),
            )
            for name, entry in entries.items()
        ]
        return lambda: [*compute(engine.pool, trunk.run(encoded, readers), jobs)]

    return prepare


def _singles(
    tasks: int, backbone: BackboneSpec, device: str
) -> Callable[[int], Callable[[], object]]:
    """A BERT per task in bf16 with torch's own attention, one after the other, without graphs."""
    import torch
    import transformers

    config = transformers.BertConfig(**backbone.config, num_labels=3, attn_implementation="sdpa")
    models = [
        transformers.BertForSequenceClassification(config).eval().to(device, torch.bfloat16)
        for _ in range(tasks)
    ]
    turn = threading.Lock()

    def prepare(batch: int) -> Callable[[], object]:
        ids = torch.full((batch, LENGTH), 5)

        @torch.inference_mode()
        def ask() -> list[torch.Tensor]:
            # One request has the GPU; several at once would only take each other's turns.
            with turn:
                given = ids.to(device)
                found = [model(input_ids=given).logits for model in models]
                return [logits.float().cpu() for logits in found]

        return ask

    return prepare


# How it is measured


def _loaded(ask: Callable[[], object], batch: int, clients: int, seconds: float) -> Load:
    """Have clients ask again and again."""
    start = time.perf_counter()
    end = start + seconds

    def client(_: int) -> list[float]:
        times = [time.perf_counter()]
        while len(times) == 1 or times[-1] < end:
            ask()
            times.append(time.perf_counter())
        return np.diff(times).tolist()

    with ThreadPoolExecutor(clients) as executor:
        found = [took for times in executor.map(client, range(clients)) for took in times]
    rate = batch * len(found) / (time.perf_counter() - start)
    return Load(batch=batch, clients=clients, rate=rate, p99=float(np.percentile(found, 99)))


def _best(loads: Sequence[Load]) -> Load:
    within = [load for load in loads if load.p99 <= LIMIT]
    if within:
        return max(within, key=lambda load: load.rate)
    return min(loads, key=lambda load: load.p99)


def _peak(device: str, size: int) -> float:
    """Operations per second of a product of large matrices in bf16, the best of some."""
    import torch

    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))

    def wait() -> None:
        if left.is_cuda:
            torch.cuda.synchronize(left.device)

    best = float("inf")
    for _ in range(10):
        wait()
        start = time.perf_counter()
        torch.mm(left, right)
        wait()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _device_name(device: str) -> str:
    import torch

    chosen, _ = choose_device(device, None)
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "no GPU"


def _report(found: Findings, goals: list[Goal], settings: list[str]) -> str:
    rows = [
        [
            way,
            f"{load.rate:,.0f}",
            f"{1000 * load.p99:.2f}",
            str(load.batch),
            str(load.clients),
            f"{100 * load.rate * found.operations[way] / found.peak:.1f}",
        ]
        for way, load in found.best.items()
    ]
    headers = ("", "queries/s", "p99 ms", "texts a request", "clients", "% of the peak")
    body = [
        *goal_table(goals),
        "",
        f"The best load of each way with p99 ≤ {1000 * LIMIT:g} ms, or the fastest where none is:",
        "",
        *table(headers, rows),
        "",
        f"The peak is {found.peak / 1e12:.1f} Tflop/s.",
    ]
    return report("How many texts a merged release answers on a GPU", "gpu.py", body, settings)


if __name__ == "__main__":
    sys.exit(main())
