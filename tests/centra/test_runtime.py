"""The merged model: isolation, laziness, and where it loads from."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from transformers.models.bert.modeling_bert import BertLayer

import centra
from centra.data.inputs import Input
from centra.errors import (
    BlobNotFoundError,
    CentraError,
    CorruptBlobError,
    DataError,
    FormatError,
    NotFoundError,
    UsageError,
)
from centra.formats.manifest import ChannelPointer, ReleaseManifest
from centra.releases.find import find_release
from centra.releases.folder_writing import write_folder
from centra.runtime import Release
from centra.runtime.engines import ENGINES
from centra.runtime.onnx import blocks as onnx_blocks
from tests import support

if TYPE_CHECKING:
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore

# Task: kind, tap, depth, form. Every corner of tap and depth, every kind.
TASKS = {
    "embedded": ("classification", 0, 0, "single"),
    "copied": ("classification", 0, 3, "single"),
    "shallow": ("multilabel", 1, 1, "single"),
    "middle": ("regression", 2, 1, "single"),
    "tags": ("tagging", 1, 2, "single"),
    "deep": ("tagging", 3, 0, "single"),
    "both": ("classification", 2, 1, "pair"),
}
SINGLE = [name for name, (*_, form) in TASKS.items() if form == "single"]
TEXTS = ["wake me at seven", "play some jazz in new york, please", {"tokens": ["go", "to", "rome"]}]
PAIRS = [("is there snow", "yes it is"), {"text": "go", "text_pair": "no never"}]

# (spec.tap + the branch's own layers) that a request for one task computes.
LAYERS = {name: tap + depth for name, (_, tap, depth, _) in TASKS.items()}


Load = Callable[..., Release]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def load(engine: str) -> Load:
    """``Release.load`` with the engine under test."""
    return partial(Release.load, engine=engine, device="cpu")


@pytest.fixture(scope="module")
def modules(make_module: Callable[..., TaskModule]) -> dict[str, TaskModule]:
    return {
        name: make_module(kind, tap=tap, depth=depth, form=form, seed=seed)
        for seed, (name, (kind, tap, depth, form)) in enumerate(TASKS.items())
    }


@pytest.fixture
def backbone_store(store: LocalStore, tiny_backbone: support.Backbone) -> LocalStore:
    support.copy_backbone(tiny_backbone, store)
    return store


@pytest.fixture
def compose(
    backbone_store: LocalStore,
    modules: dict[str, TaskModule],
    tiny_backbone: support.Backbone,
) -> Callable[..., ReleaseManifest]:
    """A manifest of the named tasks, in the test's store."""

    def compose(*names: str) -> ReleaseManifest:
        chosen = {name: modules[name] for name in names or TASKS}
        return support.put_release(chosen, [tiny_backbone.spec], backbone_store)

    return compose


@pytest.fixture
def release(
    compose: Callable[..., ReleaseManifest], backbone_store: LocalStore, load: Load
) -> Release:
    return load(compose(), backbone_store)


@pytest.fixture
def layer_calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with every transformer layer that is computed, shared or a task's own."""
    calls: list[object] = []

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(self: object, *args: Any, **kwargs: Any) -> Any:
            calls.append(self)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(BertLayer, "forward")
    count(onnx_blocks.Layer, "__call__")
    count(onnx_blocks.FirstLayer, "__call__")
    return calls


