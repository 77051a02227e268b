"""docs/exports.md as a reader follows it: its Python as it is printed, on what the command wrote.

Triton's and optimum's are run in tests of these, beside a server and in an environment of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from centra.exports import format_named, write_export
from centra.runtime import Release
from tests.centra.exports.conftest import snippet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.exports import Source
    from tests.centra.exports.conftest import Exported


@pytest.mark.parametrize(
    ("form", "output"), [("onnx", "assistant"), ("openvino", "assistant"), ("hf", "intent")]
)
def test_the_page_shows_how_what_was_exported_is_asked(
    form: str,
    output: str,
    release_on: Callable[[str], Exported],
    intent: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known, release = format_named(form), release_on("bert").source
    for package in known.packages:
        pytest.importorskip(package.module)
    write_export(release if known.several else intent, known, tmp_path / output)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    exec(snippet(form), {})

    texts = ["wake me at seven", "is there snow"]
    with Release.load(intent.manifest, intent.reader, engine="onnx") as own:
        labels = [answer["intent"]["label"] for answer in own.predict(texts)]
    printed = capsys.readouterr().out
    assert printed.startswith({"onnx": f"{labels}", "openvino": labels[0]}.get(form, "["))
    assert labels[0] in printed
