"""A checkpoint of any family as teacher: what it is asked, what becomes of its answers, what is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import numpy as np
import pytest
import torch

from centra.data.labelling import Labelling
from centra.errors import CentraError, ConflictError, DataError, FormatError, IncompatibleError
from centra.kinds.tagging import IGNORED
from centra.modeling.branch import Branch
from centra.modeling.shared_state import PositionTables
from centra.store import open_path
from centra.training import answers
from centra.training.engines import LocalEngine
from centra.training.inputs import DATA_FILES
from centra.training.network import Network
from centra.training.pipeline import run_pipeline
from centra.training.plan import Plan
from centra.training.recipe import Distillation
from centra.training.soft_targets import SOFT_TARGETS, SoftTargets
from centra.training.task_data import TaskData
from centra.training.teaching import TaughtData, teach
from centra.training.texts import read_texts
from tests import support
from tests.centra.checkpoints import (
    INTENTS,
    SENTENCE,
    TAGS,
    TOKEN,
    configure,
    copied,
    rewrite,
    with_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from centra.store.s3.path import S3Path

TEXTS = [
    "wake me at seven",
    "play some jazz",
    "will it rain",
    "ring at noon please",
    "louder music",
    "set an alarm",
    "is there snow tomorrow or not",
    "next song please",
    "remind me tonight",
    "how cold is it",
]
INFERENCE = ("contradiction", "neutral", "entailment")
ONE = LocalEngine(1)


@pytest.fixture
def teacher(fine_tuned_once: Callable[[str, str], Path]) -> Path:
    """A classifier of three topics, of another family than the backbone."""
    return fine_tuned_once("roberta", SENTENCE)


@pytest.fixture
def inference(fine_tuned_once: Callable[[str, str], Path], tmp_path: Path) -> Path:
    """A model of natural-language inference."""
    folder = copied(fine_tuned_once("bert", SENTENCE), tmp_path / "inference")
    configure(folder, **named(INFERENCE))
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A file of texts, one a line."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture
def taught(tmp_path: Path) -> Callable[..., TaughtData]:
    """Have a teacher answer; options are those of :func:`teach` and of a labelling."""

    def taught(
        source: Path | str,
        data: Path | S3Path,
        *,
        remark: Callable[[str], None] = print,
        **options: Any,
    ) -> TaughtData:
        how = {name: options.pop(name) for name in ("labels", "kind", "words") if name in options}
        how.setdefault("labels", ())
        options = {"work": tmp_path / "work", "engine": ONE} | options
        return teach(str(source), data, labelling=Labelling(**how), remark=remark, **options)

    return taught


def named(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def rows_of(found: TaughtData, name: str = DATA_FILES[0]) -> list[dict[str, Any]]:
    path = found.data.blobs[name].fetch()
    return support.read_jsonl(path)


def soft_of(found: TaughtData) -> SoftTargets:
    return SoftTargets.read(found.data.blobs[SOFT_TARGETS].fetch())


def logits_of(folder: Path, *inputs: Any, token: bool = False) -> np.ndarray:
    """What transformers itself computes for one input."""
    import transformers

    auto = transformers.AutoModelForTokenClassification if token else None
    model = (auto or transformers.AutoModelForSequenceClassification).from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits: np.ndarray = model.eval()(**tokenizer(*inputs, return_tensors="pt")).logits.numpy()
    return logits[0]


# Texts


def test_texts_are_rows_lines_or_files(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(f"{text}\n")
    (folder / "empty.txt").write_text("\n")
    rows = support.write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])

    parts = [read_texts(path) for path in (texts, folder, rows)]

    aside = [{text.input.text for text in part.dev} for part in parts]
    assert aside[0] == aside[1] == aside[2]
    for part in parts:
        assert len(part.dev) == 1
        assert {text.input.text for text in (*part.train, *part.dev)} == {*TEXTS}
        assert any("no dev.jsonl: 1 of 10 texts are set aside" in text for text in part.remarks)
    assert "1 of 11 files hold no text" in parts[1].remarks[0]


def test_rows_of_letters_in_a_file_of_characters_are_read_as_the_file(tmp_path: Path) -> None:
    rows = [{"tokens": [*"你好"]}, {"tokens": [*"OK"], "labels": ["O", "O"]}, {"tokens": [*"ab"]}]
    found = read_texts(support.write_jsonl(tmp_path / "rows.jsonl", rows))

    assert {text.input.text for text in (*found.train, *found.dev)} == {"你好", "OK", "ab"}


def test_a_teacher_on_the_hub_may_be_of_a_revision(
    teacher: Path,
    texts: Path,
    taught: Callable[..., TaughtData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: set[tuple[str, str | None]] = set()

    def download(source: str, name: str, revision: str | None = None) -> str:
        asked.add((source, revision))
        if not (teacher / name).is_file():
            raise huggingface_hub.errors.EntryNotFoundError("none")
        return str(teacher / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    found = taught("someone/topics@refs/pr/7", texts)

    assert asked == {("someone/topics", "refs/pr/7")}
    assert soft_of(found).teacher == soft_of(taught(teacher, texts)).teacher


def test_equal_texts_are_not_torn_apart(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS * 3))

    found = read_texts(path)

    assert len(found.dev) == 3
    assert len({text.input.text for text in found.dev}) == 1


def test_rows_may_have_labels_or_not(tmp_path: Path) -> None:
    rows = [
        {"text": "go", "label": "walk"},
        {"text": "stop"},
        {"text": "wait", "label": None},
        {"tokens": ["to", "rome"], "text": "to  rome"},
    ]
    support.write_jsonl(tmp_path / "train.jsonl", rows)
    support.write_jsonl(tmp_path / "dev.jsonl", rows[1:2])

    found = read_texts(tmp_path)

    labels = [None if text.example is None else text.example.label for text in found.train]
    assert labels == ["walk", None, None, None]
    assert found.train[3].input.tokens == ("to", "rome")
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds nothing; expected a folder with train.jsonl"),
        ({"a.csv": "x"}, "holds a.csv; expected"),
        ({"train.jsonl": ""}, "holds no texts"),
        ({"train.jsonl": '{"text": "a"}\n{"text": "b", "text_pair": "c"}'}, "a pair input"),
        ({"train.jsonl": '{"text": "a"}', "dev.jsonl": ""}, "dev.jsonl: holds no texts"),
        ({"train.jsonl": '{"text": "a"}'}, "holds one text"),
        ({"a.txt": b"\xff\xfe\xfa"}, "cannot be read as UTF-8"),
    ],
)
def test_what_holds_no_texts_is_refused(
    files: dict[str, str | bytes], says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    with pytest.raises(DataError, match=says):
        read_texts(folder)


# What is asked


def test_answers_are_those_of_transformers(
    teacher: Path, texts: Path, taught: Callable[..., TaughtData]
) -> None:
    found = taught(teacher, texts)

    soft, rows = soft_of(found), rows_of(found)
    assert found.labelling.labels == INTENTS
    for row, logits in zip(rows, soft.logits, strict=True):
        expected = logits_of(teacher, row["text"])
        assert np.allclose(logits[0], expected, atol=1e-5)
        assert row["label"] == INTENTS[expected.argmax()]
    assert not soft.labelled.any()
    assert soft.agreement


def test_labels_have_the_task_s_order(
    teacher: Path, texts: Path, taught: Callable[..., TaughtData]
) -> None:
    plain, turned = taught(teacher, texts), taught(teacher, texts, labels=INTENTS[::-1])

    assert turned.labelling.labels == INTENTS[::-1]
    assert rows_of(turned) == rows_of(plain)
    for one, other in zip(soft_of(plain).logits, soft_of(turned).logits, strict=True):
        assert np.array_equal(one[0], other[0, ::-1])


def test_labels_without_names_are_taken_in_order(
    teacher: Path, texts: Path, taught: Callable[..., TaughtData], tmp_path: Path
) -> None:
    folder = copied(teacher, tmp_path / "nameless")
    configure(folder, id2label=..., label2id=..., num_labels=3)
    heard: list[str] = []

    found = taught(folder, texts, labels=("a", "b", "c"), remark=heard.append)

    assert found.labelling.labels == ("a", "b", "c")
    assert {row["label"] for row in rows_of(found)} <= {"a", "b", "c"}
    assert any("gives its labels no names" in text for text in heard)


def test_pairs_are_asked_as_pairs(
    teacher: Path, taught: Callable[..., TaughtData], tmp_path: Path
) -> None:
    pairs = [{"text": text, "text_pair": "put on a record"} for text in TEXTS]
    path = support.write_jsonl(tmp_path / "pairs.jsonl", pairs)

    found = taught(teacher, path)

    row = rows_of(found)[0]
    expected = logits_of(teacher, row["text"], row["text_pair"])
    assert np.allclose(soft_of(found).logits[0][0], expected, atol=1e-5)


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
def test_inference_is_what_transformers_zero_shot_pipeline_does(
    several: bool, inference: Path, texts: Path, taught: Callable[..., TaughtData]
) -> None:
    from transformers import pipeline

    labels, hypothesis = ("alarm", "loud music", "rain"), "it is about {}"
    found = taught(
        inference,
        texts,
        labels=labels,
        hypothesis=hypothesis,
        kind="multilabel" if several else None,
    )

    zero_shot = pipeline("zero-shot-classification", model=str(inference))
    for row, logits in zip(rows_of(found), soft_of(found).logits, strict=True):
        told = zero_shot(
            row["text"], [*labels], hypothesis_template=hypothesis, multi_label=several
        )
        expected = dict(zip(told["labels"], told["scores"], strict=True))
        scores = 1 / (1 + np.exp(-logits[0])) if several else softmax(logits[0])
        assert scores == pytest.approx([expected[label] for label in labels], abs=1e-5)
        if several:
            assert row["labels"] == [label for label in labels if expected[label] >= 0.5]
        else:
            assert row["label"] == told["labels"][0]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def test_regression_and_several_labels_by_the_problem_type(
    fine_tuned_once: Callable[[str, str], Path],
    texts: Path,
    taught: Callable[..., TaughtData],
    tmp_path: Path,
) -> None:
    several = copied(fine_tuned_once("bert", SENTENCE), tmp_path / "several")
    configure(several, problem_type="multi_label_classification")
    stars = support.make_checkpoint("bert", SENTENCE, tmp_path / "stars", labels=1)

    tagged, rated = taught(several, texts), taught(stars, texts)

    row = rows_of(tagged)[0]
    logits = logits_of(several, row["text"])
    assert row["labels"] == [x for x, logit in zip(INTENTS, logits, strict=True) if logit >= 0]
    assert tagged.labelling.kind == "multilabel"
    row = rows_of(rated)[0]
    assert row["label"] == pytest.approx(float(logits_of(stars, row["text"])[0]), abs=1e-5)
    assert (rated.labelling.kind, rated.labelling.labels) == ("regression", ())


# Labels that there are


def test_given_labels_stay_and_the_others_are_the_teacher_s(
    teacher: Path, taught: Callable[..., TaughtData], tmp_path: Path
) -> None:
    rows = [{"text": text} | ({"label": "music"} if i < 4 else {}) for i, text in enumerate(TEXTS)]
    support.write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    support.write_jsonl(tmp_path / "data" / "dev.jsonl", [{"text": "go", "label": "alarm"}])

    found = taught(teacher, tmp_path / "data")

    soft = soft_of(found)
    assert [row["label"] for row in rows_of(found)[:4]] == ["music"] * 4
    assert soft.labelled.tolist() == [True] * 4 + [False] * 6
    assert not soft.agreement
    assert rows_of(found, "dev.jsonl") == [{"text": "go", "label": "alarm"}]
    right = INTENTS[logits_of(teacher, "go").argmax()] == "alarm"
    assert soft.teacher["metrics"]["accuracy"] == right
    assert (soft.teacher["texts"], soft.teacher["labelled"]) == (11, 5)


def test_a_dev_set_that_is_partly_labelled_is_measured_by_the_teacher(
    teacher: Path, taught: Callable[..., TaughtData], tmp_path: Path
) -> None:
    wrong = INTENTS[logits_of(teacher, "go").argmin()]
    support.write_jsonl(tmp_path / "data" / "train.jsonl", [{"text": text} for text in TEXTS])
    support.write_jsonl(
        tmp_path / "data" / "dev.jsonl", [{"text": "go", "label": wrong}, {"text": "stop"}]
    )
    heard: list[str] = []

    found = taught(teacher, tmp_path / "data", remark=heard.append)

    assert rows_of(found, "dev.jsonl")[0]["label"] != wrong
    assert soft_of(found).agreement
    assert any("not every dev row has a label" in text for text in heard)


@pytest.mark.parametrize("labelled", [(), (0, 2, 3), (0, 1, 2, 3)])
def test_who_has_no_label_learns_from_the_teacher_alone(
    labelled: tuple[int, ...], tiny_backbone: support.Backbone
) -> None:
    spec = support.make_spec(tiny_backbone.spec.digest, "classification")
    torch.manual_seed(0)
    branch = Branch(tiny_backbone.spec, spec).eval()
    branch.start_from(tiny_backbone.spec, tiny_backbone.store)
    tables = PositionTables.load(tiny_backbone.spec, tiny_backbone.store)
    network = Network(spec, branch, tables, None, Distillation(weight=0.25)).eval()
    hidden, mask = torch.randn(4, 5, support.HIDDEN), torch.ones(4, 5, dtype=torch.long)
    labels, soft = torch.tensor([0, 1, 2, 0]), torch.randn(4, 3)
    has_label = torch.tensor([i in labelled for i in range(4)])

    found = network(mask, labels, hidden_states=hidden, teacher=soft, labelled=has_label)

    hard, kind = network.kind.loss, network.kind
    losses = []
    for i, logits in enumerate(found["logits"]):
        row = slice(i, i + 1)
        by_teacher = kind.soft_loss(logits[None], soft[row], labels[row], temperature=2.0)
        by_label = hard(logits[None], labels[row])
        losses.append(0.75 * by_label + 0.25 * by_teacher if i in labelled else by_teacher)
    assert float(found["loss"].detach()) == pytest.approx(float(sum(losses).detach() / 4), rel=1e-5)


# Tags


def test_tags_come_to_the_words_of_the_caller_s_text(
    fine_tuned_once: Callable[[str, str], Path],
    taught: Callable[..., TaughtData],
    tiny_backbone: support.Backbone,
    tmp_path: Path,
) -> None:
    """Through two tokenizers: the teacher's cuts bytes, the student's word pieces."""
    import transformers

    folder = fine_tuned_once("roberta", TOKEN)
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"fly from {text} to new  york!" for text in TEXTS))

    found = taught(folder, path)

    soft, rows = soft_of(found), rows_of(found)
    assert found.labelling.labels == TAGS
    assert found.labelling.words == "unicode"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for row, scores in zip(rows, soft.logits, strict=True):
        logits = logits_of(folder, row["text"], token=True)
        offsets = tokenizer(row["text"], return_offsets_mapping=True)["offset_mapping"]
        assert row["tokens"][-2:] == ["york", "!"]
        end = 0
        for word, found_scores, tag in zip(row["tokens"], scores, row["labels"], strict=True):
            start = row["text"].index(word, end)
            end = start + len(word)
            token = next(i for i, (a, b) in enumerate(offsets) if a < end and b > start)
            assert np.allclose(found_scores, logits[token], atol=1e-5)
            assert tag[-1] == TAGS[found_scores.argmax()][-1]

    data = TaskData.load(
        tiny_backbone.spec, tiny_backbone.store, found.data, labelling=found.labelling
    )
    assert data.train.soft is not None
    for target, spread, scores in zip(
        data.train.targets, data.train.soft, soft.logits, strict=True
    ):
        assert np.array_equal(spread[target != IGNORED], scores[: (target != IGNORED).sum()])


def test_tags_of_other_schemes_become_bio(
    fine_tuned_once: Callable[[str, str], Path],
    texts: Path,
    taught: Callable[..., TaughtData],
    tmp_path: Path,
) -> None:
    folder = support.make_checkpoint("bert", TOKEN, tmp_path / "bioes", labels=5)
    tags = ("O", "B-city", "I-city", "E-city", "S-city")
    configure(folder, **named(tags))

    found = taught(folder, texts)

    assert found.labelling.labels == ("O", "B-city", "I-city")
    row, scores = rows_of(found)[0], soft_of(found).logits[0]
    logits = logits_of(folder, row["text"], token=True)[1]
    expected = [logits[0], np.logaddexp(logits[1], logits[4]), np.logaddexp(logits[2], logits[3])]
    assert np.allclose(scores[0], expected, atol=1e-5)


def test_words_that_a_tagging_teacher_does_not_see(
    fine_tuned_once: Callable[[str, str], Path], taught: Callable[..., TaughtData], tmp_path: Path
) -> None:
    """A text ends where its teacher's longest input does; given tags count where it says nothing."""
    long = "fly to new york " * 40
    words = long.split()
    rows = [
        {"text": long.strip()},
        {"tokens": words, "labels": ["O"] * (len(words) - 1) + ["B-city"]},
    ]
    support.write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    support.write_jsonl(tmp_path / "data" / "dev.jsonl", [{"text": text} for text in TEXTS])

    found = taught(fine_tuned_once("bert", TOKEN), tmp_path / "data")

    soft, (cut, whole) = soft_of(found), rows_of(found)
    assert 0 < len(cut["tokens"]) < len(words)
    assert cut["text"] == long[: len(cut["text"])]
    assert (whole["tokens"], whole["labels"][-1]) == (words, "B-city")
    assert soft.logits[1][-1].argmax() == 1
    assert all(np.isfinite(array).all() for array in soft.logits)


