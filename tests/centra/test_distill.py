"""Distillation: where a student starts, what it learns from its teacher, and that it pays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from centra.errors import ConflictError, FormatError, IncompatibleError, UsageError
from centra.formats.decision import Decision
from centra.formats.task_module import HeadSpec, TaskModule
from centra.kinds import kind_named
from centra.kinds.chain import Chain
from centra.kinds.tagging import IGNORED
from centra.modeling.branch import Branch
from centra.modeling.crf import LinearChain
from centra.modeling.shards import backbone_layer
from centra.system.files import file_digest
from centra.training.features import FeatureCache
from centra.training.recipe import Distillation, Recipe
from centra.training.run import Run
from centra.training.soft_targets import soft_logits
from centra.training.task_data import TaskData
from centra.training.train import train_module
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.task_module import TaskSpec
    from centra.store import LocalStore
    from centra.training.history import History

NOTHING = 1e-12
"""A learning rate at which what a run ends with is what it began with."""
RECIPE = Recipe(tap=1, depth=1, epochs=1, learning_rate=1e-3, batch_size=8, dropout=0.0)
METRICS = {
    "single": "accuracy",
    "pair": "accuracy",
    "multilabel": "micro_f1",
    "regression": "pearson",
    "tagging": "entity_f1",
    "crf": "entity_f1",
}
"""By kind of data; ``crf`` is tagging with one."""
KINDS: tuple[str, ...] = ("classification", "multilabel", "regression", "tagging")


@pytest.fixture(scope="module")
def teacher(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """The file of a teacher of two layers that learnt its task; made once per kind of data."""
    folder = tmp_path_factory.mktemp("teachers")

    def teacher(data: str) -> Path:
        path = folder / f"{data}.safetensors"
        if not path.is_file():
            module = train_module(
                tiny_backbone.spec,
                tiny_backbone.store,
                tiny_data("tagging" if data == "crf" else data),
                replace(
                    RECIPE, depth=2, epochs=12, learning_rate=1e-2, patience=12, crf=data == "crf"
                ),
                work=folder / "work",
            )
            module.write(path)
        return path

    return teacher


@pytest.fixture
def student(
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    teacher: Callable[[str], Path],
    tmp_path: Path,
) -> Callable[..., TaskModule]:
    """Distil a student; options change the recipe and the distillation."""

    def student(
        data: str = "single",
        *,
        of: Path | None = None,
        folder: Path | None = None,
        distillation: Distillation | None = None,
        cache: FeatureCache | None = None,
        progress: Callable[..., None] = lambda *_: None,
        **options: Any,
    ) -> TaskModule:
        return train_module(
            tiny_backbone.spec,
            tiny_backbone.store,
            folder or tiny_data("tagging" if data == "crf" else data),
            replace(RECIPE, **options),
            teacher=of or teacher(data),
            distillation=distillation,
            work=tmp_path / "work",
            cache=cache,
            progress=progress,
        )

    return student


def layer_of(module: TaskModule, number: int) -> dict[str, torch.Tensor]:
    prefix = f"layers.{number}."
    return {k.removeprefix(prefix): t for k, t in module.tensors.items() if k.startswith(prefix)}


def head_of(module: TaskModule) -> dict[str, torch.Tensor]:
    return {name: t for name, t in module.tensors.items() if name.startswith("head.")}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.allclose(found[name], expected[name], atol=1e-9) for name in expected)


# Where it starts (paper section 3.2)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("data", ["single", "regression", "crf"])
def test_student_starts_as_its_teacher_s_lowest_layers_and_head(
    data: str, depth: int, student: Callable[..., TaskModule], teacher: Callable[[str], Path]
) -> None:
    """At a learning rate of nearly nothing it ends as them, too."""
    module = student(data, depth=depth, learning_rate=NOTHING)

    expected = TaskModule.read(teacher(data))
    for number in range(1, depth + 1):
        assert same(layer_of(module, number), layer_of(expected, number))
    assert not layer_of(module, depth + 1)
    assert same(head_of(module), head_of(expected))
    assert not same(layer_of(expected, 1), layer_of(expected, 2)), "else it does not show"


@pytest.mark.parametrize("data", ["single", "regression"])
def test_student_may_start_from_the_backbone_instead(
    data: str,
    student: Callable[..., TaskModule],
    teacher: Callable[[str], Path],
    tiny_backbone: support.Backbone,
) -> None:
    module = student(
        data, depth=2, learning_rate=NOTHING, distillation=Distillation(start="backbone")
    )

    expected = TaskModule.read(teacher(data))
    for number in (1, 2):
        layer = backbone_layer(tiny_backbone.spec, tiny_backbone.store, 1 + number)
        assert same(layer_of(module, number), layer)
        assert not same(layer_of(module, number), layer_of(expected, number))
    assert not same(head_of(module), head_of(expected))


def test_student_answers_as_its_teacher_decides(
    student: Callable[..., TaskModule], teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    module, decision = TaskModule.read(teacher("single")), Decision(rejection=0.6)
    spec = module.spec.model_copy(update={"decision": decision})
    replace(module, spec=spec).write(tmp_path / "decided.safetensors")
    assert student(of=tmp_path / "decided.safetensors", depth=1).spec.decision == decision


def test_student_is_no_part_of_its_teacher_s_memory(
    student: Callable[..., TaskModule], teacher: Callable[[str], Path]
) -> None:
    """What it learns does not show in the answers that it learns from."""
    before = teacher("single").read_bytes()

    module = student(learning_rate=1e-2)

    assert teacher("single").read_bytes() == before
    assert not same(head_of(module), head_of(TaskModule.read(teacher("single"))))


# What it says about itself


def test_student_says_how_it_was_distilled(
    student: Callable[..., TaskModule], teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    distillation = Distillation(temperature=3.0, weight=0.25, start="backbone")

    module = student(distillation=distillation, seed=4)

    expected = TaskModule.read(teacher("single")).spec
    assert module.spec.teacher == file_digest(teacher("single"))
    assert module.spec.tap_layer == expected.tap_layer
    assert module.spec.depth == 1
    assert module.spec.contract == expected.contract
    assert module.spec.head == expected.head
    assert module.spec.training["distillation"] == vars(distillation)
    assert module.spec.training["recipe"] == vars(replace(RECIPE, seed=4))
    assert module.spec.training["data"] == expected.training["data"]
    assert expected.teacher is None
    assert "distillation" not in expected.training
    assert not (tmp_path / "work").exists()


def test_student_says_so_where_it_was_distilled_by_default(
    student: Callable[..., TaskModule],
) -> None:
    assert student().spec.training["distillation"] == vars(Distillation())


@pytest.mark.parametrize("data", METRICS)
def test_student_of_every_kind_is_a_valid_module_with_parity(
    data: str,
    student: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    tmp_path: Path,
) -> None:
    module = student(data)

    assert module.spec.head.crf == (data == "crf")
    assert support.parity(module, tiny_backbone, backbone_store, tmp_path) < 1e-5


# It pays


@pytest.mark.parametrize("data", METRICS)
def test_distilled_student_beats_the_same_one_trained_alone(
    data: str,
    student: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """One epoch, one layer: from its teacher, or from the backbone's layers and the labels."""
    alone = train_module(
        tiny_backbone.spec,
        tiny_backbone.store,
        tiny_data("tagging" if data == "crf" else data),
        replace(RECIPE, crf=data == "crf"),
        work=tmp_path / "alone",
    )

    distilled = student(data)

    metric = METRICS[data]
    assert distilled.spec.metrics[metric] > alone.spec.metrics[metric] + 0.2


