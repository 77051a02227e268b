"""What is ModernBERT's own: two forms of its settings, and layers that differ by their number."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForSequenceClassification,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from centra.bench.work import first_token_work, layer_work
from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import FormatError
from centra.releases.folder_writing import write_folder
from centra.runtime import Release, load_release
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.tokenization.text_encoder import Encoded
from tests import support
from tests.centra.checkpoints import configure, converted, copied, fine_tune
from tests.centra.test_onnx_engine import TOLERANCE, encoded, tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

# Those of the modules' own probes.
TEXTS = ["wake me at seven", "play some jazz in new york, please", "is there snow"]


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


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_fine_tuned_checkpoint_pools_as_its_classifier_pooling_says(
    pooling: str,
    imported: Callable[[str], support.Backbone],
    make_encoder: Callable[[str], Path],
    tmp_path: Path,
    store: LocalStore,
) -> None:
    backbone = imported("modernbert")
    encoder = copied(make_encoder("modernbert"), tmp_path / "encoder")
    configure(encoder, classifier_pooling=pooling)
    folder = fine_tune(encoder, tmp_path / "tuned")

    module, _ = converted(folder, backbone)

    assert module.spec.decision.pooling == {"cls": "first", "mean": "mean"}[pooling]
    support.copy_backbone(backbone, store)
    manifest = support.put_release({"task": module}, [backbone.spec], store)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for engine in ("torch", "onnx"):
        release = Release.load(manifest, store, engine=engine, device="cpu")
        for text, own in zip(TEXTS, release.logits(TEXTS)["task"], strict=True):
            batch = tensors(encoded(backbone, [Input(text)]))
            del batch["token_type_ids"]
            with torch.inference_mode():
                theirs = model(**batch).logits[0].numpy()
            assert np.abs(own - theirs).max() <= TOLERANCE


def test_a_release_that_ends_below_the_last_layer_has_norms_in_its_modules_alone(
    imported: Callable[[str], support.Backbone], tmp_path: Path, store: LocalStore
) -> None:
    backbone = imported("modernbert")
    spec = backbone.spec
    modules = {
        "bare": support.make_module("regression", spec, backbone.store, tap=1, depth=0),
        "own": support.make_module("classification", spec, backbone.store, tap=2, depth=1, seed=1),
        "tags": support.make_module("tagging", spec, backbone.store, tap=1, depth=1, seed=2),
    }
    support.copy_backbone(backbone, store)
    manifest = support.put_release(modules, [spec], store)

    write_folder(manifest, store, tmp_path / "release")

    # transformers would make up the norm that is missing.
    assert not (tmp_path / "release" / "model.safetensors.index.json").exists()
    held = {
        name
        for file in (tmp_path / "release").glob("backbone/*/*.safetensors")
        for name in load_file(file)
    }
    assert any("attn.Wqkv" in name for name in held)
    assert not any("final_norm" in name for name in held)
    assert all("head.norm.weight" in module.weights for module in modules.values())
    theirs = {
        name: module.tensors["probe.logits"].numpy()
        for name, module in modules.items()
        if name != "tags"
    }
    for engine in ("torch", "onnx"):
        release = load_release(tmp_path / "release", engine=engine, device="cpu")
        found = release.logits(TEXTS)
        for name in modules:
            own, recorded = release.probe_logits(name)
            assert np.abs(own - recorded).max() <= TOLERANCE
        for name, logits in theirs.items():
            assert np.abs(np.stack(found[name]) - logits).max() <= TOLERANCE


def test_a_first_token_layer_computes_queries_for_the_first_tokens_alone(
    imported: Callable[[str], support.Backbone], store: LocalStore
) -> None:
    """On torch as on onnx: keys of all tokens, of which one with a window reads five."""
    backbone = imported("modernbert")
    inputs, length, full, sliding = 4, 64, 0, 1
    batch = Encoded(
        input_ids=np.full((inputs, length), 7),
        attention_mask=np.ones((inputs, length), np.int64),
        token_type_ids=np.zeros((inputs, length), np.int64),
    )
    counted: dict[int, int] = {}
    for tap in (full, sliding):
        module = support.make_module("regression", backbone.spec, backbone.store, tap=tap)
        support.copy_backbone(backbone, store)
        engine = BatchedEngine(torch.device("cpu"), "fp32")
        task = engine.load_task(store.put(module.to_bytes()), backbone.spec, store)
        trunk = engine.load_trunk(backbone.spec, store, depth=tap)
        ((_, hidden),) = trunk.run(batch, support.read_by_all(batch, [tap]))
        with FlopCounterMode(display=False) as counter:
            task.branch.run(hidden, np.arange(inputs))
        counted[tap] = counter.get_total_flops()

    for tap, found in counted.items():
        layer, head = backbone.spec.layer(tap + 1), 2 * inputs * (32 * 32 + 32)
        assert 0 < found <= first_token_work(layer, batch=inputs, length=length).flops + head
        assert found < layer_work(layer, batch=inputs, length=length).flops / 2
