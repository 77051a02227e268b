"""What is DeBERTa's own: the convolution beside the first layer, and what distances meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import DebertaV2Config, DebertaV2Model

from centra.bench.work import Work, first_token_work, layer_work
from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import FormatError
from centra.modeling.layers import DescribedLayer
from centra.modeling.shards import backbone_layer
from centra.modeling.trunk import Trunk
from centra.runtime import Release
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.store import LocalStore
from centra.tokenization.text_encoder import Encoded
from tests import support
from tests.centra.checkpoints import SENTENCE, configure, converted, copied, rewrite
from tests.centra.states import reference_states, trunk_states
from tests.centra.test_families import assert_states
from tests.centra.test_onnx_engine import TOLERANCE, encoded, onnx_states, tensors, texts
from tests.centra.test_queries import assert_answered_as_alone
from tests.centra.test_torch_engine import NEAR, assert_near, states_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KERNEL = "conv.conv.weight"
INPUTS = [*texts(7), *((text, "no never") for text in texts(4, seed=1))]


def test_the_convolution_is_part_of_layer_1(imported: Callable[[str], support.Backbone]) -> None:
    spec = imported("deberta-v2").spec

    assert [f"encoder.{KERNEL}" in spec.shapes(number) for number in range(4)] == [
        *(False, True, False, False)
    ]
    assert KERNEL in spec.layer_shapes(1)
    assert KERNEL not in spec.layer_shapes(2)


def test_modules_on_the_embeddings_have_convolutions_of_their_own(
    imported: Callable[[str], support.Backbone],
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On first tokens, where these alone are read, and on all."""
    backbone = imported("deberta-v2")
    support.copy_backbone(backbone, store)
    own = backbone.spec, backbone.store
    modules = {
        "first": support.make_module("classification", *own, tap=0, seed=1),
        "also-first": support.make_module("classification", *own, tap=0, seed=2),
        "two": support.make_module("classification", *own, tap=0, depth=2, seed=3),
        "tags": support.make_module("tagging", *own, tap=0, seed=4),
        "pair": support.make_module("classification", *own, tap=0, form="pair", seed=5),
    }
    manifest = support.put_release(modules, [backbone.spec], store)
    theirs = Release.load(manifest, store, engine="torch", device="cpu").logits(INPUTS)

    release = Release.load(manifest, store, engine="onnx")

    assert_near(release.logits(INPUTS), theirs, TOLERANCE)
    assert_answered_as_alone(release, batches=3)
    for dtype, near in NEAR.items():
        engine = BatchedEngine(torch.device("cpu"), dtype)
        monkeypatch.setattr("centra.runtime.parts.open_engine", lambda *_, e=engine, **__: e)
        assert_near(Release.load(manifest, store).logits(INPUTS), theirs, 2 * near)


@pytest.mark.usefixtures("few_samples")
def test_a_checkpoint_that_trained_the_convolution_is_cut_at_the_embeddings(
    fine_tuned_once: Callable[[str, str], Path],
    imported: Callable[[str], support.Backbone],
    tmp_path: Path,
) -> None:
    folder = copied(fine_tuned_once("deberta-v2", SENTENCE), tmp_path / "trained")
    name = f"deberta.encoder.{KERNEL}"
    rewrite(folder, lambda state: state | {name: state[name] + 0.1})

    module, _ = converted(folder, imported("deberta-v2"))

    assert (module.spec.tap_layer, module.spec.depth) == (0, 3)
    assert f"layers.1.{KERNEL}" in module.weights
    assert f"layers.2.{KERNEL}" not in module.weights


