"""Signing releases of a registry: signature first, event second, and each once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from centra.errors import NotFoundError, StoreNotWritableError, UsageError
from centra.releases.signing import SignatureError
from centra.store import LocalStore
from registry import audit, releases, signatures, tasks
from registry.releases import compose
from tests.registry.helpers import actions, nothing_changes, refused, root_of, rows
from tests.support import make_key, public

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry import Registry


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Private keys by name, each with ``NAME.pub`` beside it."""
    folder = tmp_path_factory.mktemp("keys")
    return {name: make_key(folder / name) for name in ("release", "security")}


@pytest.fixture
def published(
    registry: Registry, module: Callable[..., Path], bring: Callable[..., Registry]
) -> Registry:
    """Release 1 with intent, and release 2 with slots besides."""

    def build() -> None:
        tasks.register(registry, "intent", module())
        compose(registry, publish=True)
        tasks.register(registry, "slots", module("tagging", tap=2))
        compose(registry, publish=True)

    return bring("signatures", build)


def unsign(registry: Registry) -> None:
    shutil.rmtree(root_of(registry) / "signatures")


def test_a_signature_lies_in_the_store_and_its_maker_in_the_log(
    published: Registry, keys: dict[str, Path]
) -> None:
    done = signatures.sign(published, "latest", keys["release"])

    release = releases.show(published, "2")
    assert (done.release, done.digest, done.changed) == (2, release.digest, True)
    (row,) = signatures.of_release(published, "2")
    assert (row.signature, row.key, row.signed_by) == (done.signature, done.key, "nlu/ada")
    path = root_of(published) / "signatures" / release.digest / f"{done.signature}.json"
    assert path.is_file()
    event = audit.events(published)[-1]
    assert (event.action, event.subject, event.at) == ("release:sign", "2", row.signed_at)
    assert event.details == {
        "digest": release.digest,
        "key": done.key,
        "signature": done.signature,
    }
    assert signatures.of_release(published, "1") == []


def test_signing_twice_does_nothing_more(published: Registry, keys: dict[str, Path]) -> None:
    first = signatures.sign(published, "1", keys["release"])

    with nothing_changes(published):
        again = signatures.sign(published, "1", keys["release"])
    assert (again.changed, again.signature) == (False, first.signature)
    assert signatures.sign(published, "1", keys["security"]).changed
    assert signatures.of_release(published, "1")[0].key == first.key
    assert actions(published)[-2:] == ["release:sign 1", "release:sign 1"]


def test_a_signature_without_its_event_gets_it_when_signing_is_repeated(
    published: Registry, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: LocalStore, manifest: str, data: bytes) -> None:
        write(self, manifest, data)
        raise KeyboardInterrupt

    write, before = LocalStore.write_signature, rows(published)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "write_signature", killed)
        with pytest.raises(KeyboardInterrupt):
            signatures.sign(published, "1", keys["release"])
    assert rows(published) == before
    (row,) = signatures.of_release(published, "1")
    assert (row.key, row.signed_by, row.signed_at) == (None, None, None)

    assert signatures.sign(published, "1", keys["release"]).changed

    (mended,) = signatures.of_release(published, "1")
    assert (mended.signature, mended.signed_by) == (row.signature, "nlu/ada")
    assert actions(published)[-1] == "release:sign 1"


def test_a_lost_signature_is_made_anew(published: Registry, keys: dict[str, Path]) -> None:
    signatures.sign(published, "1", keys["release"])
    unsign(published)

    assert signatures.sign(published, "1", keys["release"]).changed
    assert signatures.signed_by(published, "1", [public(keys["release"])]) is None


def test_where_the_store_refuses_the_signature_there_is_no_event(
    published: Registry, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: LocalStore, path: Path, source: Path | bytes) -> None:
        raise StoreNotWritableError("read-only")

    monkeypatch.setattr(LocalStore, "_write", refuse)
    with refused(published, StoreNotWritableError):
        signatures.sign(published, "1", keys["release"])


def test_what_cannot_be_signed_is_refused(
    published: Registry, keys: dict[str, Path], tmp_path: Path
) -> None:
    with refused(published, NotFoundError, "no release '7'"):
        signatures.sign(published, "7", keys["release"])
    with refused(published, NotFoundError, "no such key file"):
        signatures.sign(published, "1", tmp_path / "missing")
    with refused(published, UsageError, "private key"):
        signatures.sign(published, "1", public(keys["release"]))


def test_a_gate_learns_why_a_release_does_not_count_as_signed(
    published: Registry, keys: dict[str, Path]
) -> None:
    trusted = [public(keys["release"]), public(keys["security"])]
    with nothing_changes(published):
        assert "it is not signed" in str(signatures.signed_by(published, "2", trusted))
    signatures.sign(published, "2", keys["security"])

    assert signatures.signed_by(published, "2", trusted) is None
    assert signatures.signed_by(published, "latest", trusted) is None
    assert "another key" in str(signatures.signed_by(published, "2", trusted[:1]))
    assert "it is not signed" in str(signatures.signed_by(published, "1", trusted))
    with pytest.raises(NotFoundError, match="no such key file"):
        signatures.signed_by(published, "2", [Path("missing")])


def test_verifying_requires_a_signature_where_keys_are_given(
    published: Registry, keys: dict[str, Path], tmp_path: Path
) -> None:
    trusted = [public(keys["release"])]
    with pytest.raises(SignatureError, match="it is not signed"):
        releases.verify(published, "2", keys=trusted)
    done = signatures.sign(published, "2", keys["release"])
    releases.pull(published, "2", tmp_path / "pulled")

    for reference in ("2", str(tmp_path / "pulled"), f"{root_of(published)}#latest"):
        found = releases.verify(published, reference, keys=trusted)
        assert (found.digest, found.signed_by) == (done.digest, done.key)
        assert releases.verify(published, reference).signed_by is None
        with pytest.raises(SignatureError, match="another key"):
            releases.verify(published, reference, keys=[public(keys["security"])])


def test_pulling_again_fetches_a_signature_made_since(
    published: Registry, keys: dict[str, Path], tmp_path: Path
) -> None:
    releases.pull(published, "2", tmp_path / "pulled")
    signatures.sign(published, "2", keys["release"])
    _, written = releases.pull(published, "2", tmp_path / "pulled")

    assert written == (tmp_path / "pulled" / "model.sig").stat().st_size
    assert releases.verify(None, str(tmp_path / "pulled"), keys=[public(keys["release"])])