def test_words_of_one_token_begin_one_span_only() -> None:
    scores = np.array([0.0, 3.0, 1.0], dtype=np.float32)

    found = answers._continued(scores, TAGS)

    assert found[0] == 0
    assert found[2] == pytest.approx(np.logaddexp(3, 1))
    assert found.argmax() == 2


# Once, and wherever


def test_each_text_is_answered_once_and_goes_on_after_a_kill(
    teacher: Path,
    texts: Path,
    taught: Callable[..., TaughtData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "_ROWS", 4)
    counted: list[int] = []
    compute = answers._answer

    def count(part: answers.Part) -> list[np.ndarray]:
        counted.append(len(part.inputs))
        return compute(part)

    monkeypatch.setattr(answers, "_answer", count)

    def kill(_what: str, done: int, _total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught(teacher, texts, progress=kill)
    seen: list[tuple[int, int]] = []
    found = taught(teacher, texts, progress=lambda _, done, total: seen.append((done, total)))

    assert counted == [4, 4, 2]
    assert seen == [(0, 10), (4, 10), (8, 10), (10, 10)]
    again = taught(teacher, texts)
    assert counted == [4, 4, 2]
    assert {n: b.digest for n, b in again.data.blobs.items()} == {
        n: b.digest for n, b in found.data.blobs.items()
    }
    texts.write_text(texts.read_text() + "stop\n")
    taught(teacher, texts)
    assert sum(counted[3:]) < 11, "what has not changed is answered already"


class Elsewhere:
    """Carries jobs out as a machine that has nothing but the bucket: they come as messages."""

    one_machine = False

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for i, job in enumerate(jobs):
            yield i, pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(job)))))


