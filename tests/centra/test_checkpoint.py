"""Fine-tuned Hugging Face checkpoints become task modules that answer as they do."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from centra.checkpoints.backbone import import_backbone
from centra.checkpoints.conversion import convert
from centra.data.inputs import Input
from centra.errors import FormatError, IncompatibleError, UsageError
from centra.formats.contract import Contract
from centra.runtime import Release
from tests import support
from tests.centra.checkpoints import configure, converted, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskModule

SENTENCE, TOKEN = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"
TEXTS = ["wake me at seven, please", "is there snow in new york", "louder music"]


def fine_tuned(
    encoder: Path,
    folder: Path,
    auto_class: str = SENTENCE,
    *,
    changed: tuple[int, ...] = (3,),
    embeddings: bool = False,
    safe: bool = True,
    **settings: Any,
) -> Any:
    """Save a checkpoint on an encoder, with new weights in the layers named (from 1)."""
    import torch
    import transformers

    torch.manual_seed(1)
    settings = {"num_labels": 3, "id2label": {0: "alarm", 1: "music", 2: "weather"}} | settings
    model = getattr(transformers, auto_class).from_pretrained(encoder, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            layer = next((int(p) for p in name.split(".") if p.isdecimal()), -1) + 1
            own = layer in changed or not name.startswith(f"{model.base_model_prefix}.")
            if own or "pooler" in name or (embeddings and "word_embeddings" in name):
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if not safe:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    transformers.AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return model.eval()


def answers_like_the_checkpoint(
    module: TaskModule, model: Any, backbone: support.Backbone, inputs: list[Input]
) -> bool:
    """Whether a release of this module gives the checkpoint's logits, on inputs of our own."""
    import torch

    from centra.tokenization.text_encoder import TextEncoder

    store = support.LocalStore(backbone.folder.parent / "scratch")
    support.copy_backbone(backbone, store)
    manifest = support.put_release({"task": module}, [backbone.spec], store)
    release = Release.load(manifest, store, engine="torch", device="cpu")
    rows, batch = TextEncoder.of(backbone.spec, store).batch(inputs)
    arrays = {name: torch.from_numpy(array) for name, array in vars(batch).items()}
    if backbone.spec.family == "distilbert":
        del arrays["token_type_ids"]
    with torch.inference_mode():
        expected = model(**arrays).logits.numpy()
    given = [
        item.text if item.text_pair is None else (item.text, item.text_pair) for item in inputs
    ]
    found = release.logits(given)["task"]
    # A product with one output depends in its last bit on where its weights lie in memory, which
    # for transformers is wherever the file put them.
    tolerance = 1e-6 if module.spec.outputs == 1 else 0.0
    return all(
        np.abs(own - (theirs[: len(row.input_ids)] if theirs.ndim == 2 else theirs)).max()
        <= tolerance
        for own, theirs, row in zip(found, expected, rows, strict=True)
    )


@pytest.mark.parametrize("auto_class", [SENTENCE, TOKEN])
@pytest.mark.parametrize("family", support.FAMILIES)
def test_logits_equal_the_checkpoints_in_every_family(
    imported: Callable[[str], support.Backbone], tmp_path: Path, family: str, auto_class: str
) -> None:
    backbone = imported(family)
    labels = {0: "O", 1: "B-city", 2: "I-city"} if auto_class == TOKEN else {}
    model = fine_tuned(
        backbone.folder, tmp_path, auto_class, **({"id2label": labels} if labels else {})
    )

    module = convert(tmp_path, {"tiny@1": backbone.spec}, backbone.store)

    assert (module.spec.tap_layer, module.spec.depth) == (2, 1)
    assert module.spec.labels == tuple(labels.values() or ["alarm", "music", "weather"])
    assert module.spec.kind == ("tagging" if labels else "classification")
    assert answers_like_the_checkpoint(module, model, backbone, [Input(text) for text in TEXTS])


