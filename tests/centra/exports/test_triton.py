"""Model repositories for Triton, held against the server's own schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime
import pytest
from google.protobuf import text_format

from centra.exports import format_named, write_export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.centra.exports.conftest import Exported


def test_the_config_is_the_servers_message_and_says_what_the_graph_has(
    release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    schema: Any = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    release, folder = release_on("bert"), tmp_path / "out"

    export = write_export(release.source, format_named("triton"), folder)

    model = folder / "centra"
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
    assert named.keys() == {"intent.logits", "mean.logits", "most.logits"}
    assert (model / "tokenizer" / "tokenizer.json").is_file()
    assert any("slots, stars" in note for note in export.notes)
