"""Which layers of a fine-tuned checkpoint are the backbone's own, in whatever precision."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from centra.checkpoints.backbone import import_backbone
from centra.checkpoints.conversion import convert
from centra.errors import IncompatibleError
from tests import support
from tests.centra.checkpoints import SENTENCE, TOKEN, configure, converted, copied, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

pytestmark = pytest.mark.usefixtures("few_samples")

WORDS = "bert.embeddings.word_embeddings.weight"


def in_precision(dtype: torch.dtype) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("auto_class", [SENTENCE, TOKEN])
@pytest.mark.parametrize("family", support.FAMILIES)
def test_rounded_layers_of_a_float32_backbone_count_as_frozen(
    family: str,
    auto_class: str,
    dtype: torch.dtype,
    fine_tuned_once: Callable[[str, str], Path],
    imported: Callable[[str], support.Backbone],
    tmp_path: Path,
) -> None:
    folder = copied(fine_tuned_once(family, auto_class), tmp_path / "rounded")
    whole, _ = converted(folder, imported(family))
    rewrite(folder, in_precision(dtype))

    module, remarks = converted(folder, imported(family))

    assert (module.spec.tap_layer, module.spec.depth) == (2, 1)
    assert any(f"rounded to {str(dtype).removeprefix('torch.')}" in text for text in remarks)
    for name, tensor in module.weights.items():
        assert torch.equal(tensor, whole.weights[name].to(dtype).float()), name
    assert module.tensors["probe.logits"].dtype == torch.float32
    assert support.parity(
        module, imported(family), _store(imported(family), tmp_path), tmp_path
    ) < (1e-5)


def _store(backbone: support.Backbone, folder: Path) -> LocalStore:
    store = support.LocalStore(folder / "store")
    support.copy_backbone(backbone, store)
    return store


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {n: t.bfloat16().float() for n, t in tensors.items()},
        lambda tensors: {n: t if "LayerNorm" in n else t.half() for n, t in tensors.items()},
        lambda tensors: {n: t.double() for n, t in tensors.items()},
        lambda tensors: {n: t.half() if "embeddings" in n else t for n, t in tensors.items()},
    ],
    ids=["saved in float32 again", "norms in float32", "float64", "embeddings alone"],
)
def test_layers_are_compared_in_the_precision_of_each_tensor(
    change: Callable[[dict[str, torch.Tensor]], Any],
    checkpoint: Path,
    tiny_backbone: support.Backbone,
) -> None:
    rewrite(checkpoint, change)
    assert converted(checkpoint, tiny_backbone)[0].spec.tap_layer == 2


def test_a_rounded_layer_that_was_trained_is_no_backbones(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["bert.encoder.layer.1.output.dense.bias"][3] += 0.1
        return {name: tensor.half() for name, tensor in tensors.items()}

    rewrite(checkpoint, change)
    assert converted(checkpoint, tiny_backbone)[0].spec.tap_layer == 1


def test_of_several_backbones_with_its_embeddings_the_one_with_most_of_its_layers_is_taken(
    checkpoint: Path, encoder: Path, tiny_backbone: support.Backbone, backbone_store: LocalStore
) -> None:
    rewrite(encoder, lambda t: t | {"encoder.layer.0.output.dense.bias": torch.ones(32)})
    other = import_backbone(str(encoder), backbone_store)
    for names in (("other@1", "tiny@1"), ("tiny@1", "other@1")):
        specs = {"other@1": other, "tiny@1": tiny_backbone.spec}
        module = convert(checkpoint, {name: specs[name] for name in names}, backbone_store)
        assert module.spec.backbone == tiny_backbone.spec.digest
        assert module.spec.tap_layer == 2


# How embeddings differ


def resize(folder: Path, rows: int, tokens: list[str]) -> None:
    """What ``add_tokens`` and ``resize_token_embeddings`` lead to."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(tokens)
    tokenizer.save_pretrained(folder)
    rewrite(folder, lambda t: t | {WORDS: torch.cat([t[WORDS], torch.ones(rows, 32)])})
    configure(folder, vocab_size=len(tokenizer) - len(tokens) + rows)