@pytest.mark.parametrize(
    ("settings", "kind", "labels"),
    [
        ({"problem_type": "multi_label_classification"}, "multilabel", 3),
        ({"num_labels": 1, "id2label": {0: "score"}}, "regression", 0),
    ],
)
def test_the_kind_follows_from_the_checkpoints_problem(
    tiny_backbone: support.Backbone,
    tmp_path: Path,
    settings: dict[str, Any],
    kind: str,
    labels: int,
) -> None:
    model = fine_tuned(tiny_backbone.folder, tmp_path, **settings)
    module = convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)
    assert (module.spec.kind, len(module.spec.labels)) == (kind, labels)
    assert answers_like_the_checkpoint(module, model, tiny_backbone, [Input(t) for t in TEXTS])


@pytest.mark.parametrize(
    ("names", "labels", "tags"),
    [
        (
            "O B-city L-city U-city U-day",
            "O B-city I-city B-day I-day",
            "O B-city E-city S-city S-day",
        ),
        ("city O", "O B-city I-city", "I-city O"),
        ("O B_city I_city", "O B-city I-city", ""),
    ],
)
def test_a_tagger_in_any_scheme_answers_in_bio(
    tiny_backbone: support.Backbone, tmp_path: Path, names: str, labels: str, tags: str
) -> None:
    names_of = dict(enumerate(names.split()))
    model = fine_tuned(
        tiny_backbone.folder, tmp_path, TOKEN, num_labels=len(names_of), id2label=names_of
    )

    module = convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)

    assert module.spec.labels == tuple(labels.split())
    assert module.spec.head.tags == tuple(tags.split())
    assert answers_like_the_checkpoint(module, model, tiny_backbone, [Input(t) for t in TEXTS])


def test_a_tagger_of_no_scheme_is_refused(tiny_backbone: support.Backbone, tmp_path: Path) -> None:
    fine_tuned(tiny_backbone.folder, tmp_path, TOKEN, id2label={0: "O", 1: "B-city", 2: "X"})

    with pytest.raises(FormatError, match="its labels: 'X' is not a BIO tag, as 'B-city' is"):
        convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)


