"""The onnx engine: parity with transformers, and isolation to the last bit."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from centra.data.inputs import Input
from centra.errors import IncompatibleError, UsageError
from centra.formats.task_module import HeadSpec
from centra.modeling.trunk import Trunk
from centra.releases.folder_writing import write_folder
from centra.runtime import Release
from centra.runtime.engines import open_engine
from centra.runtime.onnx import blocks as onnx_blocks
from centra.tokenization.text_encoder import Encoded, TextEncoder
from tests import support
from tests.centra.states import PAIRS, SINGLES, reference_states

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec
    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.store import BlobReader, LocalStore

TOLERANCE = 1e-5
THREADS = (1, 2, 3)
# Kind, tap, depth, form, activation of the head.
TASKS: dict[str, tuple[Any, int, int, str, str | None]] = {
    "bare": ("classification", 0, 0, "single", "tanh"),
    "last": ("classification", 3, 0, "single", "gelu"),
    "one": ("multilabel", 1, 1, "single", "relu"),
    "also one": ("classification", 1, 1, "single", "gelu"),
    "two": ("regression", 1, 2, "single", "tanh"),
    "three": ("classification", 0, 3, "single", "tanh"),
    "pair": ("classification", 2, 1, "pair", "tanh"),
    "tags": ("tagging", 0, 0, "single", None),
    "more tags": ("tagging", 2, 1, "single", None),
    "deep tags": ("tagging", 1, 2, "single", None),
}
SINGLE = [name for name, (*_, form, _) in TASKS.items() if form == "single"]
NAMES = [name.replace(" ", "-") for name in TASKS]
INT8 = {"fp32": [], "int8": NAMES, "mixed": NAMES[::2]}
WORDS = "wake me at seven play some jazz in new york please is there snow go to rome"


def texts(count: int, seed: int = 0, longest: int = 70) -> list[str]:
    """Texts of all lengths."""
    source = random.Random(seed)
    return [
        " ".join(source.choices(WORDS.split(), k=source.randint(1, longest))) for _ in range(count)
    ]


def make_modules(backbone: support.Backbone, store: LocalStore) -> dict[str, TaskModule]:
    return {
        name: support.make_module(
            kind,
            backbone.spec,
            backbone.store,
            tap=tap,
            depth=depth,
            form=form,
            seed=seed,
            head=HeadSpec(activation=activation),
        )
        for seed, (name, (kind, tap, depth, form, activation)) in enumerate(TASKS.items())
    }


def merged(
    backbone: support.Backbone,
    modules: dict[str, TaskModule],
    store: LocalStore,
    int8: Collection[str] = (),
) -> ReleaseManifest:
    support.copy_backbone(backbone, store)
    named = {name.replace(" ", "-"): module for name, module in modules.items()}
    return support.put_release(named, [backbone.spec], store, int8)


@pytest.fixture(scope="module")
def modules(
    tiny_backbone: support.Backbone, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TaskModule]:
    return make_modules(tiny_backbone, tiny_backbone.store)


@pytest.fixture(params=INT8)
def int8(request: pytest.FixtureRequest) -> list[str]:
    """The tasks that a release has in int8."""
    return INT8[request.param]


@pytest.fixture
def manifest(
    tiny_backbone: support.Backbone,
    modules: dict[str, TaskModule],
    store: LocalStore,
    int8: list[str],
) -> ReleaseManifest:
    return merged(tiny_backbone, modules, store, int8)


def load(manifest: ReleaseManifest, reader: BlobReader, **options: Any) -> Release:
    return Release.load(manifest, reader, engine="onnx", **options)


def assert_same_bits(ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> None:
    assert ours.keys() == theirs.keys()
    for name, arrays in ours.items():
        for own, other in zip(arrays, theirs[name], strict=True):
            assert own.tobytes() == other.tobytes(), name


# Parity with transformers


def onnx_states(spec: BackboneSpec, reader: BlobReader, batch: Encoded) -> list[np.ndarray]:
    """Hidden states at every layer, ``(batch, seq, hidden)``."""
    trunk = open_engine("onnx", threads=1).load_trunk(spec, reader, depth=spec.num_layers)
    steps = dict(trunk.run(batch, support.read_by_all(batch, range(spec.num_layers + 1))))
    return [hidden.packed.unpack_tokens(hidden.states) for hidden in steps.values()]


def assert_same_states(
    ours: Sequence[np.ndarray], theirs: Sequence[torch.Tensor], batch: Encoded
) -> None:
    tokens = batch.attention_mask.astype(bool)
    assert len(ours) == len(theirs)
    for layer, (own, reference) in enumerate(zip(ours, theirs, strict=True)):
        difference = np.abs(own - reference.numpy())[tokens].max()
        assert difference <= TOLERANCE, f"layer {layer} differs by {difference:.3g}"


def encoded(backbone: support.Backbone, inputs: Sequence[Input]) -> Encoded:
    return TextEncoder.of(backbone.spec, backbone.store).batch(inputs)[1]


def tensors(batch: Encoded) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in vars(batch).items()}


@pytest.mark.parametrize("family", support.FAMILIES)
@pytest.mark.parametrize(
    "inputs",
    [SINGLES, SINGLES[:1], PAIRS, [Input("rain " * 200), Input("rain"), Input("go to rome")]],
    ids=["mixed lengths", "one", "pairs", "longest"],
)
def test_trunk_equals_transformers_at_every_layer(
    family: str, inputs: list[Input], imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    batch = encoded(backbone, inputs)

    ours = onnx_states(backbone.spec, backbone.store, batch)

    assert_same_states(ours, reference_states(backbone.folder, tensors(batch)), batch)


@pytest.mark.parametrize("inputs", [SINGLES, PAIRS], ids=["singles", "pairs"])
def test_trunk_equals_the_real_minilm_at_every_layer(
    inputs: list[Input], minilm: support.Backbone
) -> None:
    batch = encoded(minilm, inputs)

    ours = onnx_states(minilm.spec, minilm.store, batch)

    assert_same_states(ours, reference_states(minilm.folder, tensors(batch)), batch)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_the_padding_token_inside_a_text_is_counted_as_transformers_does(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    ids = np.array([[0, 5, 1, 6, 1, 7, 2], [0, 5, 2, 1, 1, 1, 1]])
    mask = np.array([[1] * 7, [1] * 3 + [0] * 4])
    batch = Encoded(input_ids=ids, attention_mask=mask, token_type_ids=0 * ids)

    ours = onnx_states(backbone.spec, backbone.store, batch)

    assert_same_states(ours, reference_states(backbone.folder, tensors(batch)), batch)


@pytest.mark.parametrize(
    "activation", ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "tanh", "silu", "sigmoid"]
)
def test_other_activations_are_those_of_transformers(
    activation: str, tiny_backbone: support.Backbone
) -> None:
    spec = with_activation(tiny_backbone.spec, activation)
    batch = encoded(tiny_backbone, SINGLES)
    with torch.inference_mode():
        theirs = Trunk(spec, tiny_backbone.store, depth=3)(**tensors(batch), taps=range(4))

    ours = onnx_states(spec, tiny_backbone.store, batch)

    assert_same_states(ours, list(theirs.values()), batch)
    plain = onnx_states(tiny_backbone.spec, tiny_backbone.store, batch)
    assert np.abs(ours[1] - plain[1]).max() > TOLERANCE or activation.startswith("gelu")


def test_an_unknown_activation_is_refused_with_the_engine_that_has_it(
    tiny_backbone: support.Backbone,
) -> None:
    spec = with_activation(tiny_backbone.spec, "mish")

    with pytest.raises(IncompatibleError, match="'mish'; load the release with engine 'torch'"):
        open_engine("onnx", threads=1).load_trunk(spec, tiny_backbone.store, depth=1)


def with_activation(spec: BackboneSpec, activation: str) -> BackboneSpec:
    return spec.model_copy(update={"config": spec.config | {"hidden_act": activation}})


@pytest.mark.parametrize("family", support.FAMILIES)
def test_every_kind_of_task_equals_the_reference(
    family: str, imported: Callable[[str], support.Backbone], store: LocalStore
) -> None:
    backbone = imported(family)
    manifest = merged(backbone, make_modules(backbone, store), store)
    reference = Release.load(manifest, store, engine="torch", device="cpu")

    ours = load(manifest, store)

    for name in ours.tasks:
        own, recorded = ours.probe_logits(name)
        assert np.allclose(own, recorded, rtol=0, atol=TOLERANCE), name
    inputs = [*texts(7), *((text, "no never") for text in texts(5, seed=1))]
    theirs = reference.logits(inputs)
    for name, arrays in ours.logits(inputs).items():
        for own, other in zip(arrays, theirs[name], strict=True):
            assert own.shape == other.shape
            assert np.allclose(own, other, rtol=0, atol=TOLERANCE), name


@pytest.mark.parametrize("family", support.FAMILIES)
def test_int8_is_close_to_fp32_for_every_kind_of_task(
    family: str, imported: Callable[[str], support.Backbone], store: LocalStore
) -> None:
    backbone = imported(family)
    modules = make_modules(backbone, store)
    inputs = [*texts(7), *((text, "no never") for text in texts(5, seed=1))]
    exact = load(merged(backbone, modules, store), store).logits(inputs)

    rounded = load(merged(backbone, modules, store, NAMES), store).logits(inputs)

    for name, arrays in rounded.items():
        own, fp32 = np.vstack(arrays), np.vstack(exact[name])
        assert np.abs(own - fp32).max() <= 0.05 * np.abs(fp32).max(), name


def test_the_reference_answers_in_fp32(
    modules: dict[str, TaskModule], tiny_backbone: support.Backbone, store: LocalStore
) -> None:
    exact, mixed = (
        Release.load(
            merged(tiny_backbone, modules, store, int8), store, engine="torch", device="cpu"
        )
        for int8 in (INT8["fp32"], INT8["mixed"])
    )

    assert_same_bits(mixed.logits(texts(3)), exact.logits(texts(3)))


# Isolation


@pytest.mark.parametrize("threads", THREADS)
def test_every_task_answers_the_same_bits_alone_and_merged(
    threads: int, manifest: ReleaseManifest, store: LocalStore
) -> None:
    inputs = [*texts(9), *((text, "no never") for text in texts(3, seed=1))]
    together = load(manifest, store, threads=threads).logits(inputs)

    for name in manifest.tasks:
        alone = load(manifest, store, tasks=[name], threads=threads)
        assert_same_bits(alone.logits(inputs), {name: together[name]})


@pytest.mark.parametrize("threads", THREADS)
def test_replacing_and_removing_tasks_leaves_every_other_bit_identical(
    threads: int,
    manifest: ReleaseManifest,
    modules: dict[str, TaskModule],
    tiny_backbone: support.Backbone,
    store: LocalStore,
    int8: list[str],
) -> None:
    before = load(manifest, store, threads=threads).logits(texts(9))
    deeper = support.make_module(
        "classification", tiny_backbone.spec, tiny_backbone.store, tap=3, depth=2, seed=77
    )
    changed = {name: module for name, module in modules.items() if name not in ("tags", "two")}
    changed |= {"one": deeper, "new": deeper}
    other = merged(tiny_backbone, changed, store, set(int8) - {"tags", "two"})

    after = load(other, store, threads=threads).logits(texts(9))

    same = (before.keys() & after.keys()) - {"one"}
    assert same == {name.replace(" ", "-") for name in SINGLE} - {"one", "tags", "two"}
    assert_same_bits({n: before[n] for n in same}, {n: after[n] for n in same})


def test_a_task_answers_the_same_bits_whatever_the_precision_of_others(
    modules: dict[str, TaskModule], tiny_backbone: support.Backbone, store: LocalStore
) -> None:
    inputs = [*texts(9), *((text, "no never") for text in texts(3, seed=1))]
    fp32, int8, mixed = (
        load(merged(tiny_backbone, modules, store, chosen), store).logits(inputs)
        for chosen in INT8.values()
    )

    for name in NAMES:
        same, other = (int8, fp32) if name in INT8["mixed"] else (fp32, int8)
        assert_same_bits({name: mixed[name]}, {name: same[name]})
        rows = zip(mixed[name], other[name], strict=True)
        # A task that is nothing but the last linear layer of its head has no product in int8.
        assert any(a.tobytes() != b.tobytes() for a, b in rows) == (name != "tags")


@pytest.mark.parametrize("threads", THREADS)
def test_an_input_answers_the_same_bits_whatever_its_batch(
    threads: int, manifest: ReleaseManifest, store: LocalStore
) -> None:
    """Every batch size that is computed at once, and one above; other texts, orders and lengths."""
    release = load(manifest, store, threads=threads)
    chosen = texts(4, seed=2)
    alone = [release.logits([text]) for text in chosen]

    for size in range(1, 34):
        others = texts(size, seed=size)
        place, text = size % len(others), chosen[size % 4]
        found = release.logits([*others[:place], text, *others[place + 1 :]])
        one = {name: [arrays[place]] for name, arrays in found.items()}
        assert_same_bits(one, alone[size % 4])


def test_an_input_answers_the_same_bits_among_thousands_of_tokens(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    release = load(manifest, store, threads=2)
    (text,) = texts(1, seed=2)
    longest = ["rain " * 200] * 31
    assert 31 * support.MAX_LENGTH > 1024

    for place in (0, 16, 31):
        found = release.logits([*longest[:place], text, *longest[place:]])
        one = {name: [arrays[place]] for name, arrays in found.items()}
        assert_same_bits(one, release.logits([text]))


def test_an_input_answers_the_same_bits_with_any_number_of_threads(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    one, *others = (load(manifest, store, threads=n).logits(texts(20)) for n in THREADS)

    for other in others:
        assert_same_bits(one, other)


@pytest.mark.parametrize("task", ["one", "two"])
def test_a_failing_task_leaves_every_other_bit_identical(
    manifest: ReleaseManifest, store: LocalStore, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    release = load(manifest, store, threads=2)
    before = dict(release.stream(texts(5), tasks=SINGLE_NAMES))

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(release._parts.tasks[task].branch, "run", fail)
    after = {}

    with pytest.raises(MemoryError, match="no room"):
        after.update(release.stream(texts(5), tasks=SINGLE_NAMES))

    assert before.pop(task)
    assert after == before


SINGLE_NAMES = [name.replace(" ", "-") for name in SINGLE]


# Work


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each full layer was given, in the order of the calls."""
    seen: list[int] = []
    original = onnx_blocks.Layer.__call__

    def counted(self: Any, states: np.ndarray, packed: Any) -> np.ndarray:
        seen.append(len(states))
        return original(self, states, packed)

    monkeypatch.setattr(onnx_blocks.Layer, "__call__", counted)
    return seen


