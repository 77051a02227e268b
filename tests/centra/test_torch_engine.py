"""The torch engine on GPUs and in bf16 and fp16: near transformers, in groups and buckets.

All but CUDA graphs runs on the CPU too. How near: logits to the largest logit of their task, hidden
states to the largest of their layer.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers

import centra
from centra.errors import UsageError
from centra.formats.backbone import BackboneSpec
from centra.formats.task_module import HeadSpec
from centra.runtime import Release, devices
from centra.runtime.engines import default_engine, open_engine
from centra.runtime.queries import EncodedQuery, Query
from centra.runtime.torch import batched_engine
from centra.runtime.torch.batched_branches import Branches
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.runtime.torch.cuda_graphs import Graphs
from tests import support
from tests.centra.states import PAIRS, SINGLES, reference_states
from tests.centra.test_onnx_engine import encoded, make_modules, merged, tensors, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from centra.tokenization.text_encoder import Encoded

NEAR = {"fp32": 1e-5, "bf16": 0.03, "fp16": 0.005}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU = torch.device("cpu")
INPUTS = [*texts(7), *((text, "no never") for text in texts(5, seed=1))]

every_dtype = pytest.mark.parametrize("dtype", NEAR)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return devices.choose_device(request.param, None)[0]


@pytest.fixture
def load(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Release]:
    """Load a release with the batched engine, which by itself is never that of fp32 on the CPU."""

    def load(
        manifest: ReleaseManifest, store: LocalStore, dtype: str = "fp32", **options: Any
    ) -> Release:
        with monkeypatch.context() as patched:
            patched.setattr(
                "centra.runtime.parts.open_engine",
                lambda *_, **__: BatchedEngine(device, dtype),
            )
            return Release.load(manifest, store, **options)

    return load


def reference(manifest: ReleaseManifest, store: LocalStore) -> Release:
    return Release.load(manifest, store, engine="torch", device="cpu")


@pytest.fixture(scope="module")
def modules(tiny_backbone: support.Backbone) -> dict[str, TaskModule]:
    """Every kind, and several of some, with different numbers of labels."""
    make = partial(support.make_module, backbone=tiny_backbone.spec, reader=tiny_backbone.store)
    more = {
        "many": make(
            kind="classification",
            tap=1,
            depth=1,
            seed=20,
            labels=list("abcdefg"),
            head=HeadSpec(activation="gelu"),
        ),
        "few": make(kind="regression", tap=1, depth=1, seed=21, head=HeadSpec(activation="gelu")),
        "tags too": make(kind="tagging", tap=2, depth=1, seed=22, labels=["O", "B-day"]),
        "crf": make(kind="tagging", tap=2, depth=1, seed=23, head=HeadSpec(crf=True)),
        "pair too": make(kind="classification", tap=2, depth=1, form="pair", seed=24),
    }
    return make_modules(tiny_backbone, tiny_backbone.store) | more


@pytest.fixture
def manifest(
    modules: dict[str, TaskModule], tiny_backbone: support.Backbone, store: LocalStore
) -> ReleaseManifest:
    return merged(tiny_backbone, modules, store)


def assert_near(ours: dict[str, list[Any]], theirs: dict[str, list[Any]], near: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, arrays in ours.items():
        largest = max(np.abs(other).max() for other in theirs[name])
        for own, other in zip(arrays, theirs[name], strict=True):
            assert (own.dtype, own.shape) == (np.float32, other.shape)
            assert np.abs(own - other).max() <= near * max(1, largest), name


# Near transformers


def states_of(
    engine: BatchedEngine, spec: BackboneSpec, backbone: support.Backbone, batch: Encoded
) -> list[np.ndarray]:
    inputs, tokens = batch.input_ids.shape
    trunk = engine.load_trunk(spec, backbone.store, depth=spec.num_layers)
    return [
        hidden.states[0, :inputs, :tokens].float().cpu().numpy()
        for _, hidden in trunk.run(batch, support.read_by_all(batch, range(spec.num_layers + 1)))
    ]


@every_dtype
@pytest.mark.parametrize("family", support.FAMILIES)
def test_hidden_states_are_near_transformers_at_every_layer(
    family: str,
    dtype: str,
    device: torch.device,
    imported: Callable[[str], support.Backbone],
) -> None:
    backbone = imported(family)
    engine = BatchedEngine(device, dtype)
    for inputs in (SINGLES, SINGLES[:1], PAIRS, [SINGLES[0], *PAIRS, *SINGLES]):
        batch = encoded(backbone, inputs)
        tokens = batch.attention_mask.astype(bool)

        ours = states_of(engine, backbone.spec, backbone, batch)

        theirs = reference_states(backbone.folder, tensors(batch))
        for own, other in zip(ours, theirs, strict=True):
            error = np.abs(own - other.numpy())[tokens].max()
            assert error <= NEAR[dtype] * max(1, other.abs().max())


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_minilm_is_as_near_as_transformers_itself_in_that_precision(
    dtype: str, device: torch.device, minilm: support.Backbone
) -> None:
    batch = encoded(minilm, SINGLES)
    tokens = batch.attention_mask.astype(bool)
    exact = reference_states(minilm.folder, tensors(batch))
    model = transformers.AutoModel.from_pretrained(minilm.folder, dtype=DTYPES[dtype]).eval()
    with torch.inference_mode():
        theirs = model(**tensors(batch), output_hidden_states=True).hidden_states

    ours = states_of(BatchedEngine(device, dtype), minilm.spec, minilm, batch)

    for own, other, true in zip(ours, theirs, exact, strict=True):
        their_error = np.abs(other.float() - true).numpy()[tokens].max()
        assert np.abs(own - true.numpy())[tokens].max() <= 2 * their_error


@pytest.mark.parametrize("family", support.FAMILIES)
def test_every_kind_of_task_is_near_the_reference(
    family: str,
    imported: Callable[[str], support.Backbone],
    store: LocalStore,
    load: Callable[..., Release],
) -> None:
    backbone = imported(family)
    manifest = merged(backbone, make_modules(backbone, store), store)

    theirs = reference(manifest, store).logits(INPUTS)

    for dtype, near in NEAR.items():
        ours = load(manifest, store, dtype)
        assert_near(ours.logits(INPUTS), theirs, near)
        for name in ours.tasks:
            own, recorded = ours.probe_logits(name)
            assert_near({name: [own]}, {name: [recorded]}, near)


@every_dtype
def test_answers_of_groups_are_near_the_reference_and_decoded_alike(
    dtype: str, manifest: ReleaseManifest, store: LocalStore, load: Callable[..., Release]
) -> None:
    exact = reference(manifest, store)

    ours = load(manifest, store, dtype)

    assert_near(ours.logits(INPUTS), exact.logits(INPUTS), NEAR[dtype])
    for own, other in zip(ours.predict(INPUTS), exact.predict(INPUTS), strict=True):
        assert own.keys() == other.keys()
        if dtype == "fp32" and "crf" in own:
            words = [[span["words"] for span in found["crf"]["spans"]] for found in (own, other)]
            assert words[0] == words[1]


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu", "mish"])
def test_any_activation_of_transformers_is_taken(
    activation: str, device: torch.device, tiny_backbone: support.Backbone
) -> None:
    config = tiny_backbone.spec.config | {"hidden_act": activation}
    spec = tiny_backbone.spec.model_copy(update={"config": config})
    batch = encoded(tiny_backbone, SINGLES)
    tokens = batch.attention_mask.astype(bool)
    trunk = open_engine("torch", device="cpu").load_trunk(spec, tiny_backbone.store, depth=3)

    ours = states_of(BatchedEngine(device, "fp32"), spec, tiny_backbone, batch)

    reference = trunk.run(batch, support.read_by_all(batch, range(4)))
    for own, (_, theirs) in zip(ours, reference, strict=True):
        assert np.abs(own - theirs.states.numpy())[tokens].max() <= NEAR["fp32"] * 10


# Groups


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of tasks of each group that is computed."""
    calls: list[int] = []
    original = Branches.__call__

    def counted(self: Branches, *args: torch.Tensor) -> torch.Tensor:
        logits = original(self, *args)
        calls.append(len(logits))
        return logits

    monkeypatch.setattr(Branches, "__call__", counted)
    return calls


