"""Joint training and leaving one task out: they learn, go on after a kill, and keep tasks apart."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.tools import joint
from benchmarks.tools.joint import fit_head, train_joint, train_leave_one_out
from benchmarks.tools.joint_run import Part, fit
from centra.errors import TrainingDivergedError, UsageError
from centra.modeling.trunk import Trunk
from centra.training.recipe import Recipe
from centra.training.task_data import TaskData
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.training.network import TrainingSet

RECIPE = Recipe(
    tap=0,
    depth=support.LAYERS,
    epochs=4,
    learning_rate=3e-3,
    batch_size=8,
    dropout=0.0,
    patience=10,
)
HEAD = replace(RECIPE, tap=support.LAYERS, depth=0, learning_rate=1e-2, epochs=15)
# Kind of data: its first metric, and what no guess without learning reaches.
ABOVE_CHANCE = {
    "single": ("accuracy", 0.5),
    "regression": ("pearson", 0.4),
    "tagging": ("entity_f1", 0.4),
}


class KilledError(Exception):
    pass


class Log:
    """A progress that remembers what it is told, and dies at the n-th report of some work."""

    def __init__(self, dies_in: str = "", at: int = 0) -> None:
        self.told: list[tuple[str, int, int]] = []
        self._dies_in = dies_in
        self._left = at

    def __call__(self, what: str, done: int, total: int) -> None:
        self.told.append((what, done, total))
        if self._dies_in and what.startswith(self._dies_in):
            self._left -= 1
            if self._left == 0:
                raise KilledError

    def steps(self, what: str) -> list[int]:
        return [done for title, done, _ in self.told if title.startswith(what)]


@pytest.fixture
def datas(tiny_backbone: support.Backbone, tiny_data: Callable[[str], Path]) -> dict[str, TaskData]:
    return {
        kind: TaskData.load(tiny_backbone.spec, tiny_backbone.store, tiny_data(kind))
        for kind in ABOVE_CHANCE
    }


@pytest.fixture
def train(tiny_backbone: support.Backbone) -> Callable[..., dict[str, dict[str, float]]]:
    """Joint training on the tiny BERT; options change the recipe."""

    def train(
        datas: dict[str, TaskData], work: Path, progress: Log | None = None, **options: Any
    ) -> dict[str, dict[str, float]]:
        return train_joint(
            tiny_backbone.spec,
            tiny_backbone.store,
            datas,
            replace(RECIPE, **options),
            work=work,
            progress=progress or Log(),
        )

    return train


@pytest.fixture
def leave_out(tiny_backbone: support.Backbone) -> Callable[..., dict[str, dict[str, float]]]:
    """Leaving one out on the tiny BERT."""

    def leave_out(
        datas: dict[str, TaskData], work: Path, progress: Log | None = None, **options: Any
    ) -> dict[str, dict[str, float]]:
        return train_leave_one_out(
            tiny_backbone.spec,
            tiny_backbone.store,
            datas,
            replace(RECIPE, **options),
            HEAD,
            work=work,
            progress=progress or Log(),
        )

    return leave_out


def steps(*datas: TaskData, recipe: Recipe = RECIPE) -> int:
    return recipe.epochs * sum(-(-len(data.train.rows) // recipe.batch_size) for data in datas)


# Joint training


def test_one_model_learns_all_tasks(
    train: Callable[..., Any], datas: dict[str, TaskData], tmp_path: Path
) -> None:
    log = Log()
    found = train(datas, tmp_path, log, epochs=8)
    assert set(found) == set(datas)
    for task, (metric, chance) in ABOVE_CHANCE.items():
        assert found[task][metric] > chance, found
    total = 2 * steps(*datas.values())
    assert log.steps("joint") == list(range(1, total + 1))


def test_batches_hold_one_task_each_and_come_in_another_random_order_each_epoch(
    train: Callable[..., Any],
    datas: dict[str, TaskData],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds: list[str] = []
    run = Part.run

    def spy(part: Part, examples: TrainingSet, indices: list[int]) -> Any:
        if examples is part.train:
            kinds.append(part.network.spec.kind)
        return run(part, examples, indices)

    monkeypatch.setattr(Part, "run", spy)
    train(datas, tmp_path, epochs=2)
    each = len(kinds) // 2
    first, second = kinds[:each], kinds[each:]
    assert Counter(first) == Counter(second)
    assert Counter(first) == {"classification": 9, "regression": 5, "tagging": 5}
    assert len(list(groupby(first))) > 3
    assert first != second


def test_the_networks_end_with_the_weights_of_the_best_epoch(
    train: Callable[..., Any],
    datas: dict[str, TaskData],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []

    def spy(parts: dict[str, Part], *args: Any) -> Any:
        found = fit(parts, *args)
        measured.append({task: part.evaluate(16) for task, part in parts.items()})
        return found

    monkeypatch.setattr(joint, "fit", spy)
    log = Log()
    one = {"single": datas["single"]}
    # So high a rate that later epochs undo what the first one learned.
    found = train(one, tmp_path, log, learning_rate=0.1, epochs=6, patience=2)
    assert log.steps("joint")[-1] == 3 * steps(*one.values()) // RECIPE.epochs
    assert measured == [found]


def test_the_best_epoch_counts_and_patience_ends_the_training(
    train: Callable[..., Any], datas: dict[str, TaskData], tmp_path: Path
) -> None:
    one = {"single": datas["single"]}
    log = Log()
    found = train(one, tmp_path / "a", log, learning_rate=1e-9, patience=2)
    each = steps(*one.values()) // RECIPE.epochs
    # Nothing is learned, so no epoch is better than the first.
    assert log.steps("joint") == list(range(1, 3 * each + 1))
    assert found == train(one, tmp_path / "b", epochs=1, learning_rate=1e-9)


@pytest.mark.parametrize("at", [1, 25, 45])
def test_a_kill_loses_one_epoch_at_most_and_changes_nothing(
    at: int, train: Callable[..., Any], datas: dict[str, TaskData], tmp_path: Path
) -> None:
    two = {task: datas[task] for task in ("single", "regression")}
    each = steps(*two.values()) // RECIPE.epochs
    uncut = train(two, tmp_path / "uncut", dropout=0.1)
    with pytest.raises(KilledError):
        train(two, tmp_path / "cut", Log("joint", at), dropout=0.1)
    log = Log()
    # Tasks in another order are the same tasks.
    again = train(dict(reversed(two.items())), tmp_path / "cut", log, dropout=0.1)
    assert again == uncut
    assert log.steps("joint")[0] == (at - 1) // each * each + 1


def test_what_is_done_is_not_done_again_and_other_settings_are_other_results(
    train: Callable[..., Any], datas: dict[str, TaskData], tmp_path: Path
) -> None:
    one = {"single": datas["single"]}
    found = train(one, tmp_path, epochs=1)
    (file,) = tmp_path.iterdir()  # Its checkpoints are gone.
    assert json.loads(file.read_bytes())["metrics"] == found
    log = Log()
    assert train(one, tmp_path, log, epochs=1) == found
    assert log.told == []
    train(one, tmp_path, log, epochs=1, seed=1)
    assert log.told
    assert len([*tmp_path.iterdir()]) == 2
    assert file.is_file()


def test_weights_that_diverge_are_refused(
    train: Callable[..., Any], datas: dict[str, TaskData], tmp_path: Path
) -> None:
    with pytest.raises(TrainingDivergedError):
        train({"single": datas["single"]}, tmp_path, learning_rate=1e38, epochs=2)


# Leaving one out


def test_a_task_that_was_left_out_learns_on_the_encoder_of_the_others(
    leave_out: Callable[..., Any],
    datas: dict[str, TaskData],
    tiny_backbone: support.Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def spy(backbone: Any, encoder: Trunk, data: TaskData, *args: Any, **options: Any) -> Any:
        before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
        found = fit_head(backbone, encoder, data, *args, **options)
        seen.append((data, before, encoder.state_dict()))
        return found

    monkeypatch.setattr(joint, "fit_head", spy)
    log = Log()
    found = leave_out(datas, tmp_path, log)

    start = Trunk(
        tiny_backbone.spec, tiny_backbone.store, depth=tiny_backbone.spec.num_layers
    ).state_dict()
    assert [data for data, _, _ in seen] == [datas[task] for task in sorted(datas)]
    for _, before, after in seen:
        assert all(torch.equal(before[name], after[name]) for name in before)
        changed = {name for name in before if not torch.equal(before[name], start[name])}
        assert changed == {name for name in start if name.startswith("layers.")}
    for task in datas:
        others = [data for name, data in datas.items() if name != task]
        assert log.steps(f"without {task}") == list(range(1, steps(*others) + 1))
        metric, chance = ABOVE_CHANCE[task]
        assert found[task][metric] > chance, found


def test_the_data_of_the_task_left_out_do_not_touch_the_encoder(
    leave_out: Callable[..., Any],
    datas: dict[str, TaskData],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoders = []

    def spy(_backbone: Any, encoder: Trunk, data: TaskData, *_: Any, **__: Any) -> dict[str, float]:
        if data.spec.kind == "classification":
            encoders.append(encoder.state_dict())
        return {}

    monkeypatch.setattr(joint, "fit_head", spy)
    single = datas["single"]
    fewer = replace(
        single, train=replace(single.train, rows=single.train.rows[:8]), fingerprint="0" * 64
    )
    for i, data in enumerate((single, fewer)):
        leave_out({"single": data, "regression": datas["regression"]}, tmp_path / str(i), epochs=1)
    assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in encoders[0])


@pytest.mark.parametrize(("dies_in", "at"), [("without regression", 15), ("head", 20)])
def test_leaving_one_out_goes_on_after_a_kill(
    dies_in: str,
    at: int,
    leave_out: Callable[..., Any],
    datas: dict[str, TaskData],
    tmp_path: Path,
) -> None:
    two = {task: datas[task] for task in ("single", "regression")}
    uncut = leave_out(two, tmp_path / "uncut", epochs=2)
    with pytest.raises(KilledError):
        leave_out(two, tmp_path / "cut", Log(dies_in, at), epochs=2)
    log = Log()
    assert leave_out(two, tmp_path / "cut", log, epochs=2) == uncut
    assert log.steps("without regression")[:1] != [1]
    assert not [path for path in (tmp_path / "cut").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    "options", [{"tap": 1, "depth": 2}, {"metric": "matthews"}, {"crf": True}, {"epochs": 0}]
)
def test_settings_that_joint_training_has_no_use_for_are_refused(
    options: dict[str, Any],
    train: Callable[..., Any],
    leave_out: Callable[..., Any],
    datas: dict[str, TaskData],
    tmp_path: Path,
) -> None:
    for run in (train, leave_out):
        with pytest.raises(UsageError):
            run(datas, tmp_path, **options)
    assert not [*tmp_path.iterdir()]


def test_too_few_tasks_are_refused(
    train: Callable[..., Any],
    leave_out: Callable[..., Any],
    datas: dict[str, TaskData],
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="at least one task"):
        train({}, tmp_path)
    with pytest.raises(UsageError, match="at least two tasks"):
        leave_out({"single": datas["single"]}, tmp_path)
