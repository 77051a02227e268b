from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import update

from centra.data.inputs import fingerprint, read_examples
from centra.errors import DataError, NotFoundError, UsageError
from centra.evaluation.outcomes import unpack_outcomes
from centra.evaluation.summary import Summary
from centra.kinds import kind_named
from centra.releases.evaluation import measure
from registry import audit, cards, evaluations, releases, tasks
from registry.database.models import Evaluation
from registry.promotion import GateError, promote
from tests import support
from tests.registry.helpers import nothing_changes, refused, ruled
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry import Registry


@pytest.fixture
def published(registry: Registry, module: Callable[..., Path]) -> Registry:
    """``intent`` and ``slots`` in release 1."""
    tasks.register(registry, "intent", module())
    tasks.register(
        registry, "slots", module("tagging", labels=("O", "B-city", "I-city", "B-day", "I-day"))
    )
    releases.compose(registry, publish=True)
    return registry


def test_a_measurement_is_recorded_with_the_fingerprint_of_its_data(
    published: Registry, tiny_data: Callable[[str], Path]
) -> None:
    data = tiny_data("single")
    row, new = evaluations.evaluate(published, "latest", "intent", data)
    examples = read_examples(data / "dev.jsonl")
    assert new
    assert (row.release, row.task, row.version, row.by) == (1, "intent", "1.0", "nlu/ada")
    assert (row.data, row.examples) == (
        fingerprint([(data / "dev.jsonl").read_bytes()]),
        len(examples),
    )
    loaded = releases.load(published, "1")
    expected = [a["intent"]["label"] for a in loaded.predict([e.input for e in examples])]
    right = sum(label == e.label for label, e in zip(expected, examples, strict=True))
    assert row.metrics["accuracy"] == round(right / len(examples), 6)
    event = audit.events(published, task="intent")[-1]
    assert (event.action, event.details["data"]) == ("task:evaluate", row.data)


def test_what_computed_a_measurement_is_recorded(
    published: Registry, tiny_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime
    import torch

    data = tiny_data("single")
    row, _ = evaluations.evaluate(published, "1", "intent", data)
    assert row.engine == f"onnxruntime {onnxruntime.__version__}"
    event = audit.events(published, task="intent")[-1].details
    assert (event["precision"], event["engine"]) == ("fp32", row.engine)

    without_onnxruntime(monkeypatch)
    row, new = evaluations.evaluate(published, "1", "intent", data / "train.jsonl")
    assert (row.engine, new) == (f"torch {torch.__version__}", True)
    # What either engine measured in float32 counts.
    assert not evaluations.evaluate(published, "1", "intent", data)[1]


def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )


