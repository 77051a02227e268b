"""A merged release on a family's base size beside single models of it, and a layer beside a layer."""

from __future__ import annotations

import json
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.tools.common import Comparison, Goal, say, table
from benchmarks.tools.findings import (
    EAGER,
    ONNX,
    QUICK_SIZES,
    Bench,
    Findings,
    running_models,
    take_turns,
)
from benchmarks.tools.reference import TASKS, Setups
from benchmarks.tools.turns import Size, predicting, size_text, turns
from centra.formats.precision import Precision
from centra.formats.tensors import map_tensors
from centra.runtime.onnx.blocks import Layer
from centra.runtime.onnx.disentangled import distance_embeddings
from centra.runtime.onnx.engine import OnnxEmbeddings
from centra.runtime.onnx.shared_state import SharedState
from centra.runtime.packing import Packed
from centra.runtime.pool import Pool
from centra.tokenization.text_encoder import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.families.description import Layer as Description

__all__ = ["beside_layers", "beside_models", "own_layer"]

_LONGER: Size = (8, 128)
_LAYER_ROUNDS = 3
"""For each other round: a layer takes milliseconds."""


def beside_models(bench: Bench, found: Findings) -> None:
    """S beside a session per task, and then beside a transformers model per task."""
    setup = bench.setups.release(bench.setups.sentences())
    release = bench.load(setup)
    for kind, name, sizes in (
        ("onnx", ONNX, QUICK_SIZES if bench.quick else (*QUICK_SIZES, _LONGER)),
        ("transformers", EAGER, QUICK_SIZES),
    ):
        say(f"beside {name}")
        own = "S" if kind == "onnx" else f"S, beside {name}"
        with running_models(bench, kind, TASKS) as ask:
            for size in sizes:
                take_turns(bench, found, {own: predicting(release), name: ask}, size)
        found.faster(8, own, name, (8, 32))
    encoder, account = bench.setups.encoder, setup.manifest.account
    weights = "random weights" if encoder.weights is None else "real weights"
    fused = (bench.work / "single.json").read_text(encoding="utf-8")
    found.lines += [
        (
            f"S has {account.shared + encoder.own_layers} layers where one model has {encoder.layers}: "
            f"{account.shared} shared ones and {encoder.own_layers} of {TASKS} tasks, which of the "
            f"trunk and of modules is as large a share as 8 and 32 are of 12. Of them "
            f"{setup.full_layers} are computed on all tokens. It has {weights}."
        ),
        f"What ONNX Runtime's optimiser fused in a single model: {_fused(fused)}.",
    ]


def beside_layers(bench: Bench, found: Findings) -> None:
    """Each sort of layer beside ONNX Runtime's own export of it, both on one thread."""
    say("a layer beside a layer")
    backbone = bench.setups.backbone
    sorts: dict[Description, int] = {}
    # The first may lack a norm.
    for number in range(2, backbone.num_layers + 1):
        sorts.setdefault(backbone.layer(number), number)
    rows = []
    for layer, number in sorts.items():
        window = layer.attention.window
        kind = "" if len(sorts) == 1 else ", everywhere" if window is None else ", window"
        with running_models(bench, "onnx-layer", number, threads=1) as ask:
            for size in (QUICK_SIZES[-1], _LONGER):
                ways: dict[str, Callable[[], float]] = {
                    "ours": own_layer(bench.setups, number, size),
                    "theirs": partial(ask, size),
                }
                times = turns(_LAYER_ROUNDS * bench.rounds, ways)
                ratio = Comparison.of(times["ours"], times["theirs"]).worse
                name = f"a layer{kind}: its time against ONNX Runtime's, {size_text(size)}"
                found.goals.append(Goal.at_most(1.15, name, ratio))
                rows.append(
                    [
                        f"a layer{kind}, {size_text(size)}",
                        *(f"{1000 * median(seconds):.1f}" for seconds in times.values()),
                    ]
                )
    headers = ("one thread, ms", "Centra", "ONNX Runtime's export")
    found.lines.append("\n".join(table(headers, rows)))


def own_layer(setups: Setups, number: int, size: Size) -> Callable[[], float]:
    """A layer as the onnx engine runs it, on one thread.

    Args:
        setups: whose backbone it is of.
        number: from 1.
        size: of what it computes.

    Returns:
        What gives the seconds of a run.
    """
    backbone, store = setups.backbone, setups.store
    layer = Layer(
        backbone.within_layer(map_tensors(store.fetch(backbone.layers[number - 1])), number),
        backbone.layer(number),
        precision=Precision.FP32,
        pool=Pool(1),
        distances=distance_embeddings(backbone, store),
    )
    embeddings = map_tensors(store.fetch(backbone.embeddings))
    positions = OnnxEmbeddings(embeddings, backbone.description, backbone.max_length).positions
    ones = np.ones(size, dtype=np.int64)
    batch = Encoded(input_ids=ones, token_type_ids=0 * ones, attention_mask=ones)
    shared = SharedState(Packed.of(batch), positions)
    chance = np.random.default_rng(0)
    states = chance.standard_normal((ones.size, backbone.hidden_size), dtype=np.float32)

    def run() -> float:
        start = time.perf_counter()
        layer(states, shared)
        return time.perf_counter() - start

    return run


def _fused(report: str) -> str:
    counts: dict[str, int] = json.loads(report)
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)
