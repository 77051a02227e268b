"""What is DeBERTa's own: the convolution beside the first layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from centra.checkpoints.backbone import import_backbone
from centra.errors import FormatError
from centra.runtime import Release
from centra.runtime.torch.batched_engine import BatchedEngine
from tests import support
from tests.centra.checkpoints import SENTENCE, configure, converted, copied, rewrite
from tests.centra.test_onnx_engine import TOLERANCE, texts
from tests.centra.test_queries import assert_answered_as_alone
from tests.centra.test_torch_engine import NEAR, assert_near

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

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
