"""How logits become answers, as a module says it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from centra.data.inputs import Example, Input
from centra.errors import CentraError, FormatError, IncompatibleError
from centra.formats.decision import Decision
from centra.formats.manifest import ReleaseManifest
from centra.formats.task_module import HeadSpec, TaskModule, check_module
from centra.kinds import KINDS
from centra.releases.evaluation import measure
from centra.runtime import Release
from centra.runtime.engines import ENGINES
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from centra.store import LocalStore

BACKBONE = "0" * 64


def answers(kind: str, logits: Sequence[Sequence[float]], **decision: Any) -> list[dict[str, Any]]:
    spec = support.make_spec(BACKBONE, kind, decision=Decision(**decision))
    spec.check("spec")
    return KINDS[kind].decode(spec, np.array(logits, dtype=np.float32), (), ())


def probability(logit: float) -> float:
    return pytest.approx(1 / (1 + np.exp(-logit)))


# Decoding


def test_a_classification_may_reject_what_it_is_not_sure_of() -> None:
    sure, unsure = answers("classification", [[0, 4, 0], [0, 0.1, 0]], rejection=0.6)

    assert sure == {"label": "music", "score": pytest.approx(np.exp(4) / (np.exp(4) + 2))}
    assert unsure["label"] is None
    assert 1 / 3 < unsure["score"] < 0.6


def test_the_score_of_the_rejection_itself_is_enough() -> None:
    (found,) = answers("classification", [[0, 0.5, 0]], activation="none", rejection=0.5)

    assert found == {"label": "music", "score": 0.5}


def test_classes_may_have_scores_of_their_own_or_their_logits() -> None:
    assert answers("classification", [[1, 2, 0]], activation="sigmoid") == [
        {"label": "music", "score": probability(2)}
    ]
    assert answers("classification", [[1, 2, 0]], activation="none") == [
        {"label": "music", "score": 2.0}
    ]


def test_each_label_may_have_a_threshold_of_its_own() -> None:
    (found,) = answers("multilabel", [[0, 0, 2]], threshold=(0.5, 0.6, 0.9))

    assert found == {"labels": [{"label": "alarm", "score": 0.5}]}


def test_labels_may_share_one_probability() -> None:
    (found,) = answers("multilabel", [[5, 5, 0]], activation="softmax", threshold=0.4)

    assert [label["label"] for label in found["labels"]] == ["alarm", "music"]
    assert sum(label["score"] for label in found["labels"]) < 1


def test_a_value_may_lie_between_0_and_1() -> None:
    assert answers("regression", [[2]], activation="sigmoid") == [{"value": probability(2)}]


# Modules


def test_a_module_without_a_decision_is_written_as_before_there_was_one() -> None:
    spec = support.make_spec(BACKBONE)

    assert "decision" not in json.loads(spec.to_bytes())
    assert spec == support.make_spec(BACKBONE, decision=Decision())


def test_what_a_module_says_nothing_of_its_kind_and_head_say() -> None:
    found = {
        kind: support.make_spec(BACKBONE, kind).effective_decision.model_dump() for kind in KINDS
    }
    assert found == {
        "classification": {"activation": "softmax"},
        "multilabel": {"activation": "sigmoid", "threshold": 0.5},
        "regression": {"activation": "none"},
        "tagging": {"activation": "softmax"},
    }
    head = HeadSpec(activation="tanh", threshold=0.3)
    assert support.make_spec(BACKBONE, "multilabel", head=head).effective_decision.threshold == 0.3


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("classification", {"activation": "sigmoid", "rejection": 0.25}),
        ("multilabel", {"threshold": 0.25}),
        ("multilabel", {"threshold": (0.25, 0.5, 1)}),
    ],
)
def test_a_module_with_a_decision_reads_back(
    kind: str,
    fields: dict[str, Any],
    make_module: Callable[..., TaskModule],
    tmp_path: Path,
) -> None:
    module, plain = make_module(kind, decision=Decision(**fields)), make_module(kind)
    module.write(tmp_path / "task.safetensors")

    found = check_module(tmp_path / "task.safetensors")
    assert found.spec.decision == Decision(**fields)
    assert json.loads(found.spec.to_bytes())["decision"].keys() == fields.keys()
    assert found.spec.to_bytes() != plain.spec.to_bytes()
    assert found.spec.contract == plain.spec.contract


@pytest.mark.parametrize(
    ("kind", "fields", "fault", "says"),
    [
        ("tagging", {"activation": "none"}, IncompatibleError, r"activation is none; .* softmax"),
        ("regression", {"activation": "softmax"}, IncompatibleError, "takes none or sigmoid"),
        ("classification", {"threshold": 0.4}, FormatError, "threshold does not suit"),
        ("multilabel", {"threshold": (0.4, 0.5)}, FormatError, "2 numbers for 3 labels"),
        ("multilabel", {"rejection": 0.4}, FormatError, "rejection does not suit a multilabel"),
        (
            "classification",
            {"template": ("{text}", "a {text}")},
            FormatError,
            "is two, but .* single texts",
        ),
        ("regression", {"pooling": "sum"}, IncompatibleError, r"pooling is 'sum'.* first, mean"),
        ("tagging", {"pooling": "mean"}, FormatError, r"decision\.pooling does not suit a tagging"),
    ],
)
def test_a_decision_that_cannot_be_carried_out_is_refused_by_name(
    kind: str,
    fields: dict[str, Any],
    fault: type[CentraError],
    says: str,
    make_module: Callable[..., TaskModule],
    tmp_path: Path,
) -> None:
    module = make_module(kind)
    spec = module.spec.model_copy(update={"decision": Decision(**fields)})
    replace(module, spec=spec).write(tmp_path / "task.safetensors")

    with pytest.raises(fault, match=says):
        check_module(tmp_path / "task.safetensors")


def test_a_threshold_stands_in_one_place(
    make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    head = HeadSpec(activation="tanh", threshold=0.3)
    module = make_module("multilabel", head=head, decision=Decision(threshold=0.4))
    module.write(tmp_path / "task.safetensors")

    with pytest.raises(FormatError, match=r"decision\.threshold and head\.threshold are both set"):
        check_module(tmp_path / "task.safetensors")


@pytest.mark.parametrize(
    "fields", [{"activation": "relu"}, {"threshold": "high"}, {"max_length": 0}, {"margin": 1}]
)
def test_a_malformed_decision_is_refused_with_its_field(fields: dict[str, Any]) -> None:
    spec = json.loads(support.make_spec(BACKBONE).to_bytes()) | {"decision": fields}

    with pytest.raises(FormatError, match=rf"spec: decision\.{next(iter(fields))}"):
        type(support.make_spec(BACKBONE)).from_bytes(json.dumps(spec).encode(), "spec")


# Releases


@pytest.mark.parametrize("engine", ENGINES)
def test_a_release_answers_by_the_module_s_decision(
    engine: str,
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    decisions = {
        "always": ("classification", Decision()),
        "never": ("classification", Decision(rejection=1.5)),
        "one": ("multilabel", Decision(threshold=(0.0, 1.5, 1.5))),
    }
    tasks = {}
    for name, (kind, decision) in decisions.items():
        module = make_module(kind, decision=decision)
        module.write(tmp_path / f"{name}.safetensors")
        tasks[name] = backbone_store.put(tmp_path / f"{name}.safetensors"), module.spec
    spec = tiny_backbone.spec
    manifest = ReleaseManifest.build(tasks, {spec.digest: spec})
    release = Release.load(manifest, backbone_store, engine=engine)

    found = release.predict("wake me at seven")
    assert found["always"]["label"] is not None
    assert found["never"] == {"label": None, "score": found["always"]["score"]}
    assert [label["label"] for label in found["one"]["labels"]] == ["alarm"]

    # An answer without a label is a wrong one.
    label = found["always"]["label"]
    examples = [Example(Input("wake me at seven"), label, "dev.jsonl:1")]
    assert measure(release, "always", examples).metrics["accuracy"] == 1
    assert measure(release, "never", examples).metrics["accuracy"] == 0