@pytest.mark.parametrize(
    "named",
    [
        ["MeanPoolBertForSequenceClassification"],
        ["BertCrfForTokenClassification"],
        ["BertForSequenceClassificationV2"],
        ["RobertaForSequenceClassification"],
        ["TFBertForSequenceClassification"],
        ["BertForSequenceClassification", "BertForTokenClassification"],
        "BertForSequenceClassification",
        ["BertForMaskedLM"],
        [None],
        [],
        None,
    ],
)
def test_only_the_familys_own_two_classes_are_taken(
    named: object, checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    configure(checkpoint, architectures=named)
    with pytest.raises(FormatError) as error:
        converted(checkpoint, tiny_backbone)
    assert "BertForSequenceClassification or BertForTokenClassification" in str(error.value)
    assert str(named[0] if named and named != [None] else named) in str(error.value)


def test_what_a_checkpoint_does_not_say_is_remarked_on(
    fine_tuned_once: Callable[[str, str], Path], tiny_backbone: support.Backbone
) -> None:
    module, remarks = converted(fine_tuned_once("bert", SENTENCE), tiny_backbone)
    assert (module.spec.kind, module.spec.input) == ("classification", "single")
    codes = [getattr(remark, "code", None) for remark in remarks]
    assert codes == ["kind-assumed", "input-assumed"]
    _, remarks = converted(fine_tuned_once("bert", TOKEN), tiny_backbone)
    assert remarks == []


def test_kind_input_and_labels_may_be_declared(
    checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    names = ("a", "b", "c")
    module, remarks = converted(
        checkpoint, tiny_backbone, form="pair", kind="multilabel", labels=names
    )
    assert module.spec.contract == Contract(kind="multilabel", input="pair", labels=names)
    assert remarks == []


def test_answers_that_part_by_more_than_rounding_are_refused(
    checkpoint: Path, tiny_backbone: support.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(checkpoint, lambda tensors: {name: t.bfloat16() for name, t in tensors.items()})
    monkeypatch.setattr("centra.checkpoints.probe._ROUNDINGS", 0.001)
    with pytest.raises(IncompatibleError, match="more than rounding explains"):
        converted(checkpoint, tiny_backbone)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["classifier.bias", "bert.encoder.layer.0.output.dense.bias"])
def test_weights_that_are_no_numbers_are_named(
    name: str, value: float, checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    rewrite(checkpoint, lambda tensors: tensors | {name: tensors[name].fill_(value)})
    with pytest.raises(FormatError, match=f"{name} holds NaN or infinite values .* diverged"):
        converted(checkpoint, tiny_backbone)


@pytest.mark.parametrize(
    ("setting", "says"),
    [({"hidden_act": "relu"}, "hidden_act is 'relu'"), ({"layer_norm_eps": 1e-5}, "1e-05")],
)
def test_layers_that_compute_otherwise_than_the_backbones_are_refused(
    setting: dict[str, Any], says: str, checkpoint: Path, tiny_backbone: support.Backbone
) -> None:
    configure(checkpoint, **setting)
    with pytest.raises(IncompatibleError, match=says):
        converted(checkpoint, tiny_backbone)


def test_a_checkpoint_on_pairs_is_declared_so(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    model = fine_tuned(tiny_backbone.folder, tmp_path)
    module = convert(tmp_path, {"t": tiny_backbone.spec}, tiny_backbone.store, form="pair")
    pairs = [Input(text, "yes it is") for text in TEXTS]
    assert module.spec.input == "pair"
    assert answers_like_the_checkpoint(module, model, tiny_backbone, pairs)


@pytest.mark.parametrize(
    ("changed", "tap"), [((), 3), ((3,), 2), ((2,), 1), ((1, 3), 0), ((1, 2, 3), 0)]
)
def test_the_tap_is_the_last_of_the_leading_frozen_layers(
    tiny_backbone: support.Backbone, tmp_path: Path, changed: tuple[int, ...], tap: int
) -> None:
    fine_tuned(tiny_backbone.folder, tmp_path, changed=changed)
    module = convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)
    assert (module.spec.tap_layer, module.spec.depth) == (tap, 3 - tap)


def test_a_lower_tap_may_be_declared(tiny_backbone: support.Backbone, tmp_path: Path) -> None:
    model = fine_tuned(tiny_backbone.folder, tmp_path)
    module = convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store, tap=1)
    assert (module.spec.tap_layer, module.spec.depth) == (1, 2)
    assert answers_like_the_checkpoint(module, model, tiny_backbone, [Input(t) for t in TEXTS])


def test_a_tap_declared_too_high_names_the_first_differing_layer(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    fine_tuned(tiny_backbone.folder, tmp_path, changed=(2, 3))
    with pytest.raises(IncompatibleError, match=r"layer 2 differs from tiny@1's, but tap 3"):
        convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store, tap=3)


def test_a_tap_beyond_the_backbone_is_refused(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    fine_tuned(tiny_backbone.folder, tmp_path)
    for tap in (4, -1):
        with pytest.raises(UsageError, match="has 3 layers"):
            convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store, tap=tap)


def test_unfrozen_embeddings_are_refused(tiny_backbone: support.Backbone, tmp_path: Path) -> None:
    fine_tuned(tiny_backbone.folder, tmp_path, embeddings=True)
    with pytest.raises(
        IncompatibleError, match=r"embeddings \(layer 0\) differ from those of tiny"
    ):
        convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)


def test_the_backbone_with_the_same_embeddings_is_found(
    imported: Callable[[str], support.Backbone], tmp_path: Path
) -> None:
    backbones = {family: imported(family) for family in ("electra", "bert", "roberta")}
    fine_tuned(backbones["bert"].folder, tmp_path)
    specs = {name: backbone.spec for name, backbone in backbones.items()}
    module = convert(tmp_path, specs, backbones["bert"].store)
    assert module.spec.backbone == specs["bert"].digest


def test_of_backbones_with_the_same_weights_the_one_with_its_tokenizer_is_found(
    make_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    store = support.LocalStore(tmp_path / "store")
    folders = {"own": make_encoder("bert"), "other": tmp_path / "other"}
    shutil.copytree(folders["own"], folders["other"])
    file = folders["other"] / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "-"}, "content": " "}
    file.write_text(json.dumps(tokenizer))
    backbones = {name: import_backbone(str(folder), store) for name, folder in folders.items()}
    assert backbones["own"].layers == backbones["other"].layers
    for name, folder in folders.items():
        fine_tuned(folder, tmp_path / f"on-{name}")
        module = convert(tmp_path / f"on-{name}", backbones, store)
        assert module.spec.backbone == backbones[name].digest


