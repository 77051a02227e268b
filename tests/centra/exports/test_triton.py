"""Model repositories for Triton, held against the server's own schema, and in the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format

from centra.data.inputs import Input
from centra.exports import Source, format_named, write_export
from centra.formats.decision import Decision
from centra.runtime import Release
from tests import support
from tests.centra.exports.conftest import snippet
from tests.centra.test_onnx_engine import TOLERANCE
from tests.peers.triton import triton_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from tests.centra.exports.conftest import Exported

INPUTS = [Input("wake me at seven"), Input("is there snow"), Input("rain " * 200)]
PAIR = Input("wake me at seven", "yes it is")
LABELLED = ("intent", "mean", "most")
"""The tasks that give one row with labels."""


def test_the_config_is_the_servers_message_and_says_what_the_graph_has(
    release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    schema: Any = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    release, folder = release_on("bert"), tmp_path / "out"

    export = write_export(release.source, format_named("triton"), folder)

    model = folder / "models" / "centra"
    config = text_format.Parse((model / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (config.name, config.backend) == (model.name, "onnxruntime")
    graph = onnxruntime.InferenceSession(str(model / "1" / config.default_model_filename))
    for declared, found in (
        (config.input, graph.get_inputs()),
        (config.output, graph.get_outputs()),
    ):
        # The batch stands in front of what the config says.
        shapes = {v.name: [-1 if type(n) is str else n for n in v.shape[1:]] for v in found}
        assert {v.name: [*v.dims] for v in declared} == shapes
    assert {v.data_type for v in config.input} == {schema.TYPE_INT64}
    assert {v.data_type for v in config.output} == {schema.TYPE_FP32}
    named = {v.name: v.label_filename for v in config.output if v.label_filename}
    for task, module in release.modules.items():
        if file := named.get(f"{task}.logits"):
            assert (model / file).read_text().splitlines() == [*module.spec.labels]
    assert named.keys() == {f"{task}.logits" for task in LABELLED}
    assert (model / "tokenizer" / "tokenizer.json").is_file()
    assert any("slots, stars" in note for note in export.notes)


def test_models_that_take_texts_leave_templates_to_the_caller(
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    schema: Any = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    modules = {
        "asked": make_module(decision=Decision(template="query: {text}")),
        "plain": make_module(decision=Decision(max_length=9)),
    }
    manifest = support.put_release(modules, [tiny_backbone.spec], backbone_store)
    source = Source(manifest=manifest, reader=backbone_store)

    export = write_export(source, format_named("triton"), tmp_path / "out")

    assert any(note.startswith("asked: take ids alone") for note in export.notes)
    texts, tokens = (
        text_format.Parse(
            (tmp_path / "out" / "texts" / name / "config.pbtxt").read_text(), schema.ModelConfig()
        )
        for name in ("centra_texts", "centra_tokens")
    )
    assert [output.name for output in texts.output] == ["plain.logits"]
    assert tokens.parameters["max_lengths"].string_value == "[9]"


def test_the_server_answers_every_probe_and_names_labels(
    release_on: Callable[[str], Exported],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The configuration and the labels are read by Triton itself; what it runs for the graph is ours."""
    client = pytest.importorskip("tritonclient.grpc")
    release, repository = release_on("bert"), tmp_path / "assistant"
    write_export(release.source, format_named("triton"), repository)
    with (
        triton_server(tmp_path, repository / "models", repository / "texts") as address,
        client.InferenceServerClient(address) as server,
    ):
        for task, module in release.modules.items():
            output = f"{task}.logits"
            inputs = []
            for name in ("input_ids", "attention_mask", "token_type_ids"):
                ids = module.tensors[f"probe.{name}"].numpy()
                inputs.append(client.InferInput(name, ids.shape, "INT64"))
                inputs[-1].set_data_from_numpy(ids)
            wanted = [client.InferRequestedOutput(output)]
            found = server.infer("centra", inputs, outputs=wanted).as_numpy(output)
            recorded = module.tensors["probe.logits"].numpy()
            if module.spec.reads_every_token:
                real = module.tensors["probe.attention_mask"].numpy()[:, :, None]
                found, recorded = found * real, recorded * real
            assert np.abs(found - recorded).max() <= TOLERANCE
            if task in LABELLED:
                wanted = [client.InferRequestedOutput(output, class_count=1)]
                best = server.infer("centra", inputs, outputs=wanted).as_numpy(output)
                names = [row[0].decode().split(":")[2] for row in best]
                assert names == [module.spec.labels[i] for i in recorded.argmax(axis=1)]
        for model, inputs in (("centra_texts", INPUTS), ("centra_pairs", [PAIR])):
            pairs = [(one.text, one.text_pair) for one in inputs]
            given = []
            for name, column in zip(("TEXT", "TEXT_PAIR"), zip(*pairs, strict=True), strict=True):
                if None not in column:
                    given.append(client.InferInput(name, [len(column), 1], "BYTES"))
                    given[-1].set_data_from_numpy(np.array(column, dtype=object)[:, None])
            found = server.infer(model, given)
            form = "pair" if model == "centra_pairs" else "single"
            tasks = [t for t, module in release.modules.items() if module.spec.input == form]
            with Release.load(release.source.manifest, release.source.reader) as merged:
                for task, logits in merged.logits(inputs, tasks).items():
                    rows = found.as_numpy(f"{task}.logits")
                    for row, own in zip(rows, logits, strict=True):
                        theirs = row[: len(own)] if own.ndim == 2 else row
                        assert np.abs(theirs - own).max() <= TOLERANCE
        capsys.readouterr()
        exec(snippet("triton").replace("localhost:8001", address), {})
        assert (
            capsys.readouterr().out.strip().split(":")[2] in release.modules["intent"].spec.labels
        )