def test_texts_and_answers_may_lie_in_a_bucket(
    teacher: Path,
    texts: Path,
    taught: Callable[..., TaughtData],
    s3_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CENTRA_CACHE", str(tmp_path / "cache"))
    bucket: Any = open_path(s3_url)
    (bucket / "texts.txt").upload(texts)
    for number, text in enumerate(TEXTS):
        (bucket / "folder" / f"{number}.txt").write_bytes(text.encode())

    local = taught(teacher, texts)
    found = taught(teacher, bucket / "texts.txt", work=bucket / "work", engine=Elsewhere())

    assert rows_of(found) == rows_of(local)
    with monkeypatch.context() as patch:
        patch.setattr(answers, "_answer", None)
        again = taught(teacher, bucket / "texts.txt", work=bucket / "work", engine=Elsewhere())
    assert rows_of(again) == rows_of(local)
    by_files = taught(teacher, bucket / "folder", work=bucket / "work", engine=Elsewhere())
    assert {row["text"] for row in rows_of(by_files)} == {row["text"] for row in rows_of(local)}


# The whole pipeline

PLAN = {
    "task": "topic",
    "backbone": "tiny",
    "data": "texts",
    "search": {"layers": (1, 2), "learning_rates": (1e-2,)},
    "training": {"epochs": 2, "batch_size": 12, "dropout": 0.0},
    "distill": {"layers": (1,)},
    "select": {"threshold": 0},
}


@pytest.mark.parametrize("auto_class", [SENTENCE, TOKEN])
def test_a_pipeline_learns_from_texts_alone(
    auto_class: str,
    fine_tuned_once: Callable[[str, str], Path],
    tiny_backbone: support.Backbone,
    backbone_store: Any,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    kind = "single" if auto_class == SENTENCE else "tagging"
    data = tmp_path / "texts.txt"
    rows = support.read_jsonl(tiny_data(kind) / "train.jsonl")
    data.write_text("\n".join(row.get("text") or " ".join(row["tokens"]) for row in rows))
    teacher = fine_tuned_once("roberta", auto_class)

    def fitted() -> Any:
        return run_pipeline(
            tiny_backbone.spec,
            tiny_backbone.store,
            data,
            Plan.model_validate(PLAN),
            output=tmp_path / "out",
            engine=ONE,
            teacher=str(teacher),
        )

    found = fitted()

    metric = "agreement_accuracy" if kind == "single" else "agreement_entity_f1"
    assert {trial.metric for trial in found.trials} == {metric}
    assert metric in found.module.spec.metrics
    assert all(name.startswith("agreement_") for name in found.module.spec.metrics)
    said = found.module.spec.training["taught_by"]
    assert said["class"].startswith("RobertaFor")
    assert said["digest"].startswith("sha256:")
    assert (said["texts"], said["labelled"]) == (len(rows), 0)
    assert found.module.spec.training["distillation"]["weight"] == 0.5
    assert support.parity(found.module, tiny_backbone, backbone_store, tmp_path / "p") < 1e-5
    assert fitted().module.to_bytes() == found.module.to_bytes()


# What is refused


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (
            lambda folder: configure(folder, auto_map={"AutoModel": "x.Y"}),
            IncompatibleError,
            "auto_map",
        ),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            FormatError,
            "never reads pickled weights",
        ),
        (
            lambda folder: configure(folder, architectures=["BertForMaskedLM"]),
            IncompatibleError,
            "must have been saved by BertForSequenceClassification or BertForTokenClassification",
        ),
        (
            lambda folder: configure(folder, model_type="parrot"),
            IncompatibleError,
            "model_type 'parrot'",
        ),
        (lambda folder: configure(folder, quantization_config={}), IncompatibleError, "quantised"),
        (
            lambda folder: configure(folder, label2id={"x": 0, "y": 1, "z": 2}),
            FormatError,
            "id2label says 0 'alarm', .*, label2id 0 'x'",
        ),
        (
            lambda folder: configure(folder, id2label={"0": "a", "2": "b"}, label2id=...),
            FormatError,
            "counted from 0",
        ),
        (
            lambda folder: configure(folder, id2label={"a": "b"}, label2id=...),
            FormatError,
            "names outputs by",
        ),
        (
            lambda folder: configure(folder, problem_type="guess"),
            FormatError,
            "problem_type 'guess'",
        ),
        (
            lambda folder: configure(folder, problem_type="regression"),
            FormatError,
            "3 outputs for regression",
        ),
        (
            lambda folder: rewrite(
                folder, lambda found: {n: t for n, t in found.items() if n != "classifier.bias"}
            ),
            FormatError,
            "lacks 1 tensors of a BertForSequenceClassification, such as classifier.bias",
        ),
        (lambda folder: (folder / "config.json").unlink(), FormatError, "has no config.json"),
    ],
)
def test_teachers_that_cannot_be_trusted_are_refused(
    spoil: Callable[[Path], Any],
    error: type[CentraError],
    says: str,
    checkpoint: Path,
    texts: Path,
    taught: Callable[..., TaughtData],
) -> None:
    spoil(checkpoint)

    with pytest.raises(error, match=says) as found:
        taught(checkpoint, texts)
    assert "centra-" not in str(found.value), "no private path"