def test_what_only_taggers_have_is_refused_of_a_classifier(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    fine_tuned(tiny_backbone.folder, tmp_path)
    backbones = {"tiny@1": tiny_backbone.spec}
    with pytest.raises(UsageError, match="which has no words to tag"):
        convert(tmp_path, backbones, tiny_backbone.store, tags="io")
    with pytest.raises(UsageError, match="which has no words to tag"):
        convert(tmp_path, backbones, tiny_backbone.store, words="spaces")


def test_a_part_beside_the_weights_is_refused_and_what_trainers_leave_is_not(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    fine_tuned(tiny_backbone.folder, tmp_path)
    left = (
        "optimizer.pt",
        "training_args.bin",
        "rng_state_0.pth",
        "pytorch_model.bin",
        "vocab.pkl",
    )
    for name in (*left, "checkpoint-5/adapter_config.json", "runs/events"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    backbones = {"tiny@1": tiny_backbone.spec}
    assert convert(tmp_path, backbones, tiny_backbone.store).spec.tap_layer == 2
    for name in ("crf.pt", "pytorch_model_head.bin", "nlu/adapter_config.json", "head.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
        with pytest.raises(FormatError, match=f"holds {name} beside model.safetensors"):
            convert(tmp_path, backbones, tiny_backbone.store)
        (tmp_path / name).unlink()


def test_a_pickled_checkpoint_is_refused(tiny_backbone: support.Backbone, tmp_path: Path) -> None:
    fine_tuned(tiny_backbone.folder, tmp_path, safe=False)
    with pytest.raises(FormatError, match="never reads pickled weights"):
        convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)


def test_a_checkpoint_without_a_known_head_is_refused(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match="its architecture is BertModel"):
        convert(tiny_backbone.folder, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)
    with pytest.raises(FormatError, match=r"config\.json"):
        convert(tmp_path, {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)


def test_a_team_can_train_with_its_own_trainer_script(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Freeze, train and save as transformers' users do; the frozen layers are found."""
    import json

    import transformers

    rows = [json.loads(x) for x in (tiny_data("single") / "train.jsonl").read_text().splitlines()]
    labels = sorted({row["label"] for row in rows})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_backbone.folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_backbone.folder, num_labels=len(labels), id2label=dict(enumerate(labels))
    )
    for part in (model.bert.embeddings, *model.bert.encoder.layer[:2]):
        part.requires_grad_(False)
    data = [
        {
            **tokenizer(row["text"], padding="max_length", max_length=16, truncation=True),
            "labels": labels.index(row["label"]),
        }
        for row in rows
    ]
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=5,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(tmp_path / "mine")

    module = convert(tmp_path / "mine", {"tiny@1": tiny_backbone.spec}, tiny_backbone.store)

    assert (module.spec.tap_layer, module.spec.depth) == (2, 1)
    assert module.spec.labels == tuple(labels)
    inputs = [Input(text) for text in TEXTS]
    assert answers_like_the_checkpoint(module, model.eval(), tiny_backbone, inputs)
