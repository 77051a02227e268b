"""What is EuroBERT's own: ways of pooling, heads of keys, and the words that it was published in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import FormatError, IncompatibleError
from centra.runtime.torch.batched_engine import BatchedEngine
from tests import support
from tests.centra.checkpoints import SENTENCE, configure, converted, copied
from tests.centra.states import SINGLES, reference_states, trunk_states
from tests.centra.test_families import assert_states
from tests.centra.test_onnx_engine import TOLERANCE, encoded, onnx_states, tensors
from tests.centra.test_torch_engine import NEAR, states_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

AUTO_MAP = {
    "AutoModelForSequenceClassification": "modeling_eurobert.EuroBertForSequenceClassification"
}


@pytest.fixture
def fine_tuned(fine_tuned_once: Callable[[str, str], Path], tmp_path: Path) -> Path:
    return copied(fine_tuned_once("eurobert", SENTENCE), tmp_path / "fine-tuned")


@pytest.mark.parametrize(
    ("said", "pooling"), [("bos", "first"), ("mean", "mean"), ("late", "late")]
)
def test_a_module_pools_as_the_classifier_did(
    said: str, pooling: str, fine_tuned: Path, imported: Callable[[str], support.Backbone]
) -> None:
    """Its answers are held against the classifier's own."""
    configure(fine_tuned, classifier_pooling=said)

    module, _ = converted(fine_tuned, imported("eurobert"))

    assert module.spec.decision.pooling == pooling


def test_a_published_classifier_is_refused_with_a_way_that_gives_a_plain_one(
    fine_tuned: Path, imported: Callable[[str], support.Backbone], tmp_path: Path
) -> None:
    configure(fine_tuned, auto_map=AUTO_MAP, clf_pooling="mean")
    backbone = imported("eurobert")

    with pytest.raises(IncompatibleError, match="names Python code") as refused:
        converted(fine_tuned, backbone)
    (made,) = re.findall(
        r"model = transformers\.(\w+)\.from_pretrained\(SOURCE\)", str(refused.value)
    )
    assert made == "EuroBertForSequenceClassification"

    model = getattr(transformers, made).from_pretrained(fine_tuned)
    del model.config.auto_map
    model.save_pretrained(tmp_path / "plain")
    transformers.AutoTokenizer.from_pretrained(fine_tuned).save_pretrained(tmp_path / "plain")
    with pytest.raises(FormatError, match=r"clf_pooling 'mean'.*computes with 'late'"):
        converted(tmp_path / "plain", backbone)
    configure(tmp_path / "plain", classifier_pooling="mean")
    module, _ = converted(tmp_path / "plain", backbone)
    assert module.spec.decision.pooling == "mean"


def test_a_backbone_is_taken_out_of_a_classifier(
    fine_tuned: Path, imported: Callable[[str], support.Backbone], store: LocalStore
) -> None:
    spec = import_backbone(str(fine_tuned), store)

    frozen = imported("eurobert").spec
    assert (spec.embeddings, spec.layers[:-1]) == (frozen.embeddings, frozen.layers[:-1])


def test_heads_may_have_a_size_of_their_own(tmp_path: Path, store: LocalStore) -> None:
    """Three heads of queries look at one of keys, and all together are wider than the states."""
    tokenizer = support.make_tokenizer("eurobert")
    config = transformers.EuroBertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={"rope_theta": 250_000.0, "rope_type": "default"},
    )
    torch.manual_seed(0)
    transformers.EuroBertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    backbone = support.Backbone(import_backbone(str(tmp_path), store), store, tmp_path)

    attention = backbone.spec.layer(1).attention
    assert (attention.head_size, attention.key_heads, attention.query.outputs) == (16, 1, 48)
    batch = encoded(backbone, [*SINGLES, Input("go")])
    theirs = reference_states(tmp_path, tensors(batch))
    assert_states([*trunk_states(backbone, tensors(batch))], theirs, batch, TOLERANCE)
    assert_states([*onnx_states(backbone.spec, store, batch)], theirs, batch, TOLERANCE)
    engine = BatchedEngine(torch.device("cpu"), "fp32")
    ours: list[Any] = [*states_of(engine, backbone.spec, backbone, batch)]
    assert_states(ours, theirs, batch, NEAR["fp32"], relative=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_key_value_heads": 3}, "4 attention heads, which 3 heads of keys"),
        ({"num_key_value_heads": 4}, r"k_proj\.weight is \(16, 32\); by its config\.json it is"),
        (
            {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
            "rope_param",
        ),
    ],
    ids=str,
)
def test_other_heads_and_positions_are_refused(
    fields: dict[str, Any],
    said: str,
    make_encoder: Callable[[str], Path],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    folder = copied(make_encoder("eurobert"), tmp_path / "model")
    configure(folder, **fields)

    with pytest.raises(FormatError, match=said):
        import_backbone(str(folder), store)