@every_dtype
def test_a_task_answers_the_same_alone_and_in_a_group(
    dtype: str, manifest: ReleaseManifest, store: LocalStore, load: Callable[..., Release]
) -> None:
    together = load(manifest, store, dtype).logits(INPUTS)

    for name in manifest.tasks:
        alone = load(manifest, store, dtype, tasks=[name]).logits(INPUTS)
        assert_near(alone, {name: together[name]}, NEAR[dtype])


def on_cpu(device: torch.device) -> None:
    if device != CPU:
        pytest.skip("counts calls, which a graph replays unseen")


def test_a_group_is_computed_once_for_all_that_are_asked(
    manifest: ReleaseManifest,
    store: LocalStore,
    load: Callable[..., Release],
    computed: list[int],
    device: torch.device,
) -> None:
    on_cpu(device)
    release = load(manifest, store)

    release.predict(["go"], ["many", "few", "also-one", "tags-too"])
    # One of gelu heads after layer 1, one of all that tag after layer 2 and a layer.
    assert sorted(computed) == [3, 3]

    computed.clear()
    release.predict(["go"])
    assert sum(computed) == len([t for t in manifest.tasks.values() if t.input == "single"])
    computed.clear()
    release.predict([("go", "no")])
    assert computed == [2]


def test_a_request_for_some_tasks_goes_no_deeper_and_answers_the_same(
    manifest: ReleaseManifest,
    store: LocalStore,
    load: Callable[..., Release],
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
) -> None:
    on_cpu(device)
    layers: list[object] = []
    original = batched_engine.Layer.__call__

    def counted(self: object, *args: torch.Tensor) -> torch.Tensor:
        layers.append(self)
        return original(self, *args)

    monkeypatch.setattr(batched_engine.Layer, "__call__", counted)
    release = load(manifest, store)
    everything = release.logits(INPUTS[:7])
    layers.clear()

    some = release.logits(INPUTS[:7], ["one", "bare"])

    assert len(layers) == 1  # The task's own layer is on the first token, another class.
    assert_near(some, {name: everything[name] for name in some}, 0)


