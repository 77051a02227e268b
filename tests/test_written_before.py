"""What an earlier Centra wrote is read as it was: a registry, its store, a folder and two exports.

The archive was made by Centra with database schema 0007: three releases of tasks of every kind on a tiny
encoder, two channels, an evaluation, a retired task; ``expected.json`` is what its commands printed.
"""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from centra import load_release
from registry import Registry, audit, cards, channels, releases, tasks, transfer
from registry.database.engine import make_engine
from registry.database.migrations import upgrade
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARCHIVE = ROOT / "tests" / "fixtures" / "registry-0007.tar.xz"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's content; what changes it takes a copy."""
    folder = tmp_path_factory.mktemp("written")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(written: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((written / "expected.json").read_text())
    return found


@pytest.fixture(scope="module")
def registry(written: Path) -> Iterator[Registry]:
    """The registry, its database upgraded."""
    database = f"sqlite:///{written / 'registry.sqlite'}"
    engine = make_engine(database)
    upgrade(engine)
    engine.dispose()
    opened = Registry.open(database=database, store=str(written / "store"), actor="nlu/ada")
    yield opened
    opened.engine.dispose()


def test_its_tasks_and_versions_are_there(registry: Registry, expected: dict[str, Any]) -> None:
    rows = {row.name: row for row in tasks.list(registry)}
    assert {name: str(row.version) for name, row in rows.items()} == {
        task["name"]: task["version"] for task in expected["tasks"]
    }
    assert tasks.show(registry, "old").state == "retired"
    for reference, shown in expected["versions"].items():
        (version,) = shown["versions"]
        name, _, number = reference.partition("@")
        (found,) = [v for v in tasks.show(registry, name).versions if str(v.version) == number]
        assert (found.digest, found.kind, found.input, list(found.labels)) == (
            version["digest"],
            version["kind"],
            version["input"],
            version["labels"],
        )


def test_its_releases_have_their_digests_and_composing_gives_them_again(
    registry: Registry, expected: dict[str, Any]
) -> None:
    digests = {row["number"]: row["digest"] for row in expected["releases"]}
    assert {row.number: row.digest for row in releases.list(registry)} == digests
    live = releases.compose(registry)
    assert (live.digest, live.release) == (expected["plan"]["digest"], 2)
    without = releases.compose(registry, base="1", remove=["topics"])
    assert without.digest == expected["plan_without_topics"]["digest"]


def test_its_channels_its_measurements_and_its_log_stand(
    registry: Registry, expected: dict[str, Any]
) -> None:
    served = {row.name: (row.release, row.revision) for row in channels.list(registry)}
    assert served == {c["name"]: (c["release"], c["revision"]) for c in expected["channels"]}
    (measured,) = cards.show(registry, "intent@1.1").evaluations
    assert (measured.release, measured.examples) == (2, 3)
    assert (measured.complete, measured.summary) == (False, None)
    assert audit.verify(registry).events == int(expected["audit"].split()[0])


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_its_releases_answer_as_they_did(
    written: Path, expected: dict[str, Any], engine: str
) -> None:
    wanted = expected["answers"]
    for source in (str(written / "folder"), f"{written / 'store'}#production"):
        release = load_release(source, engine=engine)
        found = release.predict([*wanted], tasks=["intent", "topics", "cities"])
        for answers, before in zip(found, wanted.values(), strict=True):
            assert scores(answers) == pytest.approx(
                scores(before), abs=1e-2 if engine == "onnx" else 1e-5
            )
            assert texts(answers) == texts(before)


def scores(value: Any) -> list[float]:
    """Every score in an answer, in order."""
    if isinstance(value, dict):
        return [s for key in sorted(value) for s in scores(value[key])]
    if isinstance(value, list):
        return [s for item in value for s in scores(item)]
    return [value] if isinstance(value, float) else []


def texts(value: Any) -> list[Any]:
    """Every label and place in an answer, in order; of several labels, which there are."""
    if isinstance(value, dict):
        return [s for key in sorted(value) for s in texts(value[key])]
    if isinstance(value, list):
        return sorted((s for item in value for s in texts(item)), key=repr)
    return [] if isinstance(value, float) else [value]


@pytest.mark.parametrize("file", ["release.centra", "tasks.centra"])
def test_its_exports_are_imported_into_a_new_registry(
    written: Path, expected: dict[str, Any], file: str, tmp_path: Path
) -> None:
    opened = Registry.create(
        tmp_path,
        database=f"sqlite:///{tmp_path / 'registry.db'}",
        store=str(tmp_path / "store"),
        actor="nlu/ada",
    )
    transfer.import_file(opened, written / file, force=True)
    digests = {v: d["versions"][0]["digest"] for v, d in expected["versions"].items()}
    intent = tasks.show(opened, "intent").versions
    assert digests["intent@1.1"] in {version.digest for version in intent}
    if file == "release.centra":
        (release,) = releases.list(opened)
        assert release.digest == expected["show"]["2"]["digest"]
    opened.engine.dispose()