def test_a_task_in_int8_is_measured_in_int8_or_not_at_all(
    published: Registry, tiny_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    releases.compose(published, precision="int8", publish=True)
    data = tiny_data("single")
    with monkeypatch.context() as patch:
        without_onnxruntime(patch)
        says = ("task intent is in int8", "pip install 'centra[serve]'")
        with refused(published, UsageError, *says):
            evaluations.evaluate(published, "2", "intent", data)
    row, new = evaluations.evaluate(published, "2", "intent", data)
    assert (row.precision, new, (row.engine or "").split()[0]) == ("int8", True, "onnxruntime")


def test_a_measurement_in_int8_of_nobody_knows_what_counts_for_nothing(
    published: Registry, tiny_data: Callable[[str], Path]
) -> None:
    releases.compose(published, precision="int8", publish=True)
    data = tiny_data("single")
    old, _ = evaluations.evaluate(published, "2", "intent", data)
    with published.engine.begin() as connection:
        connection.execute(update(Evaluation).values(engine=None))
    on = {"intent": {"data": old.data}}
    strict = ruled(published, measured=on, min_metrics={"intent": {"accuracy": 0.0}})
    remedies = [{"code": "measure", "release": 2, "task": "intent"}]
    with refused(published, GateError, "not measured on sha256:", remedies=remedies):
        promote(strict, "2", "production")
    assert not cards.show(published, "intent").evaluations[0].counts
    row, new = evaluations.evaluate(published, "2", "intent", data)
    assert (new, row.metrics, row.counts) == (True, old.metrics, True)
    assert promote(strict, "2", "production").promoted


def test_the_same_measurement_is_recorded_once(
    published: Registry, tiny_data: Callable[[str], Path]
) -> None:
    first, _ = evaluations.evaluate(published, "1", "intent", tiny_data("single"))
    with nothing_changes(published):
        again, new = evaluations.evaluate(published, "1", "intent", tiny_data("single"))
    assert (again, new) == (first, False)
    other, new = evaluations.evaluate(published, "1", "intent", tiny_data("single") / "train.jsonl")
    assert new
    assert other.data != first.data


def test_what_came_of_each_row_is_kept_and_gives_the_metrics_again(
    published: Registry, tiny_data: Callable[[str], Path]
) -> None:
    for task, data, kind in (
        ("intent", "single", "classification"),
        ("slots", "tagging", "tagging"),
    ):
        made = evaluations.report(published, "1", task, tiny_data(data))
        (row,) = kept(published, task)
        outcomes = unpack_outcomes(row.outcomes or b"", row.examples)
        labels = tasks.show(published, task).versions[0].labels
        assert row.complete
        assert np.array_equal(outcomes, made.report.outcomes)
        found = kind_named(kind).metrics_of(labels, outcomes)
        assert {name: round(value, 6) for name, value in found.items()} == row.metrics
        assert row.summary is not None
        assert (row.summary.all.rows, row.summary.errors) == (row.examples, made.report.errors)
        assert row.summary == Summary.from_dict(Summary.of(made.report).to_dict())
        assert row.summary.all.faults == made.report.all.faults
        assert [one.right for one in row.summary.all.classes] == [
            one.right for one in made.report.all.classes
        ]


def test_what_an_earlier_centra_measured_is_measured_once_more_for_its_rows(
    published: Registry, tiny_data: Callable[[str], Path]
) -> None:
    data = tiny_data("single")
    old, _ = evaluations.evaluate(published, "1", "intent", data)
    with published.engine.begin() as connection:
        connection.execute(update(Evaluation).values(summary=None, outcomes=None))
    row, new = evaluations.evaluate(published, "1", "intent", data)
    assert (new, row.metrics) == (True, old.metrics)
    assert [one.complete for one in kept(published, "intent")] == [True, False]
    assert not evaluations.evaluate(published, "1", "intent", data)[1]


def kept(registry: Registry, task: str) -> list[evaluations.EvaluationRow]:
    """The measurements of its first version, with all that is kept of them."""
    with registry.read() as uow:
        version = uow.version(task, version_number("1.0"))
        return evaluations.of_version(uow, version, summaries=True, outcomes=True)


def test_measurements_of_a_version_come_newest_first(
    published: Registry, tiny_data: Callable[[str], Path]
) -> None:
    data = tiny_data("single")
    rows = [
        evaluations.evaluate(published, "1", "intent", data / name)[0]
        for name in ("dev.jsonl", "train.jsonl")
    ]
    with published.read() as uow:
        assert (
            evaluations.of_version(uow, uow.version("intent", version_number("1.0"))) == rows[::-1]
        )


def test_spans_are_measured_by_entity(
    published: Registry, tiny_data: Callable[[str], Path]
) -> None:
    row, _ = evaluations.evaluate(published, "1", "slots", tiny_data("tagging"))
    assert 0 <= row.metrics["entity_f1"] <= 1


def test_what_cannot_be_measured_is_refused(
    published: Registry, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    with refused(published, NotFoundError, "holds no task 'nope'", "intent, slots"):
        evaluations.evaluate(published, "1", "nope", tiny_data("single"))
    with refused(published, DataError, "no such file"):
        evaluations.evaluate(published, "1", "intent", tmp_path / "nope")
    unknown = support.write_jsonl(tmp_path / "x.jsonl", [{"text": "hm", "label": "unheard"}])
    with refused(published, DataError, "x.jsonl:1", "no label 'unheard'"):
        evaluations.evaluate(published, "1", "intent", unknown)
    with refused(published, DataError):
        evaluations.evaluate(published, "1", "intent", tiny_data("regression"))
    with refused(published, DataError):
        evaluations.evaluate(published, "1", "intent", tiny_data("tagging"))


@pytest.mark.parametrize(
    ("kind", "form", "labels", "data", "metrics"),
    [
        (
            "classification",
            "pair",
            ("agrees", "denies"),
            "pair",
            {"accuracy", "macro_f1", "matthews"},
        ),
        ("multilabel", "single", None, "multilabel", {"micro_f1", "macro_f1"}),
        ("regression", "single", None, "regression", {"pearson", "spearman"}),
        (
            "tagging",
            "single",
            ("O", "B-city", "I-city", "B-day", "I-day"),
            "tagging",
            {"entity_f1"},
        ),
    ],
)
def test_every_kind_is_measured_with_its_own_metrics(
    tiny_backbone: support.Backbone,
    make_module: Callable[..., object],
    backbone_store: object,
    tiny_data: Callable[[str], Path],
    kind: str,
    form: str,
    labels: tuple[str, ...] | None,
    data: str,
    metrics: set[str],
) -> None:
    from centra.runtime import Release

    module = make_module(kind, form=form, labels=labels)
    manifest = support.put_release({"task": module}, [tiny_backbone.spec], backbone_store)  # type: ignore[dict-item, arg-type]
    release = Release.load(manifest, backbone_store)  # type: ignore[arg-type]
    told: list[tuple[str, int, int]] = []
    examples = read_examples(tiny_data(data) / "dev.jsonl")
    found = measure(release, "task", examples, lambda *step: told.append(step))
    assert found.metrics.keys() == metrics
    assert told[-1] == ("measure task", len(examples), len(examples))


def test_data_are_read_as_the_task_has_them(
    published: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    tasks.register(published, "grade", module(labels=("0", "1")))
    tasks.register(published, "stars", module("regression"))
    number = releases.compose(published, publish=True).release
    for task, rows, remark in (
        ("grade", [{"text": "go", "label": 1}, {"text": "play", "label": 0.0}], None),
        ("stars", [{"text": "go", "label": 1}, {"text": "play", "label": 2}], None),
        ("intent", [{"text": "go", "label": 2}], "places in the task's labels, from 0, which is"),
        ("slots", [{"tokens": ["go", "rome"], "labels": ["O", "S-city"]}], "BIOES tags: converted"),
        ("slots", [{"tokens": ["go", "rome"], "labels": [0, 1]}], "from 0, which is 'O'"),
    ):
        file = support.write_jsonl(tmp_path / f"{task}.jsonl", rows)
        remarks: list[str] = []
        row, _ = evaluations.evaluate(published, str(number), task, file, remark=remarks.append)
        assert row.examples == len(rows)
        assert len(remarks) == (remark is not None)
        assert (remark or "") in "".join(remarks)
    for task, label, says in (
        ("grade", 0.5, "label 0.5 is a number; a classification task has"),
        ("stars", "good", "label 'good' is a text; a regression task has"),
        ("intent", 3, "3 is the place of no label"),
    ):
        file = support.write_jsonl(tmp_path / "odd.jsonl", [{"text": "go", "label": label}])
        with refused(published, DataError, f"odd.jsonl:1: {says}"):
            evaluations.evaluate(published, str(number), task, file)
