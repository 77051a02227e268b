"""The graph in OpenVINO, which the export itself asks for every probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from centra.exports import format_named, write_export
from tests.centra.test_onnx_engine import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.centra.exports.conftest import Exported

OPENVINO = format_named("openvino")


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "modernbert", "mpnet", "eurobert", "deberta-v3"]
)
def test_openvino_answers_every_probe(
    family: str, release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")

    export = write_export(release_on(family).source, OPENVINO, tmp_path / "out")

    assert {"openvino_model.xml", "openvino_model.bin", "tokenizer.json"} <= {*export.files}
    assert not any(name.endswith(".onnx") for name in export.files)
    assert max(export.parity.values()) <= TOLERANCE


def test_weights_of_16_bits_move_logits_a_little(
    release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")

    half = write_export(release_on("bert").source, OPENVINO, tmp_path / "out", precision="fp16")

    assert 1e-6 < max(half.parity.values()) <= 0.01
