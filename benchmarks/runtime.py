"""How fast a merged release answers, beside the other ways to answer as many tasks.

On reference set-ups of BERT's base size (``tools/reference.py``): beside one ONNX Runtime session or
one transformers model per task, the adapters library and peft; and what a task more, mixed lengths,
streaming, int8, a cold start and a change of one task come to. All ways take turns in every round.

``--family`` takes another family's base size (``tools/encoders.py``), beside a session and a model per
task, and a layer of it beside ONNX Runtime's own export of that layer.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tools import family
from benchmarks.tools.common import (
    ROOT,
    BenchmarkError,
    absolute_path,
    add_options,
    find_peers,
    our_versions,
    peer_versions,
    publish,
    say,
    system,
)
from benchmarks.tools.encoders import FAMILIES
from benchmarks.tools.findings import OTHER_ROUNDS, Bench, Findings
from benchmarks.tools.lifetime import isolation, memory, starting
from benchmarks.tools.reference import Setups
from benchmarks.tools.rivals import beside_models, beside_one_model, beside_peers, one_task_more
from benchmarks.tools.runtime_report import plot, text_of
from benchmarks.tools.turns import SECONDS
from benchmarks.tools.workings import int8, mixed_lengths, profile, streaming
from centra.bench import measure_floor
from centra.system.processors import processors

RESULTS = ROOT / "benchmarks" / "RUNTIME.md"
PLOT = RESULTS.with_suffix(".png")
PINS = ROOT / "benchmarks" / "models.txt"
ROUNDS, QUICK_ROUNDS = 5, 2

PARTS = (
    beside_models,
    one_task_more,
    profile,
    beside_peers,
    beside_one_model,
    mixed_lengths,
    streaming,
    int8,
    isolation,
    starting,
    memory,
)
"""What is measured on BERT."""
FAMILY_PARTS = (family.beside_models, family.beside_layers)
"""What is measured on another family."""


def main() -> int:
    """Measure; 0 where everything could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    add_options(parser, RESULTS, f"1 × 32 and 8 × 32 alone, {QUICK_ROUNDS} rounds", pins=PINS)
    parser.add_argument("--family", choices=FAMILIES, default="bert")
    parser.add_argument(
        "--work", type=absolute_path, help="default build/runtime, -FAMILY behind it"
    )
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    of_bert, encoder = options.family == "bert", FAMILIES[options.family]
    ending = "" if of_bert else f"-{options.family}"
    work: Path = options.work or ROOT / "build" / f"runtime{ending}"
    load = os.getloadavg()[0]
    threads = processors()
    try:
        peers = find_peers(options.peers, PINS)
        work.mkdir(parents=True, exist_ok=True)
        say("reference set-ups")
        bench = Bench(
            setups=Setups(work, encoder),
            python=peers / "bin" / "python",
            work=work,
            rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
            threads=threads,
            quick=options.quick,
            floor=measure_floor(threads),
        )
        found = Findings()
        for part in PARTS if of_bert else FAMILY_PARTS:
            part(bench, found)
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if of_bert and not options.quick:
        plot(found, PLOT)
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
    title = "How fast a merged release answers"
    results = RESULTS
    if not of_bert:
        title = f"How fast a merged release on {encoder.name} answers"
        results = RESULTS.with_stem(f"RUNTIME_{options.family.upper()}")
    picture = PLOT if of_bert and not options.quick else None
    publish(options, results, text_of(found, title, settings, picture), found.goals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
