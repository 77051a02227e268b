"""Each tensor has a place, or no part in the answers, or the model is refused by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from centra.checkpoints.backbone import import_backbone
from centra.errors import FormatError, IncompatibleError
from tests import support
from tests.centra.checkpoints import (
    SENTENCE,
    TOKEN,
    converted,
    copied,
    rewrite,
    with_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

pytestmark = pytest.mark.usefixtures("few_samples")

HEADS = {
    "bert": ("cls.predictions.transform.LayerNorm.gamma", "cls.seq_relationship.weight"),
    "roberta": ("lm_head.layer_norm.weight", "lm_head.decoder.weight", "roberta.pooler.dense.bias"),
    "xlm-roberta": ("lm_head.bias", "lm_head.dense.weight"),
    "distilbert": ("vocab_transform.weight", "vocab_layer_norm.bias", "vocab_projector.bias"),
    "electra": ("discriminator_predictions.dense_prediction.bias", "generator_lm_head.weight"),
}

UNKNOWN = {
    "hidden_layer.weight": "has no place in BertForSequenceClassification",
    "bert.encoder.layer.0.output.adapters.nlu.down.weight": "Merge the adapters",
    "bert.encoder.layer.0.attention.self.query.lora_A.default.weight": "merge_and_unload",
    "bert.encoder.layer.0.attention.self.distance_embedding.weight": "has no place",
    "bert.encoder.layer.0.attention.self.query.weight_scale": "has no place",
    "bert.encoder.norm.weight": "has no place",
    "bert.embeddings.char_embeddings.weight": "has no place",
    "bert.embeddings_project.weight": "has no place",
    "bert.pooler.attention.weight": "has no place",
    "embeddings.position_ids": "has no place",
    "crf.transitions": "CRFs that it trains itself",
    "lstm.weight_ih_l0": "has no place",
    "classifier.2.weight": "has no place",
    "classifier.out_proj.weight": "has no place",
    "qa_outputs.weight": "has no place",
    "temperature": "has no place",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_checkpoints_tensor_that_has_no_place_is_named(
    name: str, checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    rewrite(checkpoint, with_tensors(name))
    with pytest.raises(IncompatibleError) as error:
        converted(checkpoint, tiny_backbone)
    assert name in str(error.value)
    assert UNKNOWN[name] in str(error.value)


@pytest.mark.parametrize("family", support.FAMILIES)
def test_heads_of_pre_training_are_left_out(
    family: str,
    fine_tuned_once: Callable[[str, str], Path],
    imported: Callable[[str], support.Backbone],
    tmp_path: Path,
) -> None:
    source, backbone = fine_tuned_once(family, SENTENCE), imported(family)
    folder = copied(source, tmp_path / "x")
    rewrite(folder, with_tensors(*HEADS[family]))
    assert converted(folder, backbone)[0].to_bytes() == converted(source, backbone)[0].to_bytes()


def test_a_pooler_that_a_tagger_does_not_read_is_left_out(
    fine_tuned_once: Callable[[str, str], Path], tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    folder = copied(fine_tuned_once("bert", TOKEN), tmp_path / "x")
    rewrite(folder, with_tensors("bert.pooler.dense.weight", "bert.pooler.dense.bias"))
    assert converted(folder, tiny_backbone)[0].spec.kind == "tagging"


def test_counts_that_older_versions_saved_are_left_out_where_they_are_the_usual_ones(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    import torch

    usual = {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "bert.embeddings.token_type_ids": torch.zeros(1, 64, dtype=torch.int64),
    }
    rewrite(checkpoint, lambda tensors: tensors | usual)
    converted(checkpoint, tiny_backbone)

    rewrite(checkpoint, lambda t: t | {"bert.embeddings.position_ids": torch.arange(64, 0, -1)})
    with pytest.raises(IncompatibleError, match="position_ids does not hold what"):
        converted(checkpoint, tiny_backbone)


def test_layer_norms_named_gamma_and_beta_are_placed(
    checkpoint: Path, encoder: Path, tiny_backbone: support.Backbone, store: LocalStore
) -> None:
    before = converted(checkpoint, tiny_backbone)[0].to_bytes()
    for folder in (checkpoint, encoder):
        rewrite(
            folder,
            lambda tensors: {
                name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                    "LayerNorm.bias", "LayerNorm.beta"
                ): tensor
                for name, tensor in tensors.items()
            },
        )
    assert converted(checkpoint, tiny_backbone)[0].to_bytes() == before
    assert import_backbone(str(encoder), store).digest == tiny_backbone.spec.digest

    rewrite(encoder, with_tensors("embeddings.LayerNorm.weight"))
    with pytest.raises(FormatError, match=r"embeddings\.LayerNorm\.weight twice"):
        import_backbone(str(encoder), store)


@pytest.mark.parametrize(
    ("wrapper", "mend"),
    [
        ("module.", "model.module.save_pretrained"),
        ("_orig_mod.", "model._orig_mod.save_pretrained"),
        ("_orig_mod.module.", "torch.compile"),
        ("model.", "Save the transformers model itself"),
    ],
)
def test_names_with_a_wrappers_prefix_are_told_from_missing_weights(
    wrapper: str,
    mend: str,
    checkpoint: Path,
    encoder: Path,
    tiny_backbone: support.Backbone,
    store: LocalStore,
) -> None:
    for folder in (checkpoint, encoder):
        rewrite(folder, lambda tensors: {wrapper + name: t for name, t in tensors.items()})
    for refused in (
        lambda: converted(checkpoint, tiny_backbone),
        lambda: import_backbone(str(encoder), store),
    ):
        with pytest.raises(FormatError) as error:
            refused()
        assert f"named like '{wrapper}" in str(error.value)
        assert mend in str(error.value)


def test_a_checkpoint_is_as_before_once_the_prefix_is_taken_out_of_its_names(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    """The mend that the refusal names."""
    from safetensors.torch import load, save_file

    before = converted(checkpoint, tiny_backbone)[0].to_bytes()
    rewrite(checkpoint, lambda tensors: {f"module.{name}": t for name, t in tensors.items()})
    file = checkpoint / "model.safetensors"
    tensors = load(file.read_bytes())
    save_file(
        {name.replace("module.", ""): t for name, t in tensors.items()}, file, {"format": "pt"}
    )
    assert converted(checkpoint, tiny_backbone)[0].to_bytes() == before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"classifier.weight": (32,)}, r"classifier.weight is \(32,\)"),
        ({"classifier.bias": (5,)}, r"classifier.bias is \(5,\); by its config.json it is \(3,\)"),
        ({"classifier.weight": None}, "has no weights for classifier.weight"),
        ({"bert.pooler.dense.bias": None}, "has no weights for bert.pooler.dense.bias"),
        ({"bert.encoder.layer.1.output.dense.bias": None}, "has no weights for bert.encoder"),
    ],
)
def test_missing_and_misshapen_tensors_are_named(
    change: dict[str, tuple[int, ...] | None],
    match: str,
    checkpoint: Path,
    tiny_backbone: support.Backbone,
) -> None:
    import torch

    rewrite(
        checkpoint,
        lambda tensors: (
            {name: t for name, t in tensors.items() if name not in change}
            | {name: torch.ones(shape) for name, shape in change.items() if shape}
        ),
    )
    with pytest.raises(FormatError, match=match):
        converted(checkpoint, tiny_backbone)


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_weights_of_a_type_that_centra_does_not_compute_in_are_refused(
    dtype: str, checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    import torch

    rewrite(
        checkpoint, lambda t: t | {"classifier.weight": torch.ones(3, 32).to(getattr(torch, dtype))}
    )
    with pytest.raises(IncompatibleError, match=r"classifier\.weight is .*8.*, expected floats"):
        converted(checkpoint, tiny_backbone)


@pytest.mark.parametrize("family", support.FAMILIES)
def test_an_encoder_below_any_of_transformers_heads_is_that_encoder(
    family: str,
    make_encoder: Callable[[str], Path],
    imported: Callable[[str], support.Backbone],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    import transformers

    for task in (
        "MaskedLM",
        "PreTraining",
        "SequenceClassification",
        "TokenClassification",
        "QuestionAnswering",
        "MultipleChoice",
    ):
        folder = copied(make_encoder(family), tmp_path / task)
        auto_class = getattr(transformers, f"AutoModelFor{task}")
        auto_class.from_pretrained(folder).save_pretrained(folder)
        assert import_backbone(str(folder), store).digest == imported(family).spec.digest


@pytest.mark.parametrize(
    "name", ["linear.weight", "encoder.layer.0.output.adapters.x.up.weight", "embeddings.extra"]
)
def test_a_backbones_tensor_that_has_no_place_is_named(
    name: str, encoder: Path, store: LocalStore
) -> None:
    rewrite(encoder, with_tensors(name))
    with pytest.raises(IncompatibleError, match=f"tensor {name} has no place in BertModel"):
        import_backbone(str(encoder), store)
    assert not store.root.exists()