def test_a_sentence_task_computes_its_last_layer_for_the_first_token_alone(
    manifest: ReleaseManifest, store: LocalStore, rows: list[int]
) -> None:
    release = load(manifest, store, threads=1)

    release.predict(texts(3), tasks=["one"])
    assert len(rows) == 1  # the trunk's
    release.predict(texts(3), tasks=["two"])
    assert len(rows) == 1 + 1 + 1
    release.predict(texts(3), tasks=["deep-tags"])
    assert len(rows) == 3 + 1 + 2


def test_nothing_is_computed_for_padding(
    manifest: ReleaseManifest, store: LocalStore, rows: list[int]
) -> None:
    inputs = ["go", "wake me at seven", "rain " * 30]
    release = load(manifest, store, threads=1)
    tokens = sum(len(a) for a in release.logits(inputs, tasks=["tags"])["tags"])

    release.logits(inputs, tasks=["deep-tags"])

    assert rows == [tokens] * 3


class Counting:
    """A reader that remembers what was asked for."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.fetched: list[str] = []

    def fetch(self, digest: str) -> Path:
        self.fetched.append(digest)
        return self.store.fetch(digest)

    def signatures(self, manifest: str) -> list[bytes]:
        return self.store.signatures(manifest)


def test_a_release_in_place_of_another_reads_what_changed_alone(
    manifest: ReleaseManifest,
    modules: dict[str, TaskModule],
    tiny_backbone: support.Backbone,
    store: LocalStore,
    int8: list[str],
) -> None:
    serving = load(manifest, store)
    spec = tiny_backbone.spec
    new = support.make_module("regression", spec, tiny_backbone.store, tap=2, depth=1, seed=88)
    other = merged(tiny_backbone, modules | {"two": new}, store, int8)
    reader = Counting(store)

    swapped = load(other, reader, base=serving)

    small = {spec.digest, *spec.tokenizer.values()}
    assert set(reader.fetched) - small == {other.tasks["two"].digest}
    assert_same_bits(
        serving.logits(texts(3), tasks=["one"]), swapped.logits(texts(3), tasks=["one"])
    )


def test_what_a_base_lacks_is_read(manifest: ReleaseManifest, store: LocalStore) -> None:
    """On numbers of threads of its own: no other test has their units in use."""
    tasks = {name: entry.digest for name, entry in manifest.tasks.items()}
    layers, tap = manifest.trunks[0].layers, manifest.tasks["one"].tap_layer
    part = load(manifest, store, tasks=["one"], threads=5)
    more, other = Counting(store), Counting(store)

    whole = load(manifest, more, base=part, threads=5)
    elsewhere = load(manifest, other, base=whole, threads=6)

    assert {*tasks.values()} & {*more.fetched} == {*tasks.values()} - {tasks["one"]}
    assert {*layers[tap:]} <= {*more.fetched}
    assert {*tasks.values(), *layers} <= {*other.fetched}  # compiled for other threads
    assert (
        whole.blobs == elsewhere.blobs == {*tasks.values(), *layers, manifest.trunks[0].embeddings}
    )


def test_what_a_base_has_in_another_precision_is_read(
    tiny_backbone: support.Backbone, store: LocalStore
) -> None:
    """On a module and a number of threads of its own: no other test has their units in use."""
    module = support.make_module("classification", tiny_backbone.spec, tiny_backbone.store, seed=91)
    serving = load(merged(tiny_backbone, {"own": module}, store), store, threads=7)
    faster = merged(tiny_backbone, {"own": module}, store, ["own"])
    reader = Counting(store)

    swapped = load(faster, reader, base=serving, threads=7)

    assert swapped.blobs - set(reader.fetched) == {faster.trunks[0].embeddings}


def test_what_is_in_use_is_read_but_not_compiled_again(
    manifest: ReleaseManifest, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = load(manifest, store, threads=2)
    monkeypatch.setattr("centra.runtime.onnx.session.onnxruntime.InferenceSession", None)
    reader = Counting(store)

    again = load(manifest, reader, threads=2)

    assert again.blobs == serving.blobs <= set(reader.fetched)


def test_serving_needs_neither_torch_nor_transformers_nor_onnx(
    manifest: ReleaseManifest, store: LocalStore, tmp_path: Path
) -> None:
    write_folder(manifest, store, tmp_path / "release")

    imported = support.imported_by(
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'sqlalchemy', 'boto3', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "import centra\n"
        f"release = centra.load_release({str(tmp_path / 'release')!r})\n"
        "(answer, pair) = release.predict(['wake me at seven', ('is there snow', 'yes it is')])\n"
        "assert len(answer) == 9 and len(pair) == 1\n"
        "for name in [name for name, module in sys.modules.items() if module is None]:\n"
        "    del sys.modules[name]\n"
    )

    assert {"onnxruntime", "tokenizers", "numpy"} <= imported
    assert not imported & {"torch", "transformers", "onnx", "google", "registry", "cli"}


# Which engine


def test_onnx_is_the_engine_where_onnxruntime_is_installed(
    manifest: ReleaseManifest, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centra.runtime.engines.has_gpu", lambda: False)

    assert open_engine() is open_engine("onnx")
    assert open_engine() is not open_engine("torch", device="cpu")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert open_engine() is open_engine("torch", device="cpu")
    with pytest.raises(UsageError, match=r"pip install 'centra\[serve\]'"):
        open_engine("onnx")


@pytest.mark.parametrize(
    ("options", "match"),
    [({"name": "tensorrt"}, "'tensorrt'; expected one of onnx, torch"), ({"threads": 0}, "not 0")],
)
def test_impossible_engine_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        open_engine(**options)
