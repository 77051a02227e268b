"""Tasks as plain checkpoints, read by transformers alone, and taken back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import transformers

from centra.errors import FormatError, IncompatibleError, UnsupportedFormatError, UsageError
from centra.exports import format_named, write_export
from centra.families import family_named
from centra.formats.decision import Decision
from centra.formats.head import HeadNorm, HeadSpec
from centra.runtime import Release
from centra.store import LocalStore
from tests import support
from tests.centra.checkpoints import SENTENCE, TOKEN, configure, converted
from tests.centra.states import PAIRS, SINGLES
from tests.centra.test_onnx_engine import TOLERANCE
from tests.families import TINY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from tests.centra.exports.conftest import Exported

HF, OPTIMUM = format_named("hf"), format_named("optimum")
few_samples = pytest.mark.usefixtures("few_samples")

# As the families' own classes have it: ModernBERT's with a dense layer and a norm.
TAGGED = {
    "bert": HeadSpec(),
    "modernbert": HeadSpec(
        activation="gelu",
        dense=True,
        dense_bias=False,
        dense_norm=HeadNorm(epsilon=1e-5, bias=False),
    ),
}

MakeSource = "Callable[[support.Backbone, TaskModule, LocalStore], Source]"


@pytest.mark.parametrize("auto_class", [SENTENCE, TOKEN])
@pytest.mark.parametrize("family", TINY)
@few_samples
def test_what_came_from_a_checkpoint_goes_back_to_one_and_in_again(
    family: str,
    auto_class: str,
    fine_tuned_once: Callable[[str, str], Path],
    imported: Callable[[str], support.Backbone],
    task_source: MakeSource,
    tmp_path: Path,
) -> None:
    """But ALBERT's, whose layers are no longer one set of weights."""
    backbone, folder = imported(family), fine_tuned_once(family, auto_class)
    module, _ = converted(folder, backbone)
    source = task_source(backbone, module, LocalStore(tmp_path / "store"))

    export = write_export(source, HF, tmp_path / "out")

    assert export.parity["task"] <= TOLERANCE
    theirs = getattr(transformers, auto_class).from_pretrained(tmp_path / "out")
    assert [*theirs.config.id2label.values()] == [*module.spec.logit_names]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for special in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        if hasattr(theirs.config, special):
            assert getattr(theirs.config, special) == getattr(tokenizer, special)
    if family_named(TINY[family].model_type).groups_key is None:
        again, _ = converted(tmp_path / "out", backbone)
        same = ("kind", "labels", "tap_layer", "depth", "head", "decision")
        assert all(getattr(again.spec, f) == getattr(module.spec, f) for f in same)
        assert all(
            np.array_equal(again.tensors[name], module.tensors[name]) for name in module.weights
        )


@few_samples
def test_a_pipeline_names_what_a_release_names(
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    task_source: MakeSource,
    tmp_path: Path,
) -> None:
    """Of fewer layers than the backbone, too."""
    module = make_module(depth=1, tap=1)
    source = task_source(tiny_backbone, module, LocalStore(tmp_path / "store"))

    write_export(source, HF, tmp_path / "out")

    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["problem_type"]) == (
        *(2, "single_label_classification"),
    )
    classify = transformers.pipeline("text-classification", model=str(tmp_path / "out"))
    texts = [item.text for item in SINGLES]
    merged = Release.load(source.manifest, source.reader, device="cpu")
    for theirs, ours in zip(classify(texts, truncation=True), merged.predict(texts), strict=True):
        assert theirs["label"] == ours["task"]["label"]
        assert theirs["score"] == pytest.approx(ours["task"]["score"], abs=1e-4)


@few_samples
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_fewer_layers_than_the_backbones_go_in_again(
    family: str,
    imported: Callable[[str], support.Backbone],
    task_source: MakeSource,
    tmp_path: Path,
) -> None:
    """ModernBERT's config says of each layer by itself how far its tokens look."""
    backbone = imported(family)
    module = support.make_module("tagging", backbone.spec, backbone.store, head=TAGGED[family])
    source = task_source(backbone, module, LocalStore(tmp_path / "store"))
    write_export(source, HF, tmp_path / "out")

    again, _ = converted(tmp_path / "out", backbone)

    assert (again.spec.tap_layer, again.spec.depth, again.spec.head) == (1, 1, module.spec.head)
    assert all(np.array_equal(again.tensors[n], module.tensors[n]) for n in module.weights)


