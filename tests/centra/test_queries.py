"""Batches of queries that ask for different things: each gets what it would get alone."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from centra.errors import CentraError, DataError, FormatError, NotFoundError, UsageError
from centra.runtime import Release
from centra.runtime.engines import ENGINES
from centra.runtime.onnx import blocks as onnx_blocks
from centra.runtime.queries import EncodedQuery, Query, TaskResult
from centra.tokenization.text_encoder import TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from centra.data.inputs import Input
    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from centra.tokenization.text_encoder import Row

# Task: kind, tap, depth, form.
TASKS: dict[str, tuple[Any, int, int, str]] = {
    "bare": ("classification", 0, 0, "single"),
    "low": ("multilabel", 1, 1, "single"),
    "value": ("regression", 2, 1, "single"),
    "tags": ("tagging", 1, 2, "single"),
    "deep": ("classification", 3, 1, "single"),
    "both": ("classification", 2, 1, "pair"),
}
SINGLE = tuple(sorted(name for name, (*_, form) in TASKS.items() if form == "single"))
TEXTS = ("wake me at seven", "play some jazz in new york, please", "go")
PAIR = ("is there snow", "yes it is")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def release(
    engine: str,
    store: LocalStore,
    tiny_backbone: support.Backbone,
) -> Release:
    support.copy_backbone(tiny_backbone, store)
    manifest = support.put_release(make_modules(tiny_backbone), [tiny_backbone.spec], store)
    return Release.load(manifest, store, engine=engine, device="cpu")


def make_modules(backbone: support.Backbone) -> dict[str, TaskModule]:
    return {
        name: support.make_module(
            kind, backbone.spec, backbone.store, tap=tap, depth=depth, form=form, seed=seed
        )
        for seed, (name, (kind, tap, depth, form)) in enumerate(TASKS.items())
    }


def encoded(release: Release, *queries: Query) -> list[EncodedQuery]:
    found = release.encode(queries)
    assert all(isinstance(one, EncodedQuery) for one in found), found
    return [one for one in found if isinstance(one, EncodedQuery)]


def errors(release: Release, *queries: Query) -> list[CentraError | None]:
    return [one if isinstance(one, CentraError) else None for one in release.encode(queries)]


def collected(release: Release, batch: Sequence[EncodedQuery]) -> list[dict[str, Any]]:
    """Per query of a batch its answers by task."""
    answers: list[dict[str, Any]] = [{} for _ in batch]
    for result in release.answer(batch):
        assert result.error is None
        for place, answer in zip(result.places, result.answers, strict=True):
            assert result.task not in answers[place]
            answers[place][result.task] = answer
    assert [answer.keys() for answer in answers] == [set(one.tasks) for one in batch]
    return answers


def near(ours: Any, theirs: Any) -> bool:
    """Equal but for the last digits of numbers, which in the reference depend on the batch."""
    match ours:
        case float():
            return bool(abs(ours - theirs) < 1e-5)
        case dict():
            return ours.keys() == theirs.keys() and all(
                near(value, theirs[name]) for name, value in ours.items()
            )
        case list():
            return len(ours) == len(theirs) and all(map(near, ours, theirs))
        case _:
            return bool(ours == theirs)


def by_task(results: Sequence[TaskResult]) -> dict[str, TaskResult]:
    found = {result.task: result for result in results}
    assert len(found) == len(results)
    return found


# Queries


def test_a_query_is_asked_of_all_tasks_that_take_its_input(release: Release) -> None:
    single, pair, named = encoded(
        release,
        Query(input=TEXTS[0]),
        Query(input=PAIR),
        Query(input={"tokens": ["go", "to", "rome"]}, tasks=("tags", "low", "tags")),
    )

    assert single.tasks == SINGLE
    assert pair.tasks == ("both",)
    assert named.tasks == ("tags", "low")
    assert named.input.tokens == ("go", "to", "rome")
    ((reading, row),) = single.rows.items()
    assert reading.backbone == release.manifest.tasks["low"].backbone
    assert single.tokens == len(row.input_ids) == 7


def test_a_bad_query_is_an_error_in_its_own_place(release: Release) -> None:
    queries = [
        Query(input=""),
        Query(input=TEXTS[0]),
        Query(input=7),
        Query(input=TEXTS[0], tasks=("low", "missing")),
        Query(input=TEXTS[0], tasks=("both",)),
        Query(input=PAIR, tasks=("deep",)),
        Query(input=TEXTS[0], tasks=()),
        Query(input=TEXTS[0], top_k=0),
        Query(input=PAIR),
    ]

    found = errors(release, *queries)

    assert [type(error) for error in found] == [
        DataError,
        type(None),
        DataError,
        NotFoundError,
        DataError,
        DataError,
        DataError,
        UsageError,
        type(None),
    ]
    assert [str(error).split(":")[0] for error in found if isinstance(error, DataError)] == [
        f"input {number}" for number in (1, 3, 5, 6, 7)
    ]
    assert [getattr(found[i], "code", "") for i in (3, 4, 6, 7)] == [
        "no-such-task",
        "wrong-input-form",
        "no-tasks",
        "bad-top-k",
    ]
    assert release.encode([]) == []


def test_an_input_that_no_loaded_task_takes_is_an_error_that_says_so(
    release: Release, store: LocalStore, engine: str
) -> None:
    part = Release.load(release.manifest, store, tasks=["low"], engine=engine, device="cpu")

    (error,) = errors(part, Query(input=PAIR))

    assert str(error) == "input 1: no task that is loaded takes a pair of texts"
    assert part.predict([PAIR]) == [{}]


def test_a_text_that_the_tokenizer_fails_on_fails_alone(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = TextEncoder.encode

    def failing(self: TextEncoder, inputs: Sequence[Input]) -> list[Row]:
        if any(item.text == "go" for item in inputs):
            raise FormatError("the tokenizer fails on a text")
        return encode(self, inputs)

    expected = release.predict([*TEXTS[:2]])
    monkeypatch.setattr(TextEncoder, "encode", failing)
    first, wrong, third = release.encode(
        [Query(input=TEXTS[0]), Query(input="go"), Query(input=TEXTS[1])]
    )

    assert isinstance(wrong, FormatError)
    assert str(wrong) == "input 2: the tokenizer fails on a text"
    assert isinstance(first, EncodedQuery)
    assert isinstance(third, EncodedQuery)
    assert collected(release, [first, third]) == expected
    for before in (1, 40):
        with pytest.raises(FormatError, match=f"^input {before + 2}: "):
            release.predict([PAIR, *TEXTS[:1] * before, "go"])


# Batches


def test_queries_of_one_batch_may_ask_for_different_tasks(release: Release) -> None:
    batch = encoded(
        release,
        Query(input=TEXTS[1], tasks=("deep", "tags")),
        Query(input=PAIR),
        Query(input=TEXTS[0], tasks=("bare",)),
        Query(input=TEXTS[2], tasks=("tags", "value")),
        Query(input=TEXTS[0]),
    )

    results = by_task(list(release.answer(batch)))

    assert {name: result.places for name, result in results.items()} == {
        "deep": (0, 4),
        "tags": (0, 3, 4),
        "both": (1,),
        "bare": (2, 4),
        "value": (3, 4),
        "low": (4,),
    }
    for name, result in results.items():
        for place, answer in zip(result.places, result.answers, strict=True):
            alone = release.predict([batch[place].input], [name])[0]
            assert near(answer, alone[name]), name


@pytest.mark.parametrize("family", support.FAMILIES)
def test_an_input_answers_the_same_bits_whatever_its_batch_is_asked(
    family: str, imported: Callable[[str], support.Backbone], store: LocalStore
) -> None:
    """On the onnx engine, in float32, in int8, and with both in one release."""
    backbone = imported(family)
    support.copy_backbone(backbone, store)
    modules = make_modules(backbone)
    for threads, int8 in [(1, []), (2, [*TASKS]), (3, [*TASKS][::2])]:
        manifest = support.put_release(modules, [backbone.spec], store, int8)
        release = Release.load(manifest, store, engine="onnx", threads=threads)
        assert_answered_as_alone(release, seed=threads)


def assert_answered_as_alone(release: Release, seed: int = 0, batches: int = 8) -> None:
    """Batches of random inputs with random sets of tasks give each what it gets alone."""
    source = random.Random(seed)
    words = " ".join((*TEXTS, *PAIR)).split()
    texts = [" ".join(source.choices(words, k=k)) for k in (1, 5, 14, 15, 16, 30, 60)]
    inputs: list[object] = [*texts, *((text, "no never") for text in texts[::2])]
    forms = {name: entry.input for name, entry in release.manifest.tasks.items()}
    alone = [
        {
            name: collected(
                release, encoded(release, Query(input=item, tasks=(name,), logits=True))
            )
            for name, form in forms.items()
            if (form == "pair") == isinstance(item, tuple)
        }
        for item in inputs
    ]

    for _ in range(batches):
        chosen = source.choices(range(len(inputs)), k=source.randint(1, 12))
        asked = [
            tuple(source.sample(sorted(alone[i]), k=source.randint(1, len(alone[i]))))
            for i in chosen
        ]
        found = collected(
            release,
            encoded(
                release,
                *(
                    Query(input=inputs[i], tasks=tasks, logits=True)
                    for i, tasks in zip(chosen, asked, strict=True)
                ),
            ),
        )
        for i, answers in zip(chosen, found, strict=True):
            assert answers == {name: alone[i][name][0][name] for name in answers}


def test_an_input_goes_no_further_up_than_its_tasks_need(
    engine: str, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "torch":
        pytest.skip("the reference computes all inputs as far as the deepest of them")
    rows: list[int] = []
    for layer in (onnx_blocks.Layer, onnx_blocks.FirstLayer):
        original = layer.__call__

        def counted(self: Any, *args: Any, original: Any = original) -> Any:
            shared = getattr(args[0], "shared", args[-1])
            rows.append(len(shared.packed.order))
            return original(self, *args)

        monkeypatch.setattr(layer, "__call__", counted)
    batch = encoded(
        release,
        Query(input=TEXTS[0], tasks=("bare",)),
        Query(input=TEXTS[1], tasks=("tags", "low")),
        Query(input=TEXTS[2], tasks=("value", "low")),
        Query(input=PAIR),
        Query(input=TEXTS[1], tasks=("deep",)),
    )

    collected(release, batch)

    trunk = [4, 3, 1]
    branches = {"low": [2], "tags": [1, 1], "value": [1], "both": [1], "deep": [1]}
    assert sorted(rows) == sorted(trunk + [n for own in branches.values() for n in own])


def test_batches_of_several_threads_do_not_mix(release: Release) -> None:
    batches = [
        encoded(release, Query(input=text, tasks=tasks), Query(input=PAIR))
        for text in TEXTS
        for tasks in (("deep",), ("tags", "low"), SINGLE)
    ]
    expected = [collected(release, batch) for batch in batches]

    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda batch: collected(release, batch), batches * 4))

    assert found == expected * 4


def test_a_query_is_answered_by_the_release_that_encoded_it_alone(
    release: Release, store: LocalStore, engine: str
) -> None:
    other = Release.load(release.manifest, store, engine=engine, device="cpu")

    with pytest.raises(UsageError, match="encoded by another loaded release"):
        other.answer(encoded(release, Query(input=TEXTS[0])))


def test_an_empty_batch_has_no_results(release: Release) -> None:
    assert list(release.answer([])) == []


def test_a_task_that_fails_keeps_no_other_from_its_answers(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(release._parts.tasks["value"].branch, "run", fail)
    batch = encoded(release, Query(input=TEXTS[0]), Query(input=TEXTS[1], tasks=("value", "low")))

    results = by_task(list(release.answer(batch)))

    assert results.keys() == set(SINGLE)
    assert isinstance(results["value"].error, MemoryError)
    assert results["value"].answers == []
    assert results["value"].places == (0, 1)
    assert all(r.error is None and r.answers for r in results.values() if r.task != "value")


def test_a_trunk_that_fails_fails_every_task_that_is_still_to_come(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")
        yield

    ((_, trunk),) = release._parts.trunks.items()
    monkeypatch.setattr(trunk.engine, "run", fail)

    results = by_task(list(release.answer(encoded(release, Query(input=TEXTS[0])))))

    assert results.keys() == set(SINGLE)
    assert all(isinstance(result.error, MemoryError) for result in results.values())
    with pytest.raises(MemoryError):
        release.predict(TEXTS)


def test_times_are_those_of_the_trunk_up_to_the_tap_and_of_the_branch_from_there(
    release: Release,
) -> None:
    results = by_task(list(release.answer(encoded(release, Query(input=TEXTS[0])))))

    assert all(result.trunk_seconds > 0 < result.branch_seconds for result in results.values())
    seconds = {TASKS[name][1]: result.trunk_seconds for name, result in results.items()}
    assert [seconds[tap] for tap in (0, 1, 2, 3)] == sorted(seconds.values())


# The best labels, and logits


def test_the_best_labels_stand_beside_the_answer_where_they_are_asked_for(
    release: Release,
) -> None:
    whole, plain, one = encoded(
        release,
        Query(input=TEXTS[0], top_k=99),
        Query(input=TEXTS[0]),
        Query(input=TEXTS[0], top_k=1),
    )

    all_labels, none, best = collected(release, [whole, plain, one])

    for name in SINGLE:
        labels = release.manifest.tasks[name].labels
        assert "top" not in none[name]
        without = {field: v for field, v in all_labels[name].items() if field != "top"}
        assert near(without, none[name])
        if name in {"value", "tags"}:
            assert "top" not in all_labels[name]
            continue
        top = all_labels[name]["top"]
        assert sorted(found["label"] for found in top) == sorted(labels)
        scores = [found["score"] for found in top]
        assert scores == sorted(scores, reverse=True)
        assert [found["label"] for found in best[name]["top"]] == [top[0]["label"]]
    assert all_labels["deep"]["top"][0] == {
        "label": all_labels["deep"]["label"],
        "score": all_labels["deep"]["score"],
    }
    assert all_labels["low"]["labels"] == [
        found for found in all_labels["low"]["top"] if found["score"] >= 0.5
    ]


def test_predict_gives_the_best_labels_too(release: Release) -> None:
    answers = release.predict([TEXTS[0], PAIR], top_k=2)

    assert [len(answers[0][name]["top"]) for name in ("bare", "low")] == [2, 2]
    assert len(answers[1]["both"]["top"]) == 2
    for wrong in (0, -1, True, "2", 1.5):
        with pytest.raises(UsageError, match="whole number from 1 on"):
            release.predict(TEXTS, top_k=wrong)  # type: ignore[call-overload]


def test_logits_stand_beside_the_answer_where_they_are_asked_for(release: Release) -> None:
    batch = encoded(
        release, Query(input=TEXTS[0], logits=True), Query(input=TEXTS[1]), Query(input=PAIR)
    )
    expected = release.logits([TEXTS[0]])

    found, *others = collected(release, batch)

    assert all("logits" not in answer for other in others for answer in other.values())
    for name in SINGLE:
        assert np.allclose(np.array(found[name]["logits"]), expected[name][0], atol=1e-5)
