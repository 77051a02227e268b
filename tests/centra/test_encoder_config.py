"""config.json is held against the weights before anything is made of its numbers."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from centra.checkpoints.backbone import import_backbone
from centra.errors import CentraError, FormatError, IncompatibleError
from tests import support
from tests.centra.checkpoints import configure, converted, copied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from centra.store import LocalStore

pytestmark = pytest.mark.usefixtures("few_samples")

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
ODD = (
    *(None, True, 0, 3, -1, 10**9, 10**30, 0.5, float("nan"), float("inf"), 1e308),
    *("", "gelu", "3", "\ud83d", "x" * 5000),
    *([], [[]], ["x"], {}, {"0": "a"}, {"0": None}, {"x": {"y": []}}, [10**9]),
)
MORE = (
    *("id2label", "label2id", "num_labels", "problem_type", "tokenizer_class", "auto_map"),
    *("dtype", "torch_dtype", "pruned_heads", "quantization_config", "per_layer_config"),
    *("is_decoder", "add_cross_attention", "is_encoder_decoder", "position_embedding_type"),
    *("output_attentions", "return_dict", "attn_implementation", "_attn_implementation"),
    *("rope_scaling", "rope_parameters", "layer_types", "sub_configs", "hidden_size", "dim"),
)
"""Settings that are not in every config.json, or that transformers trips over."""


@pytest.fixture
def in_time() -> Iterator[None]:
    """End a test that allocates or counts for long; most take milliseconds."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def survives(read: Callable[[], Any]) -> bool:
    """Whether something is read; a refusal can be printed, and anything else fails the test."""
    signal.setitimer(signal.ITIMER_REAL, 20)
    try:
        read()
    except CentraError as error:
        str(error).encode()
        assert len(str(error)) < 2000
        return False
    return True


@pytest.mark.usefixtures("in_time", "few_samples")
@pytest.mark.parametrize("kind", ["encoder", "checkpoint"])
def test_no_config_leads_to_a_traceback_or_to_a_large_allocation(
    kind: str, encoder: Path, checkpoint: Path, tiny_backbone: support.Backbone, store: LocalStore
) -> None:
    """Each setting takes an eighth of the odd values, another than its neighbours."""
    folder = encoder if kind == "encoder" else checkpoint
    original = json.loads((folder / "config.json").read_text())
    found = set()
    for number, key in enumerate(sorted({*original, *MORE})):
        odd = [..., *ODD[number % 8 :: 8]]
        for value in odd:
            changed = {k: v for k, v in (original | {key: value}).items() if v is not ...}
            (folder / "config.json").write_text(json.dumps(changed))
            if kind == "encoder":
                found.add(survives(lambda: import_backbone(str(folder), store)))
            else:
                found.add(survives(lambda: converted(folder, tiny_backbone)))
    assert found == {True, False}


@pytest.mark.parametrize("value", [10**9, 10**12, 10**30, 0, -1, 1.5, "32", None, True])
@pytest.mark.parametrize("key", SIZES)
def test_a_size_that_the_weights_do_not_bear_out_is_refused_by_its_name(
    key: str, value: object, encoder: Path, store: LocalStore
) -> None:
    configure(encoder, **{key: value})
    match = "layers" if key == "num_hidden_layers" and type(value) is int and value > 0 else key
    with pytest.raises(FormatError, match=match):
        import_backbone(str(encoder), store)


def test_a_label_count_is_not_counted_out(
    checkpoint: Path, tiny_backbone: support.Backbone, encoder: Path, store: LocalStore
) -> None:
    """transformers would make up a name for each."""
    for folder in (checkpoint, encoder):
        configure(folder, num_labels=10**12, id2label=..., label2id=...)
    with pytest.raises(FormatError, match="says num_labels 1000000000000, but its head has 3"):
        converted(checkpoint, tiny_backbone)
    assert import_backbone(str(encoder), store).digest == tiny_backbone.spec.digest


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"is_decoder": True}, "is a decoder"),
        ({"add_cross_attention": True}, "another encoder's states"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"position_embedding_type": "relative_key"}, "absolute position embeddings"),
        ({"per_layer_config": {"0": {"hidden_act": "relu"}}}, "per_layer_config"),
        ({"pruned_heads": {"0": [1]}}, "pruned attention heads"),
        ({"quantization_config": {"load_in_8bit": True}}, "is quantised"),
    ],
)
def test_settings_that_centra_does_not_serve_are_refused(
    setting: dict[str, Any],
    says: str,
    encoder: Path,
    checkpoint: Path,
    tiny_backbone: support.Backbone,
    store: LocalStore,
) -> None:
    for folder in (encoder, checkpoint):
        configure(folder, **setting)
    with pytest.raises(IncompatibleError, match=says):
        import_backbone(str(encoder), store)
    with pytest.raises(IncompatibleError, match=says):
        converted(checkpoint, tiny_backbone)


@pytest.mark.parametrize(
    "setting",
    [
        {"output_attentions": True},
        {"return_dict": False},
        {"torch_dtype": "float16"},
        {"dtype": "nonsense"},
        {"attn_implementation": "flash_attention_2"},
        {"chunk_size_feed_forward": 4},
        {"classifier_dropout": "much"},
        {"pad_token_id": None},
    ],
)
def test_settings_that_no_answer_depends_on_change_nothing(
    setting: dict[str, Any], checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    before = converted(checkpoint, tiny_backbone)[0].to_bytes()
    configure(checkpoint, **setting)
    assert converted(checkpoint, tiny_backbone)[0].to_bytes() == before


@pytest.mark.parametrize(
    ("family", "setting", "says"),
    [
        ("bert", {"hidden_act": "gelx"}, "expected an activation"),
        ("bert", {"hidden_act": ["gelu"]}, "expected an activation"),
        ("bert", {"layer_norm_eps": float("nan")}, "expected a small positive number"),
        ("bert", {"hidden_dropout_prob": 2}, "expected a number from 0 to 1"),
        ("bert", {"num_attention_heads": 5}, "does not divide the hidden size of 32"),
        ("bert", {"pad_token_id": 10**6}, "there are only"),
        ("bert", {"num_hidden_layers": 2}, "says 2 layers .* weights have 3"),
        ("roberta", {"pad_token_id": None}, "positions count from it"),
        ("roberta", {"pad_token_id": 70}, "positions count from it"),
        ("distilbert", {"num_attention_heads": 4}, "n_heads 2 and num_attention_heads 4"),
        ("distilbert", {"sinusoidal_pos_embds": 1}, "expected true or false"),
        ("electra", {"embedding_size": 32}, "embedding_size 32, but tensor"),
    ],
)
def test_a_setting_that_is_no_such_value_is_named(
    family: str,
    setting: dict[str, Any],
    says: str,
    make_encoder: Callable[[str], Path],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    folder = copied(make_encoder(family), tmp_path / "encoder")
    configure(folder, **setting)
    with pytest.raises(FormatError, match=says) as error:
        import_backbone(str(folder), store)
    assert next(iter(setting)).split("_")[0] in str(error.value)


def test_a_setting_under_transformers_common_name_is_taken(
    make_encoder: Callable[[str], Path],
    imported: Callable[[str], support.Backbone],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    folder = copied(make_encoder("distilbert"), tmp_path / "encoder")
    configure(folder, n_heads=..., num_attention_heads=2)
    assert import_backbone(str(folder), store).digest == imported("distilbert").spec.digest
