"""The public functions that train, as a user calls them: paths in, a file and its metrics out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

import centra
from centra.errors import NotFoundError, UsageError
from centra.formats.task_module import read_spec
from centra.training.recipe import Recipe
from centra.training.train import train_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests import support

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 12, "learning_rate": 1e-3}


@pytest.fixture
def backbone(tiny_backbone: support.Backbone) -> centra.Backbone:
    return centra.Backbone(spec=tiny_backbone.spec, reader=tiny_backbone.store)


def test_finetuning_writes_the_module_that_it_tells_of(
    backbone: centra.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "centra.training.train")
    data, output = tiny_data("single"), tmp_path / "topic.safetensors"

    trained = centra.finetune(backbone, str(data), output=str(output), tap=1, depth=1, **QUICK)

    assert trained.path == output
    assert trained.spec.to_bytes() == read_spec(output).to_bytes()
    assert trained.metrics == trained.spec.metrics
    assert "accuracy" in trained.metrics
    assert [path.name for path in tmp_path.iterdir()] == ["topic.safetensors"]
    assert caplog.messages[0].startswith(f"trained {output} from {data} in ")
    recipe = Recipe(tap=1, depth=1, **QUICK)
    same = train_module(backbone.spec, backbone.reader, data, recipe, work=tmp_path / "work")
    assert trained.spec.to_bytes() == same.spec.to_bytes()


def test_a_folder_is_a_backbone_too(
    backbone: centra.Backbone,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    trained = centra.finetune(
        tiny_backbone.folder,
        tiny_data("single"),
        output=tmp_path / "topic.safetensors",
        tap=3,
        depth=0,
        cache=tmp_path / "cache",
        **QUICK,
    )
    assert trained.spec.backbone == backbone.spec.digest
    assert len(list((tmp_path / "cache").iterdir())) == 2
    loaded = centra.Backbone.load(str(tiny_backbone.folder), tmp_path / "store")
    assert loaded.spec == backbone.spec
    with pytest.raises(NotFoundError):
        centra.Backbone.load(tmp_path / "nothing", tmp_path / "store")


def test_what_labels_mean_is_said_in_plain_words(
    backbone: centra.Backbone, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data, output = tiny_data("single"), tmp_path / "topic.safetensors"
    first = centra.finetune(backbone, data, output=output, tap=3, depth=0, **QUICK)
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(reversed(first.spec.labels)))
    for given in (labels, str(labels), [*reversed(first.spec.labels)]):
        other = centra.finetune(
            backbone, data, output=output, tap=3, depth=0, labels=given, **QUICK
        )
        assert other.spec.labels == first.spec.labels[::-1]


def test_a_student_keeps_its_teacher_s_tap(
    backbone: centra.Backbone, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    data = tiny_data("single")
    teacher = centra.finetune(
        backbone, data, output=tmp_path / "teacher.safetensors", tap=1, depth=2, **QUICK
    )
    student = centra.distill(
        backbone,
        data,
        teacher=str(teacher.path),
        layers=1,
        output=tmp_path / "student.safetensors",
        temperature=3.0,
        **QUICK,
    )
    assert (student.spec.tap_layer, student.spec.depth) == (1, 1)
    assert student.spec.training["distillation"]["temperature"] == 3.0
    with pytest.raises(UsageError, match="its teacher's place") as caught:
        centra.distill(backbone, data, teacher=teacher.path, layers=1, output=teacher.path)
    assert caught.value.code == "output-is-teacher"


def test_fitting_follows_a_recipe_file(
    backbone: centra.Backbone,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tmp_path / "topic.toml"
    recipe.write_text(
        f'task = "topic"\nbackbone = "{tiny_backbone.folder}"\ndata = "{tiny_data("single")}"\n'
        "[search]\nlayers = [2, 2]\nlearning_rates = [1e-3]\n"
        "[distill]\nlayers = [1]\n[training]\nepochs = 1\nbatch_size = 12\n"
    )
    monkeypatch.chdir(tmp_path)

    fitted = centra.fit(str(recipe), jobs=1)

    assert str(fitted.path) == "topic-fit/topic.safetensors"
    assert fitted.spec.to_bytes() == read_spec(fitted.path).to_bytes()
    assert fitted.spec.backbone == backbone.spec.digest
    assert [trial.role for trial in fitted.trials] == ["teacher", "student"]
    again = centra.fit(recipe, backbone=backbone, output=tmp_path / "topic-fit", jobs=1)
    assert again.trials == fitted.trials
