"""A backbone that makes no sense is refused by every door, and by the same function."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from centra.checkpoints.backbone import check_backbone
from centra.errors import FormatError, VerificationError
from centra.families import family_named
from centra.families.base import ACTIVATIONS
from centra.families.settings import encoder_shapes
from centra.formats.backbone import BackboneSpec
from centra.formats.manifest import ReleaseManifest, TaskEntry, TrunkEntry
from centra.runtime import Release
from tests import support
from tests.families import TINY, Tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore

HUGE = 10**9


def config(**settings: Any) -> Callable[[dict[str, Any], LocalStore], None]:
    def change(spec: dict[str, Any], _store: LocalStore) -> None:
        spec["config"] |= settings

    return change


def fields(**settings: Any) -> Callable[[dict[str, Any], LocalStore], None]:
    def change(spec: dict[str, Any], _store: LocalStore) -> None:
        spec.update(settings)

    return change


def both(key: str, field: str, value: Any) -> Callable[[dict[str, Any], LocalStore], None]:
    def change(spec: dict[str, Any], _store: LocalStore) -> None:
        spec["config"][key] = spec[field] = value

    return change


def weights(
    change_one: Callable[[dict[str, np.ndarray]], None], part: str = "embeddings"
) -> Callable[[dict[str, Any], LocalStore], None]:
    """Other weights, of which the spec has the digest."""

    def change(spec: dict[str, Any], store: LocalStore) -> None:
        digest = spec["embeddings"] if part == "embeddings" else spec["layers"][0]
        tensors = dict(load(store.fetch(digest).read_bytes()))
        change_one(tensors)
        new = store.put(save(tensors))
        if part == "embeddings":
            spec["embeddings"] = new
        else:
            spec["layers"][0] = new

    return change


def tokenizer(**parts: Any) -> Callable[[dict[str, Any], LocalStore], None]:
    def change(spec: dict[str, Any], store: LocalStore) -> None:
        content = json.loads(store.fetch(spec["tokenizer"]["tokenizer.json"]).read_text())
        spec["tokenizer"]["tokenizer.json"] = store.put(json.dumps(content | parts).encode())

    return change


def lead_out(spec: dict[str, Any], _store: LocalStore) -> None:
    spec["tokenizer"]["../../x"] = spec["tokenizer"]["tokenizer.json"]


def no_tokenizer(spec: dict[str, Any], _store: LocalStore) -> None:
    spec["tokenizer"]["other.json"] = spec["tokenizer"].pop("tokenizer.json")


def swap_layers(spec: dict[str, Any], _store: LocalStore) -> None:
    spec["layers"].reverse()


def set_nan(tensors: dict[str, np.ndarray]) -> None:
    next(iter(tensors.values())).flat[3] = np.nan


def set_infinite(tensors: dict[str, np.ndarray]) -> None:
    next(iter(tensors.values())).flat[-1] = -np.inf


def drop_one(tensors: dict[str, np.ndarray]) -> None:
    tensors.pop(min(tensors))


def add_one(tensors: dict[str, np.ndarray]) -> None:
    tensors["encoder.layer.0.more"] = np.zeros(3, np.float32)


def double(tensors: dict[str, np.ndarray]) -> None:
    name = min(tensors)
    tensors[name] = tensors[name].astype(np.int64)


def widen(tensors: dict[str, np.ndarray]) -> None:
    name = max(tensors)
    tensors[name] = np.concatenate([tensors[name], tensors[name]])


SPECS = {
    "no heads": (config(num_attention_heads=0), "num_attention_heads 0"),
    "negative heads": (config(num_attention_heads=-2), "num_attention_heads -2"),
    "heads that do not divide": (config(num_attention_heads=5), "does not divide"),
    "heads in words": (config(num_attention_heads="2"), "num_attention_heads '2'"),
    "odd activation": (config(hidden_act="x"), "hidden_act 'x'"),
    "activation with weights": (config(hidden_act="prelu"), "hidden_act 'prelu'"),
    "no hidden size": (config(hidden_size=0), "hidden_size 0"),
    "other hidden size": (fields(hidden_size=64), "hidden_size: found 64"),
    "no eps": (config(layer_norm_eps=0), "layer_norm_eps 0"),
    "large eps": (config(layer_norm_eps=1e300), r"layer_norm_eps 1e\+300"),
    "odd dropout": (config(hidden_dropout_prob=7), "hidden_dropout_prob 7"),
    "many layers": (config(num_hidden_layers=HUGE), "num_layers: found 3"),
    "negative layers": (config(num_hidden_layers=-1), "num_hidden_layers -1"),
    "long inputs": (fields(max_length=HUGE), "max_length: found 1000000000"),
    "padding beyond": (both("pad_token_id", "pad_token_id", HUGE), "pad_token_id 1000000000"),
    "another padding": (fields(pad_token_id=5), "pad_token_id: found 5"),
    "code": (config(auto_map={"AutoModel": "x.X"}), "unknown setting 'auto_map'"),
    "setting missing": (lambda spec, _: spec["config"].pop("vocab_size"), "lacks 'vocab_size'"),
    "odd family": (fields(family="x"), "model type 'x'"),
    "another family": (fields(family="distilbert"), "lacks 'activation'"),
    "tensors of layers": (fields(layer_tensors={}), "layer_tensors"),
    "odd shape": (fields(layer_tensors={"x": [1]}), "layer_tensors: found"),
}
"""What shows without the weights, in a document that is one."""
DOCUMENTS = {
    "no hidden size at all": (both("hidden_size", "hidden_size", 0), "hidden_size: .*found 0"),
    "NaN eps": (config(layer_norm_eps=float("nan")), "NaN is no finite number"),
    "infinite eps": (config(layer_norm_eps=float("inf")), "Infinity is no finite number"),
    "layers that nobody names": (
        both("num_hidden_layers", "num_layers", HUGE),
        "num_layers is 1000000000, but 3 are named",
    ),
    "less than no layers": (
        both("num_hidden_layers", "num_layers", -1),
        "num_layers: .*found -1",
    ),
    "no layers": (fields(layers=[]), "num_layers is 3, but 0 are named"),
    "negative inputs": (fields(max_length=-1), "max_length: .*found -1"),
    "no inputs": (fields(max_length=0), "max_length: .*found 0"),
    "negative shape": (fields(layer_tensors={"x": [-1]}), r"layer_tensors.x\[0\]: .*found -1"),
    "a file that leads out": (lead_out, r'tokenizer\..*found "../../x"'),
    "no tokenizer": (no_tokenizer, "names no tokenizer.json"),
}
"""What is no such document at all, whatever reads it."""
PARTS = {
    "large vocabulary": (config(vocab_size=HUGE), "word_embeddings.weight"),
    "many positions": (
        lambda spec, store: (config(max_position_embeddings=HUGE)(spec, store), fields(max_length=HUGE)(spec, store)),
        "position_embeddings.weight",
    ),
    "many types": (config(type_vocab_size=HUGE), "token_type_embeddings.weight"),
    "NaN": (weights(set_nan), "NaN or infinite"),
    "infinite": (weights(set_infinite, "layer"), "NaN or infinite"),
    "tensor missing": (weights(drop_one), "lacks tensor"),
    "tensor too many": (weights(add_one, "layer"), "unknown tensor"),
    "another type": (weights(double), "int64"),
    "another shape": (weights(widen, "layer"), "its backbone.json says"),
    "layers in another order": (swap_layers, "tensor"),
}  # fmt: skip
"""What shows when a shard is held against the spec."""
TOKENIZERS = {
    "ids beyond": (
        tokenizer(
            added_tokens=[
                {"id": 10**6, "content": "zzqq", "single_word": False, "lstrip": False}
                | {"rstrip": False, "normalized": False, "special": False}
            ]
        ),
        "only",
    ),
    "no special tokens": (tokenizer(post_processor=None), "no special token"),
    "noise": (tokenizer(model=3), "cannot be (read|loaded)"),
}


@pytest.fixture
def changed(
    backbone_store: LocalStore, tiny_backbone: support.Backbone
) -> Callable[[Callable[[dict[str, Any], LocalStore], Any]], str]:
    """Put a changed backbone into the test's store, as anybody can write one; its digest."""

    def changed(change: Callable[[dict[str, Any], LocalStore], Any]) -> str:
        spec = json.loads(tiny_backbone.spec.to_bytes())
        change(spec, backbone_store)
        return backbone_store.put(json.dumps(spec).encode())

    return changed