def scrambled(folder: Path, data: Path) -> Path:
    """The same inputs, each with the label of the next one; the dev set as it was."""
    folder.mkdir()
    lines = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    labels = [line["label"] for line in lines]
    for line, label in zip(lines, labels[1:] + labels[:1], strict=True):
        line["label"] = label
    support.write_jsonl(folder / "train.jsonl", lines)
    shutil.copy(data / "dev.jsonl", folder)
    return folder


def test_weight_is_the_teacher_s_share(
    student: Callable[..., TaskModule], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Where the labels are wrong, the more of the teacher the better; all of it needs no labels."""
    folder = scrambled(tmp_path / "scrambled", tiny_data("single"))

    found = {
        weight: student(
            folder=folder,
            distillation=Distillation(weight=weight, start="backbone"),
            learning_rate=1e-2,
            epochs=6,
        ).spec.metrics["accuracy"]
        for weight in (0.0, 1.0)
    }

    assert found[0.0] < 0.6
    assert found[1.0] > 0.8


def test_without_any_weight_only_the_start_is_the_teacher_s(
    student: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    alone = train_module(
        tiny_backbone.spec, tiny_backbone.store, tiny_data("single"), RECIPE, work=tmp_path / "w"
    )

    module = student(distillation=Distillation(weight=0.0, start="backbone"))

    assert same(module.weights, alone.weights)


def test_temperature_changes_what_is_learnt(student: Callable[..., TaskModule]) -> None:
    warm, hot = (student(distillation=Distillation(temperature=t)) for t in (1.0, 8.0))

    assert not same(warm.weights, hot.weights)


@pytest.mark.parametrize("data", METRICS)
def test_training_is_the_same_with_cached_features(
    data: str,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    teacher: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """For the student and its teacher; also where only the dev set finds room."""
    folder = tiny_data("tagging" if data == "crf" else data)
    examples = TaskData.load(tiny_backbone.spec, tiny_backbone.store, folder)
    dev = 4 * support.HIDDEN * sum(len(row.input_ids) for row in examples.dev.rows)

    def trained(budget: int | None) -> History:
        return Run(
            tiny_backbone.spec,
            tiny_backbone.store,
            examples,
            replace(RECIPE, epochs=2, dropout=0.1),
            work=tmp_path / f"work-{budget}",
            cache=None if budget is None else FeatureCache(tmp_path / f"features-{budget}", budget),
            teacher=teacher(data),
        ).train()

    plain = trained(None)
    for budget in (10**9, dev):
        for found, expected in zip(trained(budget).epochs, plain.epochs, strict=True):
            assert found.loss == pytest.approx(expected.loss, rel=1e-4)
            assert found.metrics == pytest.approx(expected.metrics, rel=1e-4)


@pytest.mark.parametrize("cached", [False, True], ids=["on the fly", "cached"])
@pytest.mark.parametrize("data", ["single", "tagging"])
def test_teacher_answers_the_training_set_once(
    data: str,
    cached: bool,
    student: Callable[..., TaskModule],
    teacher: Callable[[str], Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many epochs follow; the dev set it never sees."""
    teacher(data)
    counted = {1: 0, 2: 0}
    forward = Branch.forward

    def count(branch: Branch, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        counted[len(branch.layers)] += len(hidden)
        return forward(branch, hidden, mask)

    monkeypatch.setattr(Branch, "forward", count)
    cache = FeatureCache(tmp_path / "features", 10**9) if cached else None

    student(data, epochs=3, cache=cache)

    examples = len((tiny_data(data) / "train.jsonl").read_text().splitlines())
    assert counted[2] == examples
    assert counted[1] > 3 * examples


def test_same_seed_gives_the_same_student(student: Callable[..., TaskModule]) -> None:
    first = student(epochs=2, dropout=0.1, seed=5).to_bytes()
    torch.manual_seed(12345)

    assert student(epochs=2, dropout=0.1, seed=5).to_bytes() == first
    assert student(epochs=2, dropout=0.1, seed=6).to_bytes() != first


def test_killed_distillation_ends_as_one_that_was_not(student: Callable[..., TaskModule]) -> None:
    whole = student(epochs=3, dropout=0.1).to_bytes()

    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student(epochs=3, dropout=0.1, progress=kill)
    seen: list[str] = []

    module = student(
        epochs=3, dropout=0.1, progress=lambda what, *_: seen.append(what.partition(" ·")[0])
    )

    assert module.to_bytes() == whole
    assert "epoch 1/3" not in seen


# What is refused


def test_teacher_of_another_contract_is_refused(
    student: Callable[..., TaskModule],
    teacher: Callable[[str], Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    for name in ("train.jsonl", "dev.jsonl"):
        text = (tiny_data("single") / name).read_text().replace('"music"', '"song"')
        support.write_jsonl(other / name, map(json.loads, text.splitlines()))

    with pytest.raises(ConflictError, match=r"teacher's kind; the teacher has multilabel"):
        student("single", of=teacher("multilabel"))
    with pytest.raises(ConflictError, match=r"teacher's input; the teacher has pair"):
        student("single", of=teacher("pair"))
    with pytest.raises(ConflictError, match=r"teacher's labels; .*'music'.* the data .*'song'"):
        student(folder=other)
    with pytest.raises(ConflictError, match=r"teacher's tap; the teacher has 1, the recipe 0"):
        student(tap=0)
    assert not (tmp_path / "work").exists()


def test_student_with_more_layers_than_its_teacher_is_refused(
    student: Callable[..., TaskModule], teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    small = tmp_path / "small.safetensors"
    student(depth=1).write(small)

    with pytest.raises(UsageError, match=r"depth 2: the teacher .*small.* has 1 layers"):
        student(of=small, depth=2)


def test_crf_is_refused_where_the_teacher_has_none(
    student: Callable[..., TaskModule], teacher: Callable[[str], Path]
) -> None:
    with pytest.raises(UsageError, match=r"crf: a student has its teacher's head"):
        student("tagging", of=teacher("tagging"), crf=True)


def test_teacher_of_another_backbone_is_refused(
    imported: Callable[[str], support.Backbone],
    student: Callable[..., TaskModule],
    tmp_path: Path,
) -> None:
    other = imported("roberta")
    path = tmp_path / "other.safetensors"
    support.make_module("classification", other.spec, other.store, depth=2).write(path)

    with pytest.raises(IncompatibleError, match=r"other\.safetensors: was made for backbone"):
        student(of=path)


def test_teacher_that_is_no_module_is_refused(
    student: Callable[..., TaskModule], teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "flipped.safetensors"
    shutil.copy(teacher("single"), path)
    support.flip(path, 8 * path.stat().st_size - 4000)

    with pytest.raises(FormatError, match=r"flipped\.safetensors: is corrupt"):
        student(of=path)


@pytest.mark.parametrize("change", [{"weight": 1.5}, {"temperature": 0.0}])
def test_distillation_that_cannot_be_is_refused(
    change: dict[str, float], student: Callable[..., TaskModule], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        student(distillation=Distillation(**change))
    assert not (tmp_path / "work").exists()


# How far two answers are apart

seeds = st.integers(0, 2**31)
temperatures = st.sampled_from([0.5, 1.0, 2.0, 5.0])
LABELS = ("O", "B-city", "I-city")


def spec_of(kind: str, *, crf: bool = False) -> TaskSpec:
    spec = support.make_spec("ab" * 32, kind)
    return spec.model_copy(update={"head": spec.head.model_copy(update={"crf": crf})})


def logits_of(kind: str, seed: int, words: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a student and of a teacher, and the targets; tagging is padded and has gaps."""
    random = np.random.default_rng(seed)
    shape = {"regression": (5, 1), "tagging": (5, words + 3, 3)}.get(kind, (5, 3))
    student, teacher = random.normal(scale=3, size=(2, *shape)).astype(np.float32)
    if kind == "classification":
        targets = random.integers(0, 3, size=5)
    elif kind == "tagging":
        targets = random.integers(0, 3, size=shape[:2])
        # Special tokens and the later pieces of a word carry no tag, nor does the padding.
        targets[:, 0] = IGNORED
        targets[random.random(shape[:2]) < 0.3] = IGNORED
        targets[0, -2:] = IGNORED
        targets[1, 1] = 0
    else:
        targets = random.integers(0, 2, size=shape).astype(np.float32)
        targets = targets[:, 0] if kind == "regression" else targets
    return student, teacher, targets


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def divergence(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    return (expected * (np.log(expected) - np.log(found))).sum(axis=-1)


def loss_of(
    kind: str,
    student: np.ndarray,
    teacher: np.ndarray,
    targets: np.ndarray,
    temperature: float,
    *,
    chain: LinearChain | None = None,
) -> float:
    found = kind_named(kind).soft_loss(
        torch.from_numpy(student),
        torch.from_numpy(teacher),
        torch.from_numpy(targets),
        temperature=temperature,
        chain=chain,
    )
    return float(found.detach())


def plain_formula(
    kind: str, student: np.ndarray, teacher: np.ndarray, targets: np.ndarray, temperature: float
) -> float:
    student, teacher = student.astype(np.float64), teacher.astype(np.float64)
    if kind == "regression":
        return float(np.mean((student - teacher) ** 2))
    if kind == "multilabel":
        yes = [1 / (1 + np.exp(-x / temperature)) for x in (teacher, student)]
        expected, found = (np.stack([p, 1 - p], axis=-1) for p in yes)
    else:
        expected, found = softmax(teacher / temperature), softmax(student / temperature)
    apart = divergence(expected, found)
    if kind == "tagging":
        apart = apart[targets != IGNORED]
    return float(temperature**2 * apart.mean())


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, temperature=temperatures)
def test_loss_is_the_plain_formula(kind: str, seed: int, temperature: float) -> None:
    student, teacher, targets = logits_of(kind, seed)

    found = loss_of(kind, student, teacher, targets, temperature)

    expected = plain_formula(kind, student, teacher, targets, temperature)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, temperature=temperatures)
def test_loss_is_zero_for_the_teacher_s_own_answers_and_else_positive(
    kind: str, seed: int, temperature: float
) -> None:
    student, teacher, targets = logits_of(kind, seed)

    assert loss_of(kind, teacher, teacher, targets, temperature) == pytest.approx(0, abs=1e-5)
    assert loss_of(kind, student, teacher, targets, temperature) > 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "regression"])
def test_gradient_keeps_its_size_at_any_temperature(kind: str) -> None:
    """Hinton et al. 2015, section 2; as great as the square makes it, and no greater."""
    student, teacher, targets = logits_of(kind, 3)
    sizes = []
    for temperature in (20.0, 200.0):
        logits = torch.from_numpy(student).requires_grad_()
        kind_named(kind).soft_loss(
            logits,
            torch.from_numpy(teacher),
            torch.from_numpy(targets),
            temperature=temperature,
        ).backward()
        assert logits.grad is not None
        sizes.append(float(logits.grad.norm()))

    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


@pytest.mark.parametrize(
    ("kind", "chained"), [*((kind, False) for kind in KINDS), ("tagging", True)]
)
def test_gradients_lead_to_the_teacher(kind: str, chained: bool) -> None:
    student, teacher, targets = logits_of(kind, 1)
    chain = LinearChain(3) if chained else None
    logits = torch.from_numpy(student).requires_grad_()
    learning = [logits, *(() if chain is None else chain.parameters())]
    steps = torch.optim.Adam(learning, lr=0.1)
    losses = []

    for _ in range(150):
        steps.zero_grad()
        loss = kind_named(kind).soft_loss(
            logits,
            torch.from_numpy(teacher),
            torch.from_numpy(targets),
            temperature=2.0,
            chain=chain,
        )
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.01 * losses[0]
    assert all(bool(value.isfinite().all()) for value in learning)


def random_chain(seed: int) -> LinearChain:
    generator = torch.Generator().manual_seed(seed)
    chain = LinearChain(3)
    for parameter in chain.parameters():
        parameter.data = 2 * torch.randn(parameter.shape, generator=generator)
    return chain


@pytest.mark.parametrize("chained", [False, True], ids=["plain", "crf"])
@given(seed=seeds)
def test_tokens_without_a_tag_do_not_matter(chained: bool, seed: int) -> None:
    """Neither their logits nor how far a batch is padded."""
    student, teacher, targets = logits_of("tagging", seed)
    chain = random_chain(seed) if chained else None
    without = targets == IGNORED
    others = [logits.copy() for logits in (student, teacher)]
    for logits in others:
        logits[without] = np.random.default_rng(seed + 1).normal(scale=9, size=(without.sum(), 3))
    longer = [np.pad(logits, ((0, 0), (0, 4), (0, 0)), constant_values=7) for logits in others]
    padded = np.pad(targets, ((0, 0), (0, 4)), constant_values=IGNORED)

    found = loss_of("tagging", student, teacher, targets, 2.0, chain=chain)

    assert loss_of("tagging", *others, targets, 2.0, chain=chain) == pytest.approx(found, rel=1e-5)
    assert loss_of("tagging", *longer, padded, 2.0, chain=chain) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("chained", [False, True], ids=["plain", "crf"])
def test_tokens_without_a_tag_have_no_gradient(chained: bool) -> None:
    student, teacher, targets = logits_of("tagging", 2)
    logits = torch.from_numpy(student).requires_grad_()

    kind_named("tagging").soft_loss(
        logits,
        torch.from_numpy(teacher),
        torch.from_numpy(targets),
        temperature=2.0,
        chain=random_chain(0) if chained else None,
    ).backward()

    assert logits.grad is not None
    moved = logits.grad.abs().sum(dim=-1).numpy() > 0
    assert np.array_equal(moved, targets != IGNORED)


@pytest.mark.parametrize("chained", [False, True], ids=["plain", "crf"])
def test_batch_without_any_word_has_nothing_to_teach(chained: bool) -> None:
    student, teacher, targets = logits_of("tagging", 2)
    chain = random_chain(0) if chained else None

    found = loss_of("tagging", student, teacher, np.full_like(targets, IGNORED), 2.0, chain=chain)

    assert found == 0


# With a CRF


def marginals(
    chain: LinearChain, logits: np.ndarray, targets: np.ndarray, temperature: float
) -> Any:
    """The distribution at each word, by the decoder's own arithmetic: ``(all words, labels)``."""
    scores = {
        name: value.detach().numpy().astype(np.float64) / temperature
        for name, value in chain.named_parameters()
    }
    words = [
        Chain(**scores).marginals(row[known] / temperature)
        for row, known in zip(logits, targets != IGNORED, strict=True)
    ]
    return np.concatenate(words)


@given(seed=seeds, temperature=temperatures)
def test_crf_teaches_its_marginals_to_a_plain_student(seed: int, temperature: float) -> None:
    student, teacher, targets = logits_of("tagging", seed)
    chain = random_chain(seed)

    soft = soft_logits(
        torch.from_numpy(teacher), torch.from_numpy(targets), temperature, chain
    ).detach()
    found = loss_of("tagging", student, soft.numpy(), targets, temperature)

    known = targets != IGNORED
    expected = marginals(chain, teacher, targets, temperature)
    assert np.allclose(softmax(soft.numpy()[known] / temperature), expected, atol=1e-4)
    apart = divergence(expected, softmax(student[known].astype(np.float64) / temperature))
    assert found == pytest.approx(temperature**2 * apart.mean(), rel=1e-2, abs=1e-3)


@given(seed=seeds, temperature=temperatures)
def test_crf_learns_marginals_with_its_own(seed: int, temperature: float) -> None:
    student, teacher, targets = logits_of("tagging", seed)
    of_teacher, of_student = random_chain(seed), random_chain(seed + 1)
    soft = soft_logits(
        torch.from_numpy(teacher), torch.from_numpy(targets), temperature, of_teacher
    ).detach()

    found = loss_of("tagging", student, soft.numpy(), targets, temperature, chain=of_student)
    own = loss_of("tagging", teacher, soft.numpy(), targets, temperature, chain=of_teacher)

    expected = marginals(of_teacher, teacher, targets, temperature)
    apart = divergence(expected, marginals(of_student, student, targets, temperature))
    assert found == pytest.approx(temperature**2 * apart.mean(), rel=1e-2, abs=1e-3)
    assert own == pytest.approx(0, abs=1e-4)


def test_teacher_without_a_crf_teaches_its_logits() -> None:
    _, teacher, targets = logits_of("tagging", 0)

    found = soft_logits(torch.from_numpy(teacher), torch.from_numpy(targets), 2.0)

    assert np.array_equal(found.numpy(), teacher)


def test_student_of_a_crf_has_one_that_learns(
    student: Callable[..., TaskModule], teacher: Callable[[str], Path]
) -> None:
    before = TaskModule.read(teacher("crf")).tensors["head.crf.transitions"]

    module = student("crf")

    after = module.tensors["head.crf.transitions"]
    assert module.spec.head.crf
    assert after.shape == before.shape
    assert float((after - before).abs().max()) > 1e-3


def test_a_head_with_tags_of_its_own_is_no_teacher(
    student: Callable[..., TaskModule], make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    path = tmp_path / "teacher.safetensors"
    make_module("tagging", head=HeadSpec(tags=("O", "B-city", "E-city", "S-city"))).write(path)

    with pytest.raises(UsageError, match=r"its head answers in tags of its own .O, B-city, E-city"):
        student("tagging", of=path)


def test_whole_numbers_are_values_to_a_student_of_regression(
    student: Callable[..., TaskModule], teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = [{"text": text, "label": i % 3} for i, text in enumerate(["go", "play", "stop"] * 4)]
    for name in ("train.jsonl", "dev.jsonl"):
        support.write_jsonl(tmp_path / "whole" / name, rows)

    module = student("regression", folder=tmp_path / "whole", depth=1, learning_rate=NOTHING)

    assert module.spec.kind == "regression"


def test_a_student_reads_and_pools_as_its_teacher(
    student: Callable[..., TaskModule],
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    recipe = replace(RECIPE, pooling="mean", template="play: {text} now", max_length=12)
    teacher = train_module(
        tiny_backbone.spec, tiny_backbone.store, tiny_data("single"), recipe, work=tmp_path / "work"
    )
    teacher.write(tmp_path / "teacher.safetensors")

    found = student(of=tmp_path / "teacher.safetensors", depth=1, max_length=12)

    decision = Decision(pooling="mean", template="play: {text} now", max_length=12)
    assert teacher.spec.decision == decision
    assert found.spec.decision == decision
    # The teacher's own answers come from the texts in their template.
    assert teacher.tensors["probe.input_ids"].shape[1] <= 12
    first = teacher.tensors["probe.input_ids"][:, 1]
    assert (first == first[0]).all()
    for name, value in (("pooling", "max"), ("template", "rain: {text}")):
        with pytest.raises(UsageError, match=f"{name}: a student has its teacher's"):
            student(of=tmp_path / "teacher.safetensors", **{name: value})
