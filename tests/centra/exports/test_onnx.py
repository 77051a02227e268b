"""Releases as one ONNX graph: what onnxruntime computes from it is what the modules recorded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from centra.data.inputs import Input
from centra.errors import IncompatibleError
from centra.exports import Source, format_named, write_export
from centra.formats.decision import Decision
from centra.formats.head import HeadSpec
from centra.runtime import Release
from centra.store import LocalStore
from centra.system.files import file_digest
from tests import support
from tests.centra.states import SINGLES
from tests.centra.test_onnx_engine import TOLERANCE, encoded, texts
from tests.families import TINY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from tests.centra.exports.conftest import Exported

ONNX = format_named("onnx")
RAGGED = [*SINGLES, *(Input(text) for text in texts(5)), Input("rain " * 200)]


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("family", TINY)
def test_every_family_answers_in_onnxruntime_as_in_a_release(
    family: str, release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    """The probes are compared by the export itself; here inputs of all lengths are."""
    release = release_on(family)

    export = write_export(release.source, ONNX, tmp_path / "out")

    assert export.parity.keys() == release.modules.keys()
    assert max(export.parity.values()) <= TOLERANCE
    graph = session(tmp_path / "out" / "model.onnx")
    batch = encoded(release.backbone, RAGGED)
    given = {i.name: getattr(batch, i.name) for i in graph.get_inputs()}
    names = [f"{task}.logits" for task in release.modules]
    assert [o.name for o in graph.get_outputs()] == sorted(names)
    found = dict(zip(names, graph.run(names, given), strict=True))
    merged = Release.load(
        release.source.manifest, release.source.reader, engine="torch", device="cpu"
    )
    singles = [task for task, module in release.modules.items() if module.spec.input == "single"]
    for task, logits in merged.logits(RAGGED, singles).items():
        for row, own in zip(found[f"{task}.logits"], logits, strict=True):
            theirs = row[: len(own)] if own.ndim == 2 else row
            assert np.abs(theirs - own).max() <= TOLERANCE


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta-v3", "eurobert"])
def test_fewer_bits_move_logits_a_little(
    family: str, precision: str, release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    release = release_on(family)

    export = write_export(release.source, ONNX, tmp_path / "out", precision=precision)

    largest = max(float(m.tensors["probe.logits"].abs().max()) for m in release.modules.values())
    bound = {"fp16": 0.01, "int8": 0.1}[precision] * max(1.0, largest)
    assert 0 < max(export.parity.values()) <= bound


def test_the_manifest_says_how_logits_become_answers(
    release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    release, folder = release_on("bert"), tmp_path / "out"

    export = write_export(release.source, ONNX, folder)

    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["release"] == 1
    assert manifest["digest"] == release.source.manifest.digest
    assert manifest["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {*manifest["files"], "manifest.json"} == {*export.files}
    assert manifest["files"]["model.onnx"] == file_digest(folder / "model.onnx")
    mean = manifest["tasks"]["mean"]
    spec = release.modules["mean"].spec
    assert mean["labels"] == [*spec.labels]
    assert (mean["activation"], mean["threshold"], mean["pooling"]) == ("sigmoid", 0.5, "mean")
    assert mean["output"] == "mean.logits"
    assert mean["max_length"] == release.backbone.spec.max_length


def test_the_same_release_is_the_same_graph_of_standard_operators(
    release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    source = release_on("bert").source
    paths = [tmp_path / name / "model.onnx" for name in ("one", "two")]
    for path in paths:
        write_export(source, ONNX, path.parent)

    assert paths[0].read_bytes() == paths[1].read_bytes()
    model = onnx.load(paths[0])
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    # The shared layers once, and layers of one task under its name.
    names = [weight.name for weight in model.graph.initializer]
    assert len({*names}) == len(names)
    assert sum(name.startswith("layers/1/") for name in names) == 16


def test_many_weights_lie_beside_the_graph(
    release_on: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centra.exports.graphs.files._MOST_INSIDE", 0)

    export = write_export(release_on("bert").source, ONNX, tmp_path / "out")

    assert export.files["model.onnx_data"] > export.files["model.onnx"]
    assert max(export.parity.values()) <= TOLERANCE


def test_what_a_caller_must_do_is_said(
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    modules = {
        "asked": make_module(decision=Decision(template="query: {text}", max_length=9)),
        "plain": make_module(),
        "slots": make_module("tagging", head=HeadSpec(crf=True)),
    }
    manifest = support.put_release(modules, [tiny_backbone.spec], backbone_store, int8=["plain"])

    export = write_export(Source(manifest=manifest, reader=backbone_store), ONNX, tmp_path / "out")

    notes = "; ".join(export.notes)
    assert "asked; plain, slots" in notes
    assert "slots: a CRF" in notes
    assert "plain: int8 in the release, fp32 here" in notes
    tasks = json.loads((tmp_path / "out" / "manifest.json").read_text())["tasks"]
    assert (tasks["asked"]["template"], tasks["asked"]["max_length"]) == ("query: {text}", 9)
    transitions = modules["slots"].tensors["head.crf.transitions"]
    assert np.allclose(tasks["slots"]["crf"]["transitions"], transitions)


def test_a_release_on_two_backbones_is_refused(
    tiny_backbone: support.Backbone,
    imported: Callable[[str], support.Backbone],
    make_module: Callable[..., TaskModule],
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    other = imported("roberta")
    support.copy_backbone(other, backbone_store)
    modules = {
        "one": make_module(),
        "two": support.make_module("classification", other.spec, other.store),
    }
    specs = [tiny_backbone.spec, other.spec]
    manifest = support.put_release(modules, specs, backbone_store)

    with pytest.raises(IncompatibleError, match="stands on 2 backbones"):
        write_export(Source(manifest=manifest, reader=backbone_store), ONNX, tmp_path / "out")