@pytest.mark.parametrize("family", ["deberta-v2", "deberta-v3"])
def test_a_layer_made_from_its_description_is_transformers_own(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    batch = tensors(encoded(backbone, [Input(text) for text in texts(7)]))
    trunk = Trunk(backbone.spec, backbone.store, depth=2)
    with torch.inference_mode():
        states = trunk(**batch, taps=[0, 1, 2])
        shared = trunk.shared_state(batch["attention_mask"])

        for number in (1, 2):
            layer = DescribedLayer(backbone.spec.layer(number)).eval()
            layer.load_state_dict(backbone_layer(backbone.spec, backbone.store, number))
            error = (layer(states[number - 1], shared) - states[number]).abs()
            assert error[batch["attention_mask"].bool()].max() <= TOLERANCE


def test_distances_are_those_of_transformers_at_real_sizes(tmp_path: Path) -> None:
    """256 buckets for 512 positions, where inputs are longer than distances have rows of their own."""
    tokenizer = support.make_tokenizer("deberta-v3")
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "position_buckets": 256, "max_position_embeddings": 512}
    sizes |= {"relative_attention": True, "pos_att_type": "p2c|c2p", "share_att_key": True}
    sizes |= {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0}
    sizes |= {"vocab_size": len(tokenizer), "pad_token_id": 0}
    torch.manual_seed(0)
    model = DebertaV2Model(DebertaV2Config(**sizes, initializer_range=0.5))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    store = LocalStore(tmp_path / "store")
    spec = import_backbone(str(tmp_path / "model"), store)
    backbone = support.Backbone(spec=spec, store=store, folder=tmp_path / "model")
    ids = np.random.default_rng(0).integers(5, spec.vocab_size, (3, 512))
    mask = (np.arange(512) < np.array([[512], [330], [40]])).astype(np.int64)
    batch = Encoded(input_ids=ids * mask, attention_mask=mask, token_type_ids=0 * ids)
    theirs = reference_states(backbone.folder, tensors(batch))

    assert_states([*trunk_states(backbone, tensors(batch))], theirs, batch, TOLERANCE)
    assert_states(onnx_states(spec, store, batch), theirs, batch, TOLERANCE)
    engine = BatchedEngine(torch.device("cpu"), "fp32")
    assert_states(states_of(engine, spec, backbone, batch), theirs, batch, TOLERANCE)


def test_work_counts_what_distances_and_the_convolution_take(
    imported: Callable[[str], support.Backbone],
) -> None:
    tokens, linear, pairs = 3 * 20, 4 * 32 * 32 + 2 * 32 * 64, 4 * 3 * 20 * 20 * 32
    layer = imported("deberta-v3").spec.layer(1)
    work = layer_work(layer, batch=3, length=20)
    assert work.flops == 2 * tokens * linear + 3 * pairs
    weights = linear + 4 * 32 + 64 + 32 + 4 * 32
    assert work.bytes == 4 * (weights + 2 * 40 * 32)

    # With projections for distances alone, which are used when the layer is loaded.
    first, second = (imported("deberta-v2").spec.layer(number) for number in (1, 2))
    assert layer_work(second, batch=3, length=20) == work
    convolution = 5 * 32 * 32
    assert layer_work(first, batch=3, length=20) == work + Work(
        flops=2 * tokens * convolution, bytes=4 * (convolution + 3 * 32)
    )

    # Keys of all tokens, and the products of first tokens with distances.
    found = first_token_work(second, batch=3, length=20)
    keys, products = 3 * 19 * 32 * 32, 4 * 3 * 2 * 20 * 32 + 2 * 3 * 20 * 32
    assert found.flops == 2 * (3 * linear + keys) + products
    assert found.bytes == 4 * (weights + 2 * 20 * 32)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"conv_kernel_size": 4}, "conv_kernel_size 4; expected 0 for none, or an odd number"),
        ({"conv_act": "gelu_own"}, "conv_act 'gelu_own'; expected an activation"),
        ({"relative_attention": False}, "relative_attention False; expected true"),
    ],
)
def test_settings_that_centra_does_not_compute_are_refused(
    settings: dict[str, Any],
    says: str,
    make_encoder: Callable[[str], Path],
    tmp_path: Path,
    store: LocalStore,
) -> None:
    folder = copied(make_encoder("deberta-v2"), tmp_path / "model")
    configure(folder, **settings)

    with pytest.raises(FormatError, match=says):
        import_backbone(str(folder), store)
