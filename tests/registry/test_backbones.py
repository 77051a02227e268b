from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from centra.errors import ConflictError, FormatError, InvalidNameError, NotFoundError
from registry import backbones
from registry.backbones import BackboneOutcome
from tests import support
from tests.registry.helpers import actions, blob_path, nothing_changes, refused, rows

if TYPE_CHECKING:
    from pathlib import Path

    from registry import Registry


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder of other weights than those that every registry has."""
    return support.make_encoder("bert", tmp_path_factory.mktemp("retrained"), seed=7)


def test_other_weights_under_the_same_name_are_its_next_version(
    registry: Registry, retrained: Path
) -> None:
    outcome = backbones.register(registry, "tiny", retrained)
    row = outcome.backbone
    assert outcome.changed
    assert (row.reference, row.family, row.num_layers) == ("tiny@2", "bert", support.LAYERS)
    assert (row.hidden_size, row.max_length) == (support.HIDDEN, support.MAX_LENGTH)
    assert (row.source, row.created_by) == (str(retrained), "nlu/ada")
    assert backbones.show(registry, "tiny") == row
    assert backbones.show(registry, "tiny@1").version == 1
    listed = [row.reference for row in backbones.list(registry)]
    assert listed == ["other@1", "tiny@2", "tiny@1"]
    assert actions(registry) == ["backbone:register tiny"]
    with nothing_changes(registry):
        again = backbones.register(registry, "tiny", str(retrained))
    assert again == BackboneOutcome(backbone=row, changed=False)


def test_the_same_weights_are_registered_once_under_whatever_name(
    registry: Registry, encoders: dict[str, support.Backbone]
) -> None:
    with nothing_changes(registry):
        outcome = backbones.register(registry, "another", str(encoders["tiny"].folder))
    assert (outcome.backbone.reference, outcome.changed) == ("tiny@1", False)


def test_the_weights_of_a_retired_backbone_do_not_bring_it_back(
    registry: Registry, encoders: dict[str, support.Backbone]
) -> None:
    backbones.retire(registry, "tiny@1")
    data = {"code": "backbone-retired", "backbone": "tiny@1"}
    with refused(registry, ConflictError, "tiny@1, which is retired", **data):
        backbones.register(registry, "tiny", str(encoders["tiny"].folder))


def test_registering_again_mends_a_damaged_blob(
    registry: Registry, encoders: dict[str, support.Backbone]
) -> None:
    spec = encoders["tiny"].spec
    support.flip(blob_path(registry, spec.layers[0]), 4321)
    blob_path(registry, spec.embeddings).unlink()
    before = rows(registry)
    backbones.register(registry, "tiny", str(encoders["tiny"].folder))
    for digest in (spec.layers[0], spec.embeddings):
        registry.store.fetch(digest)
    assert rows(registry) == before


def test_a_backbones_spec_comes_from_the_store(
    registry: Registry, encoders: dict[str, support.Backbone]
) -> None:
    assert backbones.spec(registry, "tiny@1").to_bytes() == encoders["tiny"].spec.to_bytes()


@pytest.mark.parametrize("name", ["", "../tiny", "Tiny", "tiny@1", "x" * 64])
def test_a_backbone_name_that_is_none_is_refused(registry: Registry, name: str) -> None:
    with refused(registry, InvalidNameError, repr(name)):
        backbones.register(registry, name, "anywhere")


def test_a_source_that_cannot_be_used_is_refused(registry: Registry, tmp_path: Path) -> None:
    for source in (tmp_path / "nowhere", tmp_path):
        with refused(registry, (NotFoundError, FormatError), str(source)):
            backbones.register(registry, "new", str(source))


@pytest.mark.parametrize(
    "reference", ["", "none", "tiny@2", "tiny@0", "tiny@", "tiny@x", "tiny@" + "9" * 30, "@1"]
)
def test_a_backbone_that_is_not_there_is_refused(registry: Registry, reference: str) -> None:
    with refused(registry, NotFoundError, code="backbone-not-found"):
        backbones.show(registry, reference)
