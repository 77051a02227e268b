"""Checkpoints that are BERT or RoBERTa whatever their names say, in the forms in which they are offered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoModel

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import IncompatibleError
from centra.tokenization.text_encoder import TextEncoder
from tests import support
from tests.centra.checkpoints import configure, copied, rewrite, with_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

pytestmark = pytest.mark.usefixtures("few_samples")


@pytest.mark.parametrize("name", ["chinese-macbert-base", "chinese-roberta-wwm-ext"])
def test_a_chinese_bert_is_a_bert_under_any_name(
    name: str, imported: Callable[[str], support.Backbone], store: LocalStore, tmp_path: Path
) -> None:
    """With vocab.txt alone, a head of pre-training, and settings that no layer reads."""
    plain = imported("bert-base-chinese")
    folder = copied(plain.folder, tmp_path / name)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text(
        "".join(f"{word}\n" for word in sorted(vocabulary, key=vocabulary.__getitem__))
    )
    (folder / "tokenizer_config.json").write_text('{"init_inputs": [], "model_max_length": 64}')
    configure(
        folder,
        architectures=["BertForMaskedLM"],
        directionality="bidi",
        pooler_fc_size=768,
        pooler_type="first_token_transform",
    )
    rewrite(
        folder,
        lambda state: with_tensors("cls.predictions.bias", "cls.seq_relationship.weight")(
            {f"bert.{name}": tensor for name, tensor in state.items()}
        ),
    )

    spec = import_backbone(str(folder), store)

    assert (spec.family, spec.embeddings, spec.layers) == (
        "bert",
        plain.spec.embeddings,
        plain.spec.layers,
    )
    rows = [
        TextEncoder.of(found, reader).encode([Input(text) for text in support.CHINESE])
        for found, reader in ((spec, store), (plain.spec, plain.store))
    ]
    assert rows[0] == rows[1]


def test_each_chinese_character_is_a_token_of_its_own(
    imported: Callable[[str], support.Backbone],
) -> None:
    backbone, text = imported("bert-base-chinese"), support.CHINESE[0]

    (row,) = TextEncoder.of(backbone.spec, backbone.store).encode([Input(text)])

    assert [text[start:end] for start, end in row.offsets[1:-1]] == [*text]


def test_a_bert_with_xlm_r_s_tokenizer_gets_zeros_for_token_types(
    imported: Callable[[str], support.Backbone],
) -> None:
    spec = imported("multilingual-minilm").spec
    assert (spec.family, spec.token_types, spec.pad_token_id) == ("bert", False, 0)
    assert spec.config["type_vocab_size"] == 2


@pytest.mark.parametrize(("used", "refused"), [(True, False), (False, True)])
def test_a_table_of_task_types_has_a_place_where_it_is_used(
    used: bool,
    refused: bool,
    make_encoder: Callable[[str], Path],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    folder = copied(make_encoder("ernie"), tmp_path / "ernie")
    configure(folder, use_task_id=used)
    if refused:
        with pytest.raises(IncompatibleError, match=r"task_type_embeddings\.weight has no place"):
            import_backbone(str(folder), store)
        rewrite(folder, lambda state: {n: t for n, t in state.items() if "task_type" not in n})

    spec = import_backbone(str(folder), store)

    model: Any = AutoModel.from_pretrained(folder)
    assert hasattr(model.embeddings, "task_type_embeddings") == used
    assert ("embeddings.task_type_embeddings.weight" in spec.shapes(0)) == used
