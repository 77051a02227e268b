"""A tokenizer from outside is tried in a process of its own, within limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from centra.checkpoints.backbone import import_backbone
from centra.checkpoints.tokenizer import check_same_tokenizer
from centra.data.inputs import Input
from centra.errors import FormatError
from centra.tokenization import trial as tokenizer_trial
from centra.tokenization.text_encoder import TextEncoder
from centra.tokenization.trial import try_tokenizer
from tests import support

if TYPE_CHECKING:
    from pathlib import Path

    from centra.store import LocalStore


def tokenizer_json(**parts: Any) -> bytes:
    """The tiny BERT's tokenizer with other parts."""
    return json.dumps({**json.loads(support._wordpiece().to_str()), **parts}).encode()


def split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def doubling(times: int) -> dict[str, Any]:
    rule = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
    return {"type": "Sequence", "normalizers": [rule] * times}


HOSTILE = {
    "no JSON": (b"\0", "is no JSON"),
    "no tokenizer": (b"[]", "cannot be loaded"),
    "deep": (b'{"normalizer":' + b'{"type":"Sequence","normalizers":[' * 3000, "is no JSON"),
    # The length of a table of 4 GB, and nothing behind it.
    "character map": (
        tokenizer_json(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA////"}),
        "GB of memory",
    ),
    "pattern": (tokenizer_json(pre_tokenizer=split("(a|aa)+\\1$")), "retry-limit"),
    "doubling": (tokenizer_json(normalizer=doubling(40)), "GB of memory"),
}


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_trial, "_MEMORY", 1 << 28)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tokenizer_is_refused_and_the_limit_named(name: str) -> None:
    data, says = HOSTILE[name]

    with pytest.raises(FormatError, match=f"x: .*tokenizer.*{says}"):
        try_tokenizer(data, "x")


def test_a_tokenizer_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_trial, "_SECONDS", 1)
    model = {**json.loads(tokenizer_json())["model"], "max_input_chars_per_word": 10**9}

    with pytest.raises(FormatError, match=r"takes more than 1 s of a processor|an end in 2 s"):
        try_tokenizer(tokenizer_json(model=model), "x")


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_honest_tokenizers_are_within_the_limits(family: str) -> None:
    try_tokenizer(support.make_tokenizer(family).backend_tokenizer.to_str().encode(), "x")


def test_the_same_bytes_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    monkeypatch.setattr(tokenizer_trial, "_fault", tried.append)
    monkeypatch.setattr(tokenizer_trial, "_faults", {})

    try_tokenizer(b"a", "x")
    try_tokenizer(b"a", "y")
    try_tokenizer(b"b", "x")

    assert tried == [b"a", b"b"]


def test_registering_an_encoder_tries_its_tokenizer_first(encoder: Path, store: LocalStore) -> None:
    (encoder / "tokenizer.json").write_bytes(HOSTILE["character map"][0])

    with pytest.raises(FormatError, match=f"{encoder}: its tokenizer takes more than"):
        import_backbone(str(encoder), store)
    assert [*store.blobs()] == []


def test_a_checkpoint_with_the_backbones_own_tokenizer_is_not_tried_again(
    encoder: Path, tiny_backbone: support.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = tiny_backbone.spec.tokenizer["tokenizer.json"]
    data = tiny_backbone.store.fetch(digest).read_bytes()
    monkeypatch.setattr(tokenizer_trial, "_faults", {})
    monkeypatch.setattr(tokenizer_trial, "_fault", lambda _: "was tried")

    def check() -> None:
        check_same_tokenizer(encoder, tiny_backbone.spec, tiny_backbone.store, pairs=False)

    (encoder / "tokenizer.json").write_bytes(data)
    check()
    (encoder / "tokenizer.json").write_bytes(data + b"\n")
    with pytest.raises(FormatError, match="was tried"):
        check()


@pytest.mark.parametrize(
    "data", [b"", b"{}", HOSTILE["deep"][0], tokenizer_json(pre_tokenizer=split("("))]
)
def test_a_tokenizer_that_cannot_be_loaded_is_a_fault_in_words(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)

    with pytest.raises(FormatError, match="cannot be used as a tokenizer"):
        TextEncoder(path, max_length=8, pad_token_id=0, token_types=True)


def test_a_tokenizer_that_fails_on_a_text_is_a_fault_in_words(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(HOSTILE["pattern"][0])
    encoder = TextEncoder(path, max_length=8, pad_token_id=0, token_types=True)

    with pytest.raises(FormatError, match="fails on a text"):
        encoder.encode([Input("a" * 5000 + "!")])
