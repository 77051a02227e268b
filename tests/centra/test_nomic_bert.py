"""What is NomicBERT's own: the names and settings of the code that it was published with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import transformers
from safetensors.torch import load_file

from centra.checkpoints.backbone import import_backbone
from centra.errors import FormatError, IncompatibleError
from centra.store import LocalStore
from tests import support
from tests.centra.checkpoints import WEIGHTS, configure, copied, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PUBLISHED = {
    "activation_function": "swiglu",
    "attn_pdrop": 0.0,
    "causal": False,
    "fused_bias_fc": True,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "n_embd": 32,
    "n_head": 2,
    "n_inner": 64,
    "n_layer": 3,
    "n_positions": 8192,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": 2,
}
AUTO_MAP = {
    "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
    "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
}


@pytest.fixture
def folder(make_encoder: Callable[[str], Path], tmp_path: Path) -> Path:
    """Under the names of the code that it was published with, as transformers saves a new model."""
    folder = copied(make_encoder("nomic-bert"), tmp_path / "model")
    loaded = transformers.NomicBertModel.from_pretrained(folder)
    model = transformers.NomicBertModel(loaded.config)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def digest(imported: Callable[[str], support.Backbone]) -> str:
    return imported("nomic-bert").spec.digest


def test_a_published_folder_is_refused_with_a_way_that_gives_a_plain_one(
    folder: Path, digest: str, store: LocalStore, tmp_path: Path
) -> None:
    configure(folder, auto_map=AUTO_MAP, **PUBLISHED)

    with pytest.raises(IncompatibleError, match="names Python code") as refused:
        import_backbone(str(folder), store)
    (made,) = re.findall(
        r"model = transformers\.(\w+)\.from_pretrained\(SOURCE\)", str(refused.value)
    )
    assert "del model.config.auto_map; model.save_pretrained(NEW_FOLDER)" in str(refused.value)

    model = getattr(transformers, made).from_pretrained(folder)
    del model.config.auto_map
    model.save_pretrained(tmp_path / "plain")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "plain")
    assert import_backbone(str(tmp_path / "plain"), store).digest == digest


@pytest.mark.parametrize(
    "fields",
    [
        {"n_layer": 6},
        {"n_head": 4},
        {"rotary_emb_base": 10_000},
        {"rotary_emb_fraction": 0.5},
        {"activation_function": "geglu"},
        {"prenorm": True},
        {"max_position_embeddings": 8192},
    ],
    ids=str,
)
def test_what_transformers_would_compute_otherwise_is_refused_by_name(
    fields: dict[str, Any], folder: Path, store: LocalStore
) -> None:
    """Where it does not read a setting, it takes its own default for it."""
    configure(folder, **PUBLISHED | fields)
    named = "rotary_scaling_factor 2" if "max_position_embeddings" in fields else next(iter(fields))

    with pytest.raises(FormatError, match=rf"config\.json says {named}.*published with"):
        import_backbone(str(folder), store)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"rope_parameters": {"rope_theta": 1000.0, "rope_type": "dynamic", "factor": 2.0}},
            "rope_p",
        ),
        (
            {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling",
        ),
        ({"head_dim": 8}, "q_proj.weight is"),
        ({"num_attention_heads": 32, "head_dim": 1}, "heads of 1 values"),
    ],
    ids=str,
)
def test_positions_of_another_kind_are_refused(
    fields: dict[str, Any], said: str, folder: Path, store: LocalStore
) -> None:
    configure(folder, **fields)

    with pytest.raises(FormatError, match=said):
        import_backbone(str(folder), store)


def test_another_base_is_read_in_both_forms(folder: Path, digest: str, tmp_path: Path) -> None:
    found = []
    for fields in (
        {"rope_parameters": {"rope_theta": 500, "rope_type": "default"}},
        {"rope_parameters": ..., "rope_theta": 500.0, "rope_scaling": None},
    ):
        configure(folder, **fields)
        found.append(import_backbone(str(folder), LocalStore(tmp_path / "store")).digest)

    assert found[0] == found[1] != digest


def test_weights_are_read_under_the_names_of_the_class_too(
    folder: Path, digest: str, store: LocalStore, tmp_path: Path
) -> None:
    assert "encoder.layers.0.attn.Wqkv.weight" in load_file(folder / WEIGHTS)
    assert import_backbone(str(folder), store).digest == digest

    model = transformers.NomicBertModel.from_pretrained(folder)
    model.save_pretrained(folder, save_original_format=False)
    assert "layers.0.self_attn.q_proj.weight" in load_file(folder / WEIGHTS)
    assert import_backbone(str(folder), store).digest == digest


def test_names_of_both_and_rows_that_do_not_part_are_refused(
    folder: Path, store: LocalStore, tmp_path: Path
) -> None:
    twice, longer = (copied(folder, tmp_path / name) for name in ("twice", "longer"))
    rewrite(twice, lambda state: state | {"embeddings.LayerNorm.bias": state["emb_ln.bias"]})
    name = "encoder.layers.1.attn.Wqkv.weight"
    rewrite(longer, lambda state: state | {name: state[name].repeat(2, 1)[:97]})

    with pytest.raises(FormatError, match=r"embeddings\.LayerNorm\.bias twice"):
        import_backbone(str(twice), store)
    with pytest.raises(IncompatibleError, match=rf"{re.escape(name)} has no place"):
        import_backbone(str(longer), store)