def test_a_teacher_of_other_labels_is_refused_with_both_lists(
    teacher: Path, texts: Path, taught: Callable[..., TaughtData], tmp_path: Path
) -> None:
    rows = [{"text": text, "label": "billing"} for text in TEXTS]
    labelled = support.write_jsonl(tmp_path / "rows.jsonl", rows)

    with pytest.raises(ConflictError, match=r"labels billing, fees; .* has alarm, music, weather"):
        taught(teacher, texts, labels=("billing", "fees"))
    with pytest.raises(ConflictError, match=r"labels billing; .* has alarm, music, weather"):
        taught(teacher, labelled)
    with pytest.raises(ConflictError, match=r"teacher of classification, but .* regression"):
        taught(teacher, texts, kind="regression")
    with pytest.raises(ConflictError, match="multilabel"):
        taught(teacher, texts, kind="multilabel")


def test_a_hypothesis_is_for_a_teacher_of_inference(
    teacher: Path,
    inference: Path,
    fine_tuned_once: Callable[[str, str], Path],
    texts: Path,
    taught: Callable[..., TaughtData],
) -> None:
    labels = ("billing", "shipping")
    with pytest.raises(CentraError, match=r"takes no hypothesis: none of its labels \(alarm, mus"):
        taught(teacher, texts, hypothesis="about {}")
    with pytest.raises(CentraError, match="takes no hypothesis"):
        taught(fine_tuned_once("bert", TOKEN), texts, hypothesis="about {}")
    with pytest.raises(CentraError, match=r"'about': expected \{\} once"):
        taught(inference, texts, hypothesis="about", labels=labels)
    with pytest.raises(CentraError, match="no labels to put into it"):
        taught(inference, texts, hypothesis="about {}")
    with pytest.raises(CentraError, match="teaches classification or multilabel, not regression"):
        taught(inference, texts, labels=labels, kind="regression")
    configure(inference, **named(("no", "maybe", "entailment")))
    with pytest.raises(ConflictError, match="one of them must be a contradiction"):
        taught(inference, texts, labels=labels, kind="multilabel")
    configure(inference, **named(("LABEL_0", "LABEL_1", "LABEL_2")))
    with pytest.raises(ConflictError, match=r"billing, shipping; .* has LABEL_0, .*nor does one"):
        taught(inference, texts, labels=labels)