def assert_same_logits(ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> None:
    assert ours.keys() == theirs.keys()
    for name, arrays in ours.items():
        assert len(arrays) == len(theirs[name])
        for own, other in zip(arrays, theirs[name], strict=True):
            assert own.dtype == np.float32
            assert own.tobytes() == other.tobytes(), name


def assert_parity(own: np.ndarray, recorded: np.ndarray, engine: str) -> None:
    """A module's logits were recorded with the torch engine."""
    assert own.shape == recorded.shape
    assert np.allclose(own, recorded, rtol=0, atol=0 if engine == "torch" else 1e-5)


# Isolation


@pytest.mark.parametrize("name", TASKS)
def test_merged_logits_equal_each_module_s_alone_bit_for_bit(
    name: str,
    release: Release,
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    load: Load,
) -> None:
    inputs = PAIRS if TASKS[name][3] == "pair" else TEXTS
    alone = load(compose(name), backbone_store)

    merged = release.logits(inputs)

    assert_same_logits({name: merged[name]}, alone.logits(inputs))


@pytest.mark.parametrize("name", TASKS)
def test_merged_logits_on_the_probe_are_the_module_s_own(
    name: str, release: Release, engine: str
) -> None:
    own, recorded = release.probe_logits(name)

    assert own.size
    assert_parity(own, recorded, engine)


@pytest.mark.parametrize("gone", SINGLE)
def test_removing_a_task_leaves_every_other_bit_identical(
    gone: str,
    release: Release,
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    load: Load,
) -> None:
    rest = [name for name in TASKS if name != gone]
    fewer = load(compose(*rest), backbone_store)

    before, after = release.logits(TEXTS), fewer.logits(TEXTS)

    assert before.keys() - after.keys() == {gone}
    assert_same_logits({name: before[name] for name in after}, after)


def test_updating_a_task_leaves_every_other_bit_identical(
    release: Release,
    modules: dict[str, TaskModule],
    make_module: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    load: Load,
) -> None:
    changed = modules | {"middle": make_module("regression", tap=3, depth=1, seed=99)}
    manifest = support.put_release(changed, [tiny_backbone.spec], backbone_store)

    before, after = release.logits(TEXTS), load(manifest, backbone_store).logits(TEXTS)

    assert not np.array_equal(before.pop("middle"), after.pop("middle"))
    assert_same_logits(before, after)


def test_asking_for_one_task_gives_the_same_bits_as_asking_for_all(release: Release) -> None:
    everything = release.logits(TEXTS)

    for name in SINGLE:
        assert_same_logits(release.logits(TEXTS, tasks=[name]), {name: everything[name]})


def test_loading_part_of_a_release_gives_the_same_bits(
    release: Release, backbone_store: LocalStore, load: Load
) -> None:
    part = load(release.manifest, backbone_store, tasks=["tags", "embedded"])

    whole = release.logits(TEXTS)

    assert part.tasks == ["embedded", "tags"]
    assert part.digest == release.digest
    assert_same_logits(part.logits(TEXTS), {name: whole[name] for name in part.tasks})


# Work follows the request


@pytest.mark.parametrize("name", TASKS)
def test_request_for_one_task_computes_its_layers_alone(
    name: str, release: Release, layer_calls: list[object]
) -> None:
    release.predict(PAIRS[:1] if TASKS[name][3] == "pair" else TEXTS[:1], tasks=[name])

    assert len(layer_calls) == LAYERS[name]


def test_request_for_several_tasks_computes_shared_layers_once(
    release: Release, layer_calls: list[object]
) -> None:
    release.predict(TEXTS, tasks=["shallow", "tags", "middle"])

    assert len(layer_calls) == 2 + 1 + 2 + 1
    assert len(set(map(id, layer_calls))) == len(layer_calls)


def test_request_for_all_tasks_computes_the_trunk_once(
    release: Release, layer_calls: list[object]
) -> None:
    release.predict(TEXTS)

    own = sum(TASKS[name][2] for name in SINGLE)
    assert len(layer_calls) == 3 + own


def test_a_profile_computes_what_the_request_does_and_names_its_tasks(
    release: Release, layer_calls: list[object]
) -> None:
    profile = release.profile(TEXTS, ["shallow", "tags", "middle"])

    assert profile.tasks.keys() == {"shallow", "tags", "middle"}
    assert min(profile.shared, *profile.tasks.values()) > 0
    assert len(layer_calls) == 2 + 1 + 2 + 1


def test_request_without_inputs_or_tasks_computes_nothing(
    release: Release, layer_calls: list[object]
) -> None:
    assert release.predict([]) == []
    assert release.predict(TEXTS, tasks=[]) == [{}, {}, {}]
    assert not layer_calls


def test_partly_loaded_release_fetches_no_deeper_layer(
    compose: Callable[..., ReleaseManifest],
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    load: Load,
) -> None:
    manifest = compose()
    for digest in (*tiny_backbone.spec.layers[1:], manifest.tasks["deep"].digest):
        backbone_store.fetch(digest).unlink()

    part = load(manifest, backbone_store, tasks=["shallow", "tags"])

    assert part.predict(TEXTS)[0].keys() == {"shallow", "tags"}
    with pytest.raises(BlobNotFoundError):
        load(manifest, backbone_store)


# Answers


def test_answers_come_per_input_in_order_with_tasks_sorted(release: Release) -> None:
    answers = release.predict([TEXTS[0], PAIRS[0], TEXTS[1]])

    assert [list(answer) for answer in answers] == [sorted(SINGLE), ["both"], sorted(SINGLE)]
    assert answers[0]["embedded"].keys() == {"label", "score"}
    assert answers[0]["shallow"].keys() == {"labels"}
    assert answers[0]["middle"].keys() == {"value"}
    assert answers[0]["tags"].keys() == {"spans"}


def test_order_of_inputs_does_not_mix_up_answers(release: Release) -> None:
    songs = ["go", "play some jazz", "will it rain tomorrow", "yes it is", "no never, paris"]
    texts = [songs[i % 5] for i in range(70)]  # more than one batch

    forward = [answer["middle"]["value"] for answer in release.predict(texts, tasks=["middle"])]
    backward = [
        answer["middle"]["value"] for answer in release.predict(texts[::-1], tasks=["middle"])
    ]

    assert len(forward) == 70
    assert forward == pytest.approx(backward[::-1], abs=1e-5)
    assert len({round(value, 3) for value in forward}) == 5


def test_padding_does_not_change_an_answer(release: Release) -> None:
    alone = release.logits(TEXTS[:1])
    together = release.logits([TEXTS[0], "rain " * 60])

    for name, (array,) in alone.items():
        assert np.allclose(array, together[name][0], atol=1e-5), name


def test_tagging_logits_cover_the_input_s_own_tokens(release: Release) -> None:
    short, long, _ = release.logits(TEXTS, tasks=["tags"])["tags"]

    assert short.shape[0] < long.shape[0]
    assert short.shape[1] == 3


def test_logits_decode_to_the_answers(release: Release) -> None:
    logits = release.logits(TEXTS, tasks=["embedded"])["embedded"]
    labels = release.manifest.tasks["embedded"].labels

    assert [answer["embedded"]["label"] for answer in release.predict(TEXTS)] == [
        labels[array.argmax()] for array in logits
    ]


def test_spans_point_into_the_text(release: Release) -> None:
    text = "fly to new york, rome or paris on friday!"

    for name in ("tags", "deep"):
        for span in release.predict([text], tasks=[name])[0][name]["spans"]:
            assert text[span["start"] : span["end"]] == span["text"]


@pytest.mark.parametrize(
    ("inputs", "tasks", "match"),
    [
        (["a", ("b", "c")], ["shallow"], "^input 2: task shallow takes a single text"),
        (["a"], ["both"], "^input 1: task both takes a pair of texts"),
        (["a", ""], None, "^input 2: the text is empty"),
        (["a", 7], None, "^input 2: expected a text"),
        (["a", "\ud800"], None, "^input 2: "),
    ],
)
def test_input_that_does_not_suit_is_refused_by_its_number(
    inputs: list[object], tasks: list[str] | None, match: str, release: Release
) -> None:
    with pytest.raises(DataError, match=match):
        release.predict(inputs, tasks=tasks)


def test_task_that_is_not_there_is_named_with_those_that_are(
    release: Release, backbone_store: LocalStore, load: Load
) -> None:
    with pytest.raises(NotFoundError, match="'missing'; it holds both, copied, deep"):
        release.predict(["a"], tasks=["missing"])
    with pytest.raises(NotFoundError, match="'missing'; it holds both, copied, deep"):
        load(release.manifest, backbone_store, tasks=["missing"])


def test_inputs_longer_than_the_backbone_takes_say_how_much_was_read(release: Release) -> None:
    single, short, pair = release.predict(
        ["go to rome " * 100, "go to rome", ("go " * 50, "rome " * 50)]
    )

    assert single.keys() == set(SINGLE)
    assert all(a["truncated"] == {"tokens": 302, "kept": 64} for a in single.values())
    assert all("truncated" not in answer for answer in short.values())
    assert all(a["truncated"] == {"tokens": 103, "kept": 64} for a in pair.values())


@pytest.mark.parametrize("one", ["hi", {"text": "hi"}, {"tokens": ["hi"]}, Input("hi")], ids=str)
def test_one_text_or_object_is_one_input_and_has_one_answer(release: Release, one: Any) -> None:
    assert release.predict(one) == release.predict([one])[0]
    ((_, streamed),) = release.stream(one, "tags")
    assert streamed == {0: release.predict([one], ["tags"])[0]["tags"]}
    assert all(len(arrays) == 1 for arrays in release.logits(one).values())


def test_bytes_are_no_texts(release: Release) -> None:
    with pytest.raises(DataError, match="input 1: expected a text"):
        release.predict(b"hi")


@pytest.mark.parametrize("nothing", [None, 7])
def test_what_is_no_input_at_all_is_refused_as_such(release: Release, nothing: Any) -> None:
    for ask in (release.predict, release.stream, release.logits, release.profile):
        with pytest.raises(UsageError, match=f"found {nothing}$") as caught:
            ask(nothing)
        assert caught.value.code == "no-inputs"


def test_one_name_is_one_task(release: Release, load: Load, backbone_store: LocalStore) -> None:
    assert release.predict(["hi"], "deep") == release.predict(["hi"], ["deep"])
    with pytest.raises(NotFoundError, match="'b'"):
        release.predict(["hi"], ["b"])
    assert load(release.manifest, backbone_store, tasks="deep").tasks == ["deep"]


# Answers as they come


def test_streamed_answers_are_those_of_predict(release: Release) -> None:
    inputs = [TEXTS[0], PAIRS[0], TEXTS[1], *["go"] * 40]
    found: list[dict[str, Any]] = [{} for _ in inputs]

    for name, answers in release.stream(inputs):
        for i, answer in answers.items():
            assert name not in found[i]
            found[i][name] = answer

    assert [dict(sorted(answer.items())) for answer in found] == release.predict(inputs)


def test_a_streamed_request_computes_the_layers_of_its_tasks_once(
    release: Release, layer_calls: list[object]
) -> None:
    names = [name for name, _ in release.stream(TEXTS, tasks=["shallow", "tags", "middle"])]

    assert sorted(names) == ["middle", "shallow", "tags"]
    assert len(layer_calls) == 2 + 1 + 2 + 1


def test_a_malformed_request_is_refused_before_it_streams(release: Release) -> None:
    with pytest.raises(DataError, match="input 2: the text is empty"):
        release.stream(["a", ""])
    with pytest.raises(NotFoundError, match="'missing'"):
        next(release.stream(["a"], tasks=["missing"]))


def test_a_task_that_fails_is_named_when_all_others_have_answered(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(release._parts.tasks["middle"].branch, "run", fail)
    found = []

    with pytest.raises(MemoryError, match="no room") as caught:
        found.extend(name for name, _ in release.stream(TEXTS))

    assert sorted(found) == sorted(set(SINGLE) - {"middle"})
    assert caught.value.__notes__ == ["task middle"]


def test_requests_of_several_threads_do_not_mix(release: Release) -> None:
    requests = [[text] for text in ("wake me at seven", "play some jazz", "go", "is there snow")]
    expected = [release.predict(request) for request in requests]

    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(release.predict, requests * 8))

    assert found == expected * 8


# Its end


def test_a_closed_release_says_so_and_those_beside_it_go_on(
    release: Release, load: Load, backbone_store: LocalStore
) -> None:
    expected = release.predict(TEXTS)
    with load(release.manifest, backbone_store, base=release) as other:
        assert other.predict(TEXTS) == expected
        assert not other.closed

    assert other.closed
    other.close()
    assert other.digest == release.digest
    for use in (
        lambda: other.predict(TEXTS),
        lambda: other.stream(TEXTS),
        lambda: other.logits(TEXTS),
        lambda: other.profile(TEXTS),
        lambda: other.encode([]),
        lambda: other.answer([]),
        lambda: other.probe_logits("tags"),
        lambda: other.tasks,
        lambda: load(release.manifest, backbone_store, base=other),
        other.__enter__,
    ):
        with pytest.raises(UsageError, match="was closed") as caught:
            use()
        assert caught.value.code == "release-closed"
        assert caught.value.data == {"digest": release.digest}
    assert release.predict(TEXTS) == expected


def test_a_request_that_has_begun_ends_when_its_release_is_closed(
    release: Release, load: Load, backbone_store: LocalStore
) -> None:
    other = load(release.manifest, backbone_store)
    answers = other.stream(["go"] * 80, tasks=["shallow", "deep"])
    first = next(answers)
    other.close()
    assert sorted(name for name, _ in [first, *answers]) == ["deep"] * 3 + ["shallow"] * 3


def test_closing_gives_back_what_only_this_release_holds(
    release: Release, load: Load, backbone_store: LocalStore
) -> None:
    other = load(release.manifest, backbone_store, tasks=["deep"])
    other.predict(TEXTS)
    parts = weakref.ref(other._parts)
    other.close()
    gc.collect()
    assert parts() is None


def test_closing_and_answering_from_many_threads_gives_whole_answers_or_the_refusal(
    release: Release, load: Load, backbone_store: LocalStore
) -> None:
    expected = release.predict(TEXTS)
    for _ in range(5):
        other = load(release.manifest, backbone_store, base=release)

        def ask(number: int, other: Release = other) -> bool:
            if number == 10:
                other.close()
            try:
                return other.predict(TEXTS) == expected
            except UsageError as error:
                return error.code == "release-closed"

        with ThreadPoolExecutor(4) as executor:
            assert all(executor.map(ask, range(20)))


# Two backbones


def test_release_with_two_backbones_answers_each_task_on_its_own(
    imported: Callable[[str], support.Backbone], store: LocalStore, load: Load, engine: str
) -> None:
    bert, electra = imported("bert"), imported("electra")
    modules = {
        "old": support.make_module("classification", bert.spec, bert.store, tap=1, depth=1),
        "new": support.make_module("tagging", electra.spec, electra.store, tap=2, depth=1),
    }
    for backbone in (bert, electra):
        support.copy_backbone(backbone, store)
    manifest = support.put_release(modules, [bert.spec, electra.spec], store)

    both = load(manifest, store)

    assert len(manifest.trunks) == 2
    for name in modules:
        assert_parity(*both.probe_logits(name), engine)
        part = load(manifest, store, tasks=[name])
        assert_same_logits(part.logits(TEXTS), both.logits(TEXTS, tasks=[name]))


# Where it loads from


def pointed(store: LocalStore, channel: str, manifest: ReleaseManifest) -> None:
    pointer = ChannelPointer(name=channel, revision=1, release=1, manifest=manifest.digest)
    store.write_pointer(channel, pointer.to_bytes())


def test_folder_channel_and_digest_give_the_same_release(
    release: Release, backbone_store: LocalStore, tmp_path: Path, engine: str
) -> None:
    manifest, url = release.manifest, backbone_store.url
    write_folder(manifest, backbone_store, tmp_path / "release")
    pointed(backbone_store, "latest", manifest)
    pointed(backbone_store, "production", manifest)

    places = [find_release(source) for source in (tmp_path / "release", f"{url}#{manifest.digest}")]
    assert [(p.digest, p.channel, p.revision) for p in places] == [
        (manifest.digest, None, None)
    ] * 2
    place = find_release(f"{url}#production")
    assert (place.digest, place.channel, place.revision) == (manifest.digest, "production", 1)
    for source in (
        tmp_path / "release",
        str(tmp_path / "release"),
        url,
        f"{url}#production",
        f"{url}#{manifest.digest}",
        f"file://{url}#production",
    ):
        loaded = centra.load_release(source, engine=engine, device="cpu")
        assert (loaded.digest, loaded.engine) == (release.digest, engine), source
        assert loaded.predict(TEXTS[:1]) == release.predict(TEXTS[:1])


def test_a_store_without_a_channel_gives_production_or_else_latest_and_says_which(
    release: Release, backbone_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "centra")
    other = release.manifest.model_copy(
        update={"tasks": dict(list(release.manifest.tasks.items())[:1])}
    )
    backbone_store.put(other.to_bytes())
    pointed(backbone_store, "latest", other)
    assert find_release(backbone_store.url).digest == other.digest
    pointed(backbone_store, "production", release.manifest)
    assert find_release(backbone_store.url).digest == release.digest
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    where = f"{backbone_store.url}: no release is named; taking release 1, which"
    assert said == [("WARNING", f"{where} latest serves"), ("INFO", f"{where} production serves")]
    find_release(f"{backbone_store.url}#latest")
    assert len(caplog.records) == 2


def test_the_torch_engine_says_that_it_does_not_compute_in_int8(
    release: Release, backbone_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, *_ = release.tasks
    rounded = release.manifest.with_precisions({second: "int8"})
    for tasks in ([first, second], [first]):
        Release.load(rounded, backbone_store, tasks=tasks, engine="torch", device="cpu")
    Release.load(rounded, backbone_store, tasks=[second], engine="onnx")
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"the torch engine does not compute in int8: {second}"]


def test_load_release_may_load_some_tasks(release: Release, backbone_store: LocalStore) -> None:
    source = f"{backbone_store.url}#{release.digest}"

    assert centra.load_release(source, tasks=["deep"]).tasks == ["deep"]


@pytest.mark.parametrize(
    ("suffix", "match"),
    [
        ("", "no release here and no channel 'production' or 'latest'"),
        ("#staging", "no channel 'staging'"),
        ("#" + "0" * 64, "manifest of release sha256:0+ is missing"),
    ],
)
def test_release_that_is_not_in_the_store_is_not_found(
    suffix: str, match: str, release: Release, backbone_store: LocalStore
) -> None:
    with pytest.raises(NotFoundError, match=match):
        centra.load_release(backbone_store.url + suffix)


def test_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        centra.load_release(tmp_path / "nowhere")


@pytest.mark.parametrize("channel", ["../../etc/passwd", "UPPER", "a/b"])
def test_channel_name_cannot_leave_the_store(channel: str, backbone_store: LocalStore) -> None:
    with pytest.raises(CentraError, match="not a valid channel name"):
        centra.load_release(f"{backbone_store.url}#{channel}")


def test_damaged_pointer_is_refused(release: Release, backbone_store: LocalStore) -> None:
    backbone_store.write_pointer("latest", b"{}")

    with pytest.raises(FormatError, match="channel latest"):
        centra.load_release(backbone_store.url)


@pytest.mark.parametrize(
    "part", ["manifest", "backbone", "embeddings", "tokenizer", "layer", "task"]
)
def test_damaged_blob_of_a_store_is_refused(
    part: str,
    release: Release,
    backbone_store: LocalStore,
    tiny_backbone: support.Backbone,
    engine: str,
) -> None:
    spec = tiny_backbone.spec
    digest = {
        "manifest": release.digest,
        "backbone": spec.digest,
        "embeddings": spec.embeddings,
        "tokenizer": spec.tokenizer["tokenizer.json"],
        "layer": spec.layers[2],
        "task": release.manifest.tasks["tags"].digest,
    }[part]
    support.flip(backbone_store.fetch(digest), 4321)

    with pytest.raises(CorruptBlobError, match=digest):
        centra.load_release(f"{backbone_store.url}#{release.digest}", engine=engine, device="cpu")


def test_loaded_release_no_longer_depends_on_its_files(
    release: Release, backbone_store: LocalStore
) -> None:
    """What was checked against its digest is what answers, whatever happens on disk later."""
    before = release.logits(TEXTS)

    for path in (backbone_store.root / "blobs").rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                file.write(b"\0" * path.stat().st_size)

    assert_same_logits(before, release.logits(TEXTS))


@pytest.mark.parametrize(
    "change", [{"labels": ("x", "y", "z")}, {"tap_layer": 1}, {"depth": 2}, {"kind": "multilabel"}]
)
def test_module_that_contradicts_the_manifest_is_refused(
    change: dict[str, object], release: Release, backbone_store: LocalStore, load: Load
) -> None:
    entry = release.manifest.tasks["embedded"].model_copy(update=change)
    manifest = release.manifest.model_copy(
        update={"tasks": release.manifest.tasks | {"embedded": entry}}
    )

    with pytest.raises(FormatError, match="task embedded: its module's spec contradicts"):
        load(manifest, backbone_store, tasks=["embedded"])


def test_loading_reports_each_task(
    release: Release, backbone_store: LocalStore, load: Load
) -> None:
    seen: list[tuple[str, int, int]] = []

    load(
        release.manifest,
        backbone_store,
        tasks=["deep", "tags"],
        progress=lambda *call: seen.append(call),
    )

    assert seen == [("load tasks", 1, 2), ("load tasks", 2, 2)]
