"""Fine-tuning: it learns, it is reproducible, it goes on after a kill, it refuses bad data."""

from __future__ import annotations

import dataclasses
import re
import shutil
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from centra.data.inputs import fingerprint, read_examples
from centra.data.labelling import Labelling
from centra.data.tags import tagged_spans
from centra.errors import CentraError, DataError, UsageError
from centra.formats.task_module import TaskModule, check_module
from centra.modeling.branch import Branch
from centra.modeling.shards import backbone_layer
from centra.modeling.trunk import Trunk
from centra.releases.evaluation import measure
from centra.runtime import Release
from centra.tokenization.text_encoder import TextEncoder
from centra.training import run as running
from centra.training import work_folder
from centra.training.metrics import dev_metrics
from centra.training.recipe import Recipe
from centra.training.run import Run
from centra.training.task_data import TaskData
from centra.training.train import train_module
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

RECIPE = Recipe(
    tap=1, depth=1, epochs=4, learning_rate=1e-2, batch_size=8, dropout=0.0, patience=10
)

# Kind of data: kind of task, its metric, and what no guess without learning reaches.
KINDS = {
    "single": ("classification", "accuracy", 0.5),
    "pair": ("classification", "accuracy", 0.7),
    "multilabel": ("multilabel", "micro_f1", 0.6),
    "regression": ("regression", "pearson", 0.4),
    "tagging": ("tagging", "entity_f1", 0.4),
}

Report = tuple[str, int, int]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def train(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], work: Path
) -> Callable[..., TaskModule]:
    """Fine-tune on the tiny BERT; options change the recipe."""

    def train(
        data: str | Path = "single", progress: Callable[..., None] | None = None, **options: Any
    ) -> TaskModule:
        return train_module(
            tiny_backbone.spec,
            tiny_backbone.store,
            tiny_data(data) if isinstance(data, str) else data,
            Recipe(**(vars(RECIPE) | options)),
            work=work,
            progress=progress or (lambda *_: None),
        )

    return train


