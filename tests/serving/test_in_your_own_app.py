"""docs/serving.md's section for those who embed the batcher, as a reader follows it."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

import centra
from centra.serving import Limits
from tests.support import ROOT

if TYPE_CHECKING:
    from tests.serving.servers import ServedStore

TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
SECTION = TEXT.split("\n## In your own app\n")[1].split("\n## New releases\n")[0]
BLOCKS = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(served_store: ServedStore) -> list[dict[str, Any]]:
    """The names that each block leaves behind."""
    found: list[dict[str, Any]] = []
    for block in BLOCKS:
        found.append({})
        code = block.replace("s3://models/centra#production", served_store.source)
        exec(compile(code, "docs/serving.md", "exec"), found[-1])
    return found


def test_a_reader_who_follows_it_gets_answers(
    run: list[dict[str, Any]], served_store: ServedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    app, submitting = run
    with (
        centra.load_release(served_store.source) as release,
        TestClient(app["app"]) as client,
    ):
        answer = client.get("/intent", params={"text": "wake me at seven"})
        expected = release.predict("wake me at seven", "intent")

    assert answer.json() == expected
    first, second, third = submitting["answers"]
    assert {"intent", "slots"} < first.answers.keys()
    assert len(first.answers["intent"]["top"]) == 3
    assert second.answers.keys() == {"slots"}
    assert str(third.error) == "input 3: the text is empty"


def test_the_app_is_of_ten_lines_or_so() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 11


def test_every_limit_is_named() -> None:
    assert [f.name for f in fields(Limits) if f"`{f.name}`" not in SECTION] == []