def test_inference_takes_single_texts(
    inference: Path, taught: Callable[..., TaughtData], tmp_path: Path
) -> None:
    pairs = [{"text": text, "text_pair": "no"} for text in TEXTS]
    path = support.write_jsonl(tmp_path / "pairs.jsonl", pairs)

    with pytest.raises(DataError, match="holds a hypothesis against one text"):
        taught(inference, path, labels=("a", "b"))


def test_tags_that_do_not_say_where_spans_begin_are_refused(
    fine_tuned_once: Callable[[str, str], Path],
    texts: Path,
    taught: Callable[..., TaughtData],
    tmp_path: Path,
) -> None:
    folder = copied(fine_tuned_once("bert", TOKEN), tmp_path / "io")
    configure(folder, **named(("O", "city", "day")))

    with pytest.raises(ConflictError, match="do not say where a span begins"):
        taught(folder, texts)
    configure(folder, **named(("O", "B-city", "X-day")))
    with pytest.raises(ConflictError, match=r"B-city|scheme|span"):
        taught(folder, texts)


def test_tensors_beside_the_model_are_told_of(
    checkpoint: Path,
    texts: Path,
    taught: Callable[..., TaughtData],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rewrite(checkpoint, with_tensors("extra.weight"))

    taught(checkpoint, texts)

    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith(f"{checkpoint} has 1 tensors")
    assert said.endswith("such as extra.weight")


# Real models


def test_a_team_s_real_model_teaches_real_texts(
    minilm_folder: Path, taught: Callable[..., TaughtData], tmp_path: Path
) -> None:
    """The head is new, so its answers mean nothing; they are transformers' own all the same."""
    data = os.environ.get("CENTRA_DATA")
    if not data or not (Path(data) / "intent" / "dev.jsonl").is_file():
        pytest.skip("no real texts: CENTRA_DATA names no folder with intent/dev.jsonl")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(minilm_folder, num_labels=3)
    model.config.id2label = dict(enumerate(INTENTS))
    model.config.label2id = {label: i for i, label in enumerate(INTENTS)}
    model.save_pretrained(tmp_path / "team")
    AutoTokenizer.from_pretrained(minilm_folder).save_pretrained(tmp_path / "team")
    rows = support.read_jsonl(Path(data) / "intent" / "dev.jsonl")[:40]
    path = support.write_jsonl(tmp_path / "rows.jsonl", [{"text": row["text"]} for row in rows])

    found = taught(tmp_path / "team", path)

    soft = soft_of(found)
    for row, logits in [*zip(rows_of(found), soft.logits, strict=True)][:5]:
        assert np.allclose(logits[0], logits_of(tmp_path / "team", row["text"]), atol=1e-4)
    assert json.dumps(soft.teacher)
    shutil.rmtree(tmp_path / "team")
