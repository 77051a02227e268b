"""Looking at the store: whether it can be reached and written, whose it is, and what is too much."""

from __future__ import annotations

import uuid

from centra.errors import StoreNotWritableError
from centra.store import LocalStore
from centra.store.s3 import S3Store
from registry.doctor.findings import Finding, Setup, well
from registry.doctor.permissions import may_write, nearest
from registry.errors import UnreadableError, WrongStoreError
from registry.storage import gc
from registry.storage.identity import check_store, short_id, store_location
from registry.texts import files_text

__all__ = [
    "check_credentials",
    "check_garbage",
    "check_identity",
    "check_reachable",
    "check_writable",
]


def check_credentials(setup: Setup) -> list[Finding]:
    """Whether there are AWS credentials, where the store needs them."""
    store = setup.registry.store
    if not isinstance(store, S3Store):
        return well("none needed for a folder")
    found = store.credentials()
    if found is None:
        return [Finding(code="credentials-missing", text="there are no AWS credentials")]
    return well(found)


def check_reachable(setup: Setup) -> list[Finding]:
    """Whether the store can be read."""
    store = setup.registry.store
    location = store_location(store)
    if isinstance(store, LocalStore) and not store.root.exists():
        return well(f"{location}: an empty store, whose folder the first write makes")
    pointers = len(store.pointers())
    blob = next(iter(store.blobs()), None)
    if blob is not None:
        store.stat(blob.digest)
    return well(f"{location}: can be read; channel pointers: {pointers}")


def check_writable(setup: Setup) -> list[Finding]:
    """Whether the store can be written: a probe is, and removed again."""
    store = setup.registry.store
    if isinstance(store, LocalStore) and not store.root.exists():
        parent = nearest(store.root)
        if not may_write(parent):
            text, data = f"{parent} cannot be written", {"folder": str(store.root)}
            return [Finding(code="store-cannot-be-made", text=text, data=data)]
        return well("its folder can be made")
    probe = f"centra doctor {uuid.uuid4()}".encode()
    digest = store.put(probe)
    try:
        stored = store.has(digest)
        store.remove(digest)
    except StoreNotWritableError:
        text = f"can be written, but nothing can be removed: the probe {digest} stays"
        data = {"digest": digest}
        return [Finding(state="warning", code="store-not-removable", text=text, data=data)]
    if not stored:
        text = "a probe that was written is not there"
        return [Finding(code="store-forgets", text=text, data={"digest": digest})]
    return well("a probe was written and removed")


def check_identity(setup: Setup) -> list[Finding]:
    """Whether the store is the one that the database writes to."""
    try:
        (registry, _), bound = check_store(setup.registry)
    except WrongStoreError as error:
        return [Finding(code=error.code, text=str(error), data=error.data)]
    if not bound:
        return well(f"registry {short_id(registry)}; the first write makes the store its own")
    return well(f"database and store are those of registry {short_id(registry)}")


def check_garbage(setup: Setup) -> list[Finding]:
    """Whether the store holds what nothing needs."""
    try:
        found = gc.collect(setup.registry)
    except UnreadableError as error:
        return [Finding(code=error.code, text=str(error), data=error.data)]
    young = f"{files_text(found.young, found.young_bytes)}, younger than {gc.GRACE.days} days"
    if found.garbage:
        also = f"; and {young}" if found.young else ""
        text = f"nothing reaches {files_text(found.count, found.bytes)}{also}"
        data = {"count": found.count, "bytes": found.bytes}
        return [Finding(state="warning", code="garbage", text=text, data=data)]
    if found.young:
        return well(f"nothing reaches {young}")
    return well("everything in the store is in use")