def test_a_group_that_fails_takes_no_answer_from_others(
    manifest: ReleaseManifest,
    store: LocalStore,
    load: Callable[..., Release],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = load(manifest, store)
    group = release._parts.tasks["few"].branch._group

    def fail(*_: torch.Tensor) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(group, "_stacked", fail)
    found: list[str] = []
    with pytest.raises(MemoryError) as caught:
        found.extend(name for name, _ in release.stream(["go"]))

    singles = {name for name, task in manifest.tasks.items() if task.input == "single"}
    assert set(found) == singles - {"many", "few", "also-one"}
    assert len(caught.value.__notes__) == 1


def test_tasks_of_both_precisions_of_a_release_are_computed_in_the_engine_s(
    modules: dict[str, TaskModule],
    tiny_backbone: support.Backbone,
    store: LocalStore,
    load: Callable[..., Release],
) -> None:
    fp32 = load(merged(tiny_backbone, modules, store), store)
    mixed = load(merged(tiny_backbone, modules, store, ["many", "crf", "pair"]), store)

    assert_near(mixed.logits(INPUTS), fp32.logits(INPUTS), NEAR["fp32"])


@every_dtype
def test_inputs_of_one_batch_that_are_asked_different_things_answer_near_the_reference(
    dtype: str, manifest: ReleaseManifest, store: LocalStore, load: Callable[..., Release]
) -> None:
    exact, release = reference(manifest, store), load(manifest, store, dtype)
    tasks = [*[("bare", "many")] * 5, ("last",), ("tags", "crf", "few"), *[None] * 5]
    queries = [Query(input=i, tasks=t, logits=True) for i, t in zip(INPUTS, tasks, strict=True)]
    batch = [query for query in release.encode(queries) if isinstance(query, EncodedQuery)]

    for result in release.answer(batch):
        assert [result.task in batch[place].tasks for place in result.places]
        theirs = exact.logits([INPUTS[place] for place in result.places], [result.task])
        ours = [np.array(answer["logits"], np.float32) for answer in result.answers]
        assert_near({result.task: ours}, theirs, NEAR[dtype])


# Shapes


def test_inputs_leave_at_their_deepest_tap_where_fewer_rows_are_enough_for_the_others(
    device: torch.device, tiny_backbone: support.Backbone
) -> None:
    trunk = BatchedEngine(device, "fp32").load_trunk(
        tiny_backbone.spec, tiny_backbone.store, depth=3
    )
    batch = encoded(tiny_backbone, (SINGLES * 5)[:5])
    readers = {0: [np.array([0, 4])], 2: [np.array([1, 2, 3]), np.array([1])], 3: [np.array([2])]}

    found = dict(trunk.run(batch, readers))

    assert {tap: hidden.states.shape[1] for tap, hidden in found.items()} == {0: 8, 2: 4, 3: 1}
    whole = dict(trunk.run(batch, support.read_by_all(batch, range(4))))
    for tap, hidden in found.items():
        own = hidden.states[0, : len(hidden.inputs)].cpu().numpy()
        theirs = whole[tap].states[0, torch.from_numpy(hidden.inputs)].cpu().numpy()
        assert np.abs(own - theirs).max() <= NEAR["fp32"] * 10


@every_dtype
def test_other_inputs_in_the_batch_change_little(
    dtype: str, manifest: ReleaseManifest, store: LocalStore, load: Callable[..., Release]
) -> None:
    inputs = [*texts(45, seed=3), "go", "rain " * 200]
    release = load(manifest, store, dtype)
    together = release.logits(inputs)

    for place in (0, 1, 33, 45, 46):
        alone = release.logits([inputs[place]])
        assert_near(alone, {n: [found[place]] for n, found in together.items()}, NEAR[dtype])


def test_batches_are_padded_to_few_shapes(
    manifest: ReleaseManifest,
    store: LocalStore,
    device: torch.device,
    tiny_backbone: support.Backbone,
) -> None:
    trunk = BatchedEngine(device, "fp32").load_trunk(
        tiny_backbone.spec, tiny_backbone.store, depth=0
    )
    found = set()
    for count in range(1, 33):
        for longest in (1, 9, 20, 40, 70):
            batch = encoded(
                tiny_backbone, SINGLES[:1] * (count - 1) + [type(SINGLES[0])("go " * longest)]
            )
            ((_, hidden),) = trunk.run(batch, support.read_by_all(batch, [0]))
            _, rows, length, _ = hidden.states.shape
            assert rows >= count
            assert length >= batch.input_ids.shape[1]
            found.add((rows, length))

    assert {rows for rows, _ in found} == {1, 2, 4, 8, 16, 32}
    # Not 96 or 128: the backbone has 64 positions.
    assert {length for _, length in found} == {16, 32, 48, 64}


def test_a_length_that_the_backbone_has_no_positions_for_is_not_padded_to(
    device: torch.device, tiny_backbone: support.Backbone
) -> None:
    spec = tiny_backbone.spec.model_copy(update={"max_length": 50})
    trunk = BatchedEngine(device, "fp32").load_trunk(spec, tiny_backbone.store, depth=0)
    batch = encoded(tiny_backbone, SINGLES)
    wide = {name: np.pad(a, ((0, 0), (0, 49 - a.shape[1]))) for name, a in vars(batch).items()}

    batch = type(batch)(**wide)

    ((_, hidden),) = trunk.run(batch, support.read_by_all(batch, [0]))

    assert hidden.states.shape[2] == 50


# Requests


def test_streamed_answers_are_those_of_predict(
    manifest: ReleaseManifest, store: LocalStore, load: Callable[..., Release]
) -> None:
    release = load(manifest, store, "bf16")
    inputs = [*INPUTS, *["go"] * 40]
    found: list[dict[str, Any]] = [{} for _ in inputs]

    for name, answers in release.stream(inputs):
        for place, answer in answers.items():
            found[place][name] = answer

    assert [dict(sorted(answer.items())) for answer in found] == release.predict(inputs)


def test_requests_of_several_threads_do_not_mix(
    manifest: ReleaseManifest, store: LocalStore, load: Callable[..., Release]
) -> None:
    release = load(manifest, store, "bf16")
    requests = [
        [text] for text in ("wake me at seven", "play some jazz", "go", "is there snow " * 9)
    ]
    expected = [release.predict(request) for request in requests]

    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(release.predict, requests * 8))

    assert found == expected * 8