@pytest.mark.parametrize("data", KINDS)
def test_every_kind_learns_and_ends_in_a_valid_module_with_parity(
    data: str,
    train: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    kind, metric, chance = KINDS[data]

    module = train(data, epochs=8)

    assert module.spec.kind == kind
    assert module.spec.input == ("pair" if data == "pair" else "single")
    assert module.spec.metrics[metric] > chance
    assert support.parity(module, tiny_backbone, backbone_store, tmp_path) < 1e-5


@pytest.mark.parametrize(("tap", "depth"), [(0, 0), (0, 3), (3, 0)])
def test_every_corner_of_tap_and_depth_can_be_trained(
    tap: int, depth: int, train: Callable[..., TaskModule]
) -> None:
    module = train(tap=tap, depth=depth, epochs=1)

    assert (module.spec.tap_layer, module.spec.depth) == (tap, depth)
    assert len({name.split(".")[1] for name in module.weights if "layers." in name}) == depth


def test_module_says_how_it_was_made(
    train: Callable[..., TaskModule], tiny_data: Callable[[str], Path], work: Path
) -> None:
    module = train(epochs=1, seed=3)
    data = tiny_data("single")

    training = module.spec.training
    assert training["data"] == fingerprint(
        (data / name).read_bytes() for name in ("train.jsonl", "dev.jsonl")
    )
    assert training["examples"] == 72
    assert training["recipe"] == {**vars(RECIPE), "epochs": 1, "seed": 3}
    assert training["versions"] == {name: version(name) for name in ("torch", "transformers")}
    assert module.spec.labels == ("alarm", "music", "weather")
    assert not work.exists()


def test_probe_is_taken_from_the_dev_set_and_recorded_by_the_module_itself(
    train: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
) -> None:
    module = train(epochs=1)

    probe = {
        name: module.tensors[f"probe.{name}"]
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    trunk = Trunk(tiny_backbone.spec, tiny_backbone.store, depth=1)
    branch = Branch(tiny_backbone.spec, module.spec).load(module.weights).eval()
    with torch.inference_mode():
        shared = trunk.shared_state(probe["attention_mask"])
        own = branch(trunk(**probe, taps=[1])[1], shared)
    assert torch.equal(own, module.tensors["probe.logits"])
    dev = read_examples(tiny_data("single") / "dev.jsonl")[:8]
    rows = TextEncoder.of(tiny_backbone.spec, tiny_backbone.store).encode(e.input for e in dev)
    assert [
        ids[mask.bool()].tolist()
        for ids, mask in zip(probe["input_ids"], probe["attention_mask"], strict=True)
    ] == [row.input_ids for row in rows]


def test_trunk_stays_frozen_and_in_evaluation_mode(
    train: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trunks: list[Trunk] = []
    modes: list[bool] = []

    class Watched(Trunk):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            trunks.append(self)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            modes.append(any(part.training for part in self.modules()))
            return super().forward(*args, **kwargs)

    monkeypatch.setattr(running, "Trunk", Watched)
    train(tap=2, depth=1, epochs=2)

    trunk = trunks[0]
    assert len(modes) > 18
    assert not any(modes)
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    untouched = Trunk(tiny_backbone.spec, tiny_backbone.store, depth=2).state_dict()
    assert all(torch.equal(tensor, untouched[k]) for k, tensor in trunk.state_dict().items())


def test_branch_starts_as_the_backbone_s_own_layers(
    train: Callable[..., TaskModule], tiny_backbone: support.Backbone
) -> None:
    """At a learning rate of nearly nothing it ends as them, too."""
    module = train(tap=1, depth=2, epochs=1, learning_rate=1e-12)

    for i in (1, 2):
        layer = backbone_layer(tiny_backbone.spec, tiny_backbone.store, 1 + i)
        for name, tensor in layer.items():
            assert torch.allclose(module.tensors[f"layers.{i}.{name}"], tensor, atol=1e-9)


# Reproducible


def test_same_seed_gives_the_same_bytes(train: Callable[..., TaskModule]) -> None:
    first = train(epochs=1, dropout=0.1, seed=5).to_bytes()
    torch.manual_seed(12345)
    np.random.seed(12345)  # noqa: NPY002 - the global state is what must not matter

    assert train(epochs=1, dropout=0.1, seed=5).to_bytes() == first


def test_more_gpus_than_one_do_not_change_what_is_trained(
    train: Callable[..., TaskModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainer would give each of them a batch."""
    alone = train()
    devices = TrainingArguments._setup_devices.func

    def see_two(arguments: TrainingArguments) -> torch.device:
        device = devices(arguments)
        arguments._n_gpu = 2
        return device

    two = cached_property(see_two)
    two.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", two)

    assert train().to_bytes() == alone.to_bytes()


def test_cpu_that_multiplies_bfloat16_learns_in_it_and_is_measured_in_float32(
    train: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = getattr(torch.cpu, "get_capabilities", dict)()
    if not (known.get("avx512_bf16") or known.get("amx_bf16")):
        pytest.skip("this CPU has no instructions for bfloat16, or torch does not tell")
    fast = train(epochs=1)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)

    exact = train(epochs=1)

    assert fast.to_bytes() != exact.to_bytes()
    # What it scored is what the engines make of it, whose sums are float32's.
    assert support.parity(fast, tiny_backbone, backbone_store, tmp_path) < 1e-5


def test_another_seed_gives_another_module(train: Callable[..., TaskModule]) -> None:
    assert train(epochs=1, seed=1).to_bytes() != train(epochs=1, seed=2).to_bytes()


def test_training_prints_nothing(
    train: Callable[..., TaskModule], capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    train(epochs=1)

    assert capfd.readouterr() == ("", "")


# Interrupted


def killed_in_epoch(
    number: int, seen: list[Report] | None = None
) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if seen is not None:
            seen.append((what, done, total))
        if what.startswith(f"epoch {number}/"):
            raise KeyboardInterrupt

    return progress


def watched(train: Callable[..., TaskModule], **options: Any) -> tuple[TaskModule, list[Report]]:
    seen: list[Report] = []
    module = train(progress=lambda *call: seen.append(call), **options)
    return module, [report for report in seen if report[0].startswith("epoch ")]


def test_progress_counts_steps_and_tells_the_dev_metric(train: Callable[..., TaskModule]) -> None:
    seen: list[Report] = []

    train(epochs=2, progress=lambda *call: seen.append(call))

    steps = [report for report in seen if report[0].startswith("epoch")]
    assert [done for _, done, _ in steps] == list(range(1, 19))
    assert {total for *_, total in steps} == {18}
    assert steps[0][0] == "epoch 1/2"
    assert re.fullmatch(r"epoch 2/2 · dev accuracy [01]\.\d{4}", steps[-1][0])
    assert re.fullmatch(r"trained, best dev accuracy [01]\.\d{4}", seen[-1][0])
    assert seen[-1][1] == seen[-1][2]


def test_killed_run_goes_on_from_its_last_finished_epoch(
    train: Callable[..., TaskModule], work: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(progress=killed_in_epoch(3))
    assert any(work.glob("checkpoint-*"))

    module, seen = watched(train)

    assert seen[0] == (seen[0][0], 19, 36), "two epochs of nine steps were done"
    assert seen[0][0].startswith("epoch 3/4")
    assert seen[-1][1] == 36
    assert module.spec.metrics["accuracy"] > 0.5
    assert not work.exists()


def test_run_that_was_killed_ends_as_one_that_was_not(
    train: Callable[..., TaskModule],
) -> None:
    whole = train(epochs=3, dropout=0.1).to_bytes()
    with pytest.raises(KeyboardInterrupt):
        train(progress=killed_in_epoch(2), epochs=3, dropout=0.1)

    assert train(epochs=3, dropout=0.1).to_bytes() == whole


def test_run_killed_before_its_first_epoch_ended_starts_again(
    train: Callable[..., TaskModule],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(progress=killed_in_epoch(1), epochs=1)

    _, seen = watched(train, epochs=1)

    assert seen[0][1] == 1


@pytest.mark.parametrize("change", [{"seed": 9}, {"learning_rate": 1e-3}, {"data": "regression"}])
def test_run_with_other_settings_or_data_starts_again(
    change: dict[str, Any], train: Callable[..., TaskModule]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(progress=killed_in_epoch(2), epochs=2)

    _, seen = watched(train, **({"epochs": 2} | change))

    assert seen[0][1] == 1


def test_run_killed_while_it_wrote_a_checkpoint_goes_on(
    train: Callable[..., TaskModule], work: Path
) -> None:
    """The newest folder is only half there; an earlier one is whole."""
    with pytest.raises(KeyboardInterrupt):
        train(progress=killed_in_epoch(2), epochs=3)
    newest = max(work.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    half = work / "checkpoint-18"
    shutil.copytree(newest, half)
    (half / "trainer_state.json").unlink()

    _, seen = watched(train, epochs=3)

    assert seen[0][1] == 10
    assert seen[-1][1] == 27


@pytest.mark.parametrize("marker", ["", "{", "[]", None])
def test_run_killed_while_it_made_its_folder_starts_again(
    marker: str | None, train: Callable[..., TaskModule], work: Path
) -> None:
    """Its checkpoints are another run's: whose they are is not known."""
    with pytest.raises(KeyboardInterrupt):
        train(progress=killed_in_epoch(2), epochs=2)
    (work / "run").unlink()
    if marker is not None:
        (work / "run").write_text(marker)

    _, seen = watched(train, epochs=2)

    assert seen[0][1] == 1


def test_run_killed_while_it_removed_another_one_starts_again(
    train: Callable[..., TaskModule], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back at the first settings, half of their checkpoint is left."""
    with pytest.raises(KeyboardInterrupt):
        train(progress=killed_in_epoch(2), epochs=2)

    def killed(*_: Any, **__: Any) -> None:
        next(work.glob("checkpoint-*/optimizer.pt")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(work_folder.shutil, "rmtree", killed)
        train(epochs=2, seed=9)

    _, seen = watched(train, epochs=2)

    assert seen[0][1] == 1


# Paused


@pytest.fixture
def paused(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], work: Path
) -> Callable[..., Run]:
    """The same run as if in a new process; options change the recipe."""

    def paused(data: str = "single", **options: Any) -> Run:
        return Run(
            tiny_backbone.spec,
            tiny_backbone.store,
            TaskData.load(tiny_backbone.spec, tiny_backbone.store, tiny_data(data)),
            Recipe(**(vars(RECIPE) | options)),
            work=work,
        )

    return paused


def epochs_of(seen: list[Report]) -> set[str]:
    """The epochs that were trained."""
    return {what.split()[1] for what, *_ in seen if what.startswith("epoch")}


@pytest.mark.parametrize("data", ["single", "multilabel", "tagging"])
def test_run_with_pauses_ends_as_one_without(
    data: str, paused: Callable[..., Run], train: Callable[..., TaskModule]
) -> None:
    """Every epoch, every loss, every byte; the last pause trains the rest."""
    options = {"epochs": 4, "dropout": 0.1, "crf": data == "tagging"}
    whole = paused(data, **options)
    history, module = whole.train(), whole.module().to_bytes()
    whole.folder.remove()

    for until in (1, 2):
        seen: list[Report] = []
        found = paused(data, **options).train(until, lambda *call: seen.append(call))  # noqa: B023
        assert found == history.up_to(until)
        assert not found.finished
        assert epochs_of(seen) == {f"{until}/4"}

    assert paused(data, **options).train() == history
    assert paused(data, **options).module().to_bytes() == module


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_pauses_do_not_make_a_run_more_patient(patience: int, paused: Callable[..., Run]) -> None:
    """Epochs without a better one are counted over pauses."""
    options = {"epochs": 12, "learning_rate": 3e-2, "patience": patience}
    whole = paused(**options)
    history, module = whole.train(), whole.module().to_bytes()
    assert history.finished
    assert len(history.epochs) < 12, "else it does not show"
    whole.folder.remove()

    for until in range(1, 13):
        found = paused(**options).train(until)

    assert found == history
    assert paused(**options).module().to_bytes() == module


def test_pausing_where_the_run_has_been_already_tells_what_was_known_there(
    paused: Callable[..., Run],
) -> None:
    first = paused(epochs=3).train(1)
    paused(epochs=3).train()
    seen: list[Report] = []

    assert paused(epochs=3).train(1, lambda *call: seen.append(call)) == first
    assert not seen


@pytest.mark.parametrize("behind", [False, True], ids=["no history", "an older history"])
def test_run_killed_before_it_wrote_its_history_has_not_lost_the_epoch(
    behind: bool, paused: Callable[..., Run], work: Path
) -> None:
    paused(epochs=4).train(1)
    older = (work / "history.json").read_bytes()
    expected = paused(epochs=4).train(2)
    (work / "history.json").unlink()
    if behind:
        (work / "history.json").write_bytes(older)
    seen: list[Report] = []

    assert paused(epochs=4).train(2, lambda *call: seen.append(call)) == expected
    assert not seen


def test_run_that_is_done_trains_nothing_more(paused: Callable[..., Run]) -> None:
    history = paused(epochs=2).train()
    seen: list[Report] = []

    assert history.finished
    assert paused(epochs=2).train(progress=lambda *call: seen.append(call)) == history
    assert not seen


# With a CRF


def test_crf_learns_which_tags_follow_each_other(
    train: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    module = train("tagging", crf=True)

    assert module.spec.head.crf
    assert module.spec.training["recipe"]["crf"] is True
    assert module.spec.metrics["entity_f1"] > KINDS["tagging"][2]
    labels = module.spec.labels
    transitions = module.tensors["head.crf.transitions"]
    assert transitions.shape == (len(labels), len(labels))
    assert float(transitions.abs().max()) > 0.5
    inside, begin, out = (labels.index(tag) for tag in ("I-city", "B-city", "O"))
    assert transitions[begin, inside] > transitions[out, inside], "cities begin with B"
    assert support.parity(module, tiny_backbone, backbone_store, tmp_path) < 1e-5


@pytest.mark.parametrize("data", [kind for kind in KINDS if kind != "tagging"])
def test_crf_is_refused_where_there_are_no_tags(
    data: str, train: Callable[..., TaskModule], work: Path
) -> None:
    with pytest.raises(UsageError, match=f"crf: a {KINDS[data][0]} task has no tags"):
        train(data, crf=True)
    assert not work.exists()


def test_what_a_tagger_scores_is_what_callers_of_texts_get(
    imported: Callable[[str], support.Backbone], work: Path, tmp_path: Path
) -> None:
    """Tagged by characters, in a script without spaces; callers send whole sentences."""
    backbone = imported("roberta")
    data = support.chinese_data(tmp_path / "data", rows=200)
    recipe = dataclasses.replace(RECIPE, tap=0, epochs=10)
    module = train_module(backbone.spec, backbone.store, data, recipe, work=work)
    store = support.LocalStore(tmp_path / "store")
    support.copy_backbone(backbone, store)
    manifest = support.put_release({"slots": module}, [backbone.spec], store)
    release = Release.load(manifest, store, engine="torch", device="cpu")
    examples = read_examples(data / "dev.jsonl")

    found = release.predict([example.input.text for example in examples])

    hits = predicted = expected = 0
    for example, answer in zip(examples, found, strict=True):
        text = "".join(example.input.tokens or ())
        gold = {(label, text[a:b], a, b) for label, a, b in tagged_spans(example.label)}
        spans = {(s["label"], s["text"], s["start"], s["end"]) for s in answer["slots"]["spans"]}
        hits += len(gold & spans)
        predicted += len(spans)
        expected += len(gold)
    callers = 2 * hits / (predicted + expected)
    assert callers > 0.3
    assert module.spec.metrics["entity_f1"] == pytest.approx(callers, abs=1e-5)
    measured = measure(release, "slots", examples).metrics
    assert {k: round(v, 6) for k, v in measured.items()} == module.spec.metrics
    assert abs(measured.get("entity_f1_on_tokens", callers) - callers) < 0.005


def test_how_texts_are_cut_follows_from_the_team_or_the_data(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    chinese = support.chinese_data(tmp_path / "chinese", rows=16)

    def words(data: Path, said: Any = None) -> str:
        labelling = Labelling(words=said)
        spec, store = tiny_backbone.spec, tiny_backbone.store
        return TaskData.load(spec, store, data, labelling=labelling).spec.head.words

    assert words(tiny_data("tagging")) == "unicode"
    assert words(tiny_data("tagging"), "spaces") == "spaces"
    assert words(chinese) == "characters"
    assert words(chinese, "unicode") == "unicode"
    with pytest.raises(
        DataError, match="words were said to be spaces, but this is a classification"
    ):
        words(tiny_data("single"), "spaces")


def test_what_truncation_cuts_off_counts_as_missed_and_is_told(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    rows = [
        {
            "tokens": ["fly", "to", "rome", *["on"] * between, "oslo"],
            "labels": ["O", "O", "B-city", *["O"] * between, "B-city"],
        }
        for between in (3, 80)
    ]
    for name in ("train", "dev"):
        support.write_jsonl(tmp_path / f"{name}.jsonl", rows)

    data = TaskData.load(tiny_backbone.spec, tiny_backbone.store, tmp_path)

    assert data.remarks == tuple(
        f"{tmp_path / name}.jsonl: 1 of 2 inputs are cut at 64 tokens, and 1 of their 2 entities, "
        "which count as missed"
        for name in ("train", "dev")
    )
    width = max(len(row.input_ids) for row in data.dev.rows)
    perfect = np.zeros((2, width, 3), np.float32)
    for place, targets in zip(perfect, data.dev.targets, strict=True):
        place[np.arange(len(targets)), np.maximum(targets, 0)] = 9
    assert dev_metrics(data.spec, perfect, data.dev) == {"entity_f1": pytest.approx(6 / 7)}


@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
def test_sentence_without_a_word_that_the_tokenizer_knows_does_no_harm(
    crf: bool, train: Callable[..., TaskModule], tmp_path: Path
) -> None:
    """Alone in its batch it has nothing to teach."""
    lines: list[object] = [{"tokens": ["go", "rome"], "labels": ["O", "B-x"]}] * 3
    empty = {"tokens": ["\u200b"], "labels": ["O"]}

    module = train(
        data_of(tmp_path / "data", [*lines, empty], lines), batch_size=1, epochs=1, crf=crf
    )

    assert all(bool(tensor.isfinite().all()) for tensor in module.tensors.values())


# Reported


def test_tensorboard_has_its_files_beside_the_work_folder(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    work = tmp_path / "outputs" / ".intent.work"

    module = train_module(
        tiny_backbone.spec,
        tiny_backbone.store,
        tiny_data("single"),
        Recipe(**(vars(RECIPE) | {"epochs": 2})),
        work=work,
        report_to=("tensorboard",),
    )

    assert [path.name for path in work.parent.iterdir()] == ["runs"]
    events = EventAccumulator(str(work.parent / "runs" / "intent")).Reload()
    accuracy = [event.value for event in events.Scalars("eval/accuracy")]
    assert len(accuracy) == 2
    assert max(accuracy) == pytest.approx(module.spec.metrics["accuracy"], abs=1e-5)


def test_reports_are_written_nowhere_unless_asked_for(
    train: Callable[..., TaskModule], tmp_path: Path
) -> None:
    train(epochs=1)

    assert not [*tmp_path.rglob("*tfevents*")]


def test_reports_do_not_change_what_is_trained(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    train: Callable[..., TaskModule],
    work: Path,
) -> None:
    module = train_module(
        tiny_backbone.spec,
        tiny_backbone.store,
        tiny_data("single"),
        Recipe(**(vars(RECIPE) | {"epochs": 1})),
        work=work,
        report_to=("tensorboard",),
    )

    assert module.to_bytes() == train(epochs=1).to_bytes()


def test_unknown_reporter_is_refused_before_anything_is_made(
    tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path], work: Path
) -> None:
    with pytest.raises(UsageError, match="report_to: 'paper' is none of tensorboard"):
        train_module(
            tiny_backbone.spec,
            tiny_backbone.store,
            tiny_data("single"),
            RECIPE,
            work=work,
            report_to=("paper",),
        )
    assert not work.exists()


# Refusals


def data_of(folder: Path, train: list[object], dev: list[object]) -> Path:
    support.write_jsonl(folder / "train.jsonl", train)
    support.write_jsonl(folder / "dev.jsonl", dev)
    return folder


SOME = [{"text": "go", "label": "a"}, {"text": "play", "label": "b"}]


def test_a_data_set_without_splits_is_not_trained_and_measured_on(
    tiny_backbone: support.Backbone, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(SOME).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="is a data set without splits; expected a folder"):
        TaskData.load(tiny_backbone.spec, tiny_backbone.store, tmp_path / "saved")


@pytest.mark.parametrize(
    ("dev", "match"),
    [
        ([*SOME, {"text": "x", "label": "news"}], r"dev\.jsonl:3: label 'news' does not occur"),
        ([*SOME, {"text": "x", "label": 1.5}], r"dev\.jsonl:3 has a number as its label"),
        (
            [{"text": "x", "label": 1.5}],
            r"dev\.jsonl:1 has a number as its label, .*train\.jsonl:1 a text",
        ),
        (
            [{"text": "x", "text_pair": "y", "label": "a"}],
            r"dev\.jsonl:1: a .* example with a pair input",
        ),
        ([], r"dev\.jsonl: holds no examples"),
        ([{"text": "x"}], r"dev\.jsonl:1: expected 'label'"),
    ],
    ids=["unseen label", "mixed", "other kind", "other form", "empty", "no label"],
)
def test_dev_data_that_does_not_suit_is_refused(
    dev: list[object], match: str, train: Callable[..., TaskModule], tmp_path: Path, work: Path
) -> None:
    data = data_of(tmp_path / "data", SOME, dev)

    with pytest.raises(DataError, match=match):
        train(data)
    assert not work.exists()


@pytest.mark.parametrize(
    ("labelled", "match"),
    [
        ([], r"train\.jsonl: holds no examples"),
        ([{"text": "x"}], r"train\.jsonl:1: expected 'label'"),
        ([{"text": "x", "label": "only"}], r"train\.jsonl.* 1 labels"),
        ([{"text": "x", "labels": []}], r"train\.jsonl.* 0 labels"),
    ],
    ids=["empty", "no label", "one class", "no labels at all"],
)
def test_training_data_that_teaches_nothing_is_refused(
    labelled: list[object], match: str, train: Callable[..., TaskModule], tmp_path: Path
) -> None:
    with pytest.raises(CentraError, match=match):
        train(data_of(tmp_path / "data", labelled, labelled))


def test_missing_data_is_refused(train: Callable[..., TaskModule], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: no such file"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tap": 1, "depth": 3}, "depth 3: above tap 1 the backbone has 2 layers"),
        ({"tap": 3, "depth": 1}, "depth 1: above tap 3 the backbone has 0 layers"),
        ({"tap": 4, "depth": 0}, "tap 4: the backbone has layers 0 to 3"),
        ({"tap": -1}, "tap -1"),
        ({"depth": -1}, "depth -1"),
        ({"epochs": 0}, "epochs must be greater than 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"patience": 0}, "patience"),
        ({"warmup": -0.1}, "warmup"),
        ({"warmup": 1.5}, "warmup"),
        ({"dropout": 1.5}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"max_length": -1}, "max_length"),
        ({"max_length": 2}, "max_length"),
        ({"metric": "pearson"}, "no metric 'pearson'"),
    ],
    ids=str,
)
def test_setting_that_cannot_be_trained_is_refused_by_name(
    options: dict[str, Any], match: str, train: Callable[..., TaskModule], work: Path
) -> None:
    with pytest.raises(UsageError, match=match):
        train(**options)
    assert not work.exists()


def test_tiny_dev_set_is_enough(train: Callable[..., TaskModule], tmp_path: Path) -> None:
    numbers = [{"text": "go", "label": 1}, {"text": "play", "label": 2.5}]

    assert train(data_of(tmp_path / "data", numbers, numbers[:1]), epochs=1).spec.metrics == {
        "pearson": 0,
        "spearman": 0,
    }


def test_data_longer_than_the_backbone_takes_is_cut(
    train: Callable[..., TaskModule], tmp_path: Path
) -> None:
    tokens = ["go"] * 100
    lines = [{"tokens": tokens, "labels": ["O"] * 98 + ["B-x", "I-x"]}] * 4
    lines += [{"tokens": ["go", "rome"], "labels": ["O", "B-x"]}] * 4

    module = train(data_of(tmp_path / "data", lines, lines), epochs=1)

    assert module.tensors["probe.input_ids"].shape == (8, support.MAX_LENGTH)


def test_diverged_training_does_not_pass_as_a_module(
    train: Callable[..., TaskModule], tmp_path: Path
) -> None:
    path = tmp_path / "task.safetensors"

    with pytest.raises(CentraError, match=r"NaN|infinite|diverged"):
        train("regression", learning_rate=1e30, epochs=1).write(path)
        check_module(path)