def refusal(folder: Path, backbone: support.Backbone) -> str:
    with pytest.raises(IncompatibleError, match=r"its embeddings \(layer 0\) differ") as error:
        converted(folder, backbone)
    return str(error.value)


def test_added_tokens_are_counted_and_named(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    vocabulary = tiny_backbone.spec.vocab_size
    resize(checkpoint, 3, ["[E1]", "[/E1]"])
    text = refusal(checkpoint, tiny_backbone)
    assert f"{vocabulary + 3} rows, the backbone's {vocabulary}: 3 were added" in text
    assert "'[E1]', '[/E1]'" in text
    assert f"model.resize_token_embeddings({vocabulary})" in text


def test_rows_that_were_added_as_padding_are_told_from_tokens(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    resize(checkpoint, 3, [])
    rewrite(checkpoint, in_precision(torch.float16))
    text = refusal(checkpoint, tiny_backbone)
    assert "3 were added (its tokenizer uses none of them)" in text
    assert "resize_token_embeddings" in text


def test_a_checkpoint_without_its_added_tokens_is_taken(
    checkpoint: Path, encoder: Path, tiny_backbone: support.Backbone
) -> None:
    """The mend that the refusal names."""
    import transformers

    resize(checkpoint, 2, ["[E1]", "[/E1]"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint)
    model.resize_token_embeddings(tiny_backbone.spec.vocab_size)
    model.save_pretrained(checkpoint)
    for path in encoder.glob("tokenizer*"):
        shutil.copy(path, checkpoint)
    assert converted(checkpoint, tiny_backbone)[0].spec.tap_layer == 2


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        (lambda t: {WORDS: t[WORDS][:-3]}, {"vocab_size": -3}, "rows, the backbone's"),
        (lambda t: {WORDS: t[WORDS] + 0.1}, {}, "word_embeddings.weight was changed in {v} of {v}"),
        (
            lambda t: {WORDS: t[WORDS].index_add(0, torch.tensor([7]), torch.ones(1, 32))},
            {},
            "word_embeddings.weight was changed in 1 of {v} rows",
        ),
        (
            lambda t: {(n := "bert.embeddings.LayerNorm.bias"): t[n] + 1},
            {},
            "embeddings.LayerNorm.bias was changed in 32 of 32",
        ),
        (
            lambda t: {(n := "bert.embeddings.position_embeddings.weight"): t[n].repeat(2, 1)},
            {"max_position_embeddings": 64},
            "position_embeddings.weight is (128, 32), the backbone's is (64, 32)",
        ),
    ],
)
def test_unfrozen_embeddings_are_told_apart(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    settings: dict[str, int],
    says: str,
    checkpoint: Path,
    tiny_backbone: support.Backbone,
) -> None:
    config = tiny_backbone.spec.config
    configure(checkpoint, **{key: config[key] + more for key, more in settings.items()})
    rewrite(checkpoint, lambda tensors: tensors | change(tensors))
    text = refusal(checkpoint, tiny_backbone)
    assert says.format(v=tiny_backbone.spec.vocab_size) in text
    assert "Freeze the embeddings" in text


def test_without_any_backbone_it_says_what_comes_first(checkpoint: Path, store: LocalStore) -> None:
    with pytest.raises(IncompatibleError, match=r"no backbone is registered") as caught:
        convert(checkpoint, {}, store)
    assert caught.value.code == "no-backbone"


def test_a_backbone_of_another_family_is_told_by_it(
    checkpoint: Path, imported: Callable[[str], support.Backbone]
) -> None:
    assert "tiny@1 is a roberta, this a bert" in refusal(checkpoint, imported("roberta"))