def test_members_of_a_group_that_ask_at_once_get_their_own_answers(
    manifest: ReleaseManifest,
    store: LocalStore,
    load: Callable[..., Release],
    tiny_backbone: support.Backbone,
) -> None:
    release = load(manifest, store)
    expected = release.logits(["wake me at seven"])
    names = ["many", "few", "also-one"]
    batch = encoded(tiny_backbone, SINGLES[:1])
    (trunk,) = release._parts.trunks.values()
    ((_, hidden),) = trunk.engine.run(batch, support.read_by_all(batch, [1]))

    with ThreadPoolExecutor(3) as executor:
        branches = [release._parts.tasks[name].branch for name in names]
        runs = [executor.submit(branch.run, hidden, np.arange(1)) for branch in branches]
        found = {name: list(run.result()) for name, run in zip(names, runs, strict=True)}

    assert_near(found, {name: expected[name] for name in names}, 0)


def test_a_profile_has_every_task(
    manifest: ReleaseManifest, store: LocalStore, load: Callable[..., Release]
) -> None:
    profile = load(manifest, store, "bf16").profile(["go"], ["many", "few", "crf"])

    assert profile.tasks.keys() == {"many", "few", "crf"}


# Which engine, where, and how exactly


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend to a driver, and to so many GPUs that torch sees."""

    def machine(*, driver: bool, gpus: int = 0) -> None:
        monkeypatch.setattr(devices, "_DRIVERS", ("/dev/null",) if driver else ("/nowhere",))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "init", lambda: None)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: gpus != 2)
        monkeypatch.setattr(torch.cuda, "device", _Entered)

    return machine


class _Entered:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_a_gpu_that_torch_sees_makes_torch_the_engine(machine: Callable[..., None]) -> None:
    machine(driver=False, gpus=1)
    assert default_engine() == "onnx"
    machine(driver=True, gpus=0)
    assert default_engine() == "onnx"
    assert devices.choose_device(None, None) == (CPU, "fp32")
    machine(driver=True, gpus=1)
    assert default_engine() == "torch"
    assert devices.choose_device(None, None) == (torch.device("cuda:0"), "bf16")
    assert devices.choose_device("cuda", "fp32") == (torch.device("cuda:0"), "fp32")
    assert devices.choose_device("cpu", None) == (CPU, "fp32")
    assert default_engine("cpu") == "onnx"


def test_a_gpu_without_bf16_takes_fp16(machine: Callable[..., None]) -> None:
    machine(driver=True, gpus=2)

    assert devices.choose_device("cuda:1", None) == (torch.device("cuda:1"), "fp16")


def test_a_gpu_that_cannot_be_used_is_refused_with_torch_s_reason(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    machine(driver=True, gpus=1)
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(UsageError, match=r"cannot be used here: .* forked subprocess"):
        devices.choose_device(None, None)


def test_a_device_or_precision_that_is_named_makes_torch_the_engine() -> None:
    assert default_engine("cuda") == default_engine("cpu", "fp32") == "torch"


def test_on_the_cpu_in_fp32_the_engine_is_the_reference(machine: Callable[..., None]) -> None:
    machine(driver=True, gpus=1)

    exact = open_engine("torch", device="cpu")

    assert exact is open_engine("torch", device="cpu", dtype="fp32")
    assert not isinstance(exact, BatchedEngine)
    half = open_engine("torch", device="cpu", dtype="bf16")
    assert isinstance(half, BatchedEngine)
    assert half is not open_engine("torch", device="cpu", dtype="bf16")
    assert half.pool is open_engine("torch", device="cpu", dtype="fp16").pool


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "torch", "device": "tpu"}, "unknown device 'tpu'; expected cpu, cuda"),
        ({"name": "onnx", "device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:x"}, "unknown device 'cuda:x'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; expected one of fp32, bf16, fp16"),
        ({"name": "onnx", "device": "cuda"}, "on the CPU; for 'cuda' take engine 'torch'"),
        ({"name": "onnx", "dtype": "bf16"}, "as its release says .* take engine 'torch'"),
        ({"device": "cuda"}, "no device 'cuda': this torch .* sees no GPU"),
        ({"name": "torch", "device": "cuda:1", "dtype": "bf16"}, "no device 'cuda:1'"),
    ],
    ids=str,
)
def test_what_is_not_there_is_refused(
    options: dict[str, Any], says: str, machine: Callable[..., None]
) -> None:
    machine(driver=False)

    with pytest.raises(UsageError, match=says):
        open_engine(**options)


def test_a_gpu_with_a_number_that_is_not_there_is_refused(machine: Callable[..., None]) -> None:
    machine(driver=True, gpus=1)

    with pytest.raises(UsageError, match="no device 'cuda:1': torch sees 1"):
        open_engine("torch", device="cuda:1")


def test_load_release_takes_device_and_precision(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    source = f"{store.url}#{manifest.digest}"
    exact = reference(manifest, store).logits(INPUTS)

    half = centra.load_release(source, device="cpu", dtype="bf16").logits(INPUTS)

    assert_near(half, exact, NEAR["bf16"])
    assert half["last"][0].tobytes() != exact["last"][0].tobytes()


def test_looking_for_a_gpu_imports_no_torch_without_a_driver() -> None:
    if devices.has_gpu():
        pytest.skip("there is one")
    imported = support.imported_by(
        "from centra.runtime import devices\n"
        "devices._DRIVERS = ('/nowhere',)\n"
        "from centra.runtime.engines import default_engine, open_engine\n"
        "assert default_engine() == 'onnx'\n"
        "open_engine()\n"
    )

    assert "onnxruntime" in imported
    assert not imported & {"torch", "transformers"}


def test_with_a_driver_and_no_torch_the_engine_is_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_DRIVERS", ("/dev/null",))
    monkeypatch.setitem(sys.modules, "torch", None)

    assert default_engine() == "onnx"


def test_a_loaded_release_no_longer_depends_on_its_files(
    manifest: ReleaseManifest, store: LocalStore, load: Callable[..., Release]
) -> None:
    """Though groups are stacked when they are first asked for."""
    release, before = load(manifest, store), reference(manifest, store).logits(INPUTS)

    for path in (store.root / "blobs").rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                file.write(b"\0" * path.stat().st_size)

    assert_near(release.logits(INPUTS), before, NEAR["fp32"])


# CUDA graphs


def test_on_the_cpu_a_unit_is_the_function_itself() -> None:
    def double(tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor

    assert Graphs(CPU).unit(double) is double


@needs_cuda
class TestCudaGraphs:
    """What only a GPU can show."""

    @pytest.fixture
    def gpu(self) -> torch.device:
        return torch.device("cuda", torch.cuda.current_device())

    @torch.inference_mode()
    def test_a_replay_computes_what_the_function_does_for_every_shape(
        self, gpu: torch.device
    ) -> None:
        weight, calls = torch.randn(64, 64, device=gpu), []

        def function(rows: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
            calls.append(rows.shape)
            return torch.tanh(rows @ weight + shift)

        unit = Graphs(gpu).unit(function)
        for _ in range(3):
            for count in (1, 16, 2):
                rows, shift = torch.randn(count, 64, device=gpu), torch.randn(64, device=gpu)
                expected = torch.tanh(rows @ weight + shift)
                assert torch.allclose(unit(rows, shift), expected, atol=1e-5)
        # Warm-ups and one capture for each shape; replays do not run the function.
        assert {shape: calls.count(shape) for shape in calls} == dict.fromkeys(calls, 4)

    @torch.inference_mode()
    def test_results_of_earlier_replays_stay(self, gpu: torch.device) -> None:
        graphs = Graphs(gpu)
        double, triple = graphs.unit(lambda t: 2 * t), graphs.unit(lambda t: 3 * t)
        inputs = [torch.full((1000,), float(i), device=gpu) for i in range(5)]

        found = [(double(t), triple(t)) for t in inputs for _ in range(2)]

        assert [a[0].item() for a, _ in found] == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]
        assert [b[0].item() for _, b in found] == [0, 0, 3, 3, 6, 6, 9, 9, 12, 12]

    @torch.inference_mode()
    def test_beyond_so_many_shapes_the_function_just_runs(
        self, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("centra.runtime.torch.cuda_graphs._MOST", 2)
        unit = Graphs(gpu).unit(lambda t: 2 * t)

        for count in (1, 2, 3, 4, 1):
            assert unit(torch.ones(count, device=gpu)).sum().item() == 2 * count

    def test_units_of_several_threads_do_not_mix(self, gpu: torch.device) -> None:
        unit = Graphs(gpu).unit(lambda t: (t @ t).sum())

        def run(number: int) -> float:
            with torch.inference_mode():
                return unit(number * torch.eye(32 << number % 3, device=gpu)).item()

        with ThreadPoolExecutor(8) as executor:
            found = list(executor.map(run, range(60)))

        assert found == [number**2 * (32 << number % 3) for number in range(60)]

    def test_a_release_answers_the_same_with_graphs_and_without(
        self, manifest: ReleaseManifest, store: LocalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load = partial(Release.load, manifest, store, engine="torch", device="cuda")
        graphed = load()
        with monkeypatch.context() as patched:
            patched.setattr(Graphs, "unit", lambda self, function: function)
            plain = load()

        for _ in range(2):
            for count in (1, 3, 12):
                assert_near(graphed.logits(INPUTS[:count]), plain.logits(INPUTS[:count]), 1e-3)

    def test_releases_may_capture_at_once(
        self, manifest: ReleaseManifest, store: LocalStore
    ) -> None:
        releases = [Release.load(manifest, store, engine="torch", device="cuda") for _ in range(4)]

        with ThreadPoolExecutor(4) as executor:
            found = list(executor.map(lambda release: release.logits(INPUTS), releases))

        for other in found[1:]:
            assert_near(other, found[0], 1e-3)

    def test_a_release_that_goes_leaves_another_working(
        self, manifest: ReleaseManifest, store: LocalStore
    ) -> None:
        first, second = (
            Release.load(manifest, store, engine="torch", device="cuda") for _ in range(2)
        )
        expected = second.logits(INPUTS)
        first.logits(INPUTS)
        del first

        assert_near(second.logits(INPUTS), expected, 0)
