"""No store is called inside a writing transaction, so that a slow one keeps nobody from writing."""

from __future__ import annotations

import dataclasses
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from centra.store import LocalStore
from registry import Registry, backbones, channels, evaluations, releases, signatures, tasks
from registry.promotion import promote
from registry.storage import claims, gc, stores
from registry.transfer import export_file, import_file
from tests import support
from tests.registry.helpers import anonymous, reopened, root_of, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = timedelta()
CALLS = [
    name
    for name, value in vars(LocalStore).items()
    if callable(value) and not name.startswith("_") and name != "path"
]


@contextmanager
def guarded(registry: Registry) -> Iterator[tuple[Registry, set[str]]]:
    """The registry with a store that may not be called while a writing transaction is open.

    With what was called, all the same.
    """
    open_now: set[int] = set()
    called: set[str] = set()

    def begin(connection: Any) -> None:
        if connection.get_execution_options().get("writes"):
            open_now.add(threading.get_ident())

    def end(_connection: Any) -> None:
        open_now.discard(threading.get_ident())

    class Guarded(LocalStore):
        """Raises what no use case expects, so that it cannot be passed over."""

    def guard(name: str) -> Callable[..., Any]:
        def call(self: Guarded, *arguments: Any) -> Any:
            assert threading.get_ident() not in open_now, f"{name} inside a writing transaction"
            called.add(name)
            return getattr(LocalStore, name)(self, *arguments)

        return call

    for name in CALLS:
        setattr(Guarded, name, guard(name))
    hooks = {"begin": begin, "commit": end, "rollback": end}
    for name, hook in hooks.items():
        event.listen(registry.engine, name, hook)
    try:
        yield dataclasses.replace(registry, store=Guarded(root_of(registry))), called
    finally:
        for name, hook in hooks.items():
            event.remove(registry.engine, name, hook)


def test_the_guard_sees_a_call_inside_a_writing_transaction(registry: Registry) -> None:
    with guarded(registry) as (own, _), own.write(), pytest.raises(AssertionError, match="has"):
        own.store.has("0" * 64)


def test_no_use_case_calls_the_store_inside_a_writing_transaction(
    registry: Registry,
    make_registry: Callable[[], Registry],
    module: Callable[..., Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    other = make_registry()
    key = support.make_key(tmp_path / "release.pem")
    with guarded(registry) as (own, called):
        tasks.register(own, "intent", module())
        tasks.update(own, "intent", module(seed=1))
        tasks.update(own, "intent", module(seed=1))
        tasks.redefine(own, "intent", module(labels=("alarm", "music", "snow", "sun")))
        tasks.pin(own, "intent@1.0")
        tasks.register(own, "slots", module("tagging", tap=2))
        tasks.retire(own, "slots")
        tasks.restore(own, "slots")
        backbones.register(own, "third", str(support.make_encoder("bert", tmp_path / "e", seed=3)))
        backbones.retire(own, "third@1")
        backbones.restore(own, "third@1")
        releases.compose(own, publish=True)
        releases.compose(own, publish=True)
        channels.move(own, "staging", "1")
        promote(own, "1", "production")
        tasks.update(own, "slots", module("tagging", tap=2, seed=2))
        sets = [["intent@1.1"], ["slots@1.1"]]
        mine, theirs = (
            releases.compose(own, base="production", replace=one, publish=True) for one in sets
        )
        promote(own, str(mine.release), "production")
        assert promote(own, str(theirs.release), "production", rebase=True).rebased_from
        channels.rollback(own, "production")
        channels.sync(own)
        signatures.sign(own, "1", key)
        evaluations.evaluate(own, "1", "intent", tiny_data("single"))
        export_file(own, tmp_path / "release.tar", release="1")
        own.store.put(b"litter")
        assert gc.collect(own, grace=NOW, delete=True).count == 1
        stores.copy(own, str(tmp_path / "copied"))
        stores.adopt(own)
        assert stores.move(own, str(tmp_path / "moved")).changed
        assert {"put", "remove", "write_pointer", "write_signature", "write_document"} <= called
    assert rows(registry)["blob_claims"] == []
    with guarded(other) as (target, called):
        import_file(anonymous(target), tmp_path / "release.tar")
        assert {"put", "write_signature"} <= called
    assert rows(other)["blob_claims"] == []


class Held(LocalStore):
    """A store whose first call of some kind does not answer until it may."""

    def __init__(self, root: Path, method: str) -> None:
        super().__init__(root)
        self.called, self.may_answer = threading.Event(), threading.Event()

        def held(*arguments: Any) -> Any:
            self.called.set()
            assert self.may_answer.wait(60)
            return getattr(LocalStore, method)(self, *arguments)

        setattr(self, method, held)


@pytest.mark.parametrize(
    ("method", "use"),
    [
        ("put", lambda own, module: tasks.register(own, "intent", module())),
        ("remove", lambda own, _: gc.collect(own, grace=NOW, delete=True)),
        ("write_pointer", lambda own, _: channels.move(own, "staging", "1")),
    ],
    ids=["put", "remove", "write_pointer"],
)
def test_while_a_store_is_silent_others_write(
    registry: Registry,
    module: Callable[..., Path],
    method: str,
    use: Callable[[Registry, Callable[..., Path]], object],
) -> None:
    tasks.register(registry, "first", module(seed=1))
    releases.compose(registry, publish=True)
    registry.store.put(b"litter")
    store = Held(root_of(registry), method)
    ended: list[object] = []

    def run() -> None:
        with reopened(registry) as own:
            ended.append(use(dataclasses.replace(own, store=store), module))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert store.called.wait(30)
        tasks.register(registry, "second", module(seed=2))
        releases.compose(registry, publish=True)
        assert ended == []
    finally:
        store.may_answer.set()
        thread.join(60)
    assert len(ended) == 1
    assert rows(registry)["blob_claims"] == []


def test_what_is_refused_leaves_no_claim(registry: Registry, module: Callable[..., Path]) -> None:
    with pytest.raises(RuntimeError), claims.storing(registry, {}):
        raise RuntimeError
    digest = registry.store.put(module())
    with pytest.raises(RuntimeError), claims.storing(registry, {digest: module()}):
        raise RuntimeError
    with claims.Claim(registry) as claim:
        assert claim.put(b"bytes") == claim.put(b"bytes")
        assert [row[2] for row in rows(registry)["blob_claims"]] == ["store"]
    assert rows(registry)["blob_claims"] == []


def test_two_who_store_the_same_do_not_disturb_each_other(
    registry: Registry, module: Callable[..., Path]
) -> None:
    file = module()
    with reopened(registry) as own, claims.Claim(own) as claim:
        claim.put(file)
        tasks.register(registry, "intent", file)
        with claim.write() as uow:
            assert len(uow.digests()) == 3
    assert rows(registry)["blob_claims"] == []
