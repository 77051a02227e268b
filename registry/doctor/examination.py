"""Making the checks one after the other."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import CentraError, StoreUnreachableError
from centra.progress import Progress, silent
from centra.system.redaction import redacted
from registry.doctor.blobs import check_blobs, check_contents
from registry.doctor.clock import check_clock
from registry.doctor.database import (
    check_audit_log,
    check_database,
    check_migration,
    check_tables,
    check_witnesses,
)
from registry.doctor.findings import Check, Finding, Setup
from registry.doctor.permissions import check_permissions
from registry.doctor.pointers import check_pointers
from registry.doctor.policy import check_policy
from registry.doctor.settings import check_actor, check_settings
from registry.doctor.store import (
    check_credentials,
    check_garbage,
    check_identity,
    check_reachable,
    check_writable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["examine"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Examination:
    """A check: how it is made, and which others it needs."""

    name: str
    check: Callable[[Setup], list[Finding]]
    needs: tuple[str, ...] = ("settings",)


_EXAMINATIONS = (
    _Examination(name="settings", check=check_settings, needs=()),
    _Examination(name="actor", check=check_actor),
    _Examination(name="database", check=check_database),
    _Examination(name="migration", check=check_migration, needs=("database",)),
    _Examination(name="tables", check=check_tables, needs=("migration",)),
    _Examination(name="policy", check=check_policy, needs=("migration",)),
    _Examination(name="audit log", check=check_audit_log, needs=("migration",)),
    _Examination(name="credentials", check=check_credentials),
    _Examination(name="store", check=check_reachable, needs=("credentials",)),
    _Examination(name="witnesses", check=check_witnesses, needs=("migration", "store")),
    _Examination(name="store writable", check=check_writable, needs=("store",)),
    _Examination(name="clock", check=check_clock),
    _Examination(name="permissions", check=check_permissions),
    _Examination(name="identity", check=check_identity, needs=("migration", "store")),
    _Examination(name="blobs", check=check_blobs, needs=("identity",)),
    _Examination(name="garbage", check=check_garbage, needs=("identity",)),
    _Examination(name="pointers", check=check_pointers, needs=("identity",)),
)
"""In the order in which they are made."""

_DEEP = _Examination(name="contents", check=check_contents, needs=("migration", "store"))


def examine(
    *,
    database: str | None = None,
    store: str | None = None,
    actor: str | None = None,
    folder: Path | None = None,
    deep: bool = False,
    progress: Progress = silent,
) -> Iterator[Check]:
    """Look at everything a registry needs, one after the other.

    Args:
        database, store, actor, folder: as for :meth:`registry.connection.Registry.open`.
        deep: also read every blob that is registered, which may take long.
        progress: told of each blob that is read.
    """
    given = {"database": database, "store": store, "actor": actor}
    setup = Setup(given=given, folder=folder, progress=progress)
    try:
        for examination in (*_EXAMINATIONS, *([_DEEP] if deep else [])):
            began = time.monotonic()
            check = _make(setup, examination)
            setup.states[check.check] = check.state
            _log.debug("%s: %s in %.2f s", check.check, check.state, time.monotonic() - began)
            yield check
    finally:
        if setup.usable("settings"):
            setup.registry.engine.dispose()


def _make(setup: Setup, examination: _Examination) -> Check:
    missing = [need for need in examination.needs if not setup.usable(need)]
    if missing:
        text = f"needs: {', '.join(missing)}"
        findings = [Finding(state="skipped", text=text, data={"needs": missing})]
        return Check(check=examination.name, findings=findings)
    data = {"check": examination.name}
    try:
        findings = examination.check(setup)
    except CentraError as error:
        setup.store_unreachable |= isinstance(error, StoreUnreachableError)
        data["error"] = error.code
        findings = [Finding(code="check-failed", text=str(error), data=data)]
    except Exception as error:  # noqa: BLE001 - one check's fault must not hide the others
        findings = [Finding(code="check-failed", text=_unexpected(setup, error), data=data)]
    damaged = setup.damaged if examination is _DEEP else []
    return Check(check=examination.name, findings=findings, damaged=damaged)


def _unexpected(setup: Setup, error: Exception) -> str:
    variables = (os.environ.get(name) for name in ("CENTRA_DATABASE_URL", "CENTRA_STORE"))
    addresses = filter(None, (*setup.given.values(), *variables))
    return redacted(f"{type(error).__name__}: {error}", *addresses)
