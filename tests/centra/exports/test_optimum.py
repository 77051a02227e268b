"""Tasks as optimum reads them: its own classes answer every probe."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from centra.exports import format_named, write_export
from centra.formats.decision import Decision
from centra.store import LocalStore
from tests import support
from tests.centra.exports.conftest import snippet
from tests.centra.test_onnx_engine import TOLERANCE
from tests.families import TINY
from tests.peers import peer_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.exports import Source
    from centra.formats.task_module import TaskModule


class Asked(NamedTuple):
    """A task that optimum is asked about."""

    family: str
    kind: str
    options: dict[str, object]


LATER = {"eurobert", "nomic-bert"}
"""Not in the transformers that optimum asks for."""
FAMILIES = [family for family in TINY if family not in LATER]
# A head that a family's class lacks leaves the graph alone in the folder, which is all that optimum reads.
ASKED = [
    *(Asked(name, ("classification", "tagging")[i % 2], {}) for i, name in enumerate(FAMILIES)),
    Asked("bert", "tagging", {"tap": 2}),
    Asked("bert", "multilabel", {"form": "pair"}),
    Asked("bert", "regression", {"tap": 0}),
    Asked("bert", "classification", {"decision": Decision(pooling="mean")}),
]


@pytest.mark.usefixtures("few_samples")
def test_optimum_answers_every_probe(
    imported: Callable[[str], support.Backbone],
    intent: Source,
    task_source: Callable[[support.Backbone, TaskModule, LocalStore], Source],
    tmp_path: Path,
) -> None:
    """All in one process, which imports for longer than it computes; first what the page shows."""
    python = peer_python("optimum")
    write_export(intent, format_named("optimum"), tmp_path / "intent")
    program = (support.ROOT / "tests" / "peers" / "optimum_logits.py").read_text()
    modules, lines = [], []
    for number, (family, kind, options) in enumerate(ASKED):
        backbone, folder = imported(family), tmp_path / f"{number}"
        module = support.make_module(kind, backbone.spec, backbone.store, **options)
        source = task_source(backbone, module, LocalStore(tmp_path / "store"))
        write_export(source, format_named("optimum"), folder)
        inputs = ("input_ids", "attention_mask", "token_type_ids")
        np.savez(f"{folder}.npz", **{n: module.tensors[f"probe.{n}"].numpy() for n in inputs})
        of = "Token" if module.spec.reads_every_token else "Sequence"
        lines.append([f"{folder}.npz", str(folder), f"ORTModelFor{of}Classification"])
        modules.append(module)

    asked = subprocess.run(
        [python, "-c", snippet("optimum") + program],
        cwd=tmp_path,
        input="".join(json.dumps(line) + "\n" for line in lines),
        env={**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert asked.returncode == 0, asked.stderr
    shown, *lines_of_answers = asked.stdout.splitlines()
    assert any(label in shown for label in ("alarm", "music", "weather"))
    answers = [json.loads(line) for line in lines_of_answers]
    for (family, kind, _), (_, folder, _), module, answer in zip(
        *(ASKED, lines, modules, answers), strict=True
    ):
        computed, probe = np.load(f"{folder}/logits.npy"), module.tensors["probe.logits"].numpy()
        if module.spec.reads_every_token:
            real = module.tensors["probe.attention_mask"].numpy()[:, :, None]
            computed, probe = computed * real, probe * real
        assert np.abs(computed - probe).max() <= TOLERANCE, (family, kind)
        if kind == "classification":
            assert answer[0]["label"] in module.spec.labels
