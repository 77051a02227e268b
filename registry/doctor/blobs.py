"""Looking at the blobs that are registered: whether they are there, and whether they are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.doctor.findings import Finding, Setup, well
from registry.storage.needed import needs
from registry.storage.scrub import invalid_backbones, scrub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from centra.store import BlobStore
    from registry.storage.needed import Need

__all__ = ["check_blobs", "check_contents"]

_USERS = 4
"""How many things that need a blob are named; the rest is counted."""
_CONFIRMED = 100
"""How many blobs that a listing lacks are asked for by name."""


def check_blobs(setup: Setup) -> list[Finding]:
    """Whether every registered blob is there, and as large as it should be."""
    store = setup.registry.store
    # Listed first: a blob that is registered after that is asked for by name.
    sizes = {blob.digest: blob.size for blob in store.blobs()}
    count, wrong = 0, dict[str, Finding]()
    for need in needs(setup.registry):
        count += 1
        problem = _problem(need, sizes, store, confirm=len(wrong) < _CONFIRMED)
        if problem:
            text = f"{need.owner}: blob {need.digest} {problem}"
            data = need.data | {"digest": need.digest}
            wrong[text] = Finding(code=need.kind, text=text, data=data)
    if wrong:
        return list(wrong.values())
    return well(f"all that are registered are there: {count}")


def check_contents(setup: Setup) -> list[Finding]:
    """Whether every registered blob is what its name says; each is read to its end."""
    found = scrub(setup.registry, setup.progress)
    setup.damaged = found.damaged
    if found.damaged:
        return [
            Finding(
                code=blob.needs[0].kind,
                text=f"{_first(blob.needed_by)}: blob {blob.digest} is {blob.problem}",
                data=blob.needs[0].data | {"digest": blob.digest},
            )
            for blob in found.damaged
        ]
    if invalid := invalid_backbones(setup.registry):
        return [
            Finding(
                code="backbone-invalid",
                text=f"backbone {backbone} makes no sense: {reason}",
                data={"backbone": backbone},
            )
            for backbone, reason in invalid.items()
        ]
    known = f"; {found.known} of them by a run that was stopped" if found.known else ""
    return well(f"all that are registered were read, and are right: {found.count}{known}")


def _problem(need: Need, sizes: dict[str, int], store: BlobStore, *, confirm: bool) -> str | None:
    """What is wrong with a blob by what a listing says of it."""
    size = sizes.get(need.digest)
    if size is None:
        missing = not confirm or not store.has(need.digest)
        return "is missing" if missing else need.problem
    if need.size not in (None, size):
        return f"has {size} of {need.size} bytes"
    if size < need.least:
        return f"has {size:,} bytes, less than its backbone says it holds"
    return need.problem


def _first(users: Sequence[str]) -> str:
    """The first few in one line, and how many more there are."""
    more = [f"{len(users) - _USERS} more"] if len(users) > _USERS else []
    return ", ".join([*users[:_USERS], *more])