@few_samples
def test_a_manifest_counts_for_the_task_that_it_is_of(
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    task_source: MakeSource,
    tmp_path: Path,
) -> None:
    module = make_module(form="pair", decision=Decision(rejection=0.4))
    folder = tmp_path / "out"
    write_export(task_source(tiny_backbone, module, LocalStore(tmp_path / "store")), HF, folder)

    again, remarks = converted(folder, tiny_backbone)
    assert (again.spec.input, again.spec.decision) == ("pair", module.spec.decision)
    assert ["manifest.json" in remark for remark in remarks] == [True]
    renamed, _ = converted(folder, tiny_backbone, labels=("wake", "play", "rain"))
    assert renamed.spec.input == "pair"

    labels = ("up", "down", "left")
    ids = {label: i for i, label in enumerate(labels)}
    configure(folder, id2label=dict(enumerate(labels)), label2id=ids)
    other, remarks = converted(folder, tiny_backbone)
    assert (other.spec.input, other.spec.decision) == ("single", Decision())
    assert "of another task" in remarks[0]

    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("centra/export/1", "centra/export/2"))
    with pytest.raises(UnsupportedFormatError, match="this Centra reads centra/export/1"):
        converted(folder, tiny_backbone)
    manifest.write_text('{"format": "centra/export/1", "tasks": {}}')
    with pytest.raises(FormatError, match=r"manifest\.json: "):
        converted(folder, tiny_backbone)
    manifest.write_text('{"short_name": "of a web page"}')
    assert converted(folder, tiny_backbone)[0].spec == other.spec


CANNOT: dict[str, dict[str, Any]] = {
    "crf": {"kind": "tagging", "head": HeadSpec(crf=True)},
    "pooling": {"kind": "classification", "decision": Decision(pooling="mean")},
    "head": {"kind": "classification", "head": HeadSpec(activation="silu")},
}


@few_samples
@pytest.mark.parametrize("what", CANNOT)
def test_what_no_class_of_transformers_computes_is_refused(
    what: str,
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    task_source: MakeSource,
    tmp_path: Path,
) -> None:
    module = make_module(**CANNOT[what])
    source = task_source(tiny_backbone, module, LocalStore(tmp_path / "store"))

    with pytest.raises(IncompatibleError, match="CRF" if what == "crf" else "no head like its own"):
        write_export(source, HF, tmp_path / "out")

    assert not (tmp_path / "out").exists()
    if what != "crf":
        export = write_export(source, OPTIMUM, tmp_path / "out")
        assert any("no model.safetensors" in note for note in export.notes)


def test_a_release_of_several_tasks_is_refused(
    release_on: Callable[[str], Exported], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="holds one task, but the release has 5"):
        write_export(release_on("bert").source, HF, tmp_path / "out")


@few_samples
def test_optimum_finds_the_graph_beside_the_checkpoint(
    tiny_backbone: support.Backbone,
    make_module: Callable[..., TaskModule],
    task_source: MakeSource,
    tmp_path: Path,
) -> None:
    """Laid out as TEI and optimum look for it; that optimum itself loads it, ``make peers`` shows."""
    onnxruntime = pytest.importorskip("onnxruntime")
    module = make_module("multilabel", form="pair", depth=1)
    source = task_source(tiny_backbone, module, LocalStore(tmp_path / "store"))

    export = write_export(source, OPTIMUM, tmp_path / "out")

    assert {"config.json", "model.safetensors", "onnx/model.onnx", "tokenizer.json"} <= {
        *export.files
    }
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "onnx" / "model.onnx"))
    assert [o.name for o in session.get_outputs()] == ["logits"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    texts = [[item.text, item.text_pair] for item in PAIRS]
    batch = tokenizer([a for a, _ in texts], [b for _, b in texts], padding=True, truncation=True)
    given = {name: np.array(ids) for name, ids in batch.items()}
    theirs = model.eval()(
        **tokenizer(*zip(*texts, strict=True), padding=True, truncation=True, return_tensors="pt")
    ).logits
    assert np.abs(session.run(None, given)[0] - theirs.detach().numpy()).max() <= TOLERANCE
