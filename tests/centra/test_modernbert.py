"""What is ModernBERT's own: two forms of its settings, and layers that differ by their number."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import ModernBertConfig, ModernBertForMaskedLM

from centra.checkpoints.backbone import import_backbone
from centra.errors import FormatError
from tests import support
from tests.centra.checkpoints import configure, copied

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore


def test_settings_are_read_in_the_older_form_too(tmp_path: Path, store: LocalStore) -> None:
    """Out of a checkpoint of pre-training, whose head is left out."""
    tokenizer = support.make_tokenizer("modernbert")
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 48, "vocab_size": len(tokenizer), "pad_token_id": 0}
    sizes |= {"max_position_embeddings": 64, "local_attention": 8}
    torch.manual_seed(0)
    ModernBertForMaskedLM(ModernBertConfig(**sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    older = {"global_attn_every_n_layers": 2, "global_rope_theta": 9000, "local_rope_theta": 70.0}
    raw = {"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(raw | sizes | older))

    spec = import_backbone(str(tmp_path), store)

    # The last is a task's, above the backbone.
    layers = [spec.layer(number).attention for number in range(1, 6)]
    assert [layer.window for layer in layers] == [None, 4, None, 4, None]
    bases = [layer.rotary.base for layer in layers if layer.rotary]
    assert bases == [9000.0, 70.0, 9000.0, 70.0, 9000.0]
    assert spec.layer(1).attention_norm is None
    assert spec.layer(5).attention_norm is not None

    # The same numbers, written in another way.
    older |= {"global_rope_theta": 9000.0, "local_rope_theta": 70, "attention_dropout": 0}
    (tmp_path / "config.json").write_text(json.dumps(raw | sizes | older))
    assert import_backbone(str(tmp_path), store).digest == spec.digest


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types .* expected a list"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope_parameters .* rope_type default",
        ),
        ({"num_attention_heads": 32}, "heads of 1 values"),
    ],
)
def test_settings_that_centra_does_not_compute_are_refused(
    settings: dict[str, Any],
    says: str,
    make_encoder: Callable[[str], Path],
    tmp_path: Path,
    store: LocalStore,
) -> None:
    folder = copied(make_encoder("modernbert"), tmp_path / "model")
    configure(folder, **settings)

    with pytest.raises(FormatError, match=says):
        import_backbone(str(folder), store)