@pytest.fixture
def load_on(
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> Callable[[str, str], object]:
    """Load a release with a task on a backbone, which its manifest repeats as far as it can."""

    def load_on(digest: str, engine: str) -> object:
        module = make_module(tap=1)
        task = module.spec.model_copy(update={"backbone": digest})
        data = type(module)(task, module.tensors).to_bytes()
        entry = TaskEntry(
            digest=backbone_store.put(data),
            backbone=digest,
            **task.model_dump(include={"kind", "input", "labels", "tap_layer", "depth"}),
        )
        try:
            spec = BackboneSpec.from_bytes(backbone_store.fetch(digest).read_bytes(), "spec")
        except FormatError:
            spec = tiny_backbone.spec
        trunk = TrunkEntry.of(spec, 1).model_copy(update={"spec": digest})
        manifest = ReleaseManifest(trunks=(trunk,), tasks={"intent": entry})
        return Release.load(manifest, backbone_store, engine=engine)

    return load_on


@pytest.mark.parametrize(("change", "says"), SPECS.values(), ids=SPECS)
def test_a_spec_that_no_backbone_can_have_is_refused_whoever_reads_it(
    change: Any, says: str, changed: Callable[..., str], backbone_store: LocalStore
) -> None:
    digest = changed(change)
    with pytest.raises(VerificationError, match=says):
        BackboneSpec.fetch(digest, backbone_store)
    assert digest in BackboneSpec.parts(digest, backbone_store), "or nobody could clear it away"


@pytest.mark.parametrize(("change", "says"), DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("read", [BackboneSpec.fetch, BackboneSpec.parts])
def test_a_file_that_is_no_backbone_s_document_is_refused_whoever_reads_it(
    read: Callable[..., object],
    change: Any,
    says: str,
    changed: Callable[..., str],
    backbone_store: LocalStore,
) -> None:
    with pytest.raises(VerificationError, match=says):
        read(changed(change), backbone_store)


@pytest.mark.parametrize(
    ("change", "says"), [*PARTS.values(), *TOKENIZERS.values()], ids=[*PARTS, *TOKENIZERS]
)
def test_a_backbone_that_is_not_what_its_spec_says_is_refused(
    change: Any, says: str, changed: Callable[..., str], backbone_store: LocalStore
) -> None:
    spec = BackboneSpec.fetch(changed(change), backbone_store)
    with pytest.raises(VerificationError, match=says):
        check_backbone(spec, backbone_store)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize(
    ("change", "says"), [*PARTS.values(), *TOKENIZERS.values()], ids=[*PARTS, *TOKENIZERS]
)
def test_a_release_on_it_does_not_load(
    change: Any,
    says: str,
    engine: str,
    changed: Callable[..., str],
    load_on: Callable[..., object],
) -> None:
    with pytest.raises(VerificationError, match=says):
        load_on(changed(change), engine)


@pytest.mark.parametrize(
    ("change", "says"), [*SPECS.values(), *DOCUMENTS.values()], ids=[*SPECS, *DOCUMENTS]
)
def test_a_release_on_such_a_spec_does_not_load(
    change: Any, says: str, changed: Callable[..., str], load_on: Callable[..., object]
) -> None:
    """Whatever the engine: no weights are opened before."""
    with pytest.raises(VerificationError, match=says):
        load_on(changed(change), "onnx")


@pytest.mark.parametrize("tap", [10**9, 4, -1])
def test_a_manifest_that_taps_a_layer_which_is_not_there_does_not_load(
    tap: int,
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> None:
    module = make_module()
    manifest = support.put_release({"intent": module}, [tiny_backbone.spec], backbone_store)
    entry = manifest.tasks["intent"].model_copy(update={"tap_layer": tap})
    forged = manifest.model_copy(update={"tasks": {"intent": entry}})
    for engine in ("onnx", "torch"):
        with pytest.raises(VerificationError, match=f"taps layer {tap}, but its backbone has 3"):
            Release.load(forged, backbone_store, engine=engine)


@pytest.mark.parametrize("field", ["num_layers", "layers", "embeddings", "tokenizer"])
def test_a_manifest_that_contradicts_its_backbone_does_not_load(
    field: str,
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> None:
    manifest = support.put_release({"intent": make_module()}, [tiny_backbone.spec], backbone_store)
    others = {"num_layers": 9, "layers": (), "embeddings": "0" * 64, "tokenizer": {}}
    trunk = manifest.trunks[0].model_copy(update={field: others[field]})
    with pytest.raises(VerificationError, match="trunks contradict"):
        Release.load(manifest.model_copy(update={"trunks": (trunk,)}), backbone_store)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_module_with_infinite_weights_does_not_load(
    engine: str,
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
) -> None:
    module = make_module()
    tensors = {**module.tensors, "head.out.bias": module.tensors["head.out.bias"] / 0}
    broken = type(module)(module.spec, tensors)
    manifest = support.put_release({"intent": broken}, [tiny_backbone.spec], backbone_store)
    with pytest.raises(VerificationError, match=r"head\.out\.bias holds 3 NaN or infinite"):
        Release.load(manifest, backbone_store, engine=engine)


@pytest.mark.parametrize("tiny", TINY.values(), ids=TINY)
def test_the_shapes_that_a_family_says_are_those_of_transformers(tiny: Tiny) -> None:
    family = family_named(tiny.model_type)
    classes = family.transformers
    assert classes is not None
    config = classes.named(classes.config)(**tiny.settings)
    with torch.device("meta"):
        tensors = classes.named(classes.model)(config).state_dict()
    settings = dict(family.defaults or {})
    for key, setting in family.settings.items():
        if hasattr(config, key):
            settings[key] = getattr(config, key)
        elif setting.tensor:
            settings[key] = tensors[setting.tensor].shape[setting.axis]

    assert encoder_shapes(settings, family) == {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if not name.startswith("pooler.")
    }


def test_the_activations_are_those_of_transformers_that_have_no_weights() -> None:
    from transformers.activations import ACT2FN

    made = {name: ACT2FN[name] for name in ACT2FN}
    assert {name for name, one in made.items() if not one.state_dict()} == ACTIVATIONS
