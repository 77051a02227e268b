"""Fixtures for the model library's tests."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.centra.checkpoints import SENTENCE, copied, fine_tune

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def fine_tuned_once(
    make_encoder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """The folder of a checkpoint on a family's tiny encoder; made once, not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(
        lambda family, auto_class: fine_tune(
            make_encoder(family), root / f"{family}-{auto_class}", auto_class
        )
    )


@pytest.fixture
def checkpoint(fine_tuned_once: Callable[[str, str], Path], tmp_path: Path) -> Path:
    """A sentence classifier on the tiny BERT, in a folder of the test's own."""
    return copied(fine_tuned_once("bert", SENTENCE), tmp_path / "checkpoint")


@pytest.fixture
def encoder(make_encoder: Callable[[str], Path], tmp_path: Path) -> Path:
    """The tiny BERT's folder, of the test's own."""
    return copied(make_encoder("bert"), tmp_path / "encoder")


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare tokenizers on one text, where a test is about weights and settings."""
    from centra.data.inputs import Input

    for module in ("centra.tokenization.importing", "centra.checkpoints.tokenizer"):
        monkeypatch.setattr(f"{module}.inputs_to_compare", lambda *_: [Input("wake me at seven")])
